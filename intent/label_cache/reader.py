"""Looking messages up: what the files that count say of each, and which of them are to be asked again."""

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
# An entry's day of last use is behind by at most this share of the days that it is kept.
STALE_SHARE = 0.1


@dataclass(frozen=True)
class Found:
    """Of n messages: `high`, `low` [n], their hashes; `hit` [n] bool; `again` [n] bool, the hits that are to be asked again.

    Of the hits, in order: `codes`, each one's place in `answers`; `confidence`, before any threshold; `slots`, the list of
    each one's confidences. `stale`: entries that are to be kept anew with today's date.
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
    """A cache as an actor uses it. `salt`: another sample of each run is asked again. `notes`: what is ignored, and why."""

    cache: LabelCache
    salt: str = ""
    epoch: str = ""
    pieces: Sequence[Piece] = ()
    trusted: bool = True
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, cache: LabelCache, salt: str = "") -> "Reader":
        """Never raises for what is damaged, half written, gone or of another version: that is ignored with a note."""
        reader = cls(cache, salt)
        try:
            pointer = cache.read()
            reader.epoch = pointer.epoch
            for file in pointer.files:
                try:
                    reader.pieces = [*reader.pieces, node.fetch(cache, file)]
                except (IntentError, OSError) as error:
                    reader._ignore(error)
            node.tidy(cache, {file.sha256 for file in pointer.files})
        except (IntentError, OSError) as error:
            reader._ignore(error)
        return reader

    @property
    def token(self) -> str:
        """What is trusted or not: the labels of one epoch of one scope."""
        return f"{self.cache.scope.name}/{self.epoch}"

    def forget(self) -> None:
        """From now on nothing is found: its labels are not trusted."""
        self.pieces, self.trusted = (), False

    def look(self, texts: pa.Array) -> Found:
        """What is kept of these messages, which have no null."""
        high, low = self.cache.scope.hashes(texts)
        order = piece.order_of(high, low) if self.pieces else np.zeros(0, np.int64)
        sorted_high, sorted_low = high[order], low[order]
        codes, confidence = np.full(len(high), -1, np.int64), np.zeros(len(high))
        answers: dict[str, int] = {}
        taken, slots = [np.zeros(0, np.int64)], [pa.array([], piece.ENTRIES.field("slots").type)]
        stale, oldest = [], self.cache.day - int(self.cache.limits.days * STALE_SHARE)
        for part in self.pieces:
            start = np.searchsorted(sorted_high, part.high[0], "left")
            stop = np.searchsorted(sorted_high, part.high[-1], "right")
            rows = part.find(sorted_high[start:stop], sorted_low[start:stop])
            places = order[start:stop]
            new = (rows >= 0) & (codes[places] < 0)
            rows, places = rows[new], places[new]
            if len(rows):
                said, which, sure, used = part.said(rows)
                codes[places] = np.array([answers.setdefault(text, len(answers)) for text in said])[which]
                confidence[places] = sure
                taken.append(places)
                slots.append(part.slots.take(pa.array(rows)))
                if (old := used < oldest).any():
                    stale.append(self._renewed(part.table.take(pa.array(rows[old]))))
            part.release()
        hit = codes >= 0
        again = hit & self._drawn(low)
        lists = pa.concat_arrays(slots).take(pa.array(np.argsort(np.concatenate(taken))))
        return Found(high, low, hit, codes[hit], [_parse(text) for text in answers], confidence[hit], again, lists, stale)

    def _drawn(self, low: np.ndarray) -> np.ndarray:
        """A share `sample` of all hashes, another one of each salt."""
        salt = np.uint64(int.from_bytes(self.salt.encode()[:8].ljust(8), "big"))
        mixed = (low ^ salt) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        return (mixed >> np.uint64(11)) < np.uint64(self.cache.sample * (1 << 53))

    def _renewed(self, entries: pa.Table) -> pa.Table:
        today = pa.array(np.full(len(entries), self.cache.day), pa.uint16())
        return entries.set_column(entries.column_names.index("used"), piece.ENTRIES.field("used"), today)

    def _ignore(self, error: Exception) -> None:
        self.notes.append(str(error) if isinstance(error, IntentError) else f"{type(error).__name__}: {error}")
        log.warning("ignores what cannot be read of the label cache: %s", self.notes[-1])


@lru_cache(1 << 14)
def _parse(text: str) -> tuple[Intent, str]:
    intent, variant = json.loads(text)
    return intent, variant
