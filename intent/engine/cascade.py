"""Classify with two models: a cheap one answers where it is sure, and another answers the rest.

Knows classifiers by their interface. Each prediction names the model that made it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from intent.engine import Engine, Prediction

FILE = "cascade.json"
NEVER = 2.0


@dataclass(frozen=True)
class Threshold:
    """The lowest confidence at which the cheap model answers. NEVER: no confidence reaches the required precision.

    On the held-out messages that it was fitted to, the cheap model answers the share `answers`, and `precision` of these
    answers are right.
    """

    confidence: float
    answers: float
    precision: float

    @classmethod
    def reaching(cls, confidence: np.ndarray, right: np.ndarray, precision: float) -> "Threshold":
        """Return the lowest threshold at which a share `precision` of the answers is right.

        `confidence`: float [messages]. `right`: bool [messages].
        """
        order = np.argsort(-confidence, kind="stable")
        ranked, shares = confidence[order], np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        # A threshold cannot separate equal confidences, so only the last of them is a candidate.
        good = np.flatnonzero((shares >= precision) & (np.append(ranked[1:], -1.0) < ranked))
        if not len(good):
            return cls(NEVER, 0.0, 1.0)
        last = good[-1]
        return cls(float(ranked[last]), float((last + 1) / len(ranked)), float(shares[last]))

    def write(self, folder: Path) -> None:
        """Write the threshold into a variant's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Threshold":
        """Read the threshold from a variant's folder."""
        return cls(**json.loads((folder / FILE).read_text()))


@dataclass
class Cascade:
    """An `Engine` made of two. `other` answers if the confidence of `cheap`, which must not abstain, is below `threshold`.

    `sure`: the number of messages that `cheap` answered.
    """

    variant: str
    cheap: Engine
    other: Engine
    threshold: float
    sure: int = 0

    @property
    def answered(self) -> int:
        return self.sure + self.other.answered

    @property
    def tokens_computed(self) -> int:
        return self.cheap.tokens_computed + self.other.tokens_computed

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        predictions = [replace(prediction, variant=self.cheap.variant) for prediction in self.cheap.classify(messages)]
        uncertain = [i for i, prediction in enumerate(predictions) if prediction.confidence < self.threshold]
        self.sure += len(messages) - len(uncertain)
        if uncertain:
            for i, prediction in zip(uncertain, self.other.classify([messages[i] for i in uncertain]), strict=True):
                predictions[i] = replace(prediction, variant=self.other.variant)
        return predictions

    def close(self) -> None:
        self.cheap.close()
        self.other.close()
