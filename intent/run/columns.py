"""Decide which columns of the input are read, which type each has in every part, and which come from folder names.

Knows Arrow types and paths; nothing of stores, shards or labels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from intent.errors import ConfigError
from intent.lake import HIVE_NULL
from intent.task.schema import IntentSchema


@dataclass(frozen=True)
class Columns:
    """The input's columns: its id, its message, and those copied to the output. `explode`: the output has one row per item."""

    id: str = "id"
    message: str = "message"
    keep: tuple[str, ...] = ()
    explode: bool = False

    @property
    def read(self) -> list[str]:
        """Return the names of all columns to read, each once."""
        return list(dict.fromkeys([self.id, self.message, *self.keep]))

    def check(self, schema: IntentSchema) -> None:
        """Raise ConfigError if a kept column has the name of an output column, or is kept twice."""
        own = ["id", *(field.name for field in schema.label_fields(self.explode))]
        if duplicates := [name for name in self.keep if name in own or self.keep.count(name) > 1]:
            raise ConfigError("keep_columns", duplicates, f"the output has these already; its own columns are {own}")

    def one_schema(self, types: Mapping[str, Mapping[pa.DataType, str]]) -> pa.Schema:
        """Return one type for the id and one for each kept column, for all parts. `types`: by column, the types found and, for
        each, an object that has it.

        Raises ConfigError, naming two objects, if no type can hold the values of both.
        """
        fields = {name: "keep_columns" for name in self.keep} | {self.id: "id_column"}
        return pa.schema([(name, _one_type(field, name, self._found(name, types))) for name, field in fields.items()])

    def _found(self, name: str, types: Mapping[str, Mapping[pa.DataType, str]]) -> Mapping[pa.DataType, str]:
        kinds = types.get(name, {})
        # In some files, a message column without any value has a numeric type.
        return {kind: key for kind, key in kinds.items() if not (name == self.message and pa.types.is_floating(kind))}


def is_text(kind: pa.DataType) -> bool:
    """Return whether the type, or the storage of an extension type, is a string or binary type."""
    kind = storage(kind)
    return any(test(kind) for test in _TEXT)


def may_be_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds text or nothing. A column without values may have any of these types."""
    return is_text(kind) or pa.types.is_null(kind) or pa.types.is_floating(kind)


def storage(kind: pa.DataType) -> pa.DataType:
    """Return the storage type of an extension type, and any other type as it is."""
    return storage(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def partitions(path: str) -> dict[str, str | None]:
    """Return the Hive partition columns of an object as text, from the folders `name=value` of its path.
    Hive's null is None.
    """
    values = {}
    for folder in path.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            values[unquote(name)] = None if value == HIVE_NULL else unquote(value)
    return values


def typed(rows: pa.Table, types: pa.Schema) -> pa.Table:
    """Cast the columns that `types` names. Raises ArrowInvalid if a value does not fit."""
    for name in set(types.names) & set(rows.column_names):
        rows = rows.set_column(rows.column_names.index(name), name, cast(rows[name], types.field(name).type))
    return rows


def cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast the column to `kind`. Raises ArrowInvalid if a value does not fit."""
    if pa.types.is_floating(column.type) and not pa.types.is_floating(kind):
        column = missing(column)
    return column if column.type == kind else column.cast(kind)


def missing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return nulls for a numeric column without values. Raises ArrowInvalid if it has a value."""
    if not pc.all(pc.is_null(column, nan_is_null=True), min_count=0).as_py():
        raise pa.ArrowInvalid(f"holds numbers ({column.type}) where text is wanted")
    return pa.chunked_array([pa.nulls(len(column))])


_TEXT: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
# Within a family, the widest type can hold the values of all others.
_FAMILIES: tuple[Callable[[pa.DataType], bool], ...] = (
    is_text,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_timestamp,
    pa.types.is_time,
)


def _one_type(field: str, name: str, types: Mapping[pa.DataType, str]) -> pa.DataType:
    typed = {kind: key for kind, key in types.items() if not pa.types.is_null(kind)}
    if len(typed) < 2:
        return next(iter(typed), pa.null())
    (first, key), *others = typed.items()
    family = next((test for test in _FAMILIES if test(first)), lambda kind: kind == first)
    try:
        if misfit := next(((kind, at) for kind, at in others if not family(kind)), None):
            raise pa.ArrowTypeError
        schemas = [pa.schema([(name, kind)]) for kind in typed]
        return pa.unify_schemas(schemas, promote_options="permissive").field(name).type
    except pa.ArrowTypeError:
        kind, at = misfit or others[0]
        remedy = f"is {first} in {key} and {kind} in {at}; write all objects with one type, or label them into separate outputs"
        raise ConfigError(field, name, remedy) from None
