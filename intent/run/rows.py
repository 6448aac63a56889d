"""Read a shard's rows as Arrow, find its distinct messages, and refuse those that no model should see.

Knows storage and Parquet; nothing of labels or classifiers. No Python loop over rows.
"""

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.errors import CorruptData
from intent.run.columns import is_text, may_be_text, missing, partitions, storage, typed
from intent.run.shard import ENCRYPTED_FILE, Shard, read_metadata
from intent.storage import Blob, Store


class ShardReader:
    """Read shards of Parquet objects, one at a time, and cast the columns in `types`.

    Keeps the last object's footer, and the row group of the last shard, for the next shard.
    """

    def __init__(self, source: Store, columns: Sequence[str], types: pa.Schema | None = None):
        self.source, self.columns, self.types = source, list(columns), types or pa.schema([])
        self._lock = threading.Lock()
        self._footer: tuple[Blob | None, pq.FileMetaData | None, np.ndarray] = (None, None, np.zeros(1, np.int64))
        self._kept: tuple[object, pa.Table] = (None, pa.table({}))

    def read(self, shard: Shard) -> pa.Table:
        """Return the shard's rows. Raises CorruptData if the object is damaged, gone, or changed since the plan."""
        with self._lock:
            try:
                rows = self._rows(shard)
            except FileNotFoundError as error:
                raise CorruptData(f"{shard.blob.key}: is gone since it was planned") from error
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, MemoryError) or getattr(error, "errno", None):
                    # The machine or the store failed, so a retry may help. Arrow's errors about a file's content have no errno.
                    raise
                line = str(error).splitlines()[0]
                raise CorruptData(f"{shard.blob.key}: {ENCRYPTED_FILE if 'decrypt' in line else line}") from error
        if len(rows) != shard.rows:
            raise CorruptData(f"{shard.blob.key}: has {len(rows)} rows from {shard.start} on, {shard.rows} were planned")
        return rows

    def _rows(self, shard: Shard) -> pa.Table:
        metadata, edges = self._read_footer(shard.blob)
        groups, offset = groups_of(edges, shard)
        key, table = self._kept
        if key != (shard.blob, groups):
            table = self._read_groups(shard.blob, metadata, groups)
        cut = len(groups) == 1 and len(table) > shard.rows
        self._kept = ((shard.blob, groups), table) if cut else (None, pa.table({}))
        return self._typed(shard.blob, table.slice(offset, shard.rows))

    def _read_footer(self, blob: Blob) -> tuple[pq.FileMetaData, np.ndarray]:
        """Return the object's footer, and the first row of each row group followed by the number of rows.

        Keeps the last footer, because parsing one with 20,000 row groups takes longer than reading the rows of a shard.
        """
        last_blob, metadata, edges = self._footer
        if last_blob != blob:
            metadata = read_metadata(self.source, blob)
            rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            edges = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
            self._footer = (blob, metadata, edges)
        return metadata, edges

    def _read_groups(self, blob: Blob, metadata: pq.FileMetaData, groups: list[int]) -> pa.Table:
        with self.source.open(blob.key, blob) as source:
            file = pq.ParquetFile(source, metadata=metadata, page_checksum_verification=True, pre_buffer=True)
            return file.read_row_groups(groups, columns=self.columns, use_threads=False)

    def _typed(self, blob: Blob, rows: pa.Table) -> pa.Table:
        """Add the Hive partition columns, and cast to the types that all parts have."""
        folders = partitions(f"{self.source.uri}/{blob.key}")
        for name in self.columns:
            if name not in rows.column_names and name in folders:
                rows = rows.append_column(name, pa.repeat(pa.scalar(folders[name], pa.string()), len(rows)))
        return typed(rows, self.types)


def groups_of(edges: np.ndarray, shard: Shard) -> tuple[list[int], int]:
    """Return the row groups that hold the shard's rows, and the index of its first row in the first of them."""
    first, last = np.searchsorted(edges, [shard.start, shard.start + shard.rows - 1], "right") - 1
    groups = [*range(first, min(last + 1, len(edges) - 1))]
    return groups, int(shard.start - edges[first])


def distinct(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Return (the distinct messages as bytes, each row's index among them). The index of a null message is their number.

    Bytes are used because a string column may hold invalid UTF-8. Raises CorruptData if the column is not text.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], storage(column.type))
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not may_be_text(column.type):
        raise CorruptData(f"the message column is {column.type}, not text")
    if not is_text(column.type):
        try:
            column = missing(column)
        except pa.ArrowInvalid as error:
            raise CorruptData(f"the message column {error}") from error
    wide = column.type in (pa.large_string(), pa.large_binary(), pa.string_view(), pa.binary_view())
    if column.type == pa.string_view():
        column = column.cast(pa.large_string())
    encoded = column.cast(pa.large_binary() if wide else pa.binary()).combine_chunks()
    encoded = (encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded).dictionary_encode()
    return encoded.dictionary, encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()


def refuse(messages: pa.Array, max_characters: int) -> tuple[pa.Array, pa.Array]:
    """Return (texts, reasons) of distinct messages: each as a string, and the reason why no model should see it, or null."""
    invalid = _invalid_utf8(messages)
    if invalid.any():
        messages = pc.if_else(pa.array(invalid), pa.scalar(b"", messages.type), messages)
    texts = messages.cast(pa.string())
    length = pc.utf8_length(texts)
    too_long = pc.binary_join_element_wise(
        "message of ", length.cast(pa.string()), f" characters is over the limit of {max_characters}", ""
    )
    reasons = pc.if_else(pc.greater(length, max_characters), too_long, pa.scalar(None, pa.string()))
    reasons = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), "empty message", reasons)
    return texts, pc.if_else(pa.array(invalid), "invalid UTF-8", reasons)


def _invalid_utf8(messages: pa.Array) -> np.ndarray:
    try:
        messages.cast(pa.string())
        return np.zeros(len(messages), bool)
    except pa.ArrowInvalid:
        return np.array([not _is_utf8(message) for message in messages.to_pylist()], bool)


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
        return True
    except UnicodeDecodeError:
        return False
