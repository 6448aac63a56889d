"""Predictions grouped by answer lose nothing."""

import pytest

from intent.engine import Prediction, Status
from intent.engine.grouped import Grouped

MILK = {"action": "add", "product": "Milk", "quantity": 1}
LIST = {"intents": [MILK, MILK]}


@pytest.mark.parametrize(
    "other",
    [
        Prediction({**MILK, "quantity": 2}, 0.9),
        Prediction(MILK, 0.9, variant="svm"),
        Prediction(MILK, 0.9, status=Status.ABSTAINED),
        Prediction(None, status=Status.REJECTED, reason="empty message"),
        Prediction(LIST, 0.9),
        Prediction({"intents": [MILK]}, 0.9),
    ],
)
def test_only_predictions_of_the_same_answer_are_one_group(other):
    one, again = Prediction(MILK, 0.9, (0.9,), message="milk"), Prediction(dict(MILK), 0.5, (0.5, 0.25), message="some milk")
    grouped = Grouped.of([one, other, again, other])
    assert grouped.codes.tolist() == [0, 1, 0, 1] and grouped.kinds == [one, other]
    assert grouped.confidence.tolist() == [0.9, other.confidence, 0.5, other.confidence]
    assert grouped.slots.to_pylist()[2] == [0.5, 0.25]


def test_rejections_for_different_reasons_are_different_groups():
    rejections = [
        Prediction(None, status=Status.REJECTED, reason=reason) for reason in ("empty message", "too long", "empty message")
    ]
    assert Grouped.of(rejections).codes.tolist() == [0, 1, 0]


def test_no_predictions_are_no_groups():
    grouped = Grouped.of([])
    assert len(grouped.codes) == len(grouped.kinds) == len(grouped.confidence) == len(grouped.slots) == 0
