"""Classify one Choice with a linear model: the features of a message's text times weights.

`features` computes the features: `svm.py` counts n-grams, and `embedding.py` uses pretrained vectors. Knows nothing of prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from intent.engine import Prediction, Status
from intent.engine.decode import decide
from intent.errors import ConfigError
from intent.task.catalog import normalize
from intent.task.schema import Choice, IntentSchema

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

EMPTY = Prediction(None, status=Status.REJECTED, reason="empty message")
# Maps normalized texts to their features, [texts, features].
Features = Callable[[Sequence[str]], "np.ndarray | csr_matrix"]


@dataclass
class LinearClassifier:
    """A linear `Classifier`. `weights` [features, labels] and `bias` [labels] are float32.

    Confidence is the softmax of the margins over `temperature`, which was fitted on validation messages.
    """

    variant: str
    schema: IntentSchema
    labels: Sequence[str]
    features: Features
    weights: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0
    abstain_below: float = 0.0
    tokens_computed: int = 0
    answered: int = 0

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        texts = [normalize(message) for message in messages]
        full = [text for text in texts if text]
        self.answered += len(messages)
        decided = zip(*decide(self.margins(full) / self.temperature), strict=True) if full else iter(())
        predictions = [self._prediction(*next(decided)) if text else EMPTY for text in texts]
        return [replace(prediction, message=message) for prediction, message in zip(predictions, messages, strict=True)]

    def margins(self, texts: Sequence[str]) -> np.ndarray:
        """Return the margins [texts, labels]. The label with the largest margin is the answer."""
        return self.features(texts) @ self.weights + self.bias

    def close(self) -> None:
        """Do nothing: no memory is held outside Python."""

    def _prediction(self, choice: int, confidence: float) -> Prediction:
        intent, confidence = self.schema.intent([self.labels[choice]]), float(confidence)
        if confidence < self.abstain_below:
            return Prediction(dict.fromkeys(intent), confidence, (confidence,), Status.ABSTAINED)
        return Prediction(intent, confidence, (confidence,))


def require_one_choice(schema: IntentSchema, variant: str) -> Choice:
    """Return the schema's only slot. Raises ConfigError if there are others, if it is not a Choice, or if intents are lists."""
    slot = schema.slots[0]
    if len(schema.slots) > 1 or not isinstance(slot, Choice):
        raise ConfigError("quant.variants", variant, f"labels schemas of one choice, not {schema.name!r} with {schema.names}")
    if schema.repeat > 1:
        limit = f"labels a message with one intent, not with a list as {schema.name!r} does; leave it and its cascades out"
        raise ConfigError("quant.variants", variant, f"{limit}, or use schema.repeat=1")
    return slot
