"""The automaton of valid answers over an engine's own tokens, and the walk of many messages through it.

Each slot's values form a trie of token sequences; the slots' tries follow one another. Only a node with two or more
children is a state: there the model decides, by its logits restricted to the children, and the softmax over just those
is the confidence. Tokens between states are forced and cost no forward pass of their own. Three codecs write an answer:

- `json`: the paper's text, `{"action": "add", "product": "Whole Milk 1L", "quantity": 2}` and a newline.
- `compact`: the decisions alone. Every forced token is left out, so the product is as many tokens of its name as tell
  it apart in this catalog, and an answer costs one forward pass of one token per further decision.
- `pointing`: as compact, but what the message points at is decided first, with "nothing", which ends the answer, among its
  options: whether any product fits is asked together with which one.

Knows token ids and schemas; knows nothing of models.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from intent.engine import Prediction, Status
from intent.schema import Entity, Intent, IntentSchema, Value

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END = -1
UNDECIDED = -1

# Rows and token ids to the float32 logits of their cross product, shape [rows, tokens].
Take = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Ended:
    """Among the options of the slot that is decided first: the first slot has this value, which ends the answer."""

    value: Value


class Target(NamedTuple):
    """What a model is trained to answer: `tokens`, and which of them are `decisions` (positions).

    `states` and `choices`: of each decision, the automaton's state and which of its edges is taken.
    """

    tokens: list[int]
    decisions: list[int]
    states: list[int]
    choices: list[int]


class Automaton:
    """States in compressed sparse rows: the edges of state s are `edges(s)`, with a token, a feed and a next state each.

    `head` is forced before the first decision. An edge's feed is its token and what is forced behind it. No answer has more
    than `longest` tokens.
    """

    def __init__(self, schema: IntentSchema, catalog: Sequence[str], tokenizer: "Tokenizer", codec: str):
        self.schema, self.codec = schema, codec
        self.order = _order(schema) if codec == "pointing" else list(range(len(schema.slots)))
        self.options = [_options(schema, i, slot.domain(catalog), self.order) for i, slot in enumerate(schema.slots)]
        self._slot: list[int] = []
        self._depth: list[int] = []
        self._edges: list[tuple[int, int]] = []
        self._token, self._next, self._value, self._feed = [], [], [], []
        self._sequences = [_sequences(schema, i, options, tokenizer, codec) for i, options in enumerate(self.options)]
        entry = ((), END)
        for i in reversed(self.order):
            entry = self._add_slot(i, self._sequences[i], entry)
        head = _encode(tokenizer, [_json_key(schema, 0)])[0] if codec == "json" else ()
        self.head, self.start = [*head, *entry[0]], entry[1]
        self._tokens = np.asarray(self._token, np.int32)
        self.longest = len(self.head) + sum(self._longest(i) for i in self.order)

    def _longest(self, slot: int) -> int:
        """Of the slot's options: whole where forced tokens are written too, else as far as decisions go."""
        if self.codec == "json":
            return max(map(len, self._sequences[slot]))
        return max((depth + 1 for depth, of in zip(self._depth, self._slot, strict=True) if of == slot), default=0)

    def allowed(self, state: int) -> np.ndarray:
        """Token ids of a state's edges, int32."""
        first, stop = self._edges[state]
        return self._tokens[first:stop]

    def slot(self, state: int) -> int:
        return self._slot[state]

    def edge(self, state: int, choice: int) -> tuple[tuple[int, ...], int, int]:
        """(feed, next state or END, index of the slot's option or UNDECIDED) of the state's edge number `choice`."""
        edge = self._edges[state][0] + choice
        return self._feed[edge], self._next[edge], self._value[edge]

    def intent(self, chosen: Sequence[int]) -> Intent:
        """The intent of option indexes by slot; a slot that had only one option has it where it was reached."""
        first = self._option(chosen, self.order[0])
        if isinstance(first, Ended):
            return self.schema.intent([first.value])
        decided: list[Value] = []
        for i, slot in enumerate(self.schema.slots):
            decided.append(self._option(chosen, i))
            if decided[-1] in slot.ends:
                break
        return self.schema.intent(decided)

    def _option(self, chosen: Sequence[int], slot: int) -> "Value | Ended":
        return self.options[slot][0 if chosen[slot] == UNDECIDED else chosen[slot]]

    def credit(self, chosen: np.ndarray, confidences: np.ndarray) -> np.ndarray:
        """Confidences by slot: that of an answer which ends at its first decision is the first slot's."""
        first = self.order[0]
        if first != 0 and isinstance(self._option(chosen, first), Ended):
            confidences = confidences.copy()
            confidences[[0, first]] = confidences[first], 1.0
        return confidences

    def target(self, intent: Intent) -> Target:
        """The path to `intent`. Raises ValueError where it is not valid."""
        values: list = self.schema.values(intent)
        if self.order[0] != 0 and len(values) == 1 < len(self.order):
            values = [Ended(values[0])] * len(self.order)
        tokens, decisions, states, choices = list(self.head), [], [], []
        state = self.start
        while state != END:
            slot = self._slot[state]
            sequence = self._sequences[slot][self.options[slot].index(values[slot])]
            value = UNDECIDED
            depth = self._depth[state]
            while value == UNDECIDED:
                decisions.append(len(tokens))
                states.append(state)
                choices.append(int(np.flatnonzero(self.allowed(state) == sequence[depth])[0]))
                feed, state, value = self.edge(state, choices[-1])
                tokens += feed
                depth = self._depth[state] if value == UNDECIDED else 0
        return Target(tokens, decisions, states, choices)

    def _add_slot(self, slot: int, sequences: list[tuple[int, ...]], after: tuple[tuple, int]) -> tuple[tuple, int]:
        """Adds a slot's states; returns (tokens forced on entering the slot, its first state)."""
        ends = self.schema.slots[slot].ends
        forced = self.codec == "json"

        def leave(index: int) -> tuple[tuple, int]:
            option = self.options[slot][index]
            return ((), END) if isinstance(option, Ended) or option in ends else after

        if len(sequences) == 1:
            tail, following = leave(0)
            return ((*sequences[0], *tail) if forced else tail), following
        order = sorted(range(len(sequences)), key=sequences.__getitem__)
        ordered = [sequences[i] for i in order]
        first_depth = common_prefix(ordered[0], ordered[-1])
        root = self._add_state(slot, first_depth)
        work = [(root, 0, len(ordered))]
        while work:
            state, low, high = work.pop()
            depth = self._depth[state]
            first = len(self._token)
            for start, stop in _runs(ordered, low, high, depth):
                sequence = ordered[start]
                if stop - start == 1:
                    tail, following = leave(order[start])
                    end, value = len(sequence), order[start]
                else:
                    end, tail, value = common_prefix(sequence, ordered[stop - 1]), (), UNDECIDED
                    following = self._add_state(slot, end)
                    work.append((following, start, stop))
                self._token.append(sequence[depth])
                self._feed.append((*sequence[depth : end if forced else depth + 1], *tail))
                self._next.append(following)
                self._value.append(value)
            self._edges[state] = (first, len(self._token))
        return (ordered[0][:first_depth] if forced else ()), root

    def _add_state(self, slot: int, depth: int) -> int:
        self._slot.append(slot)
        self._depth.append(depth)
        self._edges.append((0, 0))
        return len(self._slot) - 1


