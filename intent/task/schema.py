"""Define the meanings of a message: slots, schemas, and the forms derived from them.

Pure: knows nothing of prompts, tokens, models or storage.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from intent.errors import ConfigError

# The only key of an intent that is a list, and the name of its column.
INTENTS = "intents"
CONFIDENCE = "confidence"
# The value for a message that no other value of the schema fits.
NONE = "none"
# Columns of labelled and rejected rows, and of examples, beside those of the slots.
RESERVED = ("id", "message", CONFIDENCE, "status", "variant", "reason", INTENTS)
# An item's number and confidence, if every item has its own row.
ITEM, ITEM_CONFIDENCE = "item", "item_confidence"
# More items than this would not fit into a message.
MOST_ITEMS = 32

Value = str | int
Item = dict[str, Value | None]
# In a schema of lists, an intent is {INTENTS: [item, ...]}, in the order of the message.
Intent = Item | dict[str, list[Item]]


@dataclass(frozen=True)
class Choice:
    """One of a fixed set of strings. A value in `ends` completes the intent, and the slots after it are null."""

    name: str
    values: tuple[str, ...]
    ends: tuple[str, ...] = ()

    def __post_init__(self):
        _require_unique(f"schema.slots.{self.name}.values", self.values)
        for value in self.ends:
            if value not in self.values:
                raise ConfigError(f"schema.slots.{self.name}.ends", value, f"use one of {list(self.values)}")

    def domain(self, catalog: Sequence[str]) -> Sequence[Value]:
        """Return the slot's values."""
        return self.values


@dataclass(frozen=True)
class Entity:
    """A product of the catalog, by name."""

    name: str
    ends: tuple[str, ...] = ()

    def domain(self, catalog: Sequence[str]) -> Sequence[Value]:
        """Return the slot's values: the names of `catalog`."""
        return catalog


@dataclass(frozen=True)
class Count:
    """A whole number from `min` to `max`, both included. `default`: the number if the message states none."""

    name: str
    min: int = 1
    max: int = 99
    default: int = 1
    ends: tuple[str, ...] = ()

    def __post_init__(self):
        if not 0 <= self.min <= self.default <= self.max:
            raise ConfigError(
                f"schema.slots.{self.name}.default", self.default, f"keep 0 <= min {self.min} <= default <= max {self.max}"
            )

    def domain(self, catalog: Sequence[str]) -> Sequence[Value]:
        """Return the slot's values."""
        return range(self.min, self.max + 1)


Slot = Choice | Entity | Count


def _slot(fields: Mapping) -> Slot:
    """Return the slot from its `asdict`, which may have passed through JSON."""
    named: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return (Choice if "values" in named else Count if "min" in named else Entity)(**named)


