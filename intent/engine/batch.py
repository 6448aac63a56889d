"""Many messages through one model: the scheduling that every engine shares.

An engine supplies `Forward`: it holds the prompt's prefix in its cache once, extends sequences behind it by some tokens
each, and gives logits for the last token of each. Messages that begin alike, or are of like length, run together; where
the engine can, a finished sequence's place is taken at once by a waiting message.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from intent.engine import Prediction, Status
from intent.engine.decode import END, Automaton, Take, Walk
from intent.prompt import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Feed = tuple[int, Sequence[int]]
# Messages tokenised at once.
PIECE = 4096

logger = logging.getLogger(__name__)


class Forward(Protocol):
    """A forward pass with room for `places` sequences behind the prefix, each of at most `room` tokens, `capacity` in all.

    `lanes`: that many times, independent of one another, so that one is computed while another's answers are read.
    `continuous`: a new sequence may start while others are under way. `max_tokens`: the most one `extend` takes.
    `shares`: what neighbours begin with alike is computed once. `computed`: tokens so far, prefixes apart.
    """

    lanes: int
    places: int
    room: int
    capacity: int
    max_tokens: int
    continuous: bool
    shares: bool
    computed: int

    def extend(self, feeds: Sequence[Feed], tokens: np.ndarray, lane: int = 0) -> Take:
        """Append tokens to the sequences at some places of a lane; return their logits after the last token of each.

        `tokens`: ids, in order, of which logits may be asked. What is returned is valid until the lane's next call, and may
        wait for the result only when it is asked. Raises MemoryError where the machine has none left; every sequence of every
        lane is then gone.
        """

    def begin(self, prefix: Sequence[int]) -> None:
        """Hold another prefix from now on; no sequence is under way."""

    def release(self, place: int, lane: int = 0) -> None:
        """Forget a place's sequence."""

    def close(self) -> None:
        """Free what the garbage collector does not."""


@dataclass
class _Lane:
    """What is under way in one lane: free places, by row its place and next feed, and the pass that was started."""

    number: int
    free: list[int]
    running: dict[int, Feed] = field(default_factory=dict)
    step: Sequence[int] = ()
    take: Take | None = None


