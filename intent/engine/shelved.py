"""Classify with a catalog too large for one prompt: ask the model about the one or two shelves that fit a message.

Each shelf has its own prompt and automaton. Memory holds one shelf at a time, so it does not grow with the catalog. Messages
are ordered by shelf, so each prompt is computed once per call. Knows a classifier and an index, but no engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from intent.engine import Classifier, Prediction, Status, abstain, classify_each
from intent.errors import ConfigError
from intent.retrieve.index import Index
from intent.retrieve.route import NOTHING, NOWHERE, Asks, route
from intent.task.prompt import Prompt
from intent.task.schema import Intent, IntentSchema, items_of

# The confidence that a message near no product asks for none of the catalog's products. This is an assumption, not a
# measurement.
SURE_OF_NOTHING = 0.95
# The variant of an answer that the retriever gave without a model.
RETRIEVER = "retriever"


class PromptedClassifier(Classifier, Protocol):
    """A classifier whose prompt can be changed."""

    answered: int
    tokens_computed: int

    def ask(self, prompt: Prompt) -> None:
        """Replace the prompt."""

    def close(self) -> None:
        """Free the model."""


@dataclass
class Shelved:
    """A `Classifier` on top of another, which must not abstain by itself.

    Raises ConfigError if the schema's messages are lists, because their items may be on many shelves.
    """

    classifier: PromptedClassifier
    index: Index
    schema: IntentSchema
    abstain_below: float = 0.0

    def __post_init__(self):
        require_one_intent(self.schema, len(self.index.names))

    @property
    def variant(self) -> str:
        return self.classifier.variant

    @property
    def answered(self) -> int:
        return self.classifier.answered

    @property
    def tokens_computed(self) -> int:
        return self.classifier.tokens_computed

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        asks = self.route(messages)
        predictions = self.classify_asks([messages[row] for row in asks.rows], asks.shelves)
        fine = np.array([prediction.status is not Status.REJECTED for prediction in predictions], bool)
        named = np.array([self._names_product(prediction.intent) for prediction in predictions], bool)
        surest_asks = surest(asks, fine, named, np.array([prediction.confidence for prediction in predictions]))
        return [abstain(predictions[ask], self.abstain_below) for ask in surest_asks]

    def _names_product(self, intent: Intent | None) -> bool:
        return any(item[self.schema.entity] is not None for item in items_of(intent) if self.schema.entity)

    def route(self, messages: Sequence[str]) -> Asks:
        return route_for(self.schema, self.index, messages)

    def classify_asks(self, messages: Sequence[str], shelves: np.ndarray) -> list[Prediction]:
        """Classify each message as if its shelf were the whole catalog. `shelves`: int [messages]; NOWHERE needs no model."""
        predictions: dict[int, Prediction] = {}
        for shelf in np.unique(shelves).tolist():
            rows = np.flatnonzero(shelves == shelf).tolist()
            some = [messages[row] for row in rows]
            if shelf == NOWHERE:
                shelf_predictions = [
                    Prediction(nothing_of(self.schema), SURE_OF_NOTHING, variant=RETRIEVER, message=message) for message in some
                ]
            else:
                self.classifier.ask(Prompt(self.schema, self.index.catalog(shelf)))
                shelf_predictions = classify_each(self.classifier, some)
            predictions.update(zip(rows, shelf_predictions, strict=True))
        return [predictions[row] for row in range(len(messages))]

    def close(self) -> None:
        self.classifier.close()


def route_for(schema: IntentSchema, index: Index, messages: Sequence[str]) -> Asks:
    """Choose the shelves for each message: none if no product is near and the schema has a value for that."""
    return route(index, messages, nothing=NOTHING if nothing_of(schema) else None)


def nothing_of(schema: IntentSchema) -> Intent | None:
    """Return the intent that asks for no product; None unless the schema has exactly one."""
    ends = schema.slots[0].ends
    return schema.intent([ends[0]]) if len(ends) == 1 else None


def require_one_intent(schema: IntentSchema, products: int) -> None:
    """Raise ConfigError if the schema's intents are lists, whose items may be on different shelves."""
    if schema.repeat > 1:
        conflict = f"has {products:,} products, which are split into shelves, and the intents of {schema.name!r} are lists"
        raise ConfigError(
            "catalog", schema.name, f"{conflict}; use schema=cart, or a catalog of at most shelves_above products"
        )


def surest(asks: Asks, fine: np.ndarray, named: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return, for each message in order, the ask whose answer counts.

    `fine` (bool): the answer is not a rejection. `named` (bool): it names a product. `confidence`: of the answer. A product
    takes precedence over none, which only means that the product is not on that shelf. Then the higher confidence counts.
    """
    order = np.lexsort((asks.first, confidence, named, fine, asks.rows))
    return order[np.append(np.diff(asks.rows[order]) > 0, True)] if len(order) else order
