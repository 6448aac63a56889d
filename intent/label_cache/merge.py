"""Many files of a cache made one, cut by hash, without what has not been used for long. Memory is bounded by one piece."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pyarrow as pa

from intent.errors import CorruptData
from intent.label_cache import node, piece
from intent.label_cache.piece import Piece
from intent.label_cache.pointer import File, LabelCache, Outdated, Pointer
from intent.storage import sha256

# Entries of a file: about 20 MB.
PIECE_ROWS = 1 << 19
# Each file that a hash may be in is one more search.
MOST_DEPTH = 4
# Below the limit by this share, so that not every night evicts.
SLACK = 0.9
ATTEMPTS = 3
ALL = 1 << 64


def due(cache: LabelCache, pointer: Pointer) -> bool:
    """Whether merging would make lookups quicker, or something is to be evicted."""
    return pointer.depth > MOST_DEPTH or pointer.bytes > cache.limits.bytes or _oldest(cache, pointer, 2) > 0


def compact(cache: LabelCache, fetch: Callable[[LabelCache, File], Piece] = node.fetch) -> bool:
    """Merge and evict; False where another was quicker, or there is nothing to read. What cannot be read is left out."""
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
    day, kept = cutoff(cache, pointer)
    count = max(1, -(-pointer.rows // PIECE_ROWS))
    edges = [ALL * i // count for i in range(count + 1)]
    made = []
    for low, high in pairwise(edges):
        table = evict(piece.merge(found.between(low, high) for found in pieces), day, kept)
        for found in pieces:
            found.release()
        if len(table):
            made.append(cache.write(table))
    return made


def expire(cache: LabelCache) -> bool:
    """Delete a cache of which nothing was used within its days, as that of a catalog that has changed since."""
    used = [int(day) for file in cache.read().files for day in file.used]
    if not used or max(used) >= cache.day - cache.limits.days:
        return False
    cache.delete()
    return True


def cutoff(cache: LabelCache, pointer: Pointer) -> tuple[int, float]:
    """(the first day of last use that is kept, the share of that day's entries that is), by the limits in days and bytes."""
    first = cache.day - cache.limits.days
    if pointer.bytes <= cache.limits.bytes:
        return first, 1.0
    room = SLACK * cache.limits.bytes / (pointer.bytes / pointer.rows)
    counts: dict[int, int] = {}
    for file in pointer.files:
        for day, rows in file.used.items():
            counts[int(day)] = counts.get(int(day), 0) + rows
    for day in sorted(counts, reverse=True):
        if day < first:
            break
        if counts[day] > room:
            return day, room / counts[day]
        room -= counts[day]
    return first, 1.0


def evict(table: pa.Table, day: int, kept: float = 1.0) -> pa.Table:
    """Without the entries last used before `day`, and with a share `kept` of those of that day, drawn by their hash."""
    used, low = table["used"].to_numpy(), table["low"].to_numpy()
    stay = used > day
    stay |= (used == day) & (low < np.uint64(min(kept * ALL, ALL - 1)) if kept < 1 else True)
    return table.filter(pa.array(stay)) if not stay.all() else table


def _oldest(cache: LabelCache, pointer: Pointer, slack: int) -> int:
    """Entries that are over the limit of days by `slack` days and more: a night need not evict at once."""
    first = cache.day - cache.limits.days - slack
    return sum(rows for file in pointer.files for day, rows in file.used.items() if int(day) < first)


def verify(cache: LabelCache) -> list[str]:
    """What is wrong with the cache, in words: every file is read and checked as a run would."""
    wrong = []
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
                raise CorruptData(f"{cache.store.uri}/{file.key}: is not sorted, or not whole")
        except FileNotFoundError:
            wrong.append(f"{cache.store.uri}/{file.key}: is not there")
        except CorruptData as error:
            wrong.append(str(error))
    return wrong
