"""Classify messages with a loaded model.

`automaton.py` builds the valid answers and `decode.py` walks through them, for every engine. `forced.py` walks the known right
answers, to measure and compare models. `batch.py` runs many messages through one forward pass at a time. `gguf.py`, `gptq.py`
and `reference.py` supply that forward pass. `shelved.py` handles a large catalog, one shelf after the other. `svm.py` and
`embedding.py` answer without a language model. `cascade.py` asks the SVM before a language model. `grouped.py` groups
predictions by their answers. Knows nothing of shards, Ray or storage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from intent.errors import IntentError
from intent.task.schema import Intent


class Status(StrEnum):
    """The outcome for a message."""

    OK = "ok"
    ABSTAINED = "abstained"
    REJECTED = "rejected"


@dataclass(slots=True)
class Prediction:
    """A classifier's answer to a message. Confidences are in [0, 1].

    `confidence`: of the whole intent; for a list, of all its items and of where it ends. `slots`: of each decided slot, in
    order; for a list, of each item. A rejected message has no intent but a `reason`. `variant`: the model that answered, if a
    classifier has several. `message`: the message itself, by which the caller checks that an answer belongs to its message.

    Do not change a prediction. It is not frozen, because making a frozen one takes three times as long, for every message.
    """

    intent: Intent | None
    confidence: float = 0.0
    slots: tuple[float, ...] = ()
    status: Status = Status.OK
    reason: str = ""
    variant: str = ""
    message: str = ""


class Classifier(Protocol):
    """A loaded model that classifies. `variant`: the name of its variant."""

    @property
    def variant(self) -> str: ...

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        """Return one prediction per message, in order, each with its message. Never raises because of a message's content."""


class Engine(Classifier, Protocol):
    """A classifier with a model. `answered`: messages so far. `tokens_computed`: tokens that the model computed so far."""

    @property
    def answered(self) -> int: ...

    @property
    def tokens_computed(self) -> int: ...

    def close(self) -> None:
        """Free the model."""


def abstain(prediction: Prediction, below: float) -> Prediction:
    """Return the prediction, or an abstention without an intent if its confidence is below the threshold."""
    if prediction.status is not Status.OK or prediction.intent is None or prediction.confidence >= below:
        return prediction
    return replace(prediction, intent=dict.fromkeys(prediction.intent), status=Status.ABSTAINED)


def classify_each(classifier: Classifier, messages: Sequence[str]) -> list[Prediction]:
    """Return the predictions of `messages`. Raises IntentError unless there is one for each message, in order."""
    predictions = classifier.classify(messages)
    if len(predictions) != len(messages):
        raise IntentError(f"{classifier.variant} gave {len(predictions)} predictions for {len(messages)} messages")
    for number, (prediction, message) in enumerate(zip(predictions, messages, strict=True), 1):
        if prediction.message != message:
            # The error gives the number, because logs must not contain messages.
            fault = f"gave the answer of another message for message {number} of {len(messages)}"
            raise IntentError(f"{classifier.variant} {fault}; its labels cannot be trusted, leave it out of engine.variants")
    return predictions
