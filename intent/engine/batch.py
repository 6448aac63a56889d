"""Many messages through one model: the scheduling that every engine shares.

An engine supplies `Forward`: it holds the prompt's prefix in its cache once, extends sequences behind it by some tokens
each, and gives logits for the last token of each. Messages of like length run together; where the engine can, a finished
sequence's place is taken at once by a waiting message.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from intent.engine import Prediction, Status
from intent.engine.decode import END, Automaton, Take, Walk
from intent.prompt import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Feed = tuple[int, Sequence[int]]


class Forward(Protocol):
    """A forward pass with room for `places` sequences behind the prefix, each of at most `room` tokens.

    `continuous`: a new sequence may start while others are under way. `max_tokens`: the most one `extend` takes.
    """

    places: int
    room: int
    max_tokens: int
    continuous: bool

    def extend(self, feeds: Sequence[Feed]) -> Take:
        """Append tokens to the sequences at some places; the logits after the last token of each, valid until the next call."""

    def release(self, place: int) -> None:
        """Forget a place's sequence."""

    def close(self) -> None:
        """Free what the garbage collector does not."""


@dataclass
class BatchClassifier:
    """A `Classifier` over a `Forward`. Messages longer than `max_message_tokens` are rejected.

    `walk`: makes the walk of so many messages through the automaton.
    """

    variant: str
    forward: Forward
    tokenizer: "Tokenizer"
    prompt: Prompt
    automaton: Automaton
    max_message_tokens: int
    abstain_below: float = 0.0
    tokens_computed: int = 0
    walk: Callable[[Automaton, int], Walk] = Walk

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        sequences = self.prompt.message_ids(self.tokenizer, messages)
        limit = min(self.max_message_tokens, self.forward.room - len(self.automaton.head) - 64)
        predictions = [self._refusal(sequence, limit) for sequence in sequences]
        rows = [i for i, prediction in enumerate(predictions) if prediction is None]
        walk = self._decode([[*sequences[i], *self.automaton.head] for i in rows])
        for at, i in enumerate(rows):
            predictions[i] = walk.prediction(at, self.abstain_below)
        return predictions

    def close(self) -> None:
        self.forward.close()

    def _refusal(self, sequence: Sequence[int], limit: int) -> Prediction | None:
        if len(sequence) <= 1:
            return Prediction(None, status=Status.REJECTED, reason="empty message")
        if len(sequence) > limit:
            reason = f"message of {len(sequence)} tokens is over the limit of {limit}"
            return Prediction(None, status=Status.REJECTED, reason=reason)
        return None

    def _decode(self, sequences: Sequence[Sequence[int]]) -> Walk:
        walk = self.walk(self.automaton, len(sequences))
        if self.automaton.start == END:
            return walk
        waiting = deque(sorted(range(len(sequences)), key=lambda i: len(sequences[i])))
        free = list(range(self.forward.places))
        running: dict[int, Feed] = {}
        while waiting or running:
            if self.forward.continuous or not running:
                while waiting and free:
                    row = waiting.popleft()
                    running[row] = (free.pop(), sequences[row])
            step = self._fitting(running)
            self.tokens_computed += sum(len(running[row][1]) for row in step)
            take = self.forward.extend([running[row] for row in step])
            for row, feed in zip(step, walk.advance(np.asarray(step), take), strict=True):
                place = running[row][0]
                if feed:
                    running[row] = (place, feed)
                else:
                    del running[row]
                    self.forward.release(place)
                    free.append(place)
        return walk

    def _fitting(self, running: dict[int, Feed]) -> list[int]:
        """The rows whose feeds go into one forward pass, oldest first."""
        rows, tokens = [], 0
        for row, (_, feed) in running.items():
            tokens += len(feed)
            if tokens > self.forward.max_tokens and rows:
                break
            rows.append(row)
        return rows
