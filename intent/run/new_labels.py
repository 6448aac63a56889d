"""Keep a run's new labels beside its parts until the label cache has learned them.

In the output, `fresh/<scope>/<part>.arrow` holds labels that an engine made. `fresh/<scope>/<part>-<epoch>.copy` holds labels
of the cache that would expire but are still in use. Each file is written before its part. Its entries are not sorted. No file
holds a message.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import pyarrow as pa

from intent.artifacts import fingerprint
from intent.errors import CorruptData, IntentError
from intent.label_cache import LabelCache, merge, piece
from intent.label_cache.pointer import File, Outdated
from intent.storage import Blob, Store

FOLDER, LEARNT = "fresh", "fresh/learnt"
ATTEMPTS = 3
# The number of files that are read ahead.
AHEAD = 64
# Sorting and writing release Python's lock, and the actors have nothing to do meanwhile.
WRITERS = 2


@dataclass(frozen=True)
class Fresh:
    """Entries for the cache of `scope`, as files: new `labels` of engines, and `copies` of the cache's own
    labels of `epoch`.
    """

    scope: str
    epoch: str
    labels: bytes | None
    copies: bytes | None

    @classmethod
    def of(cls, scope: str, epoch: str, labels: pa.Table, copies: Sequence[pa.Table]) -> "Fresh | None":
        """Serialize the entries, unsorted. Returns None if there are none."""
        entries = piece.dump(labels) if len(labels) else None
        copied = piece.dump(pa.concat_tables(copies)) if copies else None
        return cls(scope, epoch, entries, copied) if entries or copied else None


def keep(store: Store, name: str, fresh: Fresh | None) -> None:
    """Write the entries of the part `name`, unless they exist."""
    if fresh and fresh.labels:
        store.put_if_absent(f"{FOLDER}/{fresh.scope}/{name}.arrow", fresh.labels)
    if fresh and fresh.copies:
        store.put_if_absent(f"{FOLDER}/{fresh.scope}/{name}-{fresh.epoch}.copy", fresh.copies)


def learn(output: Store, caches: Sequence[LabelCache]) -> int:
    """Add a run's entries to the caches, once, and delete them from the run. Returns how many labels were added.

    A call that stopped anywhere may be repeated, and two drivers may call it at once. Damaged files are skipped. Raises
    IntentError if other writers keep changing the cache.
    """
    blobs, added = list(output.list(f"{FOLDER}/")), 0
    if not any(blob.key == LEARNT for blob in blobs):
        for cache in caches:
            mine = [blob for blob in blobs if blob.key.startswith(f"{FOLDER}/{cache.scope.name}/")]
            added += _add(output, mine, cache) if mine else 0
        if blobs:
            # Without this mark, a driver that sees half of the files deleted would take the others for another run.
            output.put_if_absent(LEARNT, b"")
    with ThreadPoolExecutor(output.parallel) as pool:
        list(pool.map(output.delete, [blob.key for blob in blobs if blob.key != LEARNT]))
    output.delete(LEARNT)
    return added


def _add(output: Store, blobs: Sequence[Blob], cache: LabelCache) -> int:
    batch = fingerprint([(blob.key, blob.etag) for blob in blobs])
    for _ in range(ATTEMPTS):
        pointer = cache.begin()
        if batch in pointer.nights:
            return 0
        copies = f"-{pointer.epoch}.copy"
        # The first entry of a message counts: a new answer of an engine precedes an old answer of the cache.
        keys = [blob.key for ending in (".arrow", copies) for blob in blobs if blob.key.endswith(ending)]
        try:
            files = _write(_batches(_tables(output, keys)), cache)
            cache.add(batch, files, pointer.epoch)
            return sum(file.rows for file in files)
        except Outdated:
            continue
    raise IntentError(f"{cache.store.uri}: other writers keep changing it; run again")


def _write(batches: Iterable[Sequence[pa.Table]], cache: LabelCache) -> list[File]:
    """Write a cache file of each batch, in order. Memory holds one file more than there are WRITERS."""
    files: list[Future[File]] = []
    with ThreadPoolExecutor(WRITERS) as pool:
        for batch in batches:
            files.append(pool.submit(lambda batch: cache.write(piece.merge(batch)), batch))
            wait(files[:-WRITERS])
    return [file.result() for file in files]


def _batches(tables: Iterable[pa.Table]) -> Iterator[Sequence[pa.Table]]:
    """Yield the tables in batches of about PIECE_ROWS entries."""
    buffer: list[pa.Table] = []
    for table in tables:
        if buffer and sum(map(len, buffer)) + len(table) > merge.PIECE_ROWS:
            yield buffer
            buffer = []
        buffer.append(table)
    if buffer:
        yield buffer


def _tables(output: Store, keys: Sequence[str]) -> Iterator[pa.Table]:
    def read(key: str) -> pa.Table | None:
        try:
            return piece.load(output.read(key), f"{output.uri}/{key}")
        except (CorruptData, FileNotFoundError):
            # Another driver has learned the file, or it is damaged. Both are harmless.
            return None

    with ThreadPoolExecutor(output.parallel) as pool:
        for start in range(0, len(keys), AHEAD):
            yield from (table for table in pool.map(read, keys[start : start + AHEAD]) if table is not None)
