"""A loaded model that classifies messages.

`automaton.py` has the valid answers and `decode.py` walks them, shared by all. `batch.py` runs many messages through one
forward pass at a time. `gguf.py`, `gptq.py` and `reference.py` supply that forward pass. `svm.py` and `embedding.py` answer
without a language model, `cascade.py` before one. Knows nothing of shards, Ray or storage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from intent.errors import IntentError
from intent.schema import Intent


class Status(StrEnum):
    OK = "ok"
    ABSTAINED = "abstained"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a message means. `confidence` is of the whole intent, `slots` of each decided slot, in order; all in [0, 1].
    Of a list, `confidence` is of all its items and of where it ends, `slots` of each item.

    A rejected message has no intent and a `reason`. `variant`: which model answered, where a classifier has several.
    `message`: the one that is answered, so that an answer cannot be taken for another message's.
    """

    intent: Intent | None
    confidence: float = 0.0
    slots: tuple[float, ...] = ()
    status: Status = Status.OK
    reason: str = ""
    variant: str = ""
    message: str = ""


class Classifier(Protocol):
    variant: str

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        """One prediction a message, in order, each with its message. Never raises for what a message says."""


def abstain(prediction: Prediction, below: float) -> Prediction:
    """The prediction, or an abstention without an intent where its confidence is below the threshold."""
    if prediction.status is not Status.OK or prediction.confidence >= below:
        return prediction
    return replace(prediction, intent=dict.fromkeys(prediction.intent), status=Status.ABSTAINED)


def classify_each(classifier: Classifier, messages: Sequence[str]) -> list[Prediction]:
    """The predictions of `messages`. Raises IntentError where they are not of each message, once and in order."""
    predictions = classifier.classify(messages)
    if len(predictions) != len(messages):
        raise IntentError(f"{classifier.variant} gave {len(predictions)} predictions for {len(messages)} messages")
    for number, (prediction, message) in enumerate(zip(predictions, messages, strict=True), 1):
        if prediction.message != message:
            # By number: a message's text is not for logs.
            said = f"gave the answer of another message for message {number} of {len(messages)}"
            raise IntentError(f"{classifier.variant} {said}; its labels cannot be trusted, leave it out of engine.variants")
    return predictions
