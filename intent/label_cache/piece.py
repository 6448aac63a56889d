"""A file of the cache: an Arrow IPC file of one batch, sorted by hash, that is never changed.

It is mapped, never read whole. Columns: `high` and `low` (the halves of the message's hash), `answer` (the intent and the
variant that gave it, as JSON, in a dictionary), `confidence` (of the whole intent, before any threshold), `slots` (of each
decided slot) and `used` (the UTC day of the last use, in days since 1970).
"""

import json
import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent.engine import Prediction
from intent.errors import CorruptData

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


def entries(high: np.ndarray, low: np.ndarray, predictions: Sequence[Prediction], variant: str, day: int) -> pa.Table:
    """What an engine has answered, as entries. `variant`: the classifier's, where a prediction does not name its own."""
    codes: dict[object, int] = {}
    answers: list[str] = []
    indices = []
    for found in predictions:
        said = found.variant or variant
        try:
            known = codes.get(key := (said, *found.intent.values()))
        except TypeError:
            # A value that is a list.
            known = codes.get(key := answer(found.intent, said))
        if known is None:
            known = codes[key] = len(answers)
            answers.append(answer(found.intent, said))
        indices.append(known)
    columns = [
        pa.array(high, pa.uint64()),
        pa.array(low, pa.uint64()),
        pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(answers, pa.string())),
        pa.array([found.confidence for found in predictions], pa.float64()),
        pa.array([found.slots for found in predictions], pa.list_(pa.float32())),
        pa.array(np.full(len(indices), day), pa.uint16()),
    ]
    return pa.table(columns, ENTRIES)


def answer(intent: dict, variant: str) -> str:
    return json.dumps([intent, variant], ensure_ascii=False)


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """All entries, sorted by hash. Of several with one hash the first table's stays."""
    table = pa.concat_tables([ENTRIES.empty_table(), *tables]).unify_dictionaries().combine_chunks()
    high, low = (table[name].to_numpy() for name in ("high", "low"))
    order = order_of(high, low)
    high, low = high[order], low[order]
    first = np.ones(len(order), bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return table.take(pa.array(order[first]))


def order_of(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The places of the hashes, sorted; equal ones stay in their order."""
    order = np.argsort(high)
    found = high[order]
    # Two hashes seldom have the same upper half, and one key is sorted in a third of the time of two.
    return order if (found[1:] != found[:-1]).all() else np.lexsort((low, high))


def dump(table: pa.Table) -> bytes:
    """A sorted table as a file's bytes, with no answer that no entry has."""
    if len(table):
        answers = table["answer"].unify_dictionaries().combine_chunks()
        answers = answers.chunk(0) if isinstance(answers, pa.ChunkedArray) else answers
        codes, places = np.unique(answers.indices.to_numpy(), return_inverse=True)
        answers = pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), answers.dictionary.take(pa.array(codes)))
        table = table.set_column(table.column_names.index("answer"), ENTRIES.field("answer"), answers)
    sink = pa.BufferOutputStream()
    table = table.combine_chunks().replace_schema_metadata({MARK: VERSION})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def load(data: bytes | pa.Buffer, source: str) -> pa.Table:
    """A file's entries. Raises CorruptData where it is none of this version."""
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as file:
            if (file.schema.metadata or {}).get(MARK) != VERSION or not file.schema.equals(ENTRIES):
                raise CorruptData(f"{source}: not a label cache's file of version {VERSION.decode()}")
            return file.read_all()
    except (pa.ArrowException, OSError) as error:
        raise CorruptData(f"{source}: not a label cache's file ({str(error).splitlines()[0]})") from error


class Piece:
    """A mapped file, which must have been checked against its SHA-256. Its pages are given back after each lookup."""

    def __init__(self, path: Path):
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.table = load(pa.py_buffer(self._map), str(path))
        columns = [self.table[name].chunk(0) for name in ENTRIES.names]
        self.high, self.low = columns[0].to_numpy(), columns[1].to_numpy()
        self._answers, self._codes = columns[2].dictionary, columns[2].indices.to_numpy()
        self._confidence, self.slots, self._used = columns[3].to_numpy(), columns[4], columns[5].to_numpy()

    def find(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """The row of each hash, -1 where there is none. `high` is sorted, as the rows are."""
        at = np.searchsorted(self.high, high)
        rows = np.full(len(high), -1, np.int64)
        open_ = np.flatnonzero(at < len(self.high))
        # Nearly always one turn: two hashes seldom have the same upper half.
        while len(open_):
            open_ = open_[self.high[at[open_]] == high[open_]]
            same = self.low[at[open_]] == low[open_]
            rows[open_[same]] = at[open_[same]]
            open_ = open_[~same]
            at[open_] += 1
            open_ = open_[at[open_] < len(self.high)]
        return rows

    def said(self, rows: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """(the different answers, each row's place among them, confidences, days of last use)."""
        codes, places = np.unique(self._codes[rows], return_inverse=True)
        return self._answers.take(pa.array(codes)).to_pylist(), places, self._confidence[rows], self._used[rows]

    def between(self, low: int, high: int) -> pa.Table:
        """The entries whose upper half is at least `low` and below `high`."""
        start, stop = (
            int(np.searchsorted(self.high, np.uint64(edge))) if edge < 1 << 64 else len(self.high) for edge in (low, high)
        )
        return self.table.slice(start, stop - start)

    def release(self) -> None:
        """Give the pages back to the system, which keeps them while it has room."""
        self._map.madvise(mmap.MADV_DONTNEED)


def days(table: pa.Table) -> dict[str, int]:
    """How many entries were last used on each day."""
    counts = pc.value_counts(table["used"])
    return {str(entry["values"]): entry["counts"] for entry in counts.to_pylist()}
