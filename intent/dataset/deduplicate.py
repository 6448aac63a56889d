"""Find duplicate messages: repeated ones, and those that leak from evaluation sets.

This module knows examples. It knows nothing of how they were made.
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

LEAK_OVERLAP = 0.85  # Jaccard similarity from which two messages of four or more words are near-duplicates
WORD = re.compile(r"[\w\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")  # \w lacks the vowel signs of these scripts


@dataclass(frozen=True)
class Deduplicated:
    """Hold the result of `deduplicate`.

    `examples`: in the order of the input. `repeated`: the number of examples that repeat an earlier message with its label.
    `contradicting`: the number of those that repeat one with another label.
    """

    examples: list[Example]
    repeated: int
    contradicting: int


@lru_cache(maxsize=4_000)
def normal_form(message: str) -> str:
    """Remove case, accents, punctuation and emoji, so that near-duplicates become equal."""
    return " ".join(WORD.findall(without_accents(message).casefold()))


def message_key(message: str) -> str:
    """Return a key that is equal for duplicates: the normal form, or the message itself if it has no word."""
    return normal_form(message) or message


def deduplicate(examples: Iterable[Example]) -> Deduplicated:
    """Keep the first of the examples that have the same catalog and the same message key."""
    first: dict[tuple[str, str], Example] = {}
    unique, repeated, contradicting = [], 0, 0
    for example in examples:
        key = (example.catalog, message_key(example.message))
        earlier = first.setdefault(key, example)
        if earlier is example:
            unique.append(example)
        elif same(earlier.intent, example.intent):
            repeated += 1
        else:
            contradicting += 1
    return Deduplicated(unique, repeated, contradicting)


class Evaluation:
    """Find messages that duplicate or nearly duplicate a message of the evaluation sets."""

    def __init__(self, messages: Iterable[str]):
        self.forms = {normal_form(message) for message in messages}
        self.short = {_in_any_order(form) for form in self.forms if len(form.split()) < 4}
        self.sets = {words for form in self.forms if len(words := frozenset(form.split())) >= 4}
        self._with: dict[str, list[frozenset[str]]] = defaultdict(list)
        for words in sorted(self.sets, key=sorted):
            for word in words:
                self._with[word].append(words)

    def has(self, form: str) -> bool:
        """Return whether a normal form duplicates or nearly duplicates an evaluation message.

        The order of words does not matter, so a list is found in any order of its items. Messages of fewer than four words must
        have the same words. Longer ones need a Jaccard similarity of LEAK_OVERLAP. A set of n words with this similarity shares
        at least one of any n - ceil(LEAK_OVERLAP * n) + 1 of them. So only sets with one of that many rarest words are compared
        (prefix filtering, Chaudhuri et al., ICDE 2006).
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
        """Remove the examples whose message duplicates or nearly duplicates an evaluation message."""
        return [example for example in examples if not self.has(normal_form(example.message))]


def _in_any_order(form: str) -> str:
    return " ".join(sorted(form.split()))


def keys(examples: pa.Table) -> np.ndarray:
    """Hash each example, int64 [examples]. Hashes are equal for duplicate messages about the same catalog."""
    pairs = zip(examples["catalog"].to_pylist(), examples["message"].to_pylist(), strict=True)
    return _hashes(f"{catalog}\0{message_key(message)}" for catalog, message in pairs)


def text_keys(examples: pa.Table) -> np.ndarray:
    """Hash each example, int64 [examples]. Hashes are equal for duplicate messages, even about different catalogs."""
    return _hashes(map(message_key, examples["message"].to_pylist()))


def _hashes(texts: Iterable[str]) -> np.ndarray:
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, np.int64)


def leaks(examples: Iterable[Example], evaluation: Iterable[str]) -> list[Example]:
    """Return the examples whose message duplicates or nearly duplicates one of `evaluation`."""
    held_out = Evaluation(evaluation)
    return [example for example in examples if held_out.has(normal_form(example.message))]
