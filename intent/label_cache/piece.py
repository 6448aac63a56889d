"""Define a file of the cache: an immutable Arrow IPC file of one batch, sorted by hash.

Lookups map the file into memory and read only the pages they need. Columns: `high` and `low` (the halves of the message's
hash), `answer` (dictionary-encoded JSON of the intent and the variant that gave it), `confidence` (of the whole intent, before
any threshold), `slots` (the confidence of each decided slot) and `used` (the UTC day of the last use, in days since 1970).
"""

import io
import json
import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent.engine.grouped import Grouped
from intent.errors import CorruptData
from intent.task.schema import Intent

VERSION = b"1"
MARK = b"intent.label_cache"
ENTRIES = pa.schema(
    [
        ("high", pa.uint64()),
        ("low", pa.uint64()),
        ("answer", pa.dictionary(pa.int32(), pa.string())),
        ("confidence", pa.float64()),
        ("slots", pa.list_(pa.float32())),
        ("used", pa.uint16()),
    ]
)
DAY_SECONDS = 24 * 3600


def entries(high: np.ndarray, low: np.ndarray, grouped: Grouped, variant: str, day: int) -> pa.Table:
    """Build the entries of an engine's predictions, `grouped`, in their order.

    `high`, `low`: uint64 [predictions], the halves of the messages' hashes. `variant`: used if a prediction does not name its
    own. `day`: the day of last use, in days since 1970.
    """
    answers = [answer(kind.intent, kind.variant or variant) for kind in grouped.kinds]
    columns = [
        pa.array(high, pa.uint64()),
        pa.array(low, pa.uint64()),
        pa.DictionaryArray.from_arrays(pa.array(grouped.codes, pa.int32()), pa.array(answers, pa.string())),
        pa.array(grouped.confidence),
        grouped.slots,
        pa.array(np.full(len(grouped.codes), day, np.uint16)),
    ]
    return pa.table(columns, ENTRIES)


def answer(intent: Intent | None, variant: str) -> str:
    """Encode an intent and its variant as a value of the `answer` column."""
    return json.dumps([intent, variant], ensure_ascii=False)


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """Merge tables of entries, sorted by hash. If several entries have the same hash, the first table's is kept."""
    table = pa.concat_tables([ENTRIES.empty_table(), *tables]).unify_dictionaries()
    high, low = (table[name].to_numpy() for name in ("high", "low"))
    order = order_of(high, low)
    high, low = high[order], low[order]
    first = np.ones(len(order), bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    rows = pa.array(order[first])
    # Memory holds one column twice, not the whole table.
    return pa.table([table[name].combine_chunks().take(rows) for name in ENTRIES.names], ENTRIES)


def order_of(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return the indices that sort the hashes. Equal hashes keep their order."""
    order = np.argsort(high)
    ordered = high[order]
    # Two hashes seldom share the upper half, and sorting by one key takes a third of the time of sorting by two.
    return order if (ordered[1:] != ordered[:-1]).all() else np.lexsort((low, high))


def dump(table: pa.Table) -> bytes:
    """Serialize a table as a file. Answers that no entry uses are left out of the dictionary."""
    if len(table):
        table = table.unify_dictionaries().combine_chunks()
        answers = table["answer"].chunk(0)
        codes = answers.indices.to_numpy()
        used = np.bincount(codes, minlength=len(answers.dictionary)) > 0
        if not used.all():
            indices = pa.array((np.cumsum(used) - 1)[codes], pa.int32())
            answers = pa.DictionaryArray.from_arrays(indices, answers.dictionary.filter(pa.array(used)))
            table = table.set_column(table.column_names.index("answer"), ENTRIES.field("answer"), answers)
    # Arrow's own buffer would have to be copied to bytes.
    sink = io.BytesIO()
    table = table.combine_chunks().replace_schema_metadata({MARK: VERSION})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def load(data: bytes | pa.Buffer, source: str) -> pa.Table:
    """Parse a file's entries. Raises CorruptData, which names `source`, if it is not a file of this version."""
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as file:
            if (file.schema.metadata or {}).get(MARK) != VERSION or not file.schema.equals(ENTRIES):
                raise CorruptData(f"{source}: not a label cache file of version {VERSION.decode()}")
            return file.read_all()
    except (pa.ArrowException, OSError) as error:
        raise CorruptData(f"{source}: not a label cache file ({str(error).splitlines()[0]})") from error


class Piece:
    """Look entries up in a memory-mapped file. The caller must have checked the file's SHA-256.

    Raises CorruptData if it is not a file of this version. Call `release` after each lookup to bound the resident memory.
    """

    def __init__(self, path: Path):
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.table = load(pa.py_buffer(self._map), str(path))
        columns = [self.table[name].chunk(0) for name in ENTRIES.names]
        self.high, self.low = columns[0].to_numpy(), columns[1].to_numpy()
        self._answers, self._codes = columns[2].dictionary, columns[2].indices.to_numpy()
        self._confidence, self.slots, self._used = columns[3].to_numpy(), columns[4], columns[5].to_numpy()

    def find(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Return the row of each hash, int64 [hashes], or -1 if the file does not have it. `high` must be sorted."""
        at = np.searchsorted(self.high, high)
        rows = np.full(len(high), -1, np.int64)
        pending = np.flatnonzero(at < len(self.high))
        # Two hashes seldom share the upper half, so one iteration is nearly always enough.
        while len(pending):
            pending = pending[self.high[at[pending]] == high[pending]]
            same = self.low[at[pending]] == low[pending]
            rows[pending[same]] = at[pending[same]]
            pending = pending[~same]
            at[pending] += 1
            pending = pending[at[pending] < len(self.high)]
        return rows

    def labels(self, rows: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Return (distinct answers, each row's index in them, confidences, days of last use)."""
        codes, indices = np.unique(self._codes[rows], return_inverse=True)
        return self._answers.take(pa.array(codes)).to_pylist(), indices, self._confidence[rows], self._used[rows]

    def between(self, low: int, high: int) -> pa.Table:
        """Return the entries whose upper half is at least `low` and below `high`."""
        start, stop = (
            int(np.searchsorted(self.high, np.uint64(edge))) if edge < 1 << 64 else len(self.high) for edge in (low, high)
        )
        return self.table.slice(start, stop - start)

    def release(self) -> None:
        """Drop the mapped pages from this process. The system's page cache keeps them while memory is free."""
        self._map.madvise(mmap.MADV_DONTNEED)


def days(table: pa.Table) -> dict[str, int]:
    """Count the entries by day of last use."""
    counts = pc.value_counts(table["used"])
    return {str(entry["values"]): entry["counts"] for entry in counts.to_pylist()}
