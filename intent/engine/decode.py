"""Walk many messages through the automaton of valid answers.

At each state, the logits of the allowed tokens decide, and the softmax over these is the confidence.

Knows states and logits; knows nothing of models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from intent.engine import Prediction, abstain
from intent.engine.automaton import END, UNDECIDED, Automaton
from intent.task.schema import INTENTS

# Maps rows and token ids to the float32 logits of their cross product, shape [rows, tokens].
Take = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass
class Walk:
    """`n` messages on their way through an automaton. `temperatures`: by slot, the divisor of its logits; () means 1.
    `nothing`: what is added to the logit of answering nothing.

    values, confidences: [n, slots], the index of each slot's option and the probability of its decisions. A list has one group
    of slots for each item. The decision that ends the list is in the group after its last item.
    """

    automaton: Automaton
    n: int
    temperatures: Sequence[float] = ()
    nothing: float = 0.0
    states: np.ndarray = field(init=False)
    values: np.ndarray = field(init=False)
    confidences: np.ndarray = field(init=False)

    def __post_init__(self):
        self._width = len(self.automaton.options)
        columns = self._width * self.automaton.schema.repeat
        self.states = np.full(self.n, self.automaton.start, np.int32)
        self.values = np.full((self.n, columns), UNDECIDED, np.int32)
        self.confidences = np.ones((self.n, columns), np.float64)
        # The first column of the item that each row is deciding.
        self._column = [0] * self.n

    def allowed(self, rows: Sequence[int]) -> np.ndarray:
        """Return the sorted token ids that are allowed next for any of `rows`."""
        states = np.unique(self.states[np.asarray(rows)])
        return np.unique(np.concatenate([self.automaton.allowed(state) for state in states]))

    def advance(self, rows: np.ndarray, take: Take) -> list[tuple[int, ...]]:
        """Make one decision for each of `rows`, by the logits that `take` returns for them in order.

        Returns the tokens to feed to each row next; () if its answer is complete.
        """
        feeds: list[tuple[int, ...]] = [()] * len(rows)
        states, again = self.states[rows], self.automaton.again
        for state in np.unique(states):
            among = np.flatnonzero(states == state)
            slot = self.automaton.slot(state)
            deciding = rows[among]
            logits = self._shifted(state, deciding, take(among, self.automaton.allowed(state)))
            choices, chances = self._choose(deciding, slot, logits)
            for at, choice, chance in zip(among.tolist(), choices.tolist(), chances.tolist(), strict=True):
                row = rows[at]
                feed, following, value = self.automaton.edge(state, choice)
                column = self._column[row] + slot
                self.confidences[row, column] *= chance
                if value != UNDECIDED:
                    self.values[row, column] = value
                if following == again:
                    following = self._next_item(row)
                self.states[row] = following
                if following != END:
                    feeds[at] = feed
        return feeds

    def _choose(self, rows: np.ndarray, slot: int, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the choice of each of `rows` at a decision of `slot`, and its probability. `logits`: [rows, choices]."""
        return decide(logits / self.temperatures[slot] if self.temperatures else logits)

    def _shifted(self, state: int, rows: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return the logits with `nothing` added where a message's first decision may answer nothing."""
        if not self.nothing or state != self.automaton.start or self.automaton.nothing == UNDECIDED:
            return logits
        first = np.asarray([self._column[row] == 0 for row in rows])
        logits = logits.copy()
        logits[first, self.automaton.nothing] += self.nothing
        return logits

    def _next_item(self, row: int) -> int:
        """Return the state after a complete item of a list."""
        self._column[row] += self._width
        again = self.automaton.again
        return END if again is None or self._column[row] == self.values.shape[1] else again

    def restart(self, rows: np.ndarray) -> None:
        """Undo every decision of `rows`."""
        self.states[rows] = self.automaton.start
        self.values[rows] = UNDECIDED
        self.confidences[rows] = 1.0
        for row in rows.tolist():
            self._column[row] = 0

    def prediction(self, row: int, abstain_below: float = 0.0) -> Prediction:
        """Return the prediction of a message whose answer is complete."""
        answer = self._intent(row) if self.automaton.again is None else self._list(row)
        return abstain(answer, abstain_below)

    def _intent(self, row: int) -> Prediction:
        intent = self.automaton.intent(self.values[row].tolist())
        slots = tuple(self.automaton.credit(self.values[row], self.confidences[row]).tolist())
        return Prediction(intent, float(np.prod(slots)), slots)

    def _list(self, row: int) -> Prediction:
        """Return a list's prediction. Merges items that repeat each other, and multiplies their confidences."""
        whole = self._column[row] // self._width
        chosen = self.values[row].reshape(-1, self._width)[:whole].tolist()
        chances = self.confidences[row].reshape(-1, self._width).prod(axis=1)
        summed = self.automaton.schema.summed([self.automaton.item(each) for each in chosen])
        items = tuple(float(chances[merged].prod()) for _, merged in summed)
        return Prediction({INTENTS: [item for item, _ in summed]}, float(chances.prod()), items)


def decide(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best choice of each row of logits [rows, choices] and its probability among the choices."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return weights.argmax(axis=1), 1.0 / weights.sum(axis=1)
