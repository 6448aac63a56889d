"""A gold set of the user's own: a file of messages labelled by hand, about the user's catalog and schema."""

from collections.abc import Sequence

from intent.catalog import one_line
from intent.errors import ConfigError
from intent.schema import Count, Entity, Intent, IntentSchema
from intent.table import read_rows


def read(data: bytes, source: str, schema: IntentSchema, catalog: Sequence[str], column: str, field: str) -> dict[str, Intent]:
    """What each message of a file means: its `column`, and one column a slot, as in a night's output; empty is null.

    Raises ConfigError, naming the configuration's `field` and the row, for an intent that schema and catalog do not allow.
    """
    meant: dict[str, Intent] = {}
    for place, row in read_rows(data, source, [column, schema.names[0]], field, "message_column"):
        message = row[column]
        try:
            if not isinstance(message, str) or not message.strip():
                raise ValueError(f"no text in the column {column!r}")
            if message in meant:
                raise ValueError("repeats the message of an earlier row")
            given = {slot.name: None if row.get(slot.name) == "" else row.get(slot.name) for slot in schema.slots}
            given |= {
                slot.name: one_line(given[slot.name])
                for slot in schema.slots
                if isinstance(slot, Entity) and isinstance(given[slot.name], str)
            }
            counts = [slot.name for slot in schema.slots if isinstance(slot, Count) and isinstance(given[slot.name], str)]
            meant[message] = schema.check(given | {name: int(given[name]) for name in counts}, catalog)
        except ValueError as error:
            raise ConfigError(field, source, f"{place}: {error}; correct or delete it") from None
    if not meant:
        raise ConfigError(field, source, "has no rows; label a few dozen messages by hand, or leave it out")
    return meant
