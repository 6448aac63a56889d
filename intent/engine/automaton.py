"""Build the automaton of valid answers over an engine's own tokens.

The values of each slot form a trie of token sequences, and the tries of the slots follow one another. Only a node with two or
more children is a state. There the model decides by its logits restricted to the children, and the softmax over these is the
confidence. Tokens between states are forced and cost no forward pass of their own. There are three output formats:

- `json`: the paper's text, `{"action": "add", "product": "Whole Milk 1L", "quantity": 2}` and a newline.
- `compact`: the decisions alone. Forced tokens are left out. A product is the tokens of its name that distinguish it in this
  catalog. An answer costs one forward pass of one token per decision after the first.
- `entity_first`: like compact, but the product is decided first. One of its options is "nothing", which ends the answer, so
  that one decision chooses among the products and none.

If intents are lists, the automaton is a loop. The slot that is decided first has the end of the list among its options, so that
one decision chooses between the end and the beginnings of another item. After the maximum number of items, the list ends.

Knows token ids and schemas; knows nothing of models.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from intent.task.catalog import ascii_digits
from intent.task.schema import INTENTS, Entity, Intent, IntentSchema, Item, Value, items_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END = -1
UNDECIDED = -1
# The JSON text of the empty list, and the end of a list. The decision on the first item's beginning includes the empty list.
NOTHING, JSON_CLOSE = "none", "]}\n"

_Sequences = list[tuple[int, ...]]


@dataclass(frozen=True)
class Ended:
    """An option of the slot that is decided first. It ends the answer and gives the schema's first slot this value.

    None ends a list.
    """

    value: Value | None


class Target(NamedTuple):
    """The answer that a model is trained to give, as `tokens`, and the positions of its `decisions` among them.

    `states` and `choices`: for each decision, the automaton's state and the number of its edge.
    """

    tokens: list[int]
    decisions: list[int]
    states: list[int]
    choices: list[int]


class Automaton:
    """The states and edges, stored in compressed sparse rows. Each edge has a token, a feed and a next state.

    `head`: tokens that are forced before the first decision. An edge's feed is its token and the forced tokens after it.
    `longest`: the most tokens of an answer. `beyond`: of these, the tokens of the items after the first. `again`: the state
    after an item of a list, in which the next item begins or the list ends; None without lists. `nothing`: the edge of the
    first state that answers nothing, or UNDECIDED.
    """

    def __init__(self, schema: IntentSchema, catalog: Sequence[str], tokenizer: "Tokenizer", output_format: str):
        self.schema, self.output_format = schema, output_format
        self.order = _order(schema) if output_format == "entity_first" else list(range(len(schema.slots)))
        self.options = [_options(schema, i, slot.domain(catalog), self.order) for i, slot in enumerate(schema.slots)]
        self._slot: list[int] = []
        self._depth: list[int] = []
        self._sequences_at: list[_Sequences] = []
        self._edges: list[tuple[int, int]] = []
        self._token, self._next, self._value, self._feed = [], [], [], []
        self._sequences = [_sequences(schema, i, options, tokenizer, output_format) for i, options in enumerate(self.options)]
        self.again: int | None = None
        self._close: tuple[int, ...] = ()
        entry = self._add_slots(self.order, ((), END)) if schema.repeat == 1 else self._add_loop(tokenizer)
        head = _encode(tokenizer, [_json_head(schema)])[0] if output_format == "json" else ()
        self.head, self.start = [*head, *entry[0]], entry[1]
        self._tokens = np.asarray(self._token, np.int32)
        item = sum(self._longest(i) for i in self.order)
        self.beyond = (schema.repeat - 1) * item + len(self._close)
        self.longest = len(self.head) + item + self.beyond
        self.nothing = self._nothing()

    def _add_slots(self, order: Sequence[int], after: tuple[tuple, int]) -> tuple[tuple, int]:
        """Add the states of several slots, last slot first. Returns what `_add_slot` does for the first one."""
        for i in reversed(order):
            after = self._add_slot(i, self._sequences[i], after)
        return after

    def _add_loop(self, tokenizer: "Tokenizer") -> tuple[tuple, int]:
        """Add the states of an item as a loop. Returns what `_add_slot` does for its first slot."""
        first, *rest = self.order
        sequences = self._sequences[first]
        if self.output_format == "json":
            # A separator precedes every item but the first.
            sequences = _encode(tokenizer, _json_again(self.schema, self.options[0]))
            self._close = _encode(tokenizer, [JSON_CLOSE])[0]
        # The end of the list and the next item begin with different characters, so no token is forced here.
        self.again = self._add_state(first, 0, sequences)
        item = self._add_slots(rest, ((), self.again))
        self._add_slot(first, sequences, item, self.again)
        return self._add_slot(first, self._sequences[first], item) if self.output_format == "json" else ((), self.again)

    def _longest(self, slot: int) -> int:
        """Return the most tokens of the slot's options. Without forced tokens, these end at the last decision."""
        if self.output_format == "json":
            return max(len(each) for sequences in (self._sequences[slot], *self._begun(slot)) for each in sequences)
        return max((depth + 1 for depth, of in zip(self._depth, self._slot, strict=True) if of == slot), default=0)

    def _begun(self, slot: int) -> list["_Sequences"]:
        """Return the tokens of the slot's options where they begin another item of a list."""
        return [self._sequences_at[self.again]] if self.again is not None and self._slot[self.again] == slot else []

    def _nothing(self) -> int:
        """Return the edge of the first state that answers nothing at once, or UNDECIDED if there is none."""
        if self.start == END:
            return UNDECIDED
        slot, (first, stop) = self._slot[self.start], self._edges[self.start]
        for choice, value in enumerate(self._value[first:stop]):
            option = self.options[slot][value] if value != UNDECIDED else None
            if isinstance(option, Ended) or (option is not None and option in self.schema.slots[slot].ends):
                return choice
        return UNDECIDED

    def allowed(self, state: int) -> np.ndarray:
        """Return the token ids of a state's edges, int32."""
        first, stop = self._edges[state]
        return self._tokens[first:stop]

    def slot(self, state: int) -> int:
        """Return the index of the slot that a state decides."""
        return self._slot[state]

    def edge(self, state: int, choice: int) -> tuple[tuple[int, ...], int, int]:
        """Return (feed, next state or END, index of the slot's option or UNDECIDED) of the state's edge `choice`."""
        edge = self._edges[state][0] + choice
        return self._feed[edge], self._next[edge], self._value[edge]

    def intent(self, chosen: Sequence[int]) -> Intent:
        """Return the intent for option indexes by slot. A slot with a single option, which needs no decision, gets that option
        unless the answer ended before it.
        """
        first = self._option(chosen, self.order[0])
        if isinstance(first, Ended):
            return self.schema.intent([first.value])
        decided: list = []
        for i, slot in enumerate(self.schema.slots):
            decided.append(self._option(chosen, i))
            if decided[-1] in slot.ends:
                break
        return self.schema.intent(decided)

    def item(self, chosen: Sequence[int]) -> Item:
        """Return an item of a list for option indexes by slot."""
        return {name: self._option(chosen, i) for i, name in enumerate(self.schema.names)}

    def _option(self, chosen: "Sequence[int] | np.ndarray", slot: int) -> Any:
        return self.options[slot][0 if chosen[slot] == UNDECIDED else chosen[slot]]

    def credit(self, chosen: np.ndarray, confidences: np.ndarray) -> np.ndarray:
        """Return confidences by slot. If the first decision ends the answer, its confidence goes to the first slot."""
        first = self.order[0]
        if first != 0 and isinstance(self._option(chosen, first), Ended):
            confidences = confidences.copy()
            confidences[[0, first]] = confidences[first], 1.0
        return confidences

    def target(self, intent: Intent) -> Target:
        """Return the path to `intent`. Raises ValueError if the intent is not valid."""
        items = self._wanted(intent)
        tokens, decisions, states, choices = list(self.head), [], [], []
        state, item = self.start, 0
        while state != END:
            slot = self._slot[state]
            sequence = self._sequences_at[state][self.options[slot].index(items[item][slot])]
            value = UNDECIDED
            depth = self._depth[state]
            while value == UNDECIDED:
                decisions.append(len(tokens))
                states.append(state)
                choices.append(int(np.flatnonzero(self.allowed(state) == sequence[depth])[0]))
                feed, state, value = self.edge(state, choices[-1])
                tokens += feed
                depth = self._depth[state] if value == UNDECIDED else 0
            if state == self.again:
                item += 1
                if item == self.schema.repeat:
                    tokens += self._close
                    state = END
        return Target(tokens, decisions, states, choices)

    def _wanted(self, intent: Intent) -> list[list]:
        """Return the option of each slot, by item. A list's last entry is its end."""
        if self.schema.repeat > 1:
            items, ended = items_of(intent), [Ended(None)] * len(self.order)
            if len(items) > self.schema.repeat:
                raise ValueError(f"{len(items)} items: the schema {self.schema.name!r} has at most {self.schema.repeat}")
            return [*([item[name] for name in self.schema.names] for item in items), ended]
        values: list = self.schema.values(intent)
        if self.order[0] != 0 and len(values) == 1 < len(self.order):
            values = [Ended(values[0])] * len(self.order)
        return [values]

    def _add_slot(
        self, slot: int, sequences: "_Sequences", after: tuple[tuple, int], root: int | None = None
    ) -> tuple[tuple, int]:
        """Add a slot's states. Returns (tokens forced on entering the slot, its first state). `root`: that state, if known."""
        ends = self.schema.slots[slot].ends
        forced = self.output_format == "json"

        def leave(index: int) -> tuple[tuple, int]:
            option = self.options[slot][index]
            return ((), END) if isinstance(option, Ended) or option in ends else after

        if len(sequences) == 1:
            tail, following = leave(0)
            return ((*sequences[0], *tail) if forced else tail), following
        order = sorted(range(len(sequences)), key=sequences.__getitem__)
        ordered = [sequences[i] for i in order]
        first_depth = common_prefix(ordered[0], ordered[-1])
        root = self._add_state(slot, first_depth, sequences) if root is None else root
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
                    following = self._add_state(slot, end, sequences)
                    work.append((following, start, stop))
                self._token.append(sequence[depth])
                self._feed.append((*sequence[depth : end if forced else depth + 1], *tail))
                self._next.append(following)
                self._value.append(value)
            self._edges[state] = (first, len(self._token))
        return (ordered[0][:first_depth] if forced else ()), root

    def _add_state(self, slot: int, depth: int, sequences: "_Sequences") -> int:
        self._slot.append(slot)
        self._depth.append(depth)
        self._sequences_at.append(sequences)
        self._edges.append((0, 0))
        return len(self._slot) - 1


