"""How right a variant is: exact match, per slot, per language and phenomenon, calibration, and agreement."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from intent.engine import Prediction, Status
from intent.schema import Intent, IntentSchema
from intent.synth.example import Example

BINS = 10


@dataclass(frozen=True)
class Score:
    """Shares in [0, 1] over `messages`. `slots`: share right by slot. `ece`: expected calibration error, equal-width bins.

    `kept_at_99`: the largest share of answers, most confident first, of which 99 % are right.
    """

    messages: int
    exact: float
    slots: dict[str, float]
    languages: dict[str, float]
    phenomena: dict[str, float]
    none_precision: float
    none_recall: float
    ece: float
    kept_at_99: float


def score(schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Score:
    pairs = list(zip(examples, predictions, strict=True))
    right = np.array([is_right(example.intent, prediction) for example, prediction in pairs])
    confidence = np.array([prediction.confidence for _, prediction in pairs])
    first = schema.names[0]
    said = np.array([_slot(prediction, first) == "none" for _, prediction in pairs])
    meant = np.array([example.intent[first] == "none" for example, _ in pairs])
    return Score(
        messages=len(pairs),
        exact=float(right.mean()),
        slots={name: float(np.mean([example.intent[name] == _slot(p, name) for example, p in pairs])) for name in schema.names},
        languages=_by(pairs, right, lambda example: [example.language]),
        phenomena=_by(pairs, right, lambda example: example.phenomena),
        none_precision=_share(said & meant, said),
        none_recall=_share(said & meant, meant),
        ece=calibration_error(confidence, right),
        kept_at_99=kept_share(confidence, right, 0.99),
    )


def is_right(intent: Mapping, prediction: Prediction) -> bool:
    return prediction.status is Status.OK and dict(intent) == prediction.intent


def agreement(a: Sequence[Prediction], b: Sequence[Prediction]) -> float:
    """The share of messages that two variants label alike."""
    return float(np.mean([x.intent == y.intent and x.status == y.status for x, y in zip(a, b, strict=True)]))


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) with equal-width bins."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def kept_share(confidence: np.ndarray, right: np.ndarray, precision: float) -> float:
    order = np.argsort(-confidence, kind="stable")
    reached = np.flatnonzero(np.cumsum(right[order]) / np.arange(1, len(right) + 1) >= precision)
    return float((reached[-1] + 1) / len(right)) if len(reached) else 0.0


def _slot(prediction: Prediction, name: str):
    intent: Intent = prediction.intent or {}
    return intent.get(name)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 1.0


def _by(pairs: Sequence, right: np.ndarray, keys: Callable[[Example], Iterable[str]]) -> dict[str, float]:
    found: dict[str, list[bool]] = defaultdict(list)
    for (example, _), ok in zip(pairs, right, strict=True):
        for key in keys(example):
            found[key].append(bool(ok))
    return {key: float(np.mean(values)) for key, values in sorted(found.items())}