@dataclass
class Walk:
    """`n` messages on their way through an automaton. `temperatures`: by slot, what its logits are divided by; () is 1."""

    automaton: Automaton
    n: int
    temperatures: Sequence[float] = ()
    states: np.ndarray = field(init=False)
    values: np.ndarray = field(init=False)
    confidences: np.ndarray = field(init=False)

    def __post_init__(self):
        slots = len(self.automaton.options)
        self.states = np.full(self.n, self.automaton.start, np.int32)
        self.values = np.full((self.n, slots), UNDECIDED, np.int32)
        self.confidences = np.ones((self.n, slots), np.float64)

    def allowed(self, rows: Sequence[int]) -> np.ndarray:
        """Return the token ids that some of `rows` is allowed next, in order."""
        states = np.unique(self.states[np.asarray(rows)])
        return np.unique(np.concatenate([self.automaton.allowed(state) for state in states]))

    def advance(self, rows: np.ndarray, take: Take) -> list[tuple[int, ...]]:
        """Decide once for each of `rows` by the logits that `take` gives of them, in their order.

        Returns what each row must be fed next; () where its answer is complete.
        """
        feeds: list[tuple[int, ...]] = [()] * len(rows)
        states = self.states[rows]
        for state in np.unique(states):
            among = np.flatnonzero(states == state)
            slot = self.automaton.slot(state)
            logits = take(among, self.automaton.allowed(state))
            choices, chances = decide(logits / self.temperatures[slot] if self.temperatures else logits)
            for at, choice, chance in zip(among.tolist(), choices.tolist(), chances.tolist(), strict=True):
                row = rows[at]
                feed, following, value = self.automaton.edge(state, choice)
                self.states[row] = following
                self.confidences[row, slot] *= chance
                if value != UNDECIDED:
                    self.values[row, slot] = value
                if following != END:
                    feeds[at] = feed
        return feeds

    def restart(self, rows: np.ndarray) -> None:
        """Take back every decision of `rows`."""
        self.states[rows] = self.automaton.start
        self.values[rows] = UNDECIDED
        self.confidences[rows] = 1.0

    def prediction(self, row: int, abstain_below: float = 0.0) -> Prediction:
        """The prediction of a message whose answer is complete."""
        intent = self.automaton.intent(self.values[row].tolist())
        slots = tuple(self.automaton.credit(self.values[row], self.confidences[row]).tolist())
        confidence = float(np.prod(slots))
        if confidence < abstain_below:
            nothing = dict.fromkeys(intent)
            return Prediction(nothing, confidence, slots, Status.ABSTAINED)
        return Prediction(intent, confidence, slots)


