"""A small catalog on shelves, and a rule-based engine that answers with products of the asked shelf."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
from runs import CART

from intent.engine import Prediction
from intent.engine.shelved import Shelved, route_for
from intent.retrieve.cells import Cells
from intent.retrieve.index import Index
from intent.retrieve.retriever import Retriever
from intent.retrieve.vectors import Vectors, grams, words
from intent.run.actor_pool import EngineSpec
from intent.task.prompt import Prompt

COLOURS = ("red", "green", "blue", "grey", "black", "white", "pink", "brown")
THINGS = ("shoe", "lamp", "apple", "kettle", "carpet", "pencil", "hammer", "yoghurt", "curtain", "bicycle")
SMALL_TALK = "not the oh no rather please add one give me now"
NAMES = [f"{colour} {thing} {size}" for thing in THINGS for colour in COLOURS for size in ("small", "large")]


def retriever(names: Sequence[str] = NAMES, cells: int = 12, width: int = 64) -> Retriever:
    """Return a retriever with random vectors. Names that share words and n-grams are similar. SMALL_TALK has a low weight."""
    table = np.random.default_rng(3).standard_normal((4096, width)).astype(np.float32)
    named = {bucket for name in names for word in words(name) for bucket in grams(word, len(table))}
    small = {bucket for word in words(SMALL_TALK) for bucket in grams(word, len(table))}
    table[sorted(small - named)] *= 0.01
    vectors = Vectors.of(table)
    vectors = Vectors.of(table / vectors.word_lengths(names).mean())
    return Retriever(vectors, Cells.grow(vectors.embed(names), cells))


@cache
def index(names: tuple[str, ...] = tuple(NAMES), core: int = 20, border: int = 4) -> Index:
    return Index.build(names, retriever(), core, border)


def many(count: int) -> list[str]:
    """Return `count` names: models of similar things."""
    return [f"{NAMES[number % len(NAMES)]} model {number // len(NAMES)}" for number in range(count)]


@dataclass
class NamingClassifier:
    """Adds the product of its prompt that the message names, with a confidence by the name's length, else none.

    `asked`: the number of messages per prompt. `log`: a file that gets a line for each prompt.
    """

    variant: str = "naming"
    log: str | None = None
    answered: int = 0
    tokens_computed: int = 0
    prompt: Prompt | None = None
    asked: list[tuple[Prompt, int]] = field(default_factory=list)

    def ask(self, prompt: Prompt) -> None:
        self.prompt = prompt
        if self.log:
            with open(self.log, "a") as file:
                file.write("|".join(prompt.catalog) + "\n")

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        assert len(set(messages)) == len(messages), "a message was given twice"
        self.asked.append((self.prompt, len(messages)))
        return [self._answer(message) for message in messages]

    def _answer(self, message: str) -> Prediction:
        named = max((name for name in self.prompt.catalog if name in message), key=len, default=None)
        if named is None:
            return Prediction({"action": "none", "product": None, "quantity": None}, 0.95, message=message)
        return Prediction({"action": "add", "product": named, "quantity": 1}, len(named) / 100, message=message)

    def close(self) -> None: ...


def shelved(names: Sequence[str] = NAMES, core: int = 20, **kwargs) -> Shelved:
    return Shelved(NamingClassifier(**kwargs), index(tuple(names), core), CART)


def router(names: Sequence[str], core: int):
    """Return the router that assigns a run's messages to shelves."""
    return partial(route_for, CART, index(tuple(names), core))


def engine(names: Sequence[str], core: int, actors: int = 2, cpus: float = 0.5, before=None, **kwargs) -> EngineSpec:
    """`before` runs in the actor's process before it loads its engine."""

    def load() -> Shelved:
        if before:
            before()
        return shelved(names, core, **kwargs)

    return EngineSpec("naming", "stub", load, actors=actors, cpus=cpus)
