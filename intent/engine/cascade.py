"""Two classifiers: a cheap one answers where it is sure, the other where the cheap one is not.

Knows classifiers by their interface; each prediction says which of the two made it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from intent.engine import Classifier, Prediction

FILE = "cascade.json"
NEVER = 2.0


@dataclass(frozen=True)
class Threshold:
    """The confidence from which the cheap model answers; NEVER: none reaches the precision.

    On the held-out messages it was set on, it answers the share `answers`, of which `precision` are right.
    """

    confidence: float
    answers: float
    precision: float

    @classmethod
    def reaching(cls, confidence: np.ndarray, right: np.ndarray, precision: float) -> "Threshold":
        """The lowest at which a share `precision` of the answers at or above it is right."""
        order = np.argsort(-confidence, kind="stable")
        found, shares = confidence[order], np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        # Equal confidences stand or fall together: only the last of them is a threshold.
        good = np.flatnonzero((shares >= precision) & (np.append(found[1:], -1.0) < found))
        if not len(good):
            return cls(NEVER, 0.0, 1.0)
        last = good[-1]
        return cls(float(found[last]), float((last + 1) / len(found)), float(shares[last]))

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Threshold":
        return cls(**json.loads((folder / FILE).read_text()))


@dataclass
class Cascade:
    """A `Classifier` of two. `cheap` must not abstain by itself: below `threshold`, `other` answers.

    `sure`: messages so far that `cheap` answered.
    """

    variant: str
    cheap: Classifier
    other: Classifier
    threshold: float
    sure: int = 0

    @property
    def answered(self) -> int:
        return self.sure + self.other.answered

    @property
    def tokens_computed(self) -> int:
        return self.cheap.tokens_computed + self.other.tokens_computed

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        predictions = [replace(found, variant=self.cheap.variant) for found in self.cheap.classify(messages)]
        rest = [i for i, found in enumerate(predictions) if found.confidence < self.threshold]
        self.sure += len(messages) - len(rest)
        if rest:
            for i, found in zip(rest, self.other.classify([messages[i] for i in rest]), strict=True):
                predictions[i] = replace(found, variant=self.other.variant)
        return predictions

    def close(self) -> None:
        self.cheap.close()
        self.other.close()
