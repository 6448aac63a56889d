"""Read the user's own gold set: a file of messages labelled by hand, about the user's catalog and schema."""

from collections.abc import Mapping, Sequence
from typing import Any

from intent.errors import ConfigError
from intent.storage.table import read_rows
from intent.task.catalog import one_line
from intent.task.schema import INTENTS, Count, Entity, Intent, IntentSchema, Item


def read(data: bytes, source: str, schema: IntentSchema, catalog: Sequence[str], column: str, field: str) -> dict[str, Intent]:
    """Return what each message of a file means. `column`: the messages; each slot has its own column; empty is null.

    Lists are in one column `intents`, as JSON text or as a list. Raises ConfigError, naming the setting `field` and the row,
    for an intent that the schema and the catalog do not allow.
    """
    meant: dict[str, Intent] = {}
    first = schema.names[0] if schema.repeat == 1 else INTENTS
    for place, row in read_rows(data, source, [column, first], field, "message_column"):
        message = row[column]
        try:
            if not isinstance(message, str) or not message.strip():
                raise ValueError(f"no text in the column {column!r}")
            if message in meant:
                raise ValueError("repeats the message of an earlier row")
            given = _item(row, schema) if schema.repeat == 1 else _list(row[INTENTS], schema)
            meant[message] = schema.check(given, catalog)
        except ValueError as error:
            raise ConfigError(field, source, f"{place}: {error}; correct or delete it") from None
    if not meant:
        raise ConfigError(field, source, "has no rows; label a few dozen messages by hand, or leave it out")
    return meant


def _item(row: Mapping, schema: IntentSchema) -> Item:
    """Return a row's values. Raises ValueError if a count is not a number."""
    given: dict[str, Any] = {slot.name: None if row.get(slot.name) == "" else row.get(slot.name) for slot in schema.slots}
    for slot in schema.slots:
        if isinstance(slot, Entity | Count) and isinstance(given[slot.name], str):
            given[slot.name] = one_line(given[slot.name]) if isinstance(slot, Entity) else int(given[slot.name])
    return given


def _list(cell: object, schema: IntentSchema) -> Intent:
    """Return the items of a cell. A missing count is its default. Raises ValueError if it is not a list of items."""
    items = [_item(item, schema) for item in schema.items_in(cell, INTENTS)]
    defaults = {slot.name: slot.default for slot in schema.slots if isinstance(slot, Count)}
    return {INTENTS: [item | {name: d for name, d in defaults.items() if item[name] is None} for item in items]}
