"""Schedule many messages through one model. Every engine shares this scheduler.

An engine supplies `Forward`. It keeps the prompt's prefix in its cache once, appends tokens to sequences behind it, and returns
the logits after the last token of each. Messages that begin alike, or have similar lengths, run together. A waiting message
takes the slot of a finished one at once (continuous batching), so a pass mixes new messages with answers in progress.
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
from intent.task.prompt import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Feed = tuple[int, Sequence[int]]
# The number of messages that are tokenized at once.
CHUNK = 4096

logger = logging.getLogger(__name__)


class Forward(Protocol):
    """A forward pass of many sequences behind one prefix.

    `max_num_seqs`: the sequences of a lane. `max_seq_len`: the most tokens of a sequence, without the prefix. `capacity`: the
    most tokens of all sequences. `lanes`: the number of independent sets of sequences; one is computed while another's answers
    are read. `usual`: the token limit of nearly all sequences; longer ones run separately. `max_tokens`: the most that one
    `extend` accepts. `shares`: neighbors that begin alike compute their beginning once. `computed`: tokens so far, without
    prefixes.
    """

    lanes: int
    max_num_seqs: int
    max_seq_len: int
    usual: int
    capacity: int
    max_tokens: int
    shares: bool
    computed: int

    def extend(self, feeds: Sequence[Feed], tokens: np.ndarray, lane: int = 0) -> Take:
        """Append tokens to some sequences of a lane, each named by its slot. Returns the logits after the last token of each.

        `tokens`: sorted ids whose logits may be requested. The result is valid until the lane's next call. It may start the
        computation without waiting, and wait when it is read. Raises MemoryError if memory runs out; then all sequences of all
        lanes are lost.
        """

    def begin(self, prefix: Sequence[int]) -> None:
        """Replace the prefix. No sequence may be in progress."""

    def resize(self, max_seq_len: int) -> None:
        """Set the limit of a sequence's tokens, which may change `max_num_seqs`. No sequence may be in progress."""

    def halve(self) -> None:
        """Halve the number of sequences and the tokens of a pass. No sequence may be in progress."""

    def release(self, slot: int, lane: int = 0) -> None:
        """Drop the sequence of a slot."""

    def close(self) -> None:
        """Free memory that the garbage collector does not."""


@dataclass
class _Lane:
    """The work in progress of one lane.

    free: slots without a sequence. running: slot and next feed of each row. sequences: all tokens of each row. step, take: the
    rows of the pass that was started, and its result.
    """

    number: int
    free: list[int]
    running: dict[int, Feed] = field(default_factory=dict)
    sequences: dict[int, Sequence[int]] = field(default_factory=dict)
    step: Sequence[int] = ()
    take: Take | None = None


class _Waiting:
    """A queue of rows with their sequences. Rows that were taken can be put back."""

    def __init__(self, rows: Iterator[tuple[int, Sequence[int]]]):
        self.rows, self.ahead = rows, deque()

    def first(self) -> tuple[int, Sequence[int]] | None:
        """Return the next row without taking it; None if there is none."""
        if not self.ahead and (row := next(self.rows, None)):
            self.ahead.append(row)
        return self.ahead[0] if self.ahead else None

    def take(self) -> tuple[int, Sequence[int]]:
        return self.ahead.popleft()

    def put_back(self, rows: Mapping[int, Sequence[int]]) -> None:
        self.ahead.extendleft(reversed(list(rows.items())))


