"""Run many messages through one model: the scheduling that every engine shares.

An engine supplies `Forward`: it holds the prompt's prefix in its cache once, extends sequences behind it by some tokens
each, and gives logits for the last token of each. Messages that begin alike, or are of like length, run together. A waiting
message takes the place of a finished one at once, so that a pass has new messages beside answers under way.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from intent.engine import Prediction, Status
from intent.engine.automaton import END, Automaton
from intent.engine.decode import Take, Walk
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
    `usual`: so many tokens a sequence has in nearly all cases; longer ones come apart. `max_tokens`: the most one `extend`
    takes. `shares`: what neighbours begin with alike is computed once. `computed`: tokens so far, prefixes apart.
    """

    lanes: int
    places: int
    room: int
    usual: int
    capacity: int
    max_tokens: int
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

    def arrange(self, room: int) -> None:
        """Give every place so much room from now on, which may change how many there are; no sequence is under way."""

    def halve(self) -> None:
        """Take half as many sequences, and tokens a pass, from now on; no sequence is under way."""

    def release(self, place: int, lane: int = 0) -> None:
        """Forget a place's sequence."""

    def close(self) -> None:
        """Free what the garbage collector does not."""


@dataclass
class _Lane:
    """What is under way in one lane.

    free: places that no sequence has. running: by row, its place and next feed. sequences: by row, all that it is asked.
    step, take: the rows of the pass that was started, and what it gives.
    """

    number: int
    free: list[int]
    running: dict[int, Feed] = field(default_factory=dict)
    sequences: dict[int, Sequence[int]] = field(default_factory=dict)
    step: Sequence[int] = ()
    take: Take | None = None


class _Waiting:
    """Rows with their sequences, taken from the front; what was taken can be put back."""

    def __init__(self, rows: Iterator[tuple[int, Sequence[int]]]):
        self.rows, self.ahead = rows, deque()

    def first(self) -> tuple[int, Sequence[int]] | None:
        """The next one, which stays; None where there is none."""
        if not self.ahead and (row := next(self.rows, None)):
            self.ahead.append(row)
        return self.ahead[0] if self.ahead else None

    def take(self) -> tuple[int, Sequence[int]]:
        return self.ahead.popleft()

    def put_back(self, rows: Mapping[int, Sequence[int]]) -> None:
        self.ahead.extendleft(reversed(list(rows.items())))


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
        tokenised = _ahead(lambda piece: self.prompt.message_ids(self.tokenizer, [messages[i] for i in piece]), pieces)
        limit = min(self.max_message_tokens, self.forward.room - self.automaton.longest)
        predictions: list[Prediction | None] = [None] * len(messages)
        long: list[tuple[int, Sequence[int]]] = []

        def usual() -> Iterator[tuple[int, Sequence[int]]]:
            """Sequences to decode, alike ones together. Rejects what it meets that has none, and lays aside the long."""
            for piece, sequences in zip(pieces, tokenised, strict=True):
                for i, sequence in sorted(zip(piece, sequences, strict=True), key=self._alike):
                    predictions[i] = self._refusal(sequence, limit)
                    if predictions[i] is None:
                        asked = [*sequence, *self.automaton.head]
                        if self._need(asked) <= self.forward.usual:
                            yield i, asked
                        else:
                            long.append((i, asked))

        walk = self.walk(self.automaton, range(len(messages)))
        self._decode(walk, usual())
        if long:
            self.forward.arrange(self.forward.room)
            self._decode(walk, iter(long))
            self.forward.arrange(self.forward.usual)
        found = [refused or walk.prediction(i, self.abstain_below) for i, refused in enumerate(predictions)]
        return [replace(prediction, message=message) for prediction, message in zip(found, messages, strict=True)]

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

    def _alike(self, row: tuple[int, Any]) -> Any:
        """Where beginnings are shared, alike ones are neighbours; elsewhere like lengths are."""
        return row[1] if self.forward.shares else len(row[1])

    def _need(self, sequence: Sequence[int]) -> int:
        """How much room a sequence and its answer need."""
        return len(sequence) + self.automaton.longest - len(self.automaton.head)

    def _decode(self, walk: Walk, rows: Iterator[tuple[int, Sequence[int]]]) -> None:
        waiting, lanes = _Waiting(rows), self._lanes()
        while waiting.first() or any(lane.running for lane in lanes):
            if self.automaton.start == END:
                # Nothing is decided: a message is only accepted or refused.
                waiting.take()
                continue
            try:
                for lane in lanes:
                    self._read(lane, walk)
                    self._fill(lane, waiting)
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
                del lane.running[row], lane.sequences[row]
                self.forward.release(place, lane.number)
                lane.free.append(place)
                self.answered += 1
        lane.take = None

    def _fill(self, lane: _Lane, waiting: _Waiting) -> None:
        """Give free places to waiting messages, as many as the next pass has room for."""
        room = self.forward.capacity - sum(map(self._need, lane.sequences.values()))
        tokens = self.forward.max_tokens - sum(len(feed) for _, feed in lane.running.values())
        while lane.free and (found := waiting.first()):
            sequence = found[1]
            if self._need(sequence) > room or (len(sequence) > tokens and lane.running):
                break
            row, _ = waiting.take()
            lane.running[row], lane.sequences[row] = (lane.free.pop(), sequence), sequence
            room, tokens = room - self._need(sequence), tokens - len(sequence)

    def _start(self, lane: _Lane, walk: Walk) -> None:
        """Start a forward pass of what the lane has."""
        if lane.running:
            lane.step = self._fitting(lane.running)
            lane.take = self.forward.extend([lane.running[row] for row in lane.step], walk.allowed(lane.step), lane.number)

    def _halve(self, walk: Walk, lanes: Sequence[_Lane], waiting: _Waiting) -> None:
        """Half the places from now on; what was under way begins again."""
        if self.forward.places == 1:
            raise
        self.forward.halve()
        logger.warning("%s: out of memory; %d messages together from now on", self.variant, self.forward.places)
        for lane in lanes:
            if lane.running:
                walk.restart(np.asarray(list(lane.running)))
            waiting.put_back(lane.sequences)

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
        if not items:
            return
        following = pool.submit(function, items[0])
        for item in items[1:]:
            found, following = following.result(), pool.submit(function, item)
            yield found
        yield following.result()
