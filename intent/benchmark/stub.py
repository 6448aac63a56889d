"""Make query logs of any size, and a stub engine that answers almost without computation."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from intent.engine import Prediction
from intent.run.actor_pool import EngineSpec
from intent.task.schema import Choice, Count, Entity, IntentSchema

CART = IntentSchema(
    "cart", "stub", (Choice("action", ("add", "remove", "none"), ("none",)), Entity("product"), Count("quantity"))
)
ROWS_PER_FILE, ROWS_PER_GROUP = 1_000_000, 200_000
OBJECTS_PER_FOLDER = 1_000
WORDS = np.array(
    ["add", "put", "remove", "get", "milk", "eggs", "bread", "butter", "two", "three", "litres", "please", "thanks"]
)


@dataclass
class StubClassifier:
    """Answer by the message's length alone, after `seconds` for each message."""

    variant: str = "stub"
    seconds: float = 0.0

    def __post_init__(self):
        self._intents = [{"action": "add", "product": "Whole Milk 1L", "quantity": n} for n in range(1, 100)]

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        if self.seconds:
            time.sleep(self.seconds * len(messages))
        slots = (0.9, 0.9, 0.9)
        return [Prediction(self._intents[len(message) % 99], 0.9, slots, message=message) for message in messages]


def stub_engines(actors: int, seconds: float = 0.0) -> list[EngineSpec]:
    """Return an engine of `actors` stub actors. `seconds`: per message."""
    return [EngineSpec("stub", "stub", partial(StubClassifier, "stub", seconds), actors=actors, cpus=1)]


def write_log(folder: Path, rows: int, distinct: int, exponent: float | None = 1.1, seed: int = 7) -> int:
    """Write a query log of `rows` messages with the columns id and message.

    The rows are drawn from `distinct` messages by Zipf's law with `exponent`. Without an exponent, the messages take turns.
    Returns the number of distinct messages in the log.
    """
    generator = np.random.default_rng(seed)
    edges = np.cumsum(np.arange(1, distinct + 1) ** -(exponent or 0.0))
    words = generator.integers(0, len(WORDS), (distinct, 5))
    messages = pa.array([" ".join(WORDS[row]) + f" {i}" for i, row in enumerate(words)])
    is_drawn = np.zeros(distinct, bool)
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, ROWS_PER_FILE)):
        ids = np.arange(start, min(start + ROWS_PER_FILE, rows))
        drawn = np.searchsorted(edges, edges[-1] * generator.random(len(ids)), "right") if exponent else ids % distinct
        is_drawn[drawn] = True
        table = pa.table({"id": ids, "message": messages.take(pa.array(drawn))})
        pq.write_table(table, folder / f"log-{number:06d}.parquet", row_group_size=ROWS_PER_GROUP)
    return int(is_drawn.sum())


def write_messages(folder: Path, messages: Sequence[str]) -> None:
    """Write a query log with each of these messages once."""
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": range(len(messages)), "message": messages}), folder / "log.parquet")


def write_objects(folder: Path, objects: int) -> None:
    """Write `objects` Parquet files of two rows each."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["1", "2"], "message": ["milk", "two eggs"]}), sink)
    data = sink.getvalue().to_pybytes()
    for number in range(objects):
        path = folder / f"{number // OBJECTS_PER_FOLDER:04d}" / f"{number:08d}.parquet"
        if number % OBJECTS_PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(data)
