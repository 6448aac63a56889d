"""Measure the label cache: lookups alone, a run's fan-out with it, and runs that mostly repeat messages of earlier runs.

All data is on a local disk. Ray must be initialized.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from intent.benchmark import stub
from intent.benchmark.fan_out import IDENTITY
from intent.benchmark.report import align
from intent.evaluate.speed import forget_peak, peak_bytes, resident_bytes
from intent.label_cache import LabelCache, Reader, Scope, piece
from intent.label_cache.merge import ALL, PIECE_ROWS
from intent.run import new_labels
from intent.run.actor_pool import EngineSpec
from intent.run.config import FleetConfig
from intent.run.driver import classify_log
from intent.run.ledger import RunIdentity
from intent.storage import StorageOptions, Store, open_store
from intent.task.schema import IntentSchema, Item

# The share of a run's different messages that an earlier run had.
SEEN = 0.7
EXPONENT, ROWS_PER_MESSAGE = 1.1, 5
SECRET = bytes(32)
LOOKED_UP, ROWS_AT_ONCE = 400_000, 20_000


@dataclass(frozen=True)
class Lookups:
    """Lookups in a cache with `entries` random entries.

    `file_bytes`: of the cache's files. `rate`: messages per second of all `workers` together. `memory`: the most bytes that
    lookups add to a process, including mapped pages. `opened`: seconds until a worker can look up, including its check of the
    files.
    """

    entries: int
    file_bytes: int
    workers: int
    rate: float
    memory: int
    opened: float


@dataclass(frozen=True)
class CachedRun:
    """One of several runs.

    `distinct`: different messages. `cached`: rows that the cache answered. `duplicates`: rows that another row's answer served.
    `seen`: messages that an engine classified. `seconds`: from listing the input until the cache has the new labels, including
    the loading of models. `processor_seconds`: of all actors. `usd`: the cost; None without prices.
    """

    name: str
    rows: int
    distinct: int
    cached: int
    duplicates: int
    seen: int
    seconds: float
    processor_seconds: float = 0.0
    usd: float | None = None

    @property
    def rate(self) -> float:
        """Return rows per second."""
        return self.rows / self.seconds


def label_cache(folder: Path, name: str) -> LabelCache:
    """Return a label cache in `folder` that no other benchmark shares."""
    return LabelCache(open_store(str(folder / f"cache-{name}")), Scope.of({"benchmark": str(folder), "of": name}, SECRET))


def measure_lookups(folder: Path, entries: int, workers: int) -> Lookups:
    """Measure lookups of messages of which the share SEEN is in the cache, among `entries` random entries."""
    cache, messages = label_cache(folder, "lookups"), _messages(0, LOOKED_UP)
    ray.get(ray.remote(fill).remote(cache, entries, messages[: int(SEEN * LOOKED_UP)]))
    actors = [_Looking.remote(cache) for _ in range(workers)]  # type: ignore[attr-defined]  # Ray adds `remote`
    opened = max(ray.get([actor.open.remote() for actor in actors]))
    ray.get([actor.look.remote(ROWS_AT_ONCE) for actor in actors])
    started = time.monotonic()
    ray.get([actor.look.remote(LOOKED_UP) for actor in actors])
    seconds = time.monotonic() - started
    for actor in actors:
        ray.kill(actor)
    memory = ray.get(ray.remote(max_calls=1)(memory_of).remote(cache))
    return Lookups(entries, cache.read().bytes, workers, workers * len(messages) / seconds, memory, opened)


def memory_of(cache: LabelCache) -> int:
    """Return the most bytes that lookups add to this process's memory.

    The messages are made in batches of one lookup, and one batch exists before the measurement. So freed memory of messages
    cannot hide the memory of the cache.
    """
    texts = pa.array(_messages(0, ROWS_AT_ONCE))
    before = resident_bytes()
    forget_peak()
    reader = Reader.open(cache, "benchmark")
    for start in range(0, LOOKED_UP, ROWS_AT_ONCE):
        texts = pa.array(_messages(start, start + ROWS_AT_ONCE))
        reader.look(texts)
    return peak_bytes() - before


def _messages(start: int, stop: int) -> list[str]:
    return [f"put {n % 97} bottles of milk number {n} on the list, please" for n in range(start, stop)]


def fill(cache: LabelCache, entries: int, messages: Sequence[str]) -> None:
    """Fill a cache with about `entries` random hashes and with `messages`."""
    high, low = cache.scope.hashes(pa.array(messages))
    drawn, count = np.random.default_rng(7), max(1, -(-entries // PIECE_ROWS))
    intents: list[Item] = [{"action": "add", "product": f"Product {n // 9}", "quantity": n % 9} for n in range(1_800)]
    answers, files = pa.array([piece.answer(intent, "stub") for intent in intents]), []
    for part in range(count):
        first, last = (np.uint64(min(ALL * at // count, ALL - 1)) for at in (part, part + 1))
        mine, rows = (high >= first) & (high < last), entries // count
        upper = np.concatenate([drawn.integers(int(first), int(last), rows, np.uint64), high[mine]])
        lower = np.concatenate([drawn.integers(0, ALL - 1, rows, np.uint64), low[mine]])
        columns = [
            pa.array(upper),
            pa.array(lower),
            pa.DictionaryArray.from_arrays(pa.array(drawn.integers(0, len(answers), len(upper), np.int32)), answers),
            pa.array(drawn.random(len(upper))),
            pa.ListArray.from_arrays(
                pa.array(np.arange(0, 3 * len(upper) + 1, 3, np.int32)), pa.array(drawn.random(3 * len(upper), np.float32))
            ),
            pa.array(np.full(len(upper), cache.day, np.uint16)),
        ]
        files.append(cache.write(piece.merge([pa.table(columns, piece.ENTRIES)])))
    cache.add("benchmark", files, cache.begin().epoch)


@ray.remote(num_cpus=1)
class _Looking:
    def __init__(self, cache: LabelCache):
        self.cache = cache

    def open(self) -> float:
        # The time to make the messages must not count.
        self.texts = pa.array(_messages(0, LOOKED_UP))
        started = time.monotonic()
        self.reader = Reader.open(self.cache, "benchmark")
        return time.monotonic() - started

    def look(self, count: int) -> None:
        for start in range(0, count, ROWS_AT_ONCE):
            self.reader.look(self.texts.slice(start, ROWS_AT_ONCE))


def measure_fan_out(folder: Path, rows: int, actors: int) -> list[CachedRun]:
    """Measure runs with stub engines on messages that occur once: without a cache, with an empty one, and with a full one."""
    source, cache, runs = folder / "log-once", label_cache(folder, "stub"), []
    ray.get(ray.remote(stub.write_log).remote(source, rows, rows, None))
    for name, used in (("stub, no cache", None), ("stub, learns all", cache), ("stub, has all", cache)):
        engines = [replace(spec, cache=used) for spec in stub.stub_engines(actors)]
        output = folder / f"labels-{len(runs)}-once"
        runs.append(_run(name, source, output, engines, stub.CART, IDENTITY, rows))
    return runs


def different(runs: int, messages: int) -> int:
    """Return how many different messages `runs` runs have together, if each has `messages` different ones."""
    return messages + (runs - 1) * round((1 - SEEN) * messages)


def measure_daily_runs(
    folder: Path,
    spec: EngineSpec,
    schema: IntentSchema,
    identity: RunIdentity,
    pool: Sequence[str],
    runs: int,
    messages: int,
) -> list[CachedRun]:
    """Measure runs with `messages` different messages each. In each but the first, the share SEEN is from earlier runs.

    A run's log has each of its messages once, and more rows drawn from them by Zipf's law. `pool`: at least
    `different(runs, messages)` different messages.
    """
    drawn, results = np.random.default_rng(7), []
    spec = replace(spec, cache=label_cache(folder, spec.variant))
    for number in range(runs):
        before = different(number, messages) if number else 0
        new = np.arange(before, different(number + 1, messages))
        mine = drawn.permutation(np.concatenate([drawn.choice(before, messages - len(new), replace=False), new]))
        weights = np.arange(1, messages + 1) ** -EXPONENT
        often = drawn.choice(mine, (ROWS_PER_MESSAGE - 1) * messages, p=weights / weights.sum())
        rows = drawn.permutation(np.concatenate([mine, often]))
        source = folder / f"log-{spec.variant}-{number}"
        stub.write_messages(source, [pool[at] for at in rows])
        output = folder / f"labels-{spec.variant}-{number}"
        name = f"{spec.variant}, night {number + 1}"
        results.append(_run(name, source, output, [spec], schema, identity, messages))
    return results


@ray.remote(num_cpus=0)
class _Learner:
    """Adds labels to the caches. It starts before the run, as in a job, so that its start does not count."""

    def learn(self, output: Store, caches: Sequence[LabelCache]) -> int:
        return new_labels.learn(output, caches)


def _run(
    name: str,
    source: Path,
    output: Path,
    engines: Sequence[EngineSpec],
    schema: IntentSchema,
    identity: RunIdentity,
    distinct: int,
) -> CachedRun:
    learner = _Learner.remote()  # type: ignore[attr-defined]  # Ray adds `remote`
    started = time.monotonic()
    summary = classify_log(str(source), str(output), StorageOptions(), identity, schema, engines, FleetConfig())
    caches = [spec.cache for spec in engines if spec.cache]
    if caches:
        ray.get(learner.learn.remote(open_store(str(output)), caches))
    seconds = time.monotonic() - started
    ray.kill(learner)
    processors = seconds * sum(spec.actors * (spec.cpus + spec.gpus) for spec in engines)
    prices = [spec.prices.get(kind) for spec in engines for kind in (("gpu", "cpu") if spec.gpus else ("cpu",))]
    cost = None if None in prices or not prices else seconds / 3600 * sum(map(_hourly, engines))
    counts = (summary.rows, distinct, summary.cached, summary.duplicates_saved, summary.classified)
    return CachedRun(name, *counts, seconds, processors, cost)


def _hourly(spec: EngineSpec) -> float:
    return spec.actors * (spec.cpus * (spec.prices.get("cpu") or 0.0) + spec.gpus * (spec.prices.get("gpu") or 0.0))


def render(lookups: Lookups, fan_out: Sequence[CachedRun], runs: Sequence[CachedRun]) -> str:
    """Return the results as text, with each variant's last run compared with its first."""
    head = ["night", "rows", "messages", "cached rows", "duplicates", "seen", "seconds", "rows/s", "processor s", "USD"]
    parts = [
        f"{lookups.entries:,} entries in {lookups.file_bytes / 1e6:,.0f} MB, {lookups.workers} workers: "
        f"{lookups.rate:,.0f} messages/s looked up, at most {lookups.memory / 1e6:,.0f} MB of memory a worker, "
        f"opened in {lookups.opened:.1f} s",
        "",
        align([head, *map(_line, [*fan_out, *runs])]),
    ]
    firsts = {run.name.rpartition(",")[0]: run for run in reversed(runs)}
    lasts = {run.name.rpartition(",")[0]: run for run in runs}
    for variant, first in firsts.items():
        last = lasts[variant]
        parts.append(
            f"{last.name} against the first: {first.seen / max(1, last.seen):.2f} times fewer messages seen by models, "
            f"{last.rate / first.rate:.2f} times the rows/s, {last.processor_seconds / first.processor_seconds:.0%} of the cost"
        )
    return "\n".join(parts)


def _line(n: CachedRun) -> list[str]:
    counts = [f"{count:,}" for count in (n.rows, n.distinct, n.cached, n.duplicates, n.seen)]
    cost = "-" if n.usd is None else f"{n.usd:.4f}"
    return [n.name, *counts, f"{n.seconds:.1f}", f"{n.rate:,.1f}", f"{n.processor_seconds:,.0f}", cost]
