"""Define the interface of a table's version as input, and the address of a table. Knows Arrow, but no table's library."""

import importlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import ModuleType
from urllib.parse import unquote

import pyarrow as pa

from intent.artifacts import fingerprint
from intent.errors import ConfigError
from intent.storage import Blob, StorageOptions
from intent.storage.s3 import ENDPOINTS

DELTA, ICEBERG = "delta:", "iceberg:"
# Hive and Spark give this name to the folder of a null.
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
# Values by column name; None is null.
Where = Mapping[str, str | None]


@dataclass(frozen=True)
class Snapshot:
    """One version of a table or, with `wheres`, its rows that match any of these. May be pickled to any node.

    `version`: Delta's version, Iceberg's snapshot id. Methods raise ConfigError if the library cannot read the table.
    """

    uri: str
    version: int
    wheres: tuple[tuple[tuple[str, str | None], ...], ...] = ()
    options: StorageOptions = StorageOptions()

    def __getstate__(self) -> dict:
        # The libraries' objects are cached in attributes and cannot be pickled.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def etag(self, table: str) -> str:
        """Return the ETag of every file, which distinguishes tables (`table`: its id), versions and rows."""
        return f"v{self.version}-{fingerprint([table, self.wheres])}"

    def files(self) -> list[Blob]:
        """Return the data files that hold its rows, sorted by key."""
        raise NotImplementedError

    def schema(self) -> pa.Schema:
        """Return the table's columns."""
        raise NotImplementedError

    def rows(self, blob: Blob) -> int:
        """Return the number of its rows in a file. Reads the file only if the metadata lacks the number."""
        raise NotImplementedError

    def batches(self, blob: Blob, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield its rows in a file, always in the same order. Raises FileNotFoundError if the file was deleted since."""
        raise NotImplementedError


def is_table(uri: str) -> bool:
    """Return whether the address names a table."""
    return uri.startswith((DELTA, ICEBERG))


def split(uri: str, root: str = "") -> tuple[str, dict[str, str | None]]:
    """Split the address of a table, or of a part of it, into (the table's own address, values by column).

    `root`: the table's own address, if known. Raises ConfigError if the address is invalid.
    """
    if uri.startswith(ICEBERG):
        catalog, _, rest = uri.removeprefix(ICEBERG).strip("/").partition("/")
        name, _, rest = rest.partition("/")
        if not catalog or "." not in name:
            raise ConfigError("input", uri, "name catalog, namespace and table: iceberg:CATALOG/NAMESPACE.TABLE")
        root = f"{ICEBERG}{catalog}/{name}"
    else:
        rest = uri[len(root) :]
    parts = [part.partition("=") for part in rest.split("/") if part]
    if wrong := next((name for name, equals, _ in parts if not (name and equals)), None):
        raise ConfigError(
            "input", uri, f"{wrong!r} is not a part of the table {root}; name the table, or COLUMN=VALUE below it"
        )
    return root, {unquote(name): None if value == HIVE_NULL else unquote(value) for name, _, value in parts}


def need(module: str, extra: str, field: str, uri: str) -> ModuleType:
    """Import the optional library. Raises ConfigError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        remedy = f"needs the package {error.name!r}; on every node: pip install '.[{extra}]' in a clone of intent"
        raise ConfigError(field, uri, remedy) from None


def endpoint_of(options: StorageOptions) -> str | None:
    """Return S3's endpoint as `S3Store` uses it, because the libraries do not read all variables that boto3 reads."""
    return options.endpoint or next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)


def one_line(error: Exception | None) -> str:
    """Return a library's message without the part of an address before its host, which may hold credentials."""
    return (re.sub(r"\S+@", "(hidden)@", " ".join(str(error).split())) or type(error).__name__)[:300]


def plain(schema: pa.Schema) -> pa.Schema:
    """Remove metadata, and use one type for text, one for bytes and one for lists."""
    return pa.schema([(field.name, _plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    return kind
