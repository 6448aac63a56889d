"""How right a schema of labels is: for messages that mean one of them (in scope) and for those that mean none (out of scope).

A message counts as answered "none" where its answer says so, was withheld, or is less sure than a threshold. The threshold is
set on validation messages, so that a stated share of those in scope is still answered right; `engine.abstain_below` uses it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from intent.dataset.example import Example
from intent.engine import Prediction, Status
from intent.evaluate.metrics import bootstrap
from intent.task.schema import Choice, Intent, IntentSchema, items_of


@dataclass(frozen=True)
class Scope:
    """Figures of a schema of one Choice; answers below the confidence `threshold` count as none of its labels.

    `accuracy`: of the messages in scope, the share answered right. `macro_f1`: the mean F1 of the labels that they mean, among
    them. `recall`: of the messages out of scope, the share answered none. `precision`: of those answered none, the share out of
    scope. Both are None without messages to divide by. `intervals`: 95 % bootstrap intervals (low, high) of the shares.
    """

    threshold: float
    accuracy: float | None
    macro_f1: float | None
    recall: float | None
    precision: float | None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


def of_labels(schema: IntentSchema) -> bool:
    """Whether the schema is one choice of labels a message."""
    return len(schema.slots) == 1 and isinstance(schema.slots[0], Choice) and schema.repeat == 1


def has_outside(schema: IntentSchema) -> bool:
    """Whether one of the schema's labels says that a message means none of the others."""
    return of_labels(schema) and bool(schema.nothing)


def measure(
    schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction], threshold: float = 0.0
) -> Scope:
    meant, said = _labels(schema, examples, predictions, threshold)
    outside, refused = np.isin(meant, schema.nothing), np.isin(said, schema.nothing)
    inside = ~outside
    values = {
        "accuracy": (meant == said)[inside],
        "recall": refused[outside],
        "precision": outside[refused],
    }
    shares = {name: float(found.mean()) if len(found) else None for name, found in values.items()}
    intervals = {name: bootstrap(found) for name, found in values.items() if len(found)}
    macro = macro_f1(meant[inside].tolist(), said[inside].tolist()) if inside.any() else None
    return Scope(threshold=threshold, macro_f1=macro, intervals=intervals, **shares)


def macro_f1(meant: Sequence[str], said: Sequence[str]) -> float:
    """The mean of the F1 of every label that is meant."""
    right = Counter(a for a, b in zip(meant, said, strict=True) if a == b)
    are, answered = Counter(meant), Counter(said)
    return float(np.mean([2 * right[label] / (are[label] + answered[label]) for label in are]))


def threshold_at(
    schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction], accuracy: float
) -> tuple[float | None, float]:
    """The highest confidence at which a share `accuracy` of the messages in scope is still answered right; None: there is none.

    Also returns the share that is right without a threshold, the most that can be asked for.
    """
    meant, said = _labels(schema, examples, predictions, 0.0)
    inside = ~np.isin(meant, schema.nothing)
    confidence = np.array([prediction.confidence for prediction in predictions], np.float64)
    # A message that is answered right stays so at every threshold up to its own confidence.
    right = np.sort(confidence[inside & (meant == said)])[::-1]
    needed = int(np.ceil(accuracy * inside.sum() - 1e-9))
    most = len(right) / inside.sum() if inside.any() else 0.0
    return (float(right[needed - 1]) if 0 < needed <= len(right) else None), float(most)


def _labels(
    schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """What is meant and what is said, by message. A message that was rejected is answered by no label, none included."""
    [name] = schema.names
    withheld = schema.nothing[0] if schema.nothing else ""
    said = []
    for prediction in predictions:
        sure = prediction.status is Status.OK and prediction.confidence >= threshold
        said.append("" if prediction.status is Status.REJECTED else _label(prediction.intent, name) if sure else withheld)
    return np.array([_label(example.intent, name) for example in examples], object), np.array(said, object)


def _label(intent: Intent | None, name: str) -> object:
    return items_of(intent)[0][name]
