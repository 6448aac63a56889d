"""Walk messages through their known right answers, whatever the model prefers.

The model computes all logits as usual, so different models and weights meet the same decisions. The benchmark measures speed on
such walks, and the evaluation compares models on them.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from intent.engine.automaton import Automaton, Target
from intent.engine.batch import BatchClassifier
from intent.engine.decode import Walk
from intent.task.schema import Intent


class Decided(NamedTuple):
    """A decision: the right token, and the log-probabilities of the allowed tokens, float32 in the order of their ids."""

    token: int
    log_probabilities: np.ndarray


@dataclass
class ForcedWalk(Walk):
    """A walk that computes and reads all logits as usual, but always makes the right choice.

    `targets`: the right answers by row. `decided`: the number of decisions so far by row.
    """

    targets: Sequence[Target] = ()
    decided: list[int] = field(init=False)

    def __post_init__(self):
        super().__post_init__()
        self.decided = [0] * self.n

    def restart(self, rows: np.ndarray) -> None:
        super().restart(rows)
        for row in rows.tolist():
            self.decided[row] = 0

    def _choose(self, rows: np.ndarray, slot: int, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The model's own choice is computed too, so that the work is that of any walk.
        choices, chances = super()._choose(rows, slot, logits)
        for at, row in enumerate(rows.tolist()):
            choices[at] = self.targets[row].choices[self.decided[row]]
            self.decided[row] += 1
        # The right answer is certain, so that no threshold leaves it empty.
        return choices, np.ones_like(chances)


@dataclass
class RecordedWalk(ForcedWalk):
    """A forced walk that records the log-probabilities of each decision. `records`: by row.

    Temperatures are ignored, because they change no choice.
    """

    records: list[list[Decided]] = field(init=False)

    def __post_init__(self):
        super().__post_init__()
        self.records = [[] for _ in range(self.n)]

    def restart(self, rows: np.ndarray) -> None:
        super().restart(rows)
        for row in rows.tolist():
            self.records[row] = []

    def _choose(self, rows: np.ndarray, slot: int, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for row, log_probabilities in zip(rows.tolist(), log_softmax(logits), strict=True):
            target = self.targets[row]
            token = target.tokens[target.decisions[len(self.records[row])]]
            self.records[row].append(Decided(token, log_probabilities.astype(np.float32)))
        return super()._choose(rows, slot, logits)


def walk_answers(classifier: BatchClassifier, messages: Sequence[str], intents: Sequence[Intent]) -> dict[int, list[Decided]]:
    """Walk `messages` through their right answers `intents`. Returns the decisions of each message, by its number.

    Leaves out messages that the classifier rejects and answers that its schema or catalog does not have.
    """
    targets: dict[int, Target] = {}
    for number, intent in enumerate(intents):
        with suppress(ValueError):
            targets[number] = classifier.automaton.target(intent)
    numbers, walks = list(targets), []
    served = classifier.walk

    def forced(automaton: Automaton, rows: Sequence[int]) -> Walk:
        nothing = served(automaton, rows).nothing
        walks.append(RecordedWalk(automaton, len(rows), nothing=nothing, targets=[targets[numbers[row]] for row in rows]))
        return walks[-1]

    classifier.walk = forced
    try:
        classifier.classify([messages[number] for number in numbers])
    finally:
        classifier.walk = served
    records = [decisions for walk in walks for decisions in walk.records]
    return {number: decisions for number, decisions in zip(numbers, records, strict=True) if decisions}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the log-probabilities of logits [..., choices], float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
