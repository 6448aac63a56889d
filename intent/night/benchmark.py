"""A night over a made-up log with an engine that costs nothing: what is measured is the fan-out itself."""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from intent.config import FleetConfig
from intent.engine import Prediction, Status
from intent.night.fleet import EngineSpec, read_footers_on_cluster
from intent.night.ledger import Ledger, RunIdentity
from intent.night.run import classify_night
from intent.night.shard import input_fingerprint, input_objects, plan_shards
from intent.schema import Choice, Count, Entity, IntentSchema
from intent.storage import StorageOptions, open_store

CART = IntentSchema(
    "cart", "stub", (Choice("action", ("add", "remove", "none"), ("none",)), Entity("product"), Count("quantity"))
)
_WORDS = np.array(
    ["add", "put", "remove", "get", "milk", "eggs", "bread", "butter", "two", "three", "litres", "please", "thanks"]
)


@dataclass
class StubClassifier:
    """Answers by the message's length alone, after `seconds` for each message."""

    variant: str = "stub"
    seconds: float = 0.0

    def __post_init__(self):
        intents = [{"action": "add", "product": "Whole Milk 1L", "quantity": n} for n in range(1, 100)]
        self._answers = [Prediction(intent, 0.9, (0.9, 0.9, 0.9), Status.OK) for intent in intents]

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        if self.seconds:
            time.sleep(self.seconds * len(messages))
        answers = self._answers
        return [answers[len(message) % 99] for message in messages]


def stub_engines(actors: int = 2, seconds: float = 0.0) -> list[EngineSpec]:
    return [EngineSpec("stub", "stub", partial(StubClassifier, "stub", seconds), actors=actors, cpus=1)]


def write_log(
    folder: Path, rows: int, distinct: int, exponent: float = 1.1, rows_per_file: int = 1_000_000, seed: int = 7
) -> None:
    """A query log: `rows` messages drawn from `distinct` ones by Zipf's law, as Parquet files with columns id, message."""
    generator = np.random.default_rng(seed)
    weights = np.arange(1, distinct + 1) ** -exponent
    edges = np.cumsum(weights / weights.sum())
    words = generator.integers(0, len(_WORDS), (distinct, 5))
    messages = pa.array([" ".join(_WORDS[row]) + f" {i}" for i, row in enumerate(words)])
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, rows, rows_per_file)):
        count = min(rows_per_file, rows - start)
        drawn = np.minimum(np.searchsorted(edges, generator.random(count)), distinct - 1)
        table = pa.table({"id": pa.array(np.arange(start, start + count)), "message": messages.take(pa.array(drawn))})
        pq.write_table(table, folder / f"log-{number:06d}.parquet", row_group_size=200_000)


def measure_fan_out(folder: Path, rows: int, distinct: int = 100_000, actors: int = 2, rows_per_shard: int = 50_000) -> dict:
    """Rows a second from Parquet to Parquet with stub engines; Ray is initialized.

    `driver_mib`: the driver's peak resident memory, so far. `classified`: messages that the model saw.
    """
    source, output = folder / f"log-{rows}", folder / f"labels-{rows}-{time.time_ns()}"
    if not source.exists():
        # In a worker, so that its memory is not taken for the driver's.
        ray.get(ray.remote(write_log).remote(source, rows, min(distinct, rows)))
    identity = RunIdentity({"stub": "1"}, "stub", "stub", "stub")
    started = time.monotonic()
    summary = classify_night(
        str(source),
        str(output),
        StorageOptions(),
        identity,
        CART,
        stub_engines(actors),
        FleetConfig(rows_per_shard=rows_per_shard),
    )
    seconds = time.monotonic() - started
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "labelling_seconds": summary.seconds,
        "classified": summary.classified,
        "driver_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "output": str(output),
    }


def measure_planning(folder: Path, objects: int) -> dict:
    """Seconds from an input of many small objects on a local disk to its plan in the store; Ray is initialized."""
    source = folder / f"objects-{objects}"
    if not source.exists():
        ray.get(ray.remote(write_objects).remote(source, objects))
    started = time.monotonic()
    store, blobs = input_objects(str(source))
    ledger = Ledger(open_store(str(folder / f"plan-{time.time_ns()}")), RunIdentity({}, "", "", "", input_fingerprint(blobs)))
    shards = ledger.plan(lambda: plan_shards(store, blobs, ["id", "message"], 20_000, read_footers_on_cluster))
    return {"objects": objects, "shards": len(shards), "seconds": round(time.monotonic() - started, 2)}


def write_objects(folder: Path, objects: int) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["1", "2"], "message": ["milk", "two eggs"]}), sink)
    data = sink.getvalue().to_pybytes()
    for number in range(objects):
        path = folder / f"{number // 1000:04d}" / f"{number:08d}.parquet"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(data)
