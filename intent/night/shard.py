"""Cutting a night's input into shards: row ranges of Parquet objects, each with the version (ETag) it was planned from.

Knows storage and Parquet footers; nothing of labels, parts or actors.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from intent.errors import ConfigError, CorruptData
from intent.storage import Blob, StorageOptions, Store, checked, open_store, sha256, split_uri

ENDING = ".parquet"
TAIL_BYTES = 1 << 16
UNKNOWN = -1
SHARD_SECONDS, LEAST_ROWS, MOST_ROWS = 30, 256, 20_000
# Plan and manifest name every shard, and whoever goes on with a night reads each part.
MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """Rows `start` to `start + rows` of one version of an input object.

    `run` numbers the row groups that shards are cut from: shards of one object and run share decoding. `reason` is set
    where the object cannot be read, and `rows` is then UNKNOWN.
    """

    blob: Blob
    start: int
    rows: int
    run: int = 0
    reason: str = ""

    @cached_property
    def id(self) -> str:
        return _digest([self.blob.key, self.blob.etag, self.start, self.rows])[:20]

    @property
    def counted(self) -> int | str:
        return "unknown" if self.rows == UNKNOWN else self.rows


@dataclass(frozen=True)
class Footer:
    """What an object's Parquet footer says: rows of each row group and column names; or the `reason` it cannot be read."""

    blob: Blob
    groups: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    reason: str = ""


FooterReader = Callable[[Store, Sequence[Blob]], list[Footer]]


def input_objects(uri: str, options: StorageOptions = StorageOptions()) -> tuple[Store, list[Blob]]:
    """The store and the Parquet objects, by key, of an input: one file, or all below a folder or prefix.

    As in Hive and pyarrow.dataset, keys with a part that starts with '.' or '_' are not data.
    """
    if uri.endswith(ENDING):
        parent, name = split_uri(uri)
        store = open_store(parent, options)
        blob = store.stat(name)
        if blob:
            return store, [blob]
    store = open_store(uri, options)
    blobs = sorted((blob for blob in store.list() if _is_data(blob.key)), key=lambda blob: blob.key)
    if not blobs:
        raise ConfigError("input", uri, f"holds no object that ends in {ENDING}; name the folder or prefix of the query log")
    return store, blobs


def _is_data(key: str) -> bool:
    return key.endswith(ENDING) and not any(part.startswith((".", "_")) for part in key.split("/"))


def input_fingerprint(blobs: Iterable[Blob]) -> str:
    return _digest([[blob.key, blob.size, blob.etag] for blob in blobs])[:16]


def _digest(value: list) -> str:
    # ASCII, because the name of a local file need not be valid Unicode.
    return sha256(json.dumps(value).encode())


def shard_rows(rate: float) -> int:
    """Rows that keep an engine of `rate` messages a second busy for some tens of seconds, where no message repeats itself."""
    return int(min(max(SHARD_SECONDS * rate, LEAST_ROWS), MOST_ROWS))


def plan_shards(
    store: Store,
    blobs: Sequence[Blob],
    columns: Sequence[str],
    rows_per_shard: int,
    read: FooterReader | None = None,
    most_shards: int | None = None,
) -> list[Shard]:
    """Every row of every object in exactly one shard; larger ones where a long log would make more than `most_shards`.

    Raises ConfigError where no readable object has `columns`.
    """
    footers = (read or read_footers)(store, blobs)
    readable = [footer for footer in footers if not footer.reason]
    lacking = {footer.blob.key: missing for footer in readable if (missing := [c for c in columns if c not in footer.columns])}
    if readable and len(lacking) == len(readable):
        first = readable[0]
        raise ConfigError("columns", lacking[first.blob.key], f"not in the input; {first.blob.key} has {list(first.columns)}")
    if most_shards:
        rows_per_shard = max(rows_per_shard, sum(sum(footer.groups) for footer in readable) // most_shards)
    shards: list[Shard] = []
    for footer in footers:
        if reason := footer.reason or (f"has no column {lacking[footer.blob.key]}" if footer.blob.key in lacking else ""):
            rows = UNKNOWN if footer.reason else sum(footer.groups)
            shards.append(Shard(footer.blob, 0, rows, reason=reason))
        else:
            shards += _cut(footer, rows_per_shard)
    return shards


def _cut(footer: Footer, rows_per_shard: int) -> list[Shard]:
    """Small row groups are put together, a large one is cut evenly, and no shard holds parts of two large ones."""
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


def read_footers(store: Store, blobs: Sequence[Blob]) -> list[Footer]:
    with ThreadPoolExecutor(store.parallel) as pool:
        return list(pool.map(lambda blob: read_footer(store, blob), blobs))


def read_footer(store: Store, blob: Blob) -> Footer:
    """One ranged read where the footer is under 64 KiB, as nearly all are.

    Never raises for what the object holds, only for a store that does not answer: that must not be planned as a fault
    of the object.
    """
    if blob.size == 0:
        return Footer(blob, reason="is empty")
    try:
        checked(blob.key)
    except ConfigError as error:
        return Footer(blob, reason=str(error))
    try:
        tail = store.read_tail(blob, TAIL_BYTES)
        need = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] == b"PAR1" and TAIL_BYTES < need <= blob.size:
            tail = store.read_tail(blob, need)
    except (CorruptData, FileNotFoundError) as error:
        return Footer(blob, reason=str(error))
    except PermissionError as error:
        # As a bucket's refusal is: the operator can mend it, so it must not be planned as a fault of the object.
        raise ConfigError("input", f"{store.uri}/{blob.key}", "may not be read; change its permissions or the user") from error
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        return Footer(blob, groups, tuple(metadata.schema.to_arrow_schema().names))
    except Exception as error:
        return Footer(blob, reason=f"not a Parquet file: {error}".splitlines()[0][:300])
