"""Measure the fan-out of a run (`jobs.benchmark run_rows=...`) with stub engines and with the workspace's own."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from intent.artifacts.lineage import Lineage
from intent.benchmark import fan_out, label_cache
from intent.benchmark.fan_out import Overhead
from intent.config import BenchmarkConfig
from intent.errors import MissingArtifact
from intent.storage import open_store
from intent.synth.corpus import Corpus
from jobs.app import say
from jobs.choice import serving
from jobs.classify import engines, identity

EACH_ONCE = 1_000_000


def measure_runs(lineage: Lineage[BenchmarkConfig], head: dict) -> str:
    """Measure, store the results in the workspace, and return the table. `head`: the conditions of the measurement."""
    config = lineage.config
    with TemporaryDirectory(prefix="intent-runs-") as scratch:
        folder, actors = Path(scratch), _cpus()
        runs = [fan_out.measure_fan_out(folder, rows, config.fleet.rows_per_shard, actors) for rows in config.run_rows]
        if small := [rows for rows in config.run_rows if rows <= EACH_ONCE]:
            runs.append(fan_out.measure_fan_out(folder, max(small), config.fleet.rows_per_shard, actors, repeated=False))
        planning = fan_out.measure_planning(folder, config.objects)
        try:
            overheads = list(_overheads(lineage, folder))
        except MissingArtifact as error:
            overheads = []
            say(f"no engine but the stub was measured: {error}")
        store = open_store(config.workspace, lineage.options)
        results: dict[str, list] = {"nights": runs, "planning": [planning], "overheads": overheads}
        report = head | {name: [asdict(result) for result in values] for name, values in results.items()}
        key = f"night-{head['date'].replace(':', '')}.json"
        store.put(key, json.dumps(report, indent=1).encode())
        return f"{fan_out.render(runs, planning, overheads)}\n\n{store.uri}/{key}"


def measure_cached_runs(lineage: Lineage[BenchmarkConfig], head: dict) -> str:
    """Measure runs with the label cache, as `measure_runs`: lookups alone, stub engines, and the workspace's own engines."""
    config = lineage.config
    with TemporaryDirectory(prefix="intent-runs-") as scratch:
        folder, actors = Path(scratch), _cpus()
        lookups = label_cache.measure_lookups(folder, config.entries, actors)
        spread = label_cache.measure_fan_out(folder, EACH_ONCE, actors)
        runs = []
        try:
            variants, batches = serving(lineage, None)
        except MissingArtifact as error:
            say(f"no engine but the stub was measured: {error}")
            variants = {}
        for name, variant in variants.items():
            [spec] = engines(lineage, {name: variant}, batches)
            run = identity(lineage, {name: variant})
            pool = _messages(lineage, label_cache.different(config.runs, config.messages))
            runs += label_cache.measure_daily_runs(folder, spec, lineage.schema, run, pool, config.runs, config.messages)
        store = open_store(config.workspace, lineage.options)
        results: dict[str, list] = {"lookups": [lookups], "fan_out": spread, "nights": runs}
        report = head | {name: [asdict(result) for result in values] for name, values in results.items()}
        key = f"nights-{head['date'].replace(':', '')}.json"
        store.put(key, json.dumps(report, indent=1).encode())
        return f"{label_cache.render(lookups, spread, runs)}\n\n{store.uri}/{key}"


def _overheads(lineage: Lineage[BenchmarkConfig], folder: Path) -> Iterator[Overhead]:
    config = lineage.config
    variants, batches = serving(lineage, None)
    for name, variant in variants.items():
        [spec] = engines(lineage, {name: variant}, batches)
        run = identity(lineage, {name: variant})
        yield fan_out.measure_overhead(
            folder, spec, lineage.schema, run, lambda number: _messages(lineage, number), config.seconds
        )


def _messages(lineage: Lineage, number: int) -> Sequence[str]:
    """Return the first `number` different messages of a corpus that shares no seed with a data set."""
    data = lineage.config.data
    corpus = Corpus(lineage.schema, data.languages, data.seed + 1, lineage.catalog, "all")
    different: dict[str, None] = {}
    for i in count():
        if len(different) == number:
            return list(different)
        different[corpus.example(i).message] = None
    raise AssertionError("unreachable: the corpus has no end")


def _cpus() -> int:
    import ray

    return int(ray.cluster_resources()["CPU"])