def decide(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best choice of each row of logits [rows, choices] and its probability among the choices."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return weights.argmax(axis=1), 1.0 / weights.sum(axis=1)


def answer_text(schema: IntentSchema, intent: Intent) -> str:
    """The json codec's text, without its newline."""
    return json.dumps(schema.intent(schema.values(intent)), ensure_ascii=False)


def _json_key(schema: IntentSchema, slot: int) -> str:
    return ("{" if slot == 0 else ", ") + json.dumps(schema.names[slot], ensure_ascii=False) + ":"


def _order(schema: IntentSchema) -> list[int]:
    """The slots as they are decided: the first Entity before a first slot whose values can end the answer."""
    slots = schema.slots
    entity = next((i for i, slot in enumerate(slots) if isinstance(slot, Entity)), 0)
    rest = [i for i in range(len(slots)) if i != entity]
    ends = slots[0].ends
    goes_on = entity and len(ends) < len(slots[0].domain(()))
    only = not any(slot.ends for slot in slots[1:])
    return [entity, *rest] if ends and goes_on and only else list(range(len(slots)))


def _options(schema: IntentSchema, i: int, domain: Sequence[Value], order: Sequence[int]) -> Sequence["Value | Ended"]:
    """What slot `i` is decided among. Where another slot comes before the first, the first slot's endings are its options."""
    if order[0] == 0 or i not in (0, order[0]):
        return domain
    ends = schema.slots[0].ends
    return [value for value in domain if value not in ends] if i == 0 else [*domain, *map(Ended, ends)]


def _sequences(schema: IntentSchema, i: int, options: Sequence["Value | Ended"], tokenizer: "Tokenizer", codec: str) -> list:
    """The tokens of each option of slot `i`, with what closes it; none is the beginning of another."""
    if codec != "json":
        return _prefix_free(_encode(tokenizer, [_said(option) for option in options]), _encode(tokenizer, ["\n"])[0])
    rest = [_json_key(schema, later) for later in range(i + 1, len(schema.slots))]
    closings = (f"{rest[0]}" if rest else "}\n", "".join(f"{key} null" for key in rest) + "}\n")
    ends = schema.slots[i].ends
    return _encode(tokenizer, [f" {json.dumps(value, ensure_ascii=False)}{closings[value in ends]}" for value in options])


def _said(option: "Value | Ended") -> str:
    return f"\n{option.value}" if isinstance(option, Ended) else f" {option}"


def _encode(tokenizer: "Tokenizer", texts: list[str]) -> list[tuple[int, ...]]:
    return [tuple(entry.ids) for entry in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _prefix_free(sequences: list[tuple[int, ...]], stop: tuple[int, ...]) -> list[tuple[int, ...]]:
    """`sequences` with `stop` behind each that begins another."""
    ordered = sorted(sequences)
    begins = {a for a, b in itertools.pairwise(ordered) if b[: len(a)] == a}
    return [sequence + stop if sequence in begins else sequence for sequence in sequences]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens `a` and `b` begin with alike."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def _runs(ordered: list[tuple[int, ...]], low: int, high: int, depth: int) -> Iterator[tuple[int, int]]:
    """The ranges within [low, high) of sequences that share their token at `depth`."""
    start = low
    for i in range(low + 1, high + 1):
        if i == high or ordered[i][depth] != ordered[start][depth]:
            yield start, i
            start = i
