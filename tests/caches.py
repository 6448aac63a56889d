"""A label cache for tests, with entries by message and a clock that each test sets."""

from collections.abc import Mapping

import pyarrow as pa

from intent.engine import Prediction
from intent.engine.grouped import Grouped
from intent.label_cache import LabelCache, Reader, Scope, piece
from intent.label_cache.pointer import FOLDER, File
from intent.storage import open_store

SECRET = bytes(range(32))
FACTS = {"model": "rule"}
DAY = 20_000


class Clock:
    """Return the Unix time that the test has set. Other processes get a copy."""

    def __init__(self, day: float = DAY):
        self.day = day

    def __call__(self) -> float:
        return self.day * piece.DAY_SECONDS


def cache(root: str, facts: Mapping[str, object] = FACTS, clock=None, **kwargs) -> LabelCache:
    scope = Scope.of(facts, SECRET)
    return LabelCache(open_store(f"{root}/{FOLDER}/{scope.name}"), scope, now=clock or Clock(), **kwargs)


def entries(cache: LabelCache, labels: Mapping[str, int], confidence: float = 0.9) -> pa.Table:
    """Return one entry per message. `labels`: the quantity of each message's intent."""
    hashes = cache.scope.hashes(pa.array(list(labels), pa.string()))
    predictions = [Prediction({"action": "add", "product": "Milk", "quantity": n}, confidence, (0.5,)) for n in labels.values()]
    return piece.entries(*hashes, Grouped.of(predictions), "rule", cache.day)


def write(cache: LabelCache, labels: Mapping[str, int], **kwargs) -> File:
    return cache.write(piece.merge([entries(cache, labels, **kwargs)]))


def learn(cache: LabelCache, run: str, labels: Mapping[str, int], **kwargs) -> None:
    cache.add(run, [write(cache, labels, **kwargs)], cache.begin().epoch)


def look(cache: LabelCache, *messages: str) -> list[int | None]:
    """Return the cached quantity of each message, as a new reader finds it, or None."""
    reader = Reader.open(cache)
    result = reader.look(pa.array(messages, pa.string()))
    quantities = iter([result.answers[code][0]["quantity"] for code in result.codes])
    return [next(quantities) if hit else None for hit in result.hit]
