"""Look messages up in the cache, and draw the sample of cached messages that the engines label again."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa

from intent.errors import IntentError
from intent.label_cache import node, piece
from intent.label_cache.piece import Piece
from intent.label_cache.pointer import LabelCache
from intent.task.schema import Intent

log = logging.getLogger(__name__)
# The recorded day of last use may be late by this share of `limits.days`, so that not every lookup writes the entry again.
STALE_SHARE = 0.1


@dataclass(frozen=True)
class Lookup:
    """Hold the result of looking n messages up.

    For every message: `high`, `low` uint64 [n], the halves of its hash; `hit` bool [n]; `again` bool [n], whether it is a hit
    that the engines label again. For every hit, in order: `codes`, its index in `answers`, which are (intent, variant);
    `confidence`, before any threshold; `slots`, the confidences of its slots. `stale`: entries to write again with today as the
    day of last use.
    """

    high: np.ndarray
    low: np.ndarray
    hit: np.ndarray
    codes: np.ndarray
    answers: Sequence[tuple[Intent, str]]
    confidence: np.ndarray
    again: np.ndarray
    slots: pa.Array
    stale: Sequence[pa.Table] = ()


@dataclass
class Reader:
    """Look messages up for an actor.

    `salt`: differs between runs, so that each run labels another sample again. `trusted`: False after `forget`. `notes`: why
    files were ignored, one line each.
    """

    cache: LabelCache
    salt: str = ""
    epoch: str = ""
    pieces: Sequence[Piece] = ()
    trusted: bool = True
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, cache: LabelCache, salt: str = "") -> "Reader":
        """Open the cache's files. Ignores a missing or damaged one, or one of another version, with a note."""
        reader = cls(cache, salt)
        try:
            pointer = cache.read()
            reader.epoch = pointer.epoch
            for file in pointer.files:
                try:
                    reader.pieces = [*reader.pieces, node.fetch(cache, file)]
                except (IntentError, OSError) as error:
                    reader._ignore(error)
            node.clean_up(cache, {file.sha256 for file in pointer.files})
        except (IntentError, OSError) as error:
            reader._ignore(error)
        return reader

    @property
    def token(self) -> str:
        """Name the labels of one epoch of one scope, which are trusted or dropped together."""
        return f"{self.cache.scope.name}/{self.epoch}"

    def forget(self) -> None:
        """Find nothing from now on, because the labels are no longer trusted."""
        self.pieces, self.trusted = (), False

    def look(self, texts: pa.Array) -> Lookup:
        """Look messages up. `texts` [n] must not contain nulls."""
        high, low = self.cache.scope.hashes(texts)
        order = piece.order_of(high, low) if self.pieces else np.zeros(0, np.int64)
        sorted_high, sorted_low = high[order], low[order]
        codes, confidence = np.full(len(high), -1, np.int64), np.zeros(len(high))
        answers: dict[str, int] = {}
        hit_positions, slots = [np.zeros(0, np.int64)], [pa.array([], piece.ENTRIES.field("slots").type)]
        stale, oldest = [], self.cache.day - int(self.cache.limits.days * STALE_SHARE)
        for part in self.pieces:
            start = np.searchsorted(sorted_high, part.high[0], "left")
            stop = np.searchsorted(sorted_high, part.high[-1], "right")
            rows = part.find(sorted_high[start:stop], sorted_low[start:stop])
            positions = order[start:stop]
            new = (rows >= 0) & (codes[positions] < 0)
            rows, positions = rows[new], positions[new]
            if len(rows):
                distinct, indices, confidence[positions], used = part.labels(rows)
                codes[positions] = np.array([answers.setdefault(text, len(answers)) for text in distinct])[indices]
                hit_positions.append(positions)
                slots.append(part.slots.take(pa.array(rows)))
                if (old := used < oldest).any():
                    stale.append(self._renewed(part.table.take(pa.array(rows[old]))))
            part.release()
        hit = codes >= 0
        again = hit & self._drawn(low)
        lists = pa.concat_arrays(slots).take(pa.array(np.argsort(np.concatenate(hit_positions))))
        return Lookup(high, low, hit, codes[hit], [_parse(text) for text in answers], confidence[hit], again, lists, stale)

    def _drawn(self, low: np.ndarray) -> np.ndarray:
        """Draw a share `sample` of the hashes. Returns bool [hashes], which depends on the hash and the salt only."""
        salt = np.uint64(int.from_bytes(self.salt.encode()[:8].ljust(8), "big"))
        mixed = (low ^ salt) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        return (mixed >> np.uint64(11)) < np.uint64(self.cache.sample * (1 << 53))

    def _renewed(self, entries: pa.Table) -> pa.Table:
        today = pa.array(np.full(len(entries), self.cache.day), pa.uint16())
        return entries.set_column(entries.column_names.index("used"), piece.ENTRIES.field("used"), today)

    def _ignore(self, error: Exception) -> None:
        self.notes.append(str(error) if isinstance(error, IntentError) else f"{type(error).__name__}: {error}")
        log.warning("ignores an unreadable part of the label cache: %s", self.notes[-1])


@lru_cache(1 << 14)
def _parse(text: str) -> tuple[Intent, str]:
    intent, variant = json.loads(text)
    return intent, variant
