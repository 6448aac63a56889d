"""Cut a run's input into shards: row ranges of Parquet objects, each with the version (ETag) that it was planned from.

Knows storage and Parquet footers; nothing of labels, parts or actors.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from intent.errors import ConfigError, CorruptData
from intent.run.columns import Columns, may_be_text, partitions
from intent.run.listing import Listing, named
from intent.storage import Blob, Store, sha256

TAIL_BYTES = 1 << 16
MAGIC, ENCRYPTED = b"PAR1", b"PARE"
NOT_PARQUET, ENCRYPTED_FILE = "not a Parquet file", "is encrypted, which is not read; decrypt it first"
# The footer's key for Arrow's own schema, with its length before it, and a key of that length that Arrow ignores.
ARROW_SCHEMA, NO_SCHEMA = b"\x0cARROW:schema", b"\x0cARROW.schema"
UNKNOWN = -1
SHARD_SECONDS, LEAST_ROWS, MOST_ROWS = 30, 256, 20_000
# The plan and the manifest list every shard, and a driver that continues a run reads every part.
MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """Rows `start` to `start + rows` of one version of an input object.

    `run`: a number that shards from the same row groups of an object share, so that one actor decodes these once. `reason`: why
    the object cannot be labelled. `rows` is UNKNOWN if the object cannot be read.
    """

    blob: Blob
    start: int
    rows: int
    run: int = 0
    reason: str = ""

    @cached_property
    def id(self) -> str:
        """Return the hash of the object's key and ETag and of the row range."""
        return _digest([self.blob.key, self.blob.etag, self.start, self.rows])[:20]

    @property
    def counted(self) -> int | str:
        """Return the number of rows, or "unknown"."""
        return "unknown" if self.rows == UNKNOWN else self.rows


@dataclass(frozen=True)
class Footer:
    """The rows of each row group of a Parquet object, and the types of the requested columns.

    `reason`: why the object cannot be read. `foreign`: it is not Parquet. `others`: the names of all its columns, if a
    requested column is missing or occurs twice.
    """

    blob: Blob
    groups: tuple[int, ...] = ()
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    reason: str = ""
    foreign: bool = False

    @property
    def rows(self) -> int:
        """Return the object's number of rows."""
        return sum(self.groups)


@dataclass(frozen=True)
class Plan:
    """A run's shards. `types`: the types of the id and the kept columns in every part. `left_out`: the reasons why objects are
    not read, by key. `table`: address and version, if the input is a table.
    """

    shards: Sequence[Shard] = ()
    types: pa.Schema | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    table: tuple[str, int] | None = None


FooterReader = Callable[[Any, Sequence[Blob], Sequence[str]], list[Footer]]


def input_fingerprint(blobs: Iterable[Blob]) -> str:
    """Return the fingerprint of an input: of the key, size and ETag of each object."""
    return _digest([[blob.key, blob.size, blob.etag] for blob in blobs])[:16]


def _digest(value: list) -> str:
    # json.dumps writes ASCII, so it also takes names of local files that are not valid Unicode.
    return sha256(json.dumps(value).encode())


def shard_rows(rate: float) -> int:
    """Return the rows that take an engine of `rate` messages per second SHARD_SECONDS, from LEAST_ROWS to MOST_ROWS."""
    return int(min(max(SHARD_SECONDS * rate, LEAST_ROWS), MOST_ROWS))


