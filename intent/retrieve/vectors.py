"""Text as a vector: a message lies near the names of the products that it may be about, whatever the language of each.

A word's vector is the mean of those of its n-grams of characters and of itself, each found in one table by a hash. A text's is
the normalized sum of its words'. The table was learnt (`training.py`); here it is read with numpy alone.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from intent.task.catalog import normalize

SHORTEST, LONGEST = 3, 5
WORD = re.compile(r"\w+")
# Words whose vectors are kept: some tens of megabytes.
KEPT_WORDS = 100_000
# A word whose vector is shorter says little. Of the names of products, the mean length is 1.
LITTLE = 0.5
# A part of a message counts the more, the longer its vector is, by this power.
POWER = 0.4
# Texts embedded at once.
PIECE = 8192


@dataclass
class Vectors:
    """`table`: int8 [buckets, width]; `scales`: float16 [buckets], by which a row of it is multiplied."""

    table: np.ndarray
    scales: np.ndarray
    _rows: dict[str, int] = field(default_factory=dict)
    _words: np.ndarray | None = None

    @classmethod
    def of(cls, table: np.ndarray) -> "Vectors":
        """Of a float table [buckets, width], rounded to eight bits a row."""
        scales = (np.abs(table).max(axis=1) / 127).astype(np.float16)
        divisor = np.maximum(scales.astype(np.float32), 1e-12)[:, None]
        return cls(np.clip(np.rint(table / divisor), -127, 127).astype(np.int8), scales)

    @property
    def width(self) -> int:
        return self.table.shape[1]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [texts, width], each of length 1; a text without a word is 0."""
        found = np.zeros((len(texts), self.width), np.float32)
        for at in range(0, len(texts), PIECE):
            split = [words(text) for text in texts[at : at + PIECE]]
            rows = self._rows_of(split)
            full = [i for i, said in enumerate(split) if said]
            starts = np.concatenate([[0], np.cumsum([len(split[i]) for i in full])])[:-1].astype(np.int64)
            if full:
                found[at + np.asarray(full)] = np.add.reduceat(self._words[rows], starts, axis=0)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.maximum(lengths, 1e-12)

    def parts(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(queries [parts, width] of length 1, weights [parts], each one's text [parts]): every text whole, and its parts.

        A part is words that say something, with at most one that says little between two. Texts without a word have none.
        """
        split = [words(text) for text in texts]
        rows = self._rows_of(split)
        said = np.concatenate([self._words[rows], np.zeros((1, self.width), np.float32)])
        owner = np.repeat(np.arange(len(split)), [len(each) for each in split])
        telling = np.flatnonzero(np.linalg.norm(said[:-1], axis=1) >= LITTLE)
        apart = (np.diff(telling) > 2) | (np.diff(owner[telling]) > 0)
        first = telling[np.concatenate([[True], apart])] if len(telling) else telling
        last = telling[np.concatenate([apart, [True]])] if len(telling) else telling
        whole = np.flatnonzero(np.diff(owner, prepend=-1))
        starts = np.concatenate([whole, first])
        stops = np.concatenate([np.append(whole[1:], len(owner)) if len(whole) else whole, last + 1])
        if not len(starts):
            return np.zeros((0, self.width), np.float32), np.zeros(0), np.zeros(0, np.int64)
        sums = np.add.reduceat(said, np.stack([starts, stops], axis=1).ravel(), axis=0)[::2]
        lengths = np.linalg.norm(sums, axis=1)
        return sums / np.maximum(lengths, 1e-12)[:, None], lengths**POWER, owner[starts]

    def word_lengths(self, texts: Sequence[str]) -> np.ndarray:
        """float32: the length of the vector of each word of `texts`, one text's behind another's."""
        rows = self._rows_of([words(text) for text in texts])
        return np.linalg.norm(self._words[rows], axis=1)

    def _rows_of(self, split: Sequence[Sequence[str]]) -> np.ndarray:
        """The place of each word among the vectors that are kept; those of new words are made."""
        if self._words is None or len(self._rows) > KEPT_WORDS:
            self._rows, self._words = {}, np.zeros((0, self.width), np.float32)
        new = list(dict.fromkeys(word for said in split for word in said if word not in self._rows))
        if new:
            ids = [np.fromiter(grams(word, len(self.table)), np.int64) for word in new]
            counts = np.asarray([len(each) for each in ids])
            flat = np.concatenate(ids)
            values = self.table[flat] * self.scales[flat].astype(np.float32)[:, None]
            made = np.add.reduceat(values, np.cumsum(counts) - counts, axis=0) / counts[:, None]
            self._rows |= {word: len(self._rows) + i for i, word in enumerate(new)}
            self._words = np.concatenate([self._words, made.astype(np.float32)])
        return np.fromiter((self._rows[word] for said in split for word in said), np.int64)


def words(text: str) -> list[str]:
    """The words of a text in lower case and without accents, which shoppers leave out."""
    text = normalize(text).casefold()
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return WORD.findall(text)


def grams(word: str, buckets: int) -> Iterator[int]:
    """The buckets of a word and of the runs of 3 to 5 characters in it; where it begins and ends counts as one."""
    marked = f"<{word}>"
    yield zlib.crc32(marked.encode()) % buckets
    for length in range(SHORTEST, min(LONGEST, len(marked) - 1) + 1):
        for at in range(len(marked) - length + 1):
            yield zlib.crc32(marked[at : at + length].encode()) % buckets
