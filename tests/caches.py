"""A label cache for tests: entries by message, and a clock that stands where a test puts it."""

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
    """Unix seconds. Goes to other processes as it stands."""

    def __init__(self, day: float = DAY):
        self.day = day

    def __call__(self) -> float:
        return self.day * piece.DAY_SECONDS


def cache(root: str, facts: Mapping[str, object] = FACTS, clock=None, **kwargs) -> LabelCache:
    scope = Scope.of(facts, SECRET)
    return LabelCache(open_store(f"{root}/{FOLDER}/{scope.name}"), scope, now=clock or Clock(), **kwargs)


def entries(cache: LabelCache, labels: Mapping[str, int], confidence: float = 0.9) -> pa.Table:
    """An entry of each message, whose intent has this quantity."""
    hashes = cache.scope.hashes(pa.array(list(labels), pa.string()))
    predictions = [Prediction({"action": "add", "product": "Milk", "quantity": n}, confidence, (0.5,)) for n in labels.values()]
    return piece.entries(*hashes, Grouped.of(predictions), "rule", cache.day)


def write(cache: LabelCache, labels: Mapping[str, int], **kwargs) -> File:
    return cache.write(piece.merge([entries(cache, labels, **kwargs)]))


def learn(cache: LabelCache, run: str, labels: Mapping[str, int], **kwargs) -> None:
    cache.add(run, [write(cache, labels, **kwargs)], cache.begin().epoch)


def look(cache: LabelCache, *messages: str) -> list[int | None]:
    """What a new reader finds of each message: its quantity."""
    reader = Reader.open(cache)
    result = reader.look(pa.array(messages, pa.string()))
    quantities = iter([result.answers[code][0]["quantity"] for code in result.codes])
    return [next(quantities) if hit else None for hit in result.hit]
