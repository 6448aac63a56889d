"""Read a run's rows from a table of a data lake, with the same footers and shards as for Parquet objects.

Windows of a data file take the place of row groups. The table's metadata gives the columns of a file and which rows count.
"""

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from intent.errors import ConfigError, CorruptData, IntentError
from intent.lake import Snapshot
from intent.run.columns import typed
from intent.run.rows import ShardReader, groups_of
from intent.run.shard import Footer, Shard, read_footers
from intent.storage import Blob, Store

# A reader keeps this many rows of a file. For a shard outside them, it decodes the file from its first row again.
WINDOW_ROWS = 1 << 20


def read_table_footers(snapshot: Snapshot, blobs: Sequence[Blob], columns: Sequence[str]) -> list[Footer]:
    """Return the footers of `blobs` as the table describes them. Raises ConfigError if the table lacks one of `columns`."""
    schema = snapshot.schema()
    if lacking := [name for name in columns if name not in schema.names]:
        where = f"{snapshot.uri} has no such column at version {snapshot.version}; it has {schema.names}"
        raise ConfigError("columns", lacking, f"{where}; correct id_column, message_column or keep_columns")
    types = {name: schema.field(name).type for name in columns}
    return [Footer(blob, windows(snapshot.rows(blob)), types) for blob in blobs]


def windows(rows: int) -> tuple[int, ...]:
    """Cut a file's rows into windows of WINDOW_ROWS. Returns the number of rows of each."""
    whole, rest = divmod(rows, WINDOW_ROWS)
    return (WINDOW_ROWS,) * whole + ((rest,) if rest else ())


class TableReader:
    """Read shards of a table, one at a time, like `ShardReader`. Keeps the window of the last shard for the next one."""

    def __init__(self, snapshot: Snapshot, columns: Sequence[str], types: pa.Schema | None = None):
        self.snapshot, self.columns, self.types = snapshot, list(columns), types or pa.schema([])
        self._lock = threading.Lock()
        self._kept: tuple[tuple | None, pa.Table] = (None, pa.table({}))

    def read(self, shard: Shard) -> pa.Table:
        """Return the shard's rows. Raises CorruptData if the file is damaged, gone, or changed since the plan."""
        name = f"{self.snapshot.uri}: {shard.blob.key}"
        with self._lock:
            try:
                rows = self._rows(shard)
            except (IntentError, MemoryError):
                raise
            except (FileNotFoundError, KeyError) as error:
                fault = f"is gone since version {self.snapshot.version} was planned; keep versions for as long as runs take"
                raise CorruptData(f"{name} {fault}") from error
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, TypeError) as error:
                raise CorruptData(f"{name}: {str(error).splitlines()[0]}") from error
        if len(rows) != shard.rows:
            raise CorruptData(f"{name}: has {len(rows)} rows from {shard.start} on, {shard.rows} were planned")
        return rows

    def _rows(self, shard: Shard) -> pa.Table:
        edges = np.arange(0, shard.start + shard.rows + WINDOW_ROWS, WINDOW_ROWS)
        groups, offset = groups_of(edges, shard)
        start, stop = int(edges[groups[0]]), int(edges[groups[-1] + 1])
        key, table = self._kept
        if key != (shard.blob, start, stop):
            table = typed(self._window(shard.blob, start, stop), self.types)
        self._kept = ((shard.blob, start, stop), table) if len(table) > shard.rows else (None, pa.table({}))
        return table.slice(offset, shard.rows)

    def _window(self, blob: Blob, start: int, stop: int) -> pa.Table:
        """Return the file's rows from `start` up to `stop` or the end of the file."""
        tables, at = [], 0
        for batch in self.snapshot.batches(blob, self.columns):
            first, last = max(start - at, 0), min(stop - at, len(batch))
            if first < last:
                tables.append(pa.Table.from_batches([batch.slice(first, last - first)]))
            at += len(batch)
            if at >= stop:
                break
        if not tables:
            return self.snapshot.schema().empty_table().select(self.columns)
        return pa.concat_tables(tables, promote_options="permissive")


def read_source_footers(source: Store | Snapshot, blobs: Sequence[Blob], columns: Sequence[str]) -> list[Footer]:
    """Read the footers of a table's files or of Parquet objects."""
    if isinstance(source, Snapshot):
        return read_table_footers(source, blobs, columns)
    return read_footers(source, blobs, columns)


def open_reader(
    source: Store | Snapshot, columns: Sequence[str], types: pa.Schema | None = None
) -> "ShardReader | TableReader":
    """Return the reader for a table or for Parquet objects."""
    if isinstance(source, Snapshot):
        return TableReader(source, columns, types)
    return ShardReader(source, columns, types)