@dataclass
class BatchClassifier:
    """A `Classifier` over a `Forward`. Messages longer than `max_message_tokens` are rejected.

    `walk`: makes the walk through the automaton of the messages with these numbers in a call. `answered`: messages so far.
    """

    variant: str
    forward: Forward
    tokenizer: "Tokenizer"
    prompt: Prompt
    automaton: Automaton
    max_message_tokens: int
    abstain_below: float = 0.0
    walk: Callable[[Automaton, Sequence[int]], Walk] = lambda automaton, rows: Walk(automaton, len(rows))
    answered: int = 0

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        # What shares a beginning, or is of one length, meets within a piece; the next piece is tokenised meanwhile.
        order = sorted(range(len(messages)), key=messages.__getitem__ if self.forward.shares else lambda i: len(messages[i]))
        pieces = [order[at : at + PIECE] for at in range(0, len(order), PIECE)]
        predictions: list[Prediction | None] = [None] * len(messages)
        tokenised = _ahead(lambda piece: self.prompt.message_ids(self.tokenizer, [messages[i] for i in piece]), pieces)
        limit = min(self.max_message_tokens, self.forward.room - self.automaton.longest)
        for piece, sequences in zip(pieces, tokenised, strict=True):
            accepted = {}
            for i, sequence in zip(piece, sequences, strict=True):
                predictions[i] = self._refusal(sequence, limit)
                if predictions[i] is None:
                    accepted[i] = [*sequence, *self.automaton.head]
            walk = self.walk(self.automaton, list(accepted))
            self._decode(walk, list(accepted.values()))
            for at, i in enumerate(accepted):
                predictions[i] = walk.prediction(at, self.abstain_below)
        return predictions

    @property
    def tokens_computed(self) -> int:
        return self.forward.computed

    def ask(self, prompt: Prompt) -> None:
        """Ask messages by `prompt` from now on."""
        if prompt != self.prompt:
            self.forward.begin(prompt.prefix_ids(self.tokenizer))
            self.automaton = Automaton(prompt.schema, prompt.catalog, self.tokenizer, self.automaton.codec)
            self.prompt = prompt

    def close(self) -> None:
        self.forward.close()

    def _refusal(self, sequence: Sequence[int], limit: int) -> Prediction | None:
        if len(sequence) <= 1:
            return Prediction(None, status=Status.REJECTED, reason="empty message")
        if len(sequence) > limit:
            reason = f"message of {len(sequence)} tokens is over the limit of {limit}"
            return Prediction(None, status=Status.REJECTED, reason=reason)
        return None

    def _decode(self, walk: Walk, sequences: Sequence[Sequence[int]]) -> None:
        if self.automaton.start == END:
            return
        # Where beginnings are shared, alike ones are neighbours; elsewhere like lengths are, since rows are padded.
        waiting = deque(
            sorted(range(len(sequences)), key=sequences.__getitem__ if self.forward.shares else lambda i: len(sequences[i]))
        )
        answer = self.automaton.longest - len(self.automaton.head)
        needs = [len(sequence) + answer for sequence in sequences]
        lanes = self._lanes()
        while waiting or any(lane.running for lane in lanes):
            try:
                for lane in lanes:
                    self._read(lane, walk)
                    self._fill(lane, waiting, sequences, needs)
                    self._start(lane, walk)
            except MemoryError:
                self._halve(walk, lanes, waiting)
                lanes = self._lanes()

    def _lanes(self) -> list[_Lane]:
        return [_Lane(number, list(range(self.forward.places))) for number in range(self.forward.lanes)]

    def _read(self, lane: _Lane, walk: Walk) -> None:
        """Decide by what the lane's pass gives, once it is done."""
        if lane.take is None:
            return
        for row, feed in zip(lane.step, walk.advance(np.asarray(lane.step), lane.take), strict=True):
            place = lane.running[row][0]
            if feed:
                lane.running[row] = (place, feed)
            else:
                del lane.running[row]
                self.forward.release(place, lane.number)
                lane.free.append(place)
                self.answered += 1
        lane.take = None

    def _fill(self, lane: _Lane, waiting: deque[int], sequences: Sequence[Sequence[int]], needs: Sequence[int]) -> None:
        """Give free places to waiting messages."""
        if lane.running and not self.forward.continuous:
            return
        room = self.forward.capacity - sum(needs[row] for row in lane.running)
        while waiting and lane.free and needs[waiting[0]] <= room:
            row = waiting.popleft()
            lane.running[row] = (lane.free.pop(), sequences[row])
            room -= needs[row]

    def _start(self, lane: _Lane, walk: Walk) -> None:
        """Start a forward pass of what the lane has."""
        if lane.running:
            lane.step = self._fitting(lane.running)
            lane.take = self.forward.extend([lane.running[row] for row in lane.step], walk.allowed(lane.step), lane.number)

    def _halve(self, walk: Walk, lanes: Sequence[_Lane], waiting: deque[int]) -> None:
        """Half the places from now on; what was under way begins again."""
        if self.forward.places == 1:
            raise
        self.forward.places //= 2
        logger.warning("%s: out of memory; %d messages together from now on", self.variant, self.forward.places)
        for lane in lanes:
            for place, _ in lane.running.values():
                self.forward.release(place, lane.number)
            if lane.running:
                walk.restart(np.asarray(list(lane.running)))
            waiting.extendleft(reversed(lane.running))

    def _fitting(self, running: dict[int, Feed]) -> list[int]:
        """The rows whose feeds go into one forward pass, oldest first."""
        rows, tokens = [], 0
        for row, (_, feed) in running.items():
            tokens += len(feed)
            if tokens > self.forward.max_tokens and rows:
                break
            rows.append(row)
        return rows


def _ahead(function: Callable, items: Sequence) -> Iterator:
    """`function` of each item, in order; the next one is under way while one is used."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(function, items[0]) if items else None
        for item in items[1:]:
            found, following = following.result(), pool.submit(function, item)
            yield found
        if following:
            yield following.result()