def answer_text(schema: IntentSchema, intent: Intent) -> str:
    """Return the answer in the format json, without its newline. An empty list becomes one item of `none`."""
    if schema.repeat > 1 and not items_of(intent):
        intent = {INTENTS: [{schema.names[0]: NOTHING}]}
    else:
        intent = schema.intent(schema.values(intent))
    return json.dumps(intent, ensure_ascii=False)


def _json_head(schema: IntentSchema) -> str:
    """Return the text that every answer begins with."""
    return (f'{{"{INTENTS}": [' if schema.repeat > 1 else "") + _json_key(schema, 0)


def _json_again(schema: IntentSchema, options: Sequence["Value | Ended"]) -> list[str]:
    """Return the texts of the first slot's options where another item may follow."""
    opening = f", {_json_key(schema, 0)}"
    return [
        JSON_CLOSE if isinstance(each, Ended) else opening + text
        for each, text in zip(options, _json(schema, 0, options), strict=True)
    ]


def _json_key(schema: IntentSchema, slot: int) -> str:
    return ("{" if slot == 0 else ", ") + json.dumps(schema.names[slot], ensure_ascii=False) + ":"


def _order(schema: IntentSchema) -> list[int]:
    """Return the slots in the order of decision. The first Entity precedes a first slot that can end the answer or the list."""
    slots = schema.slots
    if schema.repeat > 1:
        entity = next((i for i, slot in enumerate(slots) if isinstance(slot, Entity)), 0)
        return [entity, *(i for i in range(len(slots)) if i != entity)]
    entity = next((i for i, slot in enumerate(slots) if isinstance(slot, Entity)), 0)
    rest = [i for i in range(len(slots)) if i != entity]
    ends = slots[0].ends
    can_continue = entity and len(ends) < len(slots[0].domain(()))
    only = not any(slot.ends for slot in slots[1:])
    return [entity, *rest] if ends and can_continue and only else list(range(len(slots)))