def plan_shards(
    listing: Listing,
    columns: Columns,
    rows_per_shard: int,
    read: FooterReader | None = None,
    most_shards: int | None = None,
) -> Plan:
    """Put every row of every object into exactly one shard. Enlarges shards if there would be more than `most_shards`.

    Raises ConfigError if no object is readable Parquet with the columns, or if the types of a column do not fit together.
    """
    reader: FooterReader = read or read_footers
    footers = reader(listing.store, listing.blobs, columns.read)
    foreign = {f.blob.key: f.reason for f in footers if f.foreign and not listing.is_named_data(f.blob.key)}
    if len(foreign) == len(footers):
        remedy = f"holds no Parquet, but {named(foreign)}; name the folder or prefix of the query log"
        raise ConfigError("input", listing.store.uri, remedy)
    footers = [footer for footer in footers if footer.blob.key not in foreign]
    faults = {footer.blob.key: reason for footer in footers if (reason := footer.reason or _misfit(footer, columns))}
    _require_one(footers, faults, columns)
    good = [footer for footer in footers if footer.blob.key not in faults]
    if most_shards:
        rows_per_shard = max(rows_per_shard, sum(footer.rows for footer in good) // most_shards)
    shards: list[Shard] = []
    for footer in footers:
        if reason := faults.get(footer.blob.key):
            shards.append(Shard(footer.blob, 0, UNKNOWN if footer.reason else footer.rows, reason=reason))
        else:
            shards += _cut(footer, rows_per_shard)
    return Plan(shards, columns.one_schema(_types(good)), dict(listing.left_out) | foreign, listing.table)


def _misfit(footer: Footer, columns: Columns) -> str:
    """Return why the object's rows cannot be labelled, or "". An object without rows never has a fault."""
    if not footer.rows:
        return ""
    if lacking := [name for name in columns.read if name not in footer.types]:
        return f"has no column {lacking}"
    if twice := [name for name in columns.read if footer.others.count(name) > 1]:
        return f"has several columns {twice}"
    kind = footer.types[columns.message]
    return "" if may_be_text(kind) else f"its column {columns.message!r} is {kind}, not text"


def _require_one(footers: Sequence[Footer], faults: Mapping[str, str], columns: Columns) -> None:
    """Raise ConfigError if every readable object lacks the configured columns, or if every object is encrypted."""
    full = [footer for footer in footers if footer.reason or footer.rows]
    readable = [footer for footer in full if not footer.reason]
    if full and all(footer.reason == ENCRYPTED_FILE for footer in full):
        raise ConfigError("input", full[0].blob.key, ENCRYPTED_FILE)
    if readable and all(footer.blob.key in faults for footer in readable):
        key, has = readable[0].blob.key, list(readable[0].others or readable[0].types)
        remedy = f"{key} {faults[key]}; it has {has}; correct id_column, message_column or keep_columns"
        raise ConfigError("columns", columns.read, remedy)


def _types(footers: Iterable[Footer]) -> dict[str, dict[pa.DataType, str]]:
    """Return the types of each column, each with the first object that has it."""
    kinds: dict[str, dict[pa.DataType, str]] = defaultdict(dict)
    for footer in footers:
        for name, kind in footer.types.items() if footer.rows else ():
            kinds[name].setdefault(kind, footer.blob.key)
    return kinds


def _cut(footer: Footer, rows_per_shard: int) -> list[Shard]:
    """Combine small row groups, and cut large ones evenly. No shard has rows of two large row groups."""
    shards, start, pending = [], 0, 0
    for run, rows in enumerate(footer.groups):
        if rows + pending < 1.5 * rows_per_shard:
            pending += rows
            if pending >= rows_per_shard:
                shards.append(Shard(footer.blob, start, pending, run))
                start, pending = start + pending, 0
            continue
        if pending:
            shards.append(Shard(footer.blob, start, pending, run))
            start, pending = start + pending, 0
        pieces = max(1, round(rows / rows_per_shard))
        for piece in range(pieces):
            first, stop = rows * piece // pieces, rows * (piece + 1) // pieces
            shards.append(Shard(footer.blob, start + first, stop - first, run))
        start += rows
    if pending:
        shards.append(Shard(footer.blob, start, pending, len(footer.groups)))
    return shards


def read_footers(store: Store, blobs: Sequence[Blob], columns: Sequence[str]) -> list[Footer]:
    """Read the footers of `blobs`, in order, several at a time. See `read_footer`."""
    with ThreadPoolExecutor(store.parallel) as pool:
        return list(pool.map(lambda blob: read_footer(store, blob, columns), blobs))


def read_footer(store: Store, blob: Blob, columns: Sequence[str]) -> Footer:
    """Read an object's row groups and the types of `columns`. Hive partition folders may supply columns that it lacks.

    A fault of the object becomes the footer's `reason`. A fault of the store is raised, because a plan must not blame the
    object for it. Raises ConfigError if the object may not be read.
    """
    if blob.size == 0:
        return Footer(blob, reason="is empty", foreign=True)
    try:
        metadata = read_metadata(store, blob)
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        schema = metadata.schema.to_arrow_schema()
    except NotParquet as error:
        return Footer(blob, reason=str(error), foreign=True)
    except (CorruptData, FileNotFoundError) as error:
        return Footer(blob, reason=str(error))
    except PermissionError as error:
        # The operator can correct this, so a plan must not blame the object for it.
        raise ConfigError("input", f"{store.uri}/{blob.key}", "may not be read; change its permissions or the user") from error
    except pa.ArrowException as error:
        return Footer(blob, reason=f"its columns cannot be read: {error}".splitlines()[0][:300])
    names, folders = schema.names, partitions(f"{store.uri}/{blob.key}")
    types = {name: schema.types[names.index(name)] for name in columns if name in names}
    types |= {name: pa.string() for name in columns if name not in types and name in folders}
    complete = len(types) == len(columns) and not any(names.count(name) > 1 for name in columns)
    return Footer(blob, groups, types, () if complete else tuple(names))


class NotParquet(CorruptData):
    """An object that neither begins nor ends like Parquet."""


def read_metadata(store: Store, blob: Blob) -> pq.FileMetaData:
    """Read an object's footer, with one ranged read if it is under 64 KiB, as nearly all are.

    Hides Arrow's own schema, so that columns have plain Parquet types. All kernels accept these, and an unknown extension type
    in a column that is not read does no harm. Raises CorruptData, or NotParquet if the object is another kind of file.
    """
    try:
        tail = store.read_tail(blob, TAIL_BYTES)
        need = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] == MAGIC and TAIL_BYTES < need <= blob.size:
            tail = store.read_tail(blob, need)
    except ConfigError as error:
        if error.field != "key":
            raise
        raise CorruptData(str(error)) from error
    if tail[-4:] == ENCRYPTED:
        raise CorruptData(ENCRYPTED_FILE)
    before, separator, after = tail[-need:].rpartition(ARROW_SCHEMA)
    try:
        return pq.read_metadata(pa.BufferReader(before + NO_SCHEMA + after if separator else tail))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        begins = tail[:4] if len(tail) == blob.size else _first_bytes(store, blob)
        kind = CorruptData if {begins, tail[-4:]} & {MAGIC, ENCRYPTED} else NotParquet
        raise kind(f"{NOT_PARQUET}: {error}".splitlines()[0][:300]) from error


def _first_bytes(store: Store, blob: Blob) -> bytes:
    with store.open(blob.key, blob) as file:
        return file.read(4)
