import numpy as np
import pytest

from intent.engine import Prediction, Status
from intent.evaluate.metrics import agreement_by_slot, bootstrap, confusion, loss, score
from intent.synth.example import Example
from tests.tiny import CART

MILK, TWO, NONE = (
    {"action": "add", "product": "Milk", "quantity": 1},
    {"action": "add", "product": "Milk", "quantity": 2},
    {"action": "none", "product": None, "quantity": None},
)


def example(intent, language="en", phenomena=()):
    return Example("id", "message", intent, language, phenomena=phenomena)


def test_the_interval_is_the_plain_bootstraps():
    values = np.array([1.0] * 70 + [0.0] * 25 + [-1.0] * 5)
    rng = np.random.default_rng(1)
    means = [rng.choice(values, len(values)).mean() for _ in range(4000)]
    assert bootstrap(values) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.02)
    assert bootstrap(values) == bootstrap(values)


def test_intervals_hold_their_share_and_narrow_with_more_messages():
    few = score(CART, [example(MILK), example(NONE, "de")] * 20, [Prediction(MILK, 0.9)] * 40)
    many = score(CART, [example(MILK), example(NONE, "de")] * 500, [Prediction(MILK, 0.9)] * 1000)
    assert few.exact == many.exact == 0.5
    (low, high), (narrow_low, narrow_high) = few.intervals["exact"], many.intervals["exact"]
    assert low < narrow_low < 0.5 < narrow_high < high
    assert few.intervals["languages.en"] == (1.0, 1.0)
    assert few.intervals["slots.action"] == few.intervals["exact"]
    assert few.ece == pytest.approx(0.4)


def test_what_is_not_answered_is_right_in_no_slot_and_says_nothing_of_confidence():
    rejected = score(CART, [example(NONE)] * 10, [Prediction(None, status=Status.REJECTED)] * 10)
    assert rejected.exact == 0 and set(rejected.slots.values()) == {0.0}
    unsure = [Prediction(dict.fromkeys(NONE), 0.7, status=Status.ABSTAINED)] * 10
    assert score(CART, [example(NONE)] * 20, [Prediction(NONE, 1.0)] * 10 + unsure).ece == pytest.approx(0.0)


def test_none_has_its_recall_by_kind_and_what_is_wrongly_none_by_kind_too():
    asked = [example(NONE, phenomena=("question",))] * 10 + [example(MILK, phenomena=("typo",))] * 10
    answers = [Prediction(NONE)] * 8 + [Prediction(MILK)] * 2 + [Prediction(NONE)] * 2 + [Prediction(MILK)] * 8
    found = score(CART, asked, answers)
    assert found.none == {"precision": 0.8, "recall": 0.8, "recall: question": 0.8, "wrong: typo": 0.2}
    assert found.sizes["none.wrong: typo"] == 10 and found.intervals["none.precision"][0] < 0.8
    assert score(CART, [example(MILK, phenomena=("typo",))], [Prediction(MILK)]).none == {}


def test_answers_of_one_confidence_are_kept_together_or_not_at_all():
    certain = [Prediction(MILK, 1.0)] * 86 + [Prediction(TWO, 1.0)] * 14
    assert score(CART, [example(MILK)] * 100, certain).kept_at_99 == 0.0
    mixed = [Prediction(MILK, 1.0)] * 50 + [Prediction(TWO, 0.5)] * 50
    assert score(CART, [example(MILK)] * 100, mixed).kept_at_99 == 0.5


def test_loss_pairs_the_messages():
    examples = [example(MILK)] * 100
    theirs = [Prediction(MILK)] * 90 + [Prediction(TWO)] * 10
    ours = [Prediction(MILK)] * 80 + [Prediction(TWO)] * 10 + [Prediction(MILK)] * 10
    mean, low, high = loss(examples, ours, theirs)
    assert mean == pytest.approx(0.0)
    assert low < 0 < high
    assert loss(examples, theirs, theirs) == (0.0, 0.0, 0.0)


def test_confusion_and_agreement_go_slot_by_slot():
    examples = [example(MILK), example(MILK), example(NONE)]
    ours = [Prediction(TWO), Prediction(MILK), Prediction(None, status=Status.REJECTED, reason="empty message")]
    found = confusion(CART, examples, ours)
    assert found["action"] == [["add", "add", 2], ["none", None, 1]]
    assert [1, 2, 1] in found["quantity"]
    theirs = [Prediction(MILK), Prediction(MILK), Prediction(NONE)]
    assert agreement_by_slot(CART, ours, theirs) == pytest.approx({"action": 2 / 3, "product": 1.0, "quantity": 2 / 3})
