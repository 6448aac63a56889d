"""In scope and out of scope: figures that a reader can count by hand, and a reliable threshold."""

import numpy as np
import pytest

from intent.dataset.example import Example
from intent.engine import Prediction, Status, abstain
from intent.evaluate.scope import has_outside, macro_f1, measure, of_labels, threshold_at
from intent.task.schema import Choice, IntentSchema
from tests.tiny import BASKET, CART, LABELS

DRINKS = IntentSchema("drinks", "Which drink?", (Choice("label", ("tea", "coffee", "weiß nicht"), ("weiß nicht",)),))


def example(label):
    return Example("1", f"about {label}", {"label": label}, "en")


def predicted(label, confidence=0.9):
    return Prediction({"label": label}, confidence)


def test_each_figure_matches_a_count_by_hand():
    meant = ["tea"] * 4 + ["coffee"] * 4 + ["weiß nicht"] * 2
    answers = ["tea", "tea", "tea", "coffee", "coffee", "coffee", "weiß nicht", "tea", "weiß nicht", "coffee"]
    scores = measure(DRINKS, [example(label) for label in meant], [predicted(label) for label in answers])
    assert (scores.accuracy, scores.recall, scores.precision) == (5 / 8, 1 / 2, 1 / 2)
    # In scope, tea: 3 right of 4 labelled and 4 predicted. Coffee: 2 right of 4 labelled and 3 predicted.
    assert scores.macro_f1 == pytest.approx((6 / 8 + 4 / 7) / 2)
    low, high = scores.intervals["accuracy"]
    assert low < scores.accuracy < high


def test_abstained_answers_count_as_none_and_rejected_ones_as_no_answer():
    withheld = Prediction({"label": None}, 0.2, status=Status.ABSTAINED)
    rejected = Prediction(None, status=Status.REJECTED, reason="empty message")
    scores = measure(DRINKS, [example("weiß nicht")] * 4, [withheld, withheld, rejected, predicted("tea")])
    assert (scores.recall, scores.precision, scores.accuracy, scores.macro_f1) == (0.5, 1.0, None, None)


def test_a_schema_without_such_a_label_has_accuracy_and_f1_alone():
    schema = IntentSchema("drinks", "Which?", (Choice("label", ("tea", "coffee")),))
    scores = measure(schema, [example("tea"), example("coffee")], [predicted("tea"), predicted("tea")])
    assert (scores.accuracy, scores.recall, scores.precision) == (0.5, None, None)
    assert of_labels(schema) and not has_outside(schema)
    assert has_outside(DRINKS) and has_outside(LABELS)
    assert not of_labels(CART) and not of_labels(BASKET)


def test_macro_f1_counts_rare_labels_as_much_as_frequent_ones():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    meant = rng.choice(["a", "b", "c"], 500, p=[0.9, 0.08, 0.02])
    given = np.where(rng.random(500) < 0.7, meant, rng.choice(["a", "b", "c", "none"], 500))
    assert macro_f1(meant, given) == pytest.approx(f1_score(meant, given, labels=["a", "b", "c"], average="macro"))


@pytest.mark.parametrize("accuracy", [0.5, 0.8, 0.9])
def test_the_threshold_keeps_the_accuracy_and_abstaining_below_it_gives_the_same_figures(accuracy):
    rng = np.random.default_rng(1)
    meant = rng.choice(DRINKS.slots[0].values, 400)
    sure = np.round(rng.random(400), 2)
    answers = [label if rng.random() < 0.9 + 0.1 * c else "tea" for label, c in zip(meant, sure, strict=True)]
    examples = [example(str(label)) for label in meant]
    predictions = [predicted(str(label), float(c)) for label, c in zip(answers, sure, strict=True)]
    threshold, most = threshold_at(DRINKS, examples, predictions, accuracy)
    kept = {level: measure(DRINKS, examples, predictions, level).accuracy for level in sorted(set(sure.tolist()))}
    assert threshold in kept and kept[threshold] >= accuracy
    scores = measure(DRINKS, examples, predictions, threshold)
    withheld = measure(DRINKS, examples, [abstain(prediction, threshold) for prediction in predictions])
    assert (scores.accuracy, scores.recall, scores.precision) == (withheld.accuracy, withheld.recall, withheld.precision)
    plain = measure(DRINKS, examples, predictions)
    assert most == plain.accuracy and scores.recall >= plain.recall


def test_messages_like_the_validation_messages_keep_the_accuracy_in_nearly_every_draw():
    # An answer is right with a chance of 0.97 and its confidence is uniform. So a threshold keeps 0.97 * (1 - threshold).
    rng, kept = np.random.default_rng(2), []
    examples = [example("tea")] * 1_000
    for _ in range(100):
        answers = zip(rng.random(1_000) < 0.97, rng.random(1_000), strict=True)
        threshold, _ = threshold_at(DRINKS, examples, [predicted("tea" if right else "coffee", c) for right, c in answers], 0.9)
        kept.append(0.97 * (1 - threshold))
    assert np.mean(np.array(kept) >= 0.9) >= 0.9
    assert np.mean(kept) < 0.925


def test_an_accuracy_that_no_answers_reach_has_no_threshold():
    examples = [example("tea")] * 10
    assert threshold_at(DRINKS, examples, [predicted("tea")] * 8 + [predicted("coffee")] * 2, 0.9) == (None, 0.8)