@dataclass
class BatchClassifier:
    """A `Classifier` on top of a `Forward`. Rejects messages longer than `max_message_tokens`.

    `walk`: creates the walk through the automaton for the messages with these numbers in a call. `answered`: the number of
    messages answered so far.
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
        # Sort so that similar messages share a chunk. The next chunk is tokenized while one is decoded.
        order = sorted(range(len(messages)), key=messages.__getitem__ if self.forward.shares else lambda i: len(messages[i]))
        chunks = [order[at : at + CHUNK] for at in range(0, len(order), CHUNK)]
        tokenized = _ahead(lambda chunk: self.prompt.message_ids(self.tokenizer, [messages[i] for i in chunk]), chunks)
        limit = min(self.max_message_tokens, self.forward.max_seq_len - self.automaton.longest)
        predictions: list[Prediction | None] = [None] * len(messages)
        long: list[tuple[int, Sequence[int]]] = []

        def usual() -> Iterator[tuple[int, Sequence[int]]]:
            """Yield sequences to decode, similar ones together. Rejects empty and overlong messages, and defers long ones."""
            for chunk, sequences in zip(chunks, tokenized, strict=True):
                for i, sequence in sorted(zip(chunk, sequences, strict=True), key=self._alike):
                    predictions[i] = self._refusal(sequence, limit)
                    if predictions[i] is None:
                        request = [*sequence, *self.automaton.head]
                        if self._need(request) <= self.forward.usual:
                            yield i, request
                        else:
                            long.append((i, request))

        walk = self.walk(self.automaton, range(len(messages)))
        self._decode(walk, usual())
        if long:
            self.forward.resize(self.forward.max_seq_len)
            self._decode(walk, iter(long))
            self.forward.resize(self.forward.usual)
        answers = [refused or walk.prediction(i, self.abstain_below) for i, refused in enumerate(predictions)]
        return [replace(prediction, message=message) for prediction, message in zip(answers, messages, strict=True)]

    @property
    def tokens_computed(self) -> int:
        """Return the tokens computed so far, without prefixes."""
        return self.forward.computed

    def ask(self, prompt: Prompt) -> None:
        """Replace the prompt and the automaton by those of `prompt`."""
        if prompt != self.prompt:
            self.forward.begin(prompt.prefix_ids(self.tokenizer))
            self.automaton = Automaton(prompt.schema, prompt.catalog, self.tokenizer, self.automaton.output_format)
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
        """Return the sort key of a row: its tokens if the engine shares beginnings, else its length."""
        return row[1] if self.forward.shares else len(row[1])

    def _need(self, sequence: Sequence[int]) -> int:
        """Return the tokens that a sequence and its answer need."""
        return len(sequence) + self.automaton.longest - len(self.automaton.head)

    def _decode(self, walk: Walk, rows: Iterator[tuple[int, Sequence[int]]]) -> None:
        waiting, lanes = _Waiting(rows), self._lanes()
        while waiting.first() or any(lane.running for lane in lanes):
            if self.automaton.start == END:
                # There is nothing to decide: a message is only accepted or refused.
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
        return [_Lane(number, list(range(self.forward.max_num_seqs))) for number in range(self.forward.lanes)]

    def _read(self, lane: _Lane, walk: Walk) -> None:
        """Wait for the lane's pass, decide by its logits, and free the slots of complete answers."""
        if lane.take is None:
            return
        for row, feed in zip(lane.step, walk.advance(np.asarray(lane.step), lane.take), strict=True):
            slot = lane.running[row][0]
            if feed:
                lane.running[row] = (slot, feed)
            else:
                del lane.running[row], lane.sequences[row]
                self.forward.release(slot, lane.number)
                lane.free.append(slot)
                self.answered += 1
        lane.take = None

    def _fill(self, lane: _Lane, waiting: _Waiting) -> None:
        """Give free slots to as many waiting messages as fit into the next pass."""
        capacity = self.forward.capacity - sum(map(self._need, lane.sequences.values()))
        tokens = self.forward.max_tokens - sum(len(feed) for _, feed in lane.running.values())
        while lane.free and (first := waiting.first()):
            sequence = first[1]
            if self._need(sequence) > capacity or (len(sequence) > tokens and lane.running):
                break
            row, _ = waiting.take()
            lane.running[row], lane.sequences[row] = (lane.free.pop(), sequence), sequence
            capacity, tokens = capacity - self._need(sequence), tokens - len(sequence)

    def _start(self, lane: _Lane, walk: Walk) -> None:
        """Start a forward pass for the lane."""
        if lane.running:
            lane.step = self._fitting(lane.running)
            lane.take = self.forward.extend([lane.running[row] for row in lane.step], walk.allowed(lane.step), lane.number)

    def _halve(self, walk: Walk, lanes: Sequence[_Lane], waiting: _Waiting) -> None:
        """Halve the number of sequences after a MemoryError, and restart those in progress. Raises it if there is only one."""
        if self.forward.max_num_seqs == 1:
            raise
        self.forward.halve()
        logger.warning("%s: out of memory; %d messages together from now on", self.variant, self.forward.max_num_seqs)
        for lane in lanes:
            if lane.running:
                walk.restart(np.asarray(list(lane.running)))
            waiting.put_back(lane.sequences)

    def _fitting(self, running: dict[int, Feed]) -> list[int]:
        """Return the rows whose feeds go into one forward pass, oldest first."""
        rows, tokens = [], 0
        for row, (_, feed) in running.items():
            tokens += len(feed)
            if tokens > self.forward.max_tokens and rows:
                break
            rows.append(row)
        return rows


def _ahead(function: Callable, items: Sequence) -> Iterator:
    """Yield `function` of each item, in order, and compute the next result while the caller uses one."""
    with ThreadPoolExecutor(1) as pool:
        if not items:
            return
        following = pool.submit(function, items[0])
        for item in items[1:]:
            result, following = following.result(), pool.submit(function, item)
            yield result
        yield following.result()
