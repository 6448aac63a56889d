"""Embed text, so that a message is near the names of the products that it may be about, in any language.

A word's vector is the mean of the vectors of the word itself and of its character n-grams, which are hashed into one table (as
in fastText, Bojanowski et al., arXiv 1607.04606). A text's vector is the normalized sum of its words' vectors. `training.py`
learns the table. This module needs only numpy.
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
# The cache of word vectors takes some tens of megabytes.
KEPT_WORDS = 100_000
# A content word has a vector of at least this length. The words of products' names have a mean length of 1.
CONTENT_LENGTH = 0.5
# The weight of a part of a message is the length of its vector to this power.
POWER = 0.4
# Texts that are embedded at once, which bounds the memory.
BATCH = 8192


@dataclass
class Vectors:
    """Embed texts with a quantized table.

    `table`: int8 [buckets, width]. `scales`: float16 [buckets], the factor of each row of the table.
    """

    table: np.ndarray
    scales: np.ndarray
    _rows: dict[str, int] = field(default_factory=dict)
    _words: np.ndarray | None = None

    @classmethod
    def of(cls, table: np.ndarray) -> "Vectors":
        """Quantize a float table [buckets, width] to eight bits, with one scale per row."""
        scales = (np.abs(table).max(axis=1) / 127).astype(np.float16)
        divisor = np.maximum(scales.astype(np.float32), 1e-12)[:, None]
        return cls(np.clip(np.rint(table / divisor), -127, 127).astype(np.int8), scales)

    @property
    def width(self) -> int:
        """Return the number of dimensions."""
        return self.table.shape[1]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts. Returns float32 [texts, width] of length 1. The vector of a text without a word is 0."""
        sums = np.zeros((len(texts), self.width), np.float32)
        for at in range(0, len(texts), BATCH):
            split = [words(text) for text in texts[at : at + BATCH]]
            vectors = self._vectors_of(split)
            full = [i for i, text_words in enumerate(split) if text_words]
            starts = np.concatenate([[0], np.cumsum([len(split[i]) for i in full])])[:-1].astype(np.int64)
            if full:
                sums[at + np.asarray(full)] = np.add.reduceat(vectors, starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return sums / np.maximum(lengths, 1e-12)

    def parts(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embed every whole text and its parts. Texts without a word have no part.

        A part is a run of content words, with at most one other word between two of them. Returns (queries float32 [parts,
        width] of length 1, weights [parts], the index of each part's text [parts]).
        """
        split = [words(text) for text in texts]
        # The last stop is an index past the words, which `reduceat` needs a row for.
        vectors = np.concatenate([self._vectors_of(split), np.zeros((1, self.width), np.float32)])
        owner = np.repeat(np.arange(len(split)), [len(each) for each in split])
        content = np.flatnonzero(np.linalg.norm(vectors[:-1], axis=1) >= CONTENT_LENGTH)
        apart = (np.diff(content) > 2) | (np.diff(owner[content]) > 0)
        first = content[np.concatenate([[True], apart])] if len(content) else content
        last = content[np.concatenate([apart, [True]])] if len(content) else content
        whole = np.flatnonzero(np.diff(owner, prepend=-1))
        starts = np.concatenate([whole, first])
        stops = np.concatenate([np.append(whole[1:], len(owner)) if len(whole) else whole, last + 1])
        if not len(starts):
            return np.zeros((0, self.width), np.float32), np.zeros(0), np.zeros(0, np.int64)
        sums = np.add.reduceat(vectors, np.stack([starts, stops], axis=1).ravel(), axis=0)[::2]
        lengths = np.linalg.norm(sums, axis=1)
        return sums / np.maximum(lengths, 1e-12)[:, None], lengths**POWER, owner[starts]

    def word_lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the length of the vector of each word of all texts, in order, float32 [words]."""
        return np.linalg.norm(self._vectors_of([words(text) for text in texts]), axis=1)

    def _vectors_of(self, split: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the vector of each word, float32 [words of all texts, width]. Keeps the vectors of new words in `_words`."""
        if self._words is None or len(self._rows) > KEPT_WORDS:
            self._rows, self._words = {}, np.zeros((0, self.width), np.float32)
        new = list(dict.fromkeys(word for text_words in split for word in text_words if word not in self._rows))
        if new:
            ids = [np.fromiter(grams(word, len(self.table)), np.int64) for word in new]
            counts = np.asarray([len(each) for each in ids])
            flat = np.concatenate(ids)
            values = self.table[flat] * self.scales[flat].astype(np.float32)[:, None]
            means = np.add.reduceat(values, np.cumsum(counts) - counts, axis=0) / counts[:, None]
            self._rows |= {word: len(self._rows) + i for i, word in enumerate(new)}
            self._words = np.concatenate([self._words, means.astype(np.float32)])
        return self._words[np.fromiter((self._rows[word] for text_words in split for word in text_words), np.int64)]


def words(text: str) -> list[str]:
    """Split a text into words, in lower case and without accents, because shoppers leave accents out."""
    text = normalize(text).casefold()
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return WORD.findall(text)


def grams(word: str, buckets: int) -> Iterator[int]:
    """Hash a word and its n-grams of 3 to 5 characters into `buckets`. `<` and `>` mark the word's start and end."""
    marked = f"<{word}>"
    yield zlib.crc32(marked.encode()) % buckets
    for length in range(SHORTEST, min(LONGEST, len(marked) - 1) + 1):
        for at in range(len(marked) - length + 1):
            yield zlib.crc32(marked[at : at + length].encode()) % buckets
