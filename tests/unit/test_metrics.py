import numpy as np
import pytest

from intent.dataset.example import Example
from intent.engine import Prediction, Status
from intent.evaluate.measurement import from_table, to_table
from intent.evaluate.metrics import agreement, agreement_by_slot, bootstrap, confusion, loss, score
from tests.tiny import BASKET, CART

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


def test_recall_of_none_and_wrong_none_are_reported_by_kind():
    asked = [example(NONE, phenomena=("question",))] * 10 + [example(MILK, phenomena=("typo",))] * 10
    answers = [Prediction(NONE)] * 8 + [Prediction(MILK)] * 2 + [Prediction(NONE)] * 2 + [Prediction(MILK)] * 8
    scores = score(CART, asked, answers)
    assert scores.none == {"precision": 0.8, "recall": 0.8, "recall: question": 0.8, "wrong: typo": 0.2}
    assert scores.sizes["none.wrong: typo"] == 10 and scores.intervals["none.precision"][0] < 0.8
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
    matrix = confusion(CART, examples, ours)
    assert matrix["action"] == [["add", "add", 2], ["none", None, 1]]
    assert [1, 2, 1] in matrix["quantity"]
    theirs = [Prediction(MILK), Prediction(MILK), Prediction(NONE)]
    assert agreement_by_slot(CART, ours, theirs) == pytest.approx({"action": 2 / 3, "product": 1.0, "quantity": 2 / 3})


def basket(*items: tuple[str, str, int]) -> dict:
    return {"intents": [dict(zip(("action", "product", "quantity"), item, strict=True)) for item in items]}


ADD_MILK, ADD_EGGS, DROP_MILK = ("add", "Milk", 1), ("add", "Eggs", 2), ("remove", "Milk", 1)


def test_a_list_is_right_in_any_order_and_only_as_a_whole():
    examples = [example(basket(ADD_MILK, ADD_EGGS)), example(basket(ADD_MILK)), example(basket()), example(basket(ADD_EGGS))]
    answers = [basket(ADD_EGGS, ADD_MILK), basket(ADD_MILK, ADD_EGGS), basket(), basket()]
    scores = score(BASKET, examples, [Prediction(intent, 0.9) for intent in answers])
    assert scores.exact == 0.5
    assert scores.lengths == {"0": 1.0, "1": 0.0, "2": 1.0}
    assert (scores.none_precision, scores.none_recall) == (0.5, 1.0)
    # Three of the four predicted items are right, and three of the four labelled ones are predicted.
    assert scores.items == pytest.approx({"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "ece": 0.0})
    low, high = scores.intervals["items.f1"]
    assert 0 <= low < 3 / 4 < high <= 1
    assert agreement([Prediction(basket(ADD_MILK, ADD_EGGS))], [Prediction(basket(ADD_EGGS, ADD_MILK))]) == 1.0
    assert loss(examples, [Prediction(e.intent) for e in examples], [Prediction(e.intent) for e in examples])[0] == 0.0


def test_the_calibration_of_items_is_that_of_their_own_confidence():
    examples = [example(basket(ADD_MILK, ADD_EGGS)), example(basket(ADD_MILK))] * 10
    predictions = [
        Prediction(basket(ADD_EGGS, DROP_MILK), 0.4, (0.8, 0.5)),
        Prediction(basket(ADD_MILK), 0.9, (0.9,)),
    ] * 10
    # Of 30 items, those with confidence 0.8 and 0.9 are right and those with 0.5 are wrong.
    assert score(BASKET, examples, predictions).items["ece"] == pytest.approx((0.2 + 0.1 + 0.5) / 3)
    assert from_table(to_table(predictions)) == predictions


def test_slots_of_lists_are_judged_on_the_items_that_belong_together():
    meant = [example(basket(ADD_MILK, ADD_EGGS)), example(basket(DROP_MILK)), example(basket(ADD_MILK))]
    predictions = [
        Prediction(basket(("add", "Eggs", 3), ADD_MILK)),
        Prediction(basket(ADD_MILK, ADD_EGGS)),
        Prediction(basket()),
    ]
    scores = score(BASKET, meant, predictions)
    assert scores.slots == pytest.approx({"action": 2 / 3, "product": 1.0, "quantity": 2 / 3})
    assert scores.sizes["slots.action"] == 3, "an item without a counterpart is no item's mistake but a missing one"
    assert confusion(BASKET, meant, predictions)["product"] == [
        ["Milk", "Milk", 2],
        ["Eggs", "Eggs", 1],
        [None, "Eggs", 1],
        ["Milk", None, 1],
    ]
    theirs = [Prediction(e.intent) for e in meant]
    assert agreement_by_slot(BASKET, predictions, theirs) == pytest.approx(
        {"action": 2 / 5, "product": 3 / 5, "quantity": 2 / 5}
    )
    assert agreement_by_slot(BASKET, [Prediction(basket())], [Prediction(basket())])["action"] == 1.0


def test_a_list_that_is_not_answered_misses_every_item_and_is_not_taken_for_an_empty_one():
    unanswered = [Prediction({"intents": None}, 0.3, status=Status.ABSTAINED), Prediction(None, status=Status.REJECTED)]
    scores = score(BASKET, [example(basket(ADD_MILK)), example(basket())], unanswered)
    assert scores.exact == 0.0 and scores.items["recall"] == 0.0 and scores.none_recall == 0.0
    assert confusion(BASKET, [example(basket(ADD_MILK))], unanswered[:1])["product"] == [["Milk", None, 1]]