def _options(schema: IntentSchema, i: int, domain: Sequence[Value], order: Sequence[int]) -> Sequence["Value | Ended"]:
    """Return the options of slot `i`. A slot that is decided before the first one also has the first slot's ending values."""
    if schema.repeat > 1:
        return [*domain, Ended(None)] if i == order[0] else domain
    if order[0] == 0 or i not in (0, order[0]):
        return domain
    ends = schema.slots[0].ends
    return [value for value in domain if value not in ends] if i == 0 else [*domain, *map(Ended, ends)]


def _sequences(
    schema: IntentSchema, i: int, options: Sequence["Value | Ended"], tokenizer: "Tokenizer", output_format: str
) -> list:
    """Return the tokens of each option of slot `i` and of the text that closes it. No option is a prefix of another.

    Names are spelled as in the prompt.
    """
    if isinstance(schema.slots[i], Entity):
        options = [ascii_digits(option) if isinstance(option, str) else option for option in options]
    if output_format != "json":
        return _prefix_free(_encode(tokenizer, [_text(option) for option in options]), _encode(tokenizer, ["\n"])[0])
    return _encode(tokenizer, _json(schema, i, options))


def _json(schema: IntentSchema, i: int, options: Sequence["Value | Ended"]) -> list[str]:
    """Return each option of slot `i` in the format json, with the text that closes it."""
    rest = [_json_key(schema, later) for later in range(i + 1, len(schema.slots))]
    close = "}" if schema.repeat > 1 else "}\n"
    closings = (rest[0] if rest else close, "".join(f"{key} null" for key in rest) + close)
    ends = schema.slots[i].ends
    nothing = NOTHING
    while nothing in options:
        nothing += NOTHING
    return [
        f' "{nothing}"}}{JSON_CLOSE}'
        if isinstance(value, Ended)
        else f" {json.dumps(value, ensure_ascii=False)}{closings[value in ends]}"
        for value in options
    ]


def _text(option: "Value | Ended") -> str:
    return f"\n{option.value or ''}" if isinstance(option, Ended) else f" {option}"


def _encode(tokenizer: "Tokenizer", texts: list[str]) -> list[tuple[int, ...]]:
    return [tuple(entry.ids) for entry in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _prefix_free(sequences: list[tuple[int, ...]], stop: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Append `stop` to each of `sequences` that is a prefix of another."""
    ordered = sorted(sequences)
    begins = {a for a, b in itertools.pairwise(ordered) if b[: len(a)] == a}
    return [sequence + stop if sequence in begins else sequence for sequence in sequences]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common prefix of `a` and `b`."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def _runs(ordered: list[tuple[int, ...]], low: int, high: int, depth: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges within [low, high) of sequences that share their token at `depth`."""
    start = low
    for i in range(low + 1, high + 1):
        if i == high or ordered[i][depth] != ordered[start][depth]:
            yield start, i
            start = i
