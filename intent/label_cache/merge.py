"""Merge a cache's files and evict old entries.

The merged files cover disjoint ranges of hashes. One file at a time is built in memory.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pyarrow as pa

from intent.errors import CorruptData
from intent.label_cache import node, piece
from intent.label_cache.piece import Piece
from intent.label_cache.pointer import File, LabelCache, Outdated, Pointer
from intent.storage import sha256

# A file of so many entries has about 20 MB.
PIECE_ROWS = 1 << 19
# A lookup searches every file whose range covers the hash.
MOST_DEPTH = 4
# Eviction leaves free capacity below the limit, so that not every run has to evict.
SLACK = 0.9
ATTEMPTS = 3
ALL = 1 << 64


def due(cache: LabelCache, pointer: Pointer) -> bool:
    """Return whether to merge: a hash can be in too many files, the cache is too large, or entries are too old."""
    return pointer.depth > MOST_DEPTH or pointer.bytes > cache.limits.bytes or _oldest(cache, pointer, 2) > 0


def compact(cache: LabelCache, fetch: Callable[[LabelCache, File], Piece] = node.fetch) -> bool:
    """Merge the files and evict old entries. Unreadable files are left out.

    Returns False if the cache is empty or another process changed it first.
    """
    for _ in range(ATTEMPTS):
        pointer = cache.read()
        if not pointer.files:
            return False
        try:
            return cache.exchange(pointer.files, _merged(cache, pointer, fetch))
        except Outdated:
            continue
    return False


def _merged(cache: LabelCache, pointer: Pointer, fetch: Callable[[LabelCache, File], Piece]) -> list[File]:
    pieces = []
    for file in pointer.files:
        try:
            pieces.append(fetch(cache, file))
        except CorruptData:
            continue
    day, share = cutoff(cache, pointer)
    count = max(1, -(-pointer.rows // PIECE_ROWS))
    edges = [ALL * i // count for i in range(count + 1)]
    files = []
    for low, high in pairwise(edges):
        table = evict(piece.merge(part.between(low, high) for part in pieces), day, share)
        for part in pieces:
            part.release()
        if len(table):
            files.append(cache.write(table))
    return files


def expire(cache: LabelCache) -> bool:
    """Delete the cache if none of its entries was used within `limits.days`. Returns whether it was deleted.

    A changed catalog starts a new scope, and the old scope's cache is then seldom used again.
    """
    used = [int(day) for file in cache.read().files for day in file.used]
    if not used or max(used) >= cache.day - cache.limits.days:
        return False
    cache.delete()
    return True


def cutoff(cache: LabelCache, pointer: Pointer) -> tuple[int, float]:
    """Apply the limits in days and bytes. Returns the first day of last use to keep, and the share of that day's entries."""
    first = cache.day - cache.limits.days
    if pointer.bytes <= cache.limits.bytes:
        return first, 1.0
    budget = SLACK * cache.limits.bytes / (pointer.bytes / pointer.rows)
    counts: dict[int, int] = {}
    for file in pointer.files:
        for day, rows in file.used.items():
            counts[int(day)] = counts.get(int(day), 0) + rows
    for day in sorted(counts, reverse=True):
        if day < first:
            break
        if counts[day] > budget:
            return day, budget / counts[day]
        budget -= counts[day]
    return first, 1.0


def evict(table: pa.Table, day: int, share: float = 1.0) -> pa.Table:
    """Remove the entries last used before `day`. Of that day's entries, keep `share`, chosen by hash."""
    used, low = table["used"].to_numpy(), table["low"].to_numpy()
    stay = used > day
    stay |= (used == day) & (low < np.uint64(min(share * ALL, ALL - 1)) if share < 1 else True)
    return table.filter(pa.array(stay)) if not stay.all() else table


def _oldest(cache: LabelCache, pointer: Pointer, slack: int) -> int:
    """Count the entries that are over the limit of days by more than `slack` days, so that not every run has to evict."""
    first = cache.day - cache.limits.days - slack
    return sum(rows for file in pointer.files for day, rows in file.used.items() if int(day) < first)


def verify(cache: LabelCache) -> list[str]:
    """Read and check the pointer and every file. Returns one line for each problem."""
    problems = []
    try:
        pointer = cache.read()
    except CorruptData as error:
        return [str(error)]
    for file in pointer.files:
        try:
            data = cache.store.read(file.key)
            if sha256(data) != file.sha256:
                raise CorruptData(f"{cache.store.uri}/{file.key}: SHA-256 is not the pointer's")
            table = piece.load(data, f"{cache.store.uri}/{file.key}")
            high = table["high"].to_numpy()
            if len(table) != file.rows or (high[1:] < high[:-1]).any() or table["answer"].null_count:
                raise CorruptData(f"{cache.store.uri}/{file.key}: is not sorted, or is incomplete")
        except FileNotFoundError:
            problems.append(f"{cache.store.uri}/{file.key}: does not exist")
        except CorruptData as error:
            problems.append(str(error))
    return problems
