"""Score a schema of labels on messages that mean a label (in scope) and on messages that mean none (out of scope).

A message counts as answered "none" if its answer is "none", was withheld, or has a confidence below a threshold. The threshold
is set on validation messages, so that a requested share of those in scope is still answered right. `engine.abstain_below`
applies it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from intent.dataset.example import Example
from intent.engine import Prediction, Status
from intent.evaluate.metrics import bootstrap
from intent.task.schema import Choice, Intent, IntentSchema, items_of

NORMAL_95 = 1.645  # the 95th percentile of the standard normal distribution


@dataclass(frozen=True)
class Scope:
    """Figures of a schema with one Choice. Answers below the confidence `threshold` count as "none".

    `accuracy`: of the messages in scope, the share answered right. `macro_f1`: on the messages in scope, the mean F1 of the
    labels that they mean. `recall`: of the messages out of scope, the share answered "none". `precision`: of the messages
    answered "none", the share out of scope. A figure without messages to divide by is None. `intervals`: 95 % bootstrap
    intervals (low, high) of the shares.
    """

    threshold: float
    accuracy: float | None
    macro_f1: float | None
    recall: float | None
    precision: float | None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


def of_labels(schema: IntentSchema) -> bool:
    """Return whether the schema gives each message one of several labels."""
    return len(schema.slots) == 1 and isinstance(schema.slots[0], Choice) and schema.repeat == 1


def has_outside(schema: IntentSchema) -> bool:
    """Return whether one of the schema's labels stands for messages that mean none of the others."""
    return of_labels(schema) and bool(schema.nothing)


def measure(
    schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction], threshold: float = 0.0
) -> Scope:
    """Return the figures of the predictions, one for each example, in order."""
    gold, predicted = _labels(schema, examples, predictions, threshold)
    outside, refused = np.isin(gold, schema.nothing), np.isin(predicted, schema.nothing)
    inside = ~outside
    values = {
        "accuracy": (gold == predicted)[inside],
        "recall": refused[outside],
        "precision": outside[refused],
    }
    shares = {name: float(flags.mean()) if len(flags) else None for name, flags in values.items()}
    intervals = {name: bootstrap(flags) for name, flags in values.items() if len(flags)}
    macro = macro_f1(gold[inside].tolist(), predicted[inside].tolist()) if inside.any() else None
    return Scope(threshold=threshold, macro_f1=macro, intervals=intervals, **shares)


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Return the mean F1 over the labels in `gold`."""
    right = Counter(a for a, b in zip(gold, predicted, strict=True) if a == b)
    support, answered = Counter(gold), Counter(predicted)
    return float(np.mean([2 * right[label] / (support[label] + answered[label]) for label in support]))


def threshold_at(
    schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction], accuracy: float
) -> tuple[float | None, float]:
    """Return the highest threshold that leaves a share `accuracy` of the messages in scope answered right, or None.

    The share must hold for other messages like `examples`, with 95 % confidence. So more than `accuracy` of the examples must
    be right. Also returns the share of the examples that is right without a threshold. A higher accuracy cannot be reached.
    """
    gold, predicted = _labels(schema, examples, predictions, 0.0)
    inside = ~np.isin(gold, schema.nothing)
    confidence = np.array([prediction.confidence for prediction in predictions], np.float64)
    # A right answer stays right at every threshold up to its own confidence.
    right = np.sort(confidence[inside & (gold == predicted)])[::-1]
    needed = _needed(accuracy, int(inside.sum()))
    most = len(right) / inside.sum() if inside.any() else 0.0
    return (float(right[needed - 1]) if 0 < needed <= len(right) else None), float(most)


def _needed(accuracy: float, count: int) -> int:
    """Return how many of `count` examples must be right, so that the one-sided 95 % bound of the share is `accuracy`."""
    margin = NORMAL_95 * np.sqrt(accuracy * (1 - accuracy) / max(1, count))
    return int(np.ceil((accuracy + margin) * count - 1e-9))


def _labels(
    schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gold and the predicted label of each message, as object arrays. A rejected message has "", not "none"."""
    [name] = schema.names
    withheld = schema.nothing[0] if schema.nothing else ""
    predicted = []
    for prediction in predictions:
        sure = prediction.status is Status.OK and prediction.confidence >= threshold
        predicted.append("" if prediction.status is Status.REJECTED else _label(prediction.intent, name) if sure else withheld)
    return np.array([_label(example.intent, name) for example in examples], object), np.array(predicted, object)


def _label(intent: Intent | None, name: str) -> object:
    return items_of(intent)[0][name]
