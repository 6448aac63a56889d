"""Read the user's own gold set: a file of hand-labeled messages for the user's catalog and schema."""

from collections.abc import Mapping, Sequence
from typing import Any

from intent.errors import ConfigError
from intent.storage.table import read_rows
from intent.task.catalog import one_line
from intent.task.schema import INTENTS, Count, Entity, Intent, IntentSchema, Item


def read(data: bytes, source: str, schema: IntentSchema, catalog: Sequence[str], column: str, field: str) -> dict[str, Intent]:
    """Return the intent of each message in a file.

    `data`: the file's bytes. `source`: its name, for errors. `column`: the column of the messages. Each slot has a column of
    its own, and an empty cell is null. A schema of lists has one column `intents` instead, with JSON text or a list.

    Raises ConfigError, with the setting `field` and the row, for a missing or repeated message, an intent that the schema or
    the catalog does not allow, or a file without rows.
    """
    intents: dict[str, Intent] = {}
    first = schema.names[0] if schema.repeat == 1 else INTENTS
    for location, row in read_rows(data, source, [column, first], field, "message_column"):
        message = row[column]
        try:
            if not isinstance(message, str) or not message.strip():
                raise ValueError(f"no text in the column {column!r}")
            if message in intents:
                raise ValueError("repeats the message of an earlier row")
            item = _item(row, schema) if schema.repeat == 1 else _list(row[INTENTS], schema)
            intents[message] = schema.check(item, catalog)
        except ValueError as error:
            raise ConfigError(field, source, f"{location}: {error}; correct or delete it") from None
    if not intents:
        raise ConfigError(field, source, f"has no rows; label a few dozen messages by hand, or leave {field} empty")
    return intents


def _item(row: Mapping, schema: IntentSchema) -> Item:
    """Return the values of a row by slot. Raises ValueError if a count is not a number."""
    item: dict[str, Any] = {slot.name: None if row.get(slot.name) == "" else row.get(slot.name) for slot in schema.slots}
    for slot in schema.slots:
        if isinstance(slot, Entity | Count) and isinstance(item[slot.name], str):
            item[slot.name] = one_line(item[slot.name]) if isinstance(slot, Entity) else int(item[slot.name])
    return item


def _list(cell: object, schema: IntentSchema) -> Intent:
    """Return the list of a cell. A missing count gets its default. Raises ValueError if the cell is not a list of items."""
    items = [_item(item, schema) for item in schema.items_in(cell, INTENTS)]
    defaults = {slot.name: slot.default for slot in schema.slots if isinstance(slot, Count)}
    return {INTENTS: [item | {name: d for name, d in defaults.items() if item[name] is None} for item in items]}
