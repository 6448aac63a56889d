"""What a message can mean: slots, schemas, and everything that follows from them.

Pure: knows nothing of prompts, tokens, models or storage.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from intent.errors import ConfigError

# Columns of a labelled or rejected row beside those of the slots, and of examples.
RESERVED = ("id", "message", "confidence", "status", "variant", "reason")

Value = str | int
Intent = dict[str, Value | None]


@dataclass(frozen=True)
class Choice:
    """One of a fixed set of strings. A value in `ends` completes the intent: the slots after it are null."""

    name: str
    values: tuple[str, ...]
    ends: tuple[str, ...] = ()

    def __post_init__(self):
        _require_unique(f"schema.slots.{self.name}.values", self.values)
        for value in self.ends:
            if value not in self.values:
                raise ConfigError(f"schema.slots.{self.name}.ends", value, f"use one of {list(self.values)}")

    def domain(self, catalog: Sequence[str]) -> Sequence[Value]:
        return self.values


@dataclass(frozen=True)
class Entity:
    """A product of the catalog, by name."""

    name: str
    ends: tuple[str, ...] = ()

    def domain(self, catalog: Sequence[str]) -> Sequence[Value]:
        return catalog


@dataclass(frozen=True)
class Count:
    """A whole number from `min` to `max`, both included; `default` is meant where none is stated."""

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
        return range(self.min, self.max + 1)


Slot = Choice | Entity | Count


@dataclass(frozen=True)
class IntentSchema:
    """An ordered list of slots, with the instruction that explains them to a model."""

    name: str
    instruction: str
    slots: tuple[Slot, ...]

    def __post_init__(self):
        _require_unique("schema.slots", [slot.name for slot in self.slots])
        for name in self.names:
            if name in RESERVED:
                raise ConfigError("schema.slots", name, f"is a column of its own in what is labelled; not one of {RESERVED}")

    @property
    def names(self) -> list[str]:
        return [slot.name for slot in self.slots]

    @cached_property
    def uses_catalog(self) -> bool:
        return any(isinstance(slot, Entity) for slot in self.slots)

    def intent(self, values: Sequence[Value]) -> Intent:
        """The intent of the leading slots' values; slots after an ending value are null."""
        return dict(zip(self.names, list(values) + [None] * (len(self.slots) - len(values)), strict=True))

    def values(self, intent: Mapping[str, Value | None]) -> list[Value]:
        """The inverse of `intent`: the leading slots' values, up to and with an ending one."""
        values: list[Value] = []
        for slot in self.slots:
            value = intent[slot.name]
            if value is None:
                break
            values.append(value)
            if value in slot.ends:
                break
        return values

    def check(self, intent: Mapping[str, Value | None], catalog: Sequence[str] = ()) -> Intent:
        """`intent` with exactly the schema's slots, in order. Raises ValueError, naming the slot, when it is not valid."""
        if unknown := set(intent) - set(self.names):
            raise ValueError(f"unknown slots {sorted(unknown)}: the schema {self.name!r} has {self.names}")
        checked: Intent = {}
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
        """A JSON Schema (draft 2020-12) that accepts exactly the valid intents."""
        variants = []
        prefix: dict[str, dict] = {}
        for i, slot in enumerate(self.slots):
            null_rest = {later.name: {"type": "null"} for later in self.slots[i + 1 :]}
            if slot.ends:
                variants.append(self._object({**prefix, slot.name: {"enum": list(slot.ends)}, **null_rest}))
            if isinstance(slot, Count):
                prefix[slot.name] = {"type": "integer", "minimum": slot.min, "maximum": slot.max}
            else:
                prefix[slot.name] = {"enum": [value for value in slot.domain(catalog) if value not in slot.ends]}
        if all(entry.get("enum") != [] for entry in prefix.values()):
            variants.append(self._object(prefix))
        return {"title": self.name, "anyOf": variants}

    def _object(self, properties: dict) -> dict:
        return {"type": "object", "properties": properties, "required": self.names, "additionalProperties": False}

    def arrow_fields(self) -> list[pa.Field]:
        """The output columns, one a slot, all nullable."""
        return [pa.field(slot.name, pa.int32() if isinstance(slot, Count) else pa.string()) for slot in self.slots]


def to_json(intent: Mapping[str, Value | None]) -> str:
    return json.dumps(intent, ensure_ascii=False)


def _require_unique(field: str, values: Sequence[str]) -> None:
    if not values:
        raise ConfigError(field, list(values), "give at least one value")
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(field, value, "is listed twice; keep one")
        seen.add(value)
