"""Find messages that count as the same: repeated ones, and those that leak from evaluation sets.

Knows examples; knows nothing of how they were made.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from intent.dataset.example import Example
from intent.task.schema import same
from intent.task.text import without_accents

LEAK_OVERLAP = 0.85  # share of common words from which two messages of four words or more count as the same
WORD = re.compile(r"[\w\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")  # of these scripts, vowel signs as well


@dataclass(frozen=True)
class Deduplicated:
    """`kept`, in their order; how many repeated an earlier message, and how many did so with another label."""

    kept: list[Example]
    repeated: int
    contradicting: int


@lru_cache(maxsize=4_000)
def normal_form(message: str) -> str:
    """The message without case, accents, punctuation and emoji: what two near-duplicates share."""
    return " ".join(WORD.findall(without_accents(message).casefold()))


def message_key(message: str) -> str:
    """What two messages that count as one share; a message without any word is its own."""
    return normal_form(message) or message


def deduplicate(examples: Iterable[Example]) -> Deduplicated:
    """Keeps the first of the messages about one catalog that have the same normal form."""
    first: dict[tuple[str, str], Example] = {}
    kept, repeated, contradicting = [], 0, 0
    for example in examples:
        key = (example.catalog, message_key(example.message))
        earlier = first.setdefault(key, example)
        if earlier is example:
            kept.append(example)
        elif same(earlier.intent, example.intent):
            repeated += 1
        else:
            contradicting += 1
    return Deduplicated(kept, repeated, contradicting)


class Evaluation:
    """The messages of evaluation sets, as normal forms: which other messages are one of them, or nearly."""

    def __init__(self, messages: Iterable[str]):
        self.forms = {normal_form(message) for message in messages}
        self.short = {_in_any_order(form) for form in self.forms if len(form.split()) < 4}
        self.sets = {words for form in self.forms if len(words := frozenset(form.split())) >= 4}
        self._with: dict[str, list[frozenset[str]]] = defaultdict(list)
        for words in sorted(self.sets, key=sorted):
            for word in words:
                self._with[word].append(words)

    def has(self, form: str) -> bool:
        """Two sets that share so much have one of any few words of either in common: only those of the rarest are compared.

        Words have no order here: a list is found in any order of its items. Of fewer than four, all must be the same.
        """
        words = frozenset(form.split())
        if form in self.forms or len(words) < 4:
            return form in self.forms or _in_any_order(form) in self.short
        if words in self.sets:
            return True
        spare = len(words) - math.ceil(LEAK_OVERLAP * len(words))
        rarest = sorted((len(self._with.get(word, ())), word) for word in words)[: spare + 1]
        near = (other for _, word in rarest for other in self._with.get(word, ()))
        return any(len(words & other) >= LEAK_OVERLAP * len(words | other) for other in near)

    def without(self, examples: Iterable[Example]) -> list[Example]:
        return [example for example in examples if not self.has(normal_form(example.message))]


def _in_any_order(form: str) -> str:
    return " ".join(sorted(form.split()))


def keys(examples: pa.Table) -> np.ndarray:
    """A hash an example, int64: equal where two messages about one catalog count as the same."""
    pairs = zip(examples["catalog"].to_pylist(), examples["message"].to_pylist(), strict=True)
    return _hashes(f"{catalog}\0{message_key(message)}" for catalog, message in pairs)


def text_keys(examples: pa.Table) -> np.ndarray:
    """A hash an example, int64: equal where two messages count as the same, whatever catalogs they are about."""
    return _hashes(map(message_key, examples["message"].to_pylist()))


def _hashes(texts: Iterable[str]) -> np.ndarray:
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, np.int64)


def leaks(examples: Iterable[Example], evaluation: Iterable[str]) -> list[Example]:
    """The examples whose message is one of `evaluation`, or nearly."""
    known = Evaluation(evaluation)
    return [example for example in examples if known.has(normal_form(example.message))]
