"""Measure a run's overhead: with a stub engine, and with a real engine compared with the same engine outside a run.

All data is on a local disk. Ray must be initialized.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import ray

from intent.benchmark import stub
from intent.benchmark.report import align
from intent.engine import Classifier, Prediction
from intent.evaluate.speed import peak_bytes
from intent.progress import Steps
from intent.run.actor_pool import EngineSpec
from intent.run.columns import Columns
from intent.run.config import FleetConfig
from intent.run.driver import classify_log
from intent.run.ledger import Ledger, RunIdentity
from intent.run.listing import list_input
from intent.run.progress import Stage
from intent.run.shard import input_fingerprint, plan_shards
from intent.run.survey import read_footers_on_cluster
from intent.storage import StorageOptions, open_store
from intent.task.schema import IntentSchema

IDENTITY = RunIdentity({"stub": "1"}, "stub", "stub", "stub")
DISTINCT = 100_000
# So few that a shard has many batches. Otherwise an engine spends most of a shard filling and draining its batches.
SHARDS_PER_ACTOR = 3
WARM_UP = 64


@dataclass(frozen=True)
class FanOut:
    """A run with stub engines. `distinct`: different messages in the log. `seen`: messages that an engine classified.

    `seconds`: from listing the input to the manifest, including the start of the actors. `driver_bytes`: the driver's peak
    resident memory so far.
    """

    rows: int
    distinct: int
    seen: int
    seconds: float
    driver_bytes: int

    @property
    def rate(self) -> float:
        """Return rows per second."""
        return self.rows / self.seconds


@dataclass(frozen=True)
class Planning:
    """The seconds that it takes to plan a run of `objects` input objects."""

    objects: int
    seconds: float


@dataclass(frozen=True)
class Overhead:
    """Messages per second of `actors` actors on messages that occur once.

    `bare`: outside a run, before it and after it. `night`: in a run, from an engine's first message to the
    manifest, by the name in stored results.
    """

    variant: str
    actors: int
    messages: int
    bare: tuple[float, float]
    night: float

    @property
    def share(self) -> float:
        """Return the speed in a run relative to the mean speed outside."""
        return self.night / (sum(self.bare) / len(self.bare))


def measure_fan_out(folder: Path, rows: int, rows_per_shard: int | None, actors: int, repeated: bool = True) -> FanOut:
    """Measure a run with stub engines.

    `repeated`: draw from DISTINCT messages by Zipf's law with exponent 1.1; otherwise each message occurs once.
    """
    name = f"{rows}-{'repeated' if repeated else 'different'}"
    source, output = folder / f"log-{name}", folder / f"labels-{name}"
    # A worker writes the log, so that its memory does not count as the driver's.
    log = (source, rows, DISTINCT) if repeated else (source, rows, rows, None)
    with Steps("log") as steps:
        steps.update(0, 0, f"writes {rows:,} rows")
        distinct = ray.get(ray.remote(stub.write_log).remote(*log))
    fleet = FleetConfig(rows_per_shard=rows_per_shard)
    started = time.monotonic()
    summary = classify_log(str(source), str(output), StorageOptions(), IDENTITY, stub.CART, stub.stub_engines(actors), fleet)
    return FanOut(rows, distinct, summary.classified, time.monotonic() - started, peak_bytes())


def measure_planning(folder: Path, objects: int) -> Planning:
    """Measure planning an input of many small objects."""
    source = folder / f"objects-{objects}"
    with Steps("log") as steps:
        steps.update(0, 0, f"writes {objects:,} objects")
        ray.get(ray.remote(stub.write_objects).remote(source, objects))
    started = time.monotonic()
    listing = list_input(str(source))
    ledger = Ledger(open_store(str(folder / f"plan-{objects}")), replace(IDENTITY, input=input_fingerprint(listing.blobs)))
    with Stage("footers", f"plans {objects:,} objects of {listing.store.uri}", "object", objects) as stage:
        read = partial(read_footers_on_cluster, stage=stage, attempts=1)
        ledger.plan(lambda: plan_shards(listing, Columns(), 20_000, read))
    return Planning(objects, time.monotonic() - started)


def measure_overhead(
    folder: Path,
    spec: EngineSpec,
    schema: IntentSchema,
    identity: RunIdentity,
    messages: Callable[[int], Sequence[str]],
    seconds: float,
) -> Overhead:
    """Measure an engine in a run and outside it.

    `messages(n)`: returns n different messages. `seconds`: how long a shard takes, which determines the number of messages.
    """
    rate = _bare(spec, messages(WARM_UP * 4 * spec.actors))
    sample = messages(int(rate * seconds * SHARDS_PER_ACTOR))
    before = _bare(spec, sample)
    within = _in_run(folder / spec.variant, spec, schema, identity, sample)
    return Overhead(spec.variant, spec.actors, len(sample), (before, _bare(spec, sample)), within)


def _bare(spec: EngineSpec, messages: Sequence[str]) -> float:
    """Return messages per second of the engine's actors together. Each gets its share of the messages in one call."""
    options = {"num_cpus": spec.cpus, "num_gpus": spec.gpus, "runtime_env": {"env_vars": dict(spec.env_vars)}}
    actors = [_Bare.options(**options).remote(spec.load) for _ in range(spec.actors)]  # type: ignore[attr-defined]  # by Ray
    parts = [messages[number :: spec.actors] for number in range(spec.actors)]
    try:
        with Steps(f"{spec.variant} alone") as steps:
            steps.update(0, 0, "loads")
            ray.get([actor.classify.remote(part[:WARM_UP]) for actor, part in zip(actors, parts, strict=True)])
            steps.update(0, 0, f"labels {len(messages):,} messages")
            started = time.monotonic()
            ray.get([actor.classify.remote(part) for actor, part in zip(actors, parts, strict=True)])
            return len(messages) / (time.monotonic() - started)
    finally:
        for actor in actors:
            ray.kill(actor)


