"""A shard's rows as Arrow, and the messages among them that no model needs to see.

Knows storage and Parquet; nothing of labels or classifiers. No Python loop over rows.
"""

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.errors import CorruptData
from intent.night.shard import Shard
from intent.storage import Store

TEXT = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())


class ShardReader:
    """Reads shards one at a time, and keeps the row group that the last one was cut from, for its next piece."""

    def __init__(self, source: Store, columns: Sequence[str]):
        self.source, self.columns = source, list(columns)
        self._lock = threading.Lock()
        self._kept: tuple[object, pa.Table | None] = (None, None)

    def read(self, shard: Shard) -> pa.Table:
        """The shard's rows. Raises CorruptData where the object is not what was planned."""
        with self._lock:
            try:
                rows = self._rows(shard)
            except FileNotFoundError as error:
                raise CorruptData(f"{shard.blob.key}: is gone since it was planned") from error
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, MemoryError) or getattr(error, "errno", None):
                    # This machine's trouble, which may pass. What Arrow finds wrong in a file has no errno.
                    raise
                raise CorruptData(f"{shard.blob.key}: {str(error).splitlines()[0]}") from error
        if len(rows) != shard.rows:
            raise CorruptData(f"{shard.blob.key}: has {len(rows)} rows from {shard.start} on, {shard.rows} were planned")
        return rows

    def _rows(self, shard: Shard) -> pa.Table:
        with self.source.open(shard.blob.key, shard.blob) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)
            groups, offset = _groups(file.metadata, shard)
            key, table = self._kept
            if key != (shard.blob, groups):
                table = file.read_row_groups(groups, columns=self.columns, use_threads=False)
            cut = len(groups) == 1 and len(table) > shard.rows
            self._kept = ((shard.blob, groups), table) if cut else (None, None)
        return table.slice(offset, shard.rows)


def _groups(metadata: pq.FileMetaData, shard: Shard) -> tuple[list[int], int]:
    """The row groups that hold the shard's rows, and the place of the shard's first row in the first of them."""
    groups, at, offset = [], 0, 0
    for i in range(metadata.num_row_groups):
        rows = metadata.row_group(i).num_rows
        if at < shard.start + shard.rows and at + rows > shard.start:
            offset = offset if groups else shard.start - at
            groups.append(i)
        at += rows
    return groups, offset


def distinct(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """(the distinct messages as bytes, each row's place among them, their number for null).

    Bytes, because nothing before validation may trust a string column to be UTF-8.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type not in TEXT:
        raise CorruptData(f"the message column is {column.type}, not text")
    if column.type == pa.string_view():
        column = column.cast(pa.large_string())
    wide = column.type in (pa.large_string(), pa.large_binary())
    encoded = column.cast(pa.large_binary() if wide else pa.binary()).combine_chunks()
    encoded = (encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded).dictionary_encode()
    return encoded.dictionary, encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()


def refuse(messages: pa.Array, max_characters: int) -> tuple[pa.Array, pa.Array]:
    """(texts, reasons) of distinct messages: each as a string, and why no model should see it, or null."""
    invalid = _invalid_utf8(messages)
    if invalid.any():
        messages = pc.if_else(pa.array(invalid), pa.scalar(b"", messages.type), messages)
    texts = messages.cast(pa.string())
    length = pc.utf8_length(texts)
    said = pc.binary_join_element_wise(
        "message of ", length.cast(pa.string()), f" characters is over the limit of {max_characters}", ""
    )
    reasons = pc.if_else(pc.greater(length, max_characters), said, pa.scalar(None, pa.string()))
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