@dataclass(frozen=True)
class IntentSchema:
    """An ordered list of slots, with the instruction that explains them to a model.

    `repeat`: if 1, a message has one item, with a value for each slot. If more, it has a list of up to that many items,
    `{"intents": [item, ...]}`, which is empty if the message asks for nothing.
    """

    name: str
    instruction: str
    slots: tuple[Slot, ...]
    repeat: int = 1

    def __post_init__(self):
        _require_unique("schema.slots", [slot.name for slot in self.slots])
        reserved = (*RESERVED, ITEM, ITEM_CONFIDENCE) if self.repeat > 1 else RESERVED
        for name in self.names:
            if name in reserved:
                raise ConfigError(
                    "schema.slots", name, f"is a reserved column of the output; use a name that is not in {reserved}"
                )
        if not 1 <= self.repeat <= MOST_ITEMS:
            raise ConfigError("schema.repeat", self.repeat, f"use 1 for one intent a message, or up to {MOST_ITEMS} for a list")
        for slot in self.slots:
            if self.repeat > 1 and slot.ends:
                remedy = "must be empty if schema.repeat is over 1, because the empty list means that nothing is asked for"
                raise ConfigError(f"schema.slots.{slot.name}.ends", list(slot.ends), remedy)

    @property
    def names(self) -> list[str]:
        """Return the names of the slots, in order."""
        return [slot.name for slot in self.slots]

    @cached_property
    def uses_catalog(self) -> bool:
        """Return whether a slot holds a product of the catalog."""
        return any(isinstance(slot, Entity) for slot in self.slots)

    @cached_property
    def entity(self) -> str | None:
        """Return the name of the first slot that holds a product of the catalog, or None."""
        return next((slot.name for slot in self.slots if isinstance(slot, Entity)), None)

    @cached_property
    def nothing(self) -> tuple[str, ...]:
        """Return the values of the first slot that mean that no other fits: `none` or, without it, the values in `ends`."""
        first = self.slots[0]
        if not isinstance(first, Choice):
            return ()
        return (NONE,) if NONE in first.values else first.ends

    @classmethod
    def of(cls, identity: Mapping) -> "IntentSchema":
        """Return the schema with this `identity`."""
        slots = tuple(_slot(fields) for fields in identity["slots"])
        return cls(identity["name"], identity["instruction"], slots, identity.get("repeat", 1))

    def identity(self) -> dict:
        """Return the fields that distinguish the schema. Omits a `repeat` of 1, so that older fingerprints stay valid."""
        fields = asdict(self)
        if self.repeat == 1:
            del fields["repeat"]
        return fields

    def intent(self, values: Sequence[Value | None]) -> Intent:
        """Return the intent for the slots' values, item by item. Slots after an ending value are null."""
        if self.repeat == 1:
            return self._item(values)
        width = len(self.slots)
        return {INTENTS: [self._item(values[at : at + width]) for at in range(0, len(values), width)]}

    def _item(self, values: Sequence[Value | None]) -> Item:
        return dict(zip(self.names, list(values) + [None] * (len(self.slots) - len(values)), strict=True))

    def values(self, intent: Intent) -> list[Value]:
        """Return the values of all items, each up to and including an ending one. This is the inverse of `intent`."""
        return [value for item in items_of(intent) for value in self._values(item)]

    def _values(self, item: Item) -> list[Value]:
        values: list[Value] = []
        for slot in self.slots:
            value = item[slot.name]
            if value is None:
                break
            values.append(value)
            if value in slot.ends:
                break
        return values

    def check(self, intent: Mapping, catalog: Sequence[str] = ()) -> Intent:
        """Return `intent` with exactly the schema's slots, in order. Merges items that differ only in their counts.

        Raises ValueError, naming the slot, if the intent is invalid.
        """
        if self.repeat == 1:
            return self._check_item(intent, catalog)
        if set(intent) != {INTENTS} or not isinstance(intent[INTENTS], list | tuple):
            raise ValueError(f'the schema {self.name!r} has lists: give {{"{INTENTS}": [...]}}')
        if len(intent[INTENTS]) > self.repeat:
            raise ValueError(f"{INTENTS}: has {len(intent[INTENTS])} items; the schema {self.name!r} has at most {self.repeat}")
        items = []
        for number, item in enumerate(intent[INTENTS]):
            if not isinstance(item, Mapping):
                raise ValueError(f"{INTENTS}[{number}]: not an object with {self.names}")
            try:
                items.append(self._check_item(item, catalog))
            except ValueError as error:
                raise ValueError(f"{INTENTS}[{number}]: {error}") from None
        return {INTENTS: [item for item, _ in self.summed(items)]}

    def items_in(self, cell: object, column: str) -> list[Mapping]:
        """Return the items of a table's cell: a list, or its JSON. An item may have a confidence.

        Raises ValueError, without the cell's text, if the cell is not a list of items or is too long.
        """
        if isinstance(cell, str):
            if not cell.strip():
                raise ValueError(f"{column}: empty; write [] for the empty list")
            try:
                cell = json.loads(cell)
            except ValueError:
                cell = None
        if isinstance(cell, Mapping) and set(cell) == {INTENTS}:
            cell = cell[INTENTS]
        keys = {*self.names, CONFIDENCE}
        if not isinstance(cell, list) or not all(isinstance(item, Mapping) and set(item) <= keys for item in cell):
            raise ValueError(f"{column}: not a JSON list of objects with {self.names}")
        if len(cell) > self.repeat:
            raise ValueError(f"{column}: more than {self.repeat} items")
        return cell

    def summed(self, items: Sequence[Item]) -> list[tuple[Item, list[int]]]:
        """Merge items that differ only in counts. Returns each distinct item with the indexes of its items.

        Counts are added up, to at most their slot's `max`.
        """
        counts = [slot for slot in self.slots if isinstance(slot, Count)]
        names = [slot.name for slot in self.slots if not isinstance(slot, Count)]
        distinct: dict[tuple, tuple[dict[str, Any], list[int]]] = {}
        for number, item in enumerate(items):
            merged, indexes = distinct.setdefault(tuple(item[name] for name in names), (dict(item), []))
            for slot in counts if indexes else ():
                merged[slot.name] = min(merged[slot.name] + item[slot.name], slot.max)
            indexes.append(number)
        return list(distinct.values())

    def _check_item(self, intent: Mapping, catalog: Sequence[str]) -> Item:
        if unknown := set(intent) - set(self.names):
            raise ValueError(f"unknown slots {sorted(unknown)}: the schema {self.name!r} has {self.names}")
        checked: Item = {}
        ended = False
        for slot in self.slots:
            value = intent.get(slot.name)
            if ended and value is not None:
                raise ValueError(f"{slot.name}={value!r}: must be null, an earlier slot ended the intent")
            if not ended and (isinstance(value, bool) or value not in slot.domain(catalog)):
                raise ValueError(f"{slot.name}={value!r}: not a value of this slot")
            ended = ended or value in slot.ends
            checked[slot.name] = value
        return checked

    def json_schema(self, catalog: Sequence[str] = ()) -> dict:
        """Return a JSON Schema (draft 2020-12) that accepts exactly the valid intents."""
        if self.repeat == 1:
            return {"title": self.name, **self._item_schema(catalog)}
        items = {"type": "array", "items": self._item_schema(catalog), "maxItems": self.repeat}
        return {"title": self.name, **_object({INTENTS: items})}

    def _item_schema(self, catalog: Sequence[str]) -> dict:
        variants = []
        prefix: dict[str, dict] = {}
        for i, slot in enumerate(self.slots):
            null_rest = {later.name: {"type": "null"} for later in self.slots[i + 1 :]}
            if slot.ends:
                variants.append(_object({**prefix, slot.name: {"enum": list(slot.ends)}, **null_rest}))
            if isinstance(slot, Count):
                prefix[slot.name] = {"type": "integer", "minimum": slot.min, "maximum": slot.max}
            else:
                prefix[slot.name] = {"enum": [value for value in slot.domain(catalog) if value not in slot.ends]}
        if all(entry.get("enum") != [] for entry in prefix.values()):
            variants.append(_object(prefix))
        return {"anyOf": variants}

    def arrow_fields(self) -> list[pa.Field]:
        """Return the output columns, all nullable: one per slot, or the list of items with their confidences."""
        slots = self.slot_fields()
        if self.repeat == 1:
            return slots
        return [pa.field(INTENTS, pa.list_(pa.struct([*slots, pa.field(CONFIDENCE, pa.float32())])))]

    def label_fields(self, exploded: bool = False) -> list[pa.Field]:
        """Return the columns of a labelled row after its id. `exploded`: each item of a list has its own row."""
        items = [pa.field(ITEM, pa.int32()), *self.slot_fields(), pa.field(ITEM_CONFIDENCE, pa.float32())]
        rest = {CONFIDENCE: pa.float32(), "status": pa.string(), "variant": pa.string()}
        return [*(items if exploded else self.arrow_fields()), *(pa.field(name, kind) for name, kind in rest.items())]

    def slot_fields(self) -> list[pa.Field]:
        """Return the Arrow field of each slot."""
        return [pa.field(slot.name, pa.int32() if isinstance(slot, Count) else pa.string()) for slot in self.slots]


def items_of(intent: dict | None) -> list[Item]:
    """Return the items of an intent: its list, or the intent itself. An abstention has none."""
    if intent is None:
        return []
    if INTENTS in intent:
        return intent[INTENTS] or []
    return [intent]


def same(one: Intent | None, other: Intent | None) -> bool:
    """Return whether two intents mean the same. The order of a list does not matter."""
    return answer_key(one) == answer_key(other)


def answer_key(intent: Intent | None) -> tuple | None:
    """Return a key that is equal for intents that mean the same."""
    if intent is None:
        return None
    if intent.get(INTENTS, ()) is None:
        return (None,)
    return tuple(sorted(json.dumps(item, sort_keys=True) for item in items_of(intent)))


def to_json(intent: Mapping) -> str:
    """Return the intent as JSON text."""
    return json.dumps(intent, ensure_ascii=False)


def _object(properties: dict) -> dict:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _require_unique(field: str, values: Sequence[str]) -> None:
    if not values:
        raise ConfigError(field, list(values), "give at least one value")
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(field, value, "is listed twice; keep one")
        seen.add(value)