@ray.remote
class _Bare:
    def __init__(self, load: Callable[[], Classifier]):
        self.classifier = load()

    def classify(self, messages: Sequence[str]) -> None:
        self.classifier.classify(messages)


def _in_run(folder: Path, spec: EngineSpec, schema: IntentSchema, identity: RunIdentity, messages: Sequence[str]) -> float:
    clock = folder / "first"
    stub.write_messages(folder / "log", messages)
    fleet = FleetConfig(rows_per_shard=max(1, len(messages) // (SHARDS_PER_ACTOR * spec.actors)))
    clocked = replace(spec, load=partial(_Clocked, spec.load, clock))
    addresses = str(folder / "log"), str(folder / "labels")
    classify_log(*addresses, StorageOptions(), identity, schema, [clocked], fleet)
    return len(messages) / (time.time() - float(clock.read_text()))


class _Clocked:
    """Write the time of a classifier's first message to the file `clock`."""

    def __init__(self, load: Callable[[], Classifier], clock: Path):
        self.classifier, self.clock = load(), clock
        self.variant = self.classifier.variant

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        now = time.time()
        with suppress(FileExistsError), open(self.clock, "x") as file:
            file.write(str(now))
        return self.classifier.classify(messages)


def render(runs: Sequence[FanOut], planning: Planning, overheads: Iterable[Overhead]) -> str:
    """Return the results as text."""
    head = ["rows", "messages", "seen", "seen/messages", "seconds", "rows/s", "driver"]
    lines = [_line(run) for run in runs]
    sentences = [f"planning {planning.objects:,} objects: {planning.seconds:.1f} s"]
    sentences += [
        f"{o.variant}, {o.actors} actors, {o.messages:,} messages: {o.night:.1f} messages/s in a run, "
        f"{o.bare[0]:.1f} before and {o.bare[1]:.1f} after it alone: {o.share:.1%}"
        for o in overheads
    ]
    return "\n".join([align([head, *lines]), "", *sentences])


def _line(n: FanOut) -> list[str]:
    counts = [f"{n.rows:,}", f"{n.distinct:,}", f"{n.seen:,}", f"{n.seen / n.distinct:.3f}"]
    return [*counts, f"{n.seconds:.2f}", f"{n.rate:,.0f}", f"{n.driver_bytes / 1e6:,.0f} MB"]
