"""Run the actors of a labelling run. Actors of several kinds pull shards from one queue, each at its own speed.

Only this module, `survey.py` and `metrics.py` of the package use Ray. Actors may die and
nodes may come and go. The store alone records what is done.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pyarrow as pa
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayError

from intent.engine import Classifier
from intent.errors import ConfigError, Disagreement, EngineHung, ShardsFailed
from intent.hardware import Hardware, price
from intent.label_cache import LabelCache
from intent.run import frequent
from intent.run.actor import Actor, Loaded, Outcome, RunContext
from intent.run.events import Event, Listener, unheard
from intent.run.metrics import Meters
from intent.run.part import Committed
from intent.run.progress import Progress
from intent.run.queue import Queue
from intent.run.shard import Shard
from intent.storage import Store

# The number of shards that an actor holds: it reads one and writes one while it computes a third.
DEPTH = 3
TICK_SECONDS, MEANWHILE_SECONDS = 1.0, 0.1
SLOT_PATIENCE = 3
GROW_SECONDS = 10.0
# An engine may download its model and compile its kernels. Every engine that was measured took less than a tenth of this.
LOADING_SECONDS = 30 * 60
_STUCK = (
    "its engine was not loaded within {:g} minutes on {!r}; check that host's log, its connection to the store and GPU driver"
)
log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class EngineSpec:
    """Describe one kind of actor: how to load its classifier (inside the actor), how many actors, and their resources.

    `prices`: USD per hour of one processor, by its model or kind. `grows`: start more actors if nodes that join the cluster
    have capacity. `rate`: the lowest expected messages per second of one actor. `abstain_below`: the run abstains from answers
    below this confidence; the classifier itself does not abstain. `cache`: the label cache that this kind of actor may use.
    """

    variant: str
    kind: str
    load: Callable[[], Classifier]
    actors: int = 1
    cpus: float = 1
    gpus: float = 0
    env_vars: dict[str, str] = field(default_factory=dict)
    grows: bool = False
    prices: Mapping[str, float | None] = field(default_factory=dict)
    rate: float = math.inf
    abstain_below: float = 0.0
    cache: LabelCache | None = None


@dataclass(eq=False)
class _ActorSlot:
    """One place in the pool: an actor, and its successors if it dies.

    `deaths`: consecutive deaths of actors. `misses`: consecutive lost calls. `loading`: the time at which the actor, which has
    a node, began to load its engine. `refused`: why the last engine must not start: its labels differ from the reference's, or
    its configuration is invalid.
    """

    spec: EngineSpec
    actor: Any = None
    ready: bool = False
    loading: float | None = None
    node: str = ""
    usd_per_hour: float = 0.0
    deaths: int = 0
    misses: int = 0
    trouble: str = ""
    refused: Disagreement | ConfigError | None = None


class ActorPool:
    """Own the actors and their pending calls. An actor that fits on no node yet joins when one has capacity."""

    def __init__(
        self,
        context: RunContext,
        engines: Sequence[EngineSpec],
        attempts: int,
        progress: Progress,
        meters: Meters,
        distrusted: Collection[str] = (),
        listener: Listener = unheard,
    ):
        """`distrusted`: tokens of label caches that must not be used. The caller may add more while the fleet runs."""
        self.context, self.engines, self.attempts, self.progress, self.meters = context, engines, attempts, progress, meters
        self.listener, self.doing = listener, "shard"
        self.distrusted = distrusted
        self.ignored: set[str] = set()
        self.slots = [_ActorSlot(spec) for spec in engines for _ in range(spec.actors)]
        self.calls: dict[ray.ObjectRef, tuple[_ActorSlot, Shard | None, Queue | None]] = {}
        self.grown = time.monotonic()
        self.unpriced: set[str] = set()

    def __enter__(self) -> "ActorPool":
        for slot in self.slots:
            self._start(slot)
        return self

    def __exit__(self, *error) -> None:
        for slot in self.slots:
            if slot.actor is not None:
                ray.kill(slot.actor)

    def run(
        self, queue: Queue, method: str, frequent_answers=None, done: Callable[[Shard, Committed], None] | None = None
    ) -> None:
        """Work until every shard of `queue` is done or has failed.

        Raises ShardsFailed if no engine is left before that. If every engine was refused, raises Disagreement (its labels) or
        ConfigError (its configuration) instead.
        """
        self.doing = "shard" if method == "label" else "frequent"
        while queue.open:
            if all(slot.actor is None for slot in self.slots):
                troubles = "; ".join(dict.fromkeys(slot.trouble for slot in self.slots))
                if all(slot.refused for slot in self.slots):
                    raise next(
                        (slot.refused for slot in self.slots if isinstance(slot.refused, ConfigError)), Disagreement(troubles)
                    )
                raise ShardsFailed(f"no engine is left and shards are open; mend this and run again: {troubles}")
            self._grow(queue)
            self._feed(queue, method, frequent_answers)
            for ref in self._finished():
                # If an actor died with another call, its calls were removed already.
                if ref in self.calls:
                    self._handle(ref, queue, done)
            for slot in cast(list[_ActorSlot], queue.overdue(time.monotonic())):
                self._died(slot, self._queues(slot) | {queue}, EngineHung("it hung: it finished no shard for far too long"))
            for slot in self._stuck(time.monotonic()):
                self._died(slot, self._queues(slot) | {queue}, EngineHung(_STUCK.format(LOADING_SECONDS / 60, slot.node)))
            self.meters.observe(self.slots, queue, self.progress)
            ready = sum(slot.ready for slot in self.slots)
            remaining = f"{queue.remaining:,} {'shards' if method == 'label' else 'chunks of frequent messages'} left"
            loading = "" if ready else f"waits for the first of {len(self.slots)} actors; {self._loading()}"
            self.progress.update(queue.retries, f"{ready} of {len(self.slots)} actors, {remaining}", loading)

    def load_while(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread and return its result. Meanwhile the actors get their nodes and load, so `work` must not need
        a CPU of the cluster.
        """
        no_shards, result = Queue([], self.attempts), Future()

        def run() -> None:
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

        # A daemon thread, so that an interrupted run does not wait for it.
        threading.Thread(target=run, daemon=True).start()
        while not result.done():
            for ref in self._finished(MEANWHILE_SECONDS):
                if ref in self.calls:
                    self._handle(ref, no_shards, None)
        return result.result()

    def _loading(self) -> str:
        """Say, by variant, what the actors wait for that are not ready."""
        states = {}
        for slot in self.slots:
            if slot.actor is not None and not slot.ready:
                states.setdefault(slot.spec.variant, set()).add("loads" if slot.loading else "has no node yet")
        return ", ".join(f"{name} {' or '.join(sorted(state))}" for name, state in states.items())

    def _start(self, slot: _ActorSlot) -> None:
        spec = slot.spec
        environment = {"runtime_env": {"env_vars": dict(spec.env_vars)}} if spec.env_vars else {}
        actor = ray.remote(Actor).options(num_cpus=spec.cpus, num_gpus=spec.gpus, max_concurrency=DEPTH, **environment)
        slot.actor, slot.ready, slot.loading, slot.node = actor.remote(self.context), False, None, ""
        self.calls[slot.actor.arrive.remote()] = (slot, None, None)

    def _load(self, slot: _ActorSlot, node: str) -> None:
        spec = slot.spec
        slot.node, slot.loading = node, time.monotonic()
        self.calls[slot.actor.load.remote(spec.load, spec.cpus, spec.gpus, spec.abstain_below, spec.cache)] = (slot, None, None)

    def _ready(self, slot: _ActorSlot, loaded: Loaded) -> None:
        for note in set(loaded.ignored) - self.ignored:
            self.ignored.add(note)
            self.progress.say(f"the label cache of {slot.spec.variant} is ignored as far as it is damaged: {note}")
        self._tell("engine", time.monotonic() - (slot.loading or 0.0), slot)
        self._price(slot, loaded.uses)
        self._log("actor ready", slot)

    def _price(self, slot: _ActorSlot, uses: Sequence[Hardware]) -> None:
        slot.ready, slot.loading = True, None
        costs = {part.model: price(slot.spec.prices, part) for part in uses}
        slot.usd_per_hour = sum(part.count * (costs[part.model] or 0.0) for part in uses)
        unknown = {model for model, cost in costs.items() if cost is None} - self.unpriced
        if unknown and any(cost is not None for cost in slot.spec.prices.values()):
            self.unpriced |= unknown
            self.progress.say(f"the cost leaves out {', '.join(map(repr, sorted(unknown)))}: cluster.prices has no price of it")

    def _stuck(self, now: float) -> list[_ActorSlot]:
        """Return the slots whose actors hang while they load. An actor that waits for a node is not loading."""
        return [slot for slot in self.slots if slot.loading is not None and now - slot.loading > LOADING_SECONDS]

    def _grow(self, queue: Queue) -> None:
        """Add slots for which joined nodes have capacity, of the kinds that have not given up any actor."""
        if not queue.waiting or time.monotonic() - self.grown < GROW_SECONDS:
            return
        self.grown = time.monotonic()
        broken = {slot.spec.variant for slot in self.slots if slot.actor is None}
        growing = [spec for spec in self.engines if spec.grows and spec.variant not in broken]
        coming = [slot.spec for slot in self.slots if slot.actor is not None and not slot.ready]
        joining = fitting_actors(self._free(), growing, coming)[: queue.waiting]
        for spec in joining:
            self.slots.append(_ActorSlot(spec))
            self._start(self.slots[-1])
        if joining:
            self.progress.say(f"the cluster has room for {len(joining)} more actors: they join")

    def _free(self) -> dict[str, float]:
        """Return the free resources of the cluster. Ray's own count lags seconds behind actors that have just started."""
        unreserved, free = ray.cluster_resources(), ray.available_resources()
        for spec in (slot.spec for slot in self.slots if slot.ready):
            unreserved |= {name: unreserved.get(name, 0) - amount for name, amount in needs(spec).items()}
        return {name: min(amount, free.get(name, 0)) for name, amount in unreserved.items()}

    def _feed(self, queue: Queue, method: str, frequent_answers) -> None:
        ready = [slot for slot in self.slots if slot.ready]
        # Near the end, do not let one actor read ahead what another could compute now.
        depth = 1 + min(DEPTH - 1, queue.waiting // (2 * max(1, len(ready))))
        for level in range(depth):
            for slot in ready:
                if len(queue.assigned(slot)) <= level and (shard := queue.take(slot, time.monotonic())):
                    self.calls[getattr(slot.actor, method).remote(shard, frequent_answers, tuple(self.distrusted))] = (
                        slot,
                        shard,
                        queue,
                    )

    def _finished(self, timeout: float = TICK_SECONDS) -> list[ray.ObjectRef]:
        if not self.calls:
            time.sleep(timeout)
            return []
        ready, rest = ray.wait(list(self.calls), num_returns=1, timeout=timeout)
        return ready + (ray.wait(rest, num_returns=len(rest), timeout=0)[0] if ready and rest else [])

    def _handle(self, ref: ray.ObjectRef, current: Queue, done: Callable[[Shard, Committed], None] | None) -> None:
        slot, shard, queue = self.calls.pop(ref)
        try:
            outcome = ray.get(ref)
        except ActorUnavailableError as error:
            # Only a call was lost. Keep the actor, because its model may have taken minutes to load.
            slot.misses += 1
            if shard is None or queue is None or slot.misses >= SLOT_PATIENCE:
                self._died(slot, self._queues(slot) | {queue or current, current}, error)
            else:
                queue.retry_free(shard, slot, reason_of(error))
            return
        except RayError as error:
            self._died(slot, self._queues(slot) | {queue or current, current}, error)
            return
        if shard is None and slot.loading is None:
            self._load(slot, outcome)
        elif shard is None or queue is None:
            self._ready(slot, outcome)
        elif outcome.reason:
            self._log("shard failed", slot, shard, reason=outcome.reason, final=outcome.final)
            self._tell(self.doing, 0.0, slot, shard, error=outcome.reason)
            queue.fail(shard, slot, outcome.reason, outcome.final)
        else:
            slot.deaths = slot.misses = 0
            if queue.done(shard, slot, time.monotonic()):
                self._account(slot, shard, outcome)
                if done and queue is current:
                    done(shard, outcome.part)

    def _account(self, slot: _ActorSlot, shard: Shard, outcome: Outcome) -> None:
        self.meters.done(slot, shard.rows, outcome)
        self._log("shard done", slot, shard, seconds=round(outcome.seconds, 3))
        self._tell(self.doing, outcome.seconds, slot, shard)

    def _tell(self, name: str, seconds: float, slot: _ActorSlot, shard: Shard | None = None, error: str = "") -> None:
        facts: dict[str, str | int | float] = {"variant": slot.spec.variant, "engine": slot.spec.kind, "node": slot.node}
        if shard:
            facts |= {"shard": shard.id, "object": shard.blob.key, "start": shard.start, "rows": shard.rows}
        self.listener(Event(name, seconds, facts, error))

    def _log(self, message: str, slot: _ActorSlot, shard: Shard | None = None, **facts) -> None:
        """Log an event for machines. The progress lines show people the same event."""
        facts |= {"run": self.context.ledger.run.fingerprint, "variant": slot.spec.variant, "node": slot.node}
        if shard:
            facts |= {"shard": shard.id, "object": shard.blob.key, "start": shard.start, "rows": shard.rows}
        log.info(message, extra=facts)

    def _queues(self, slot: _ActorSlot) -> set[Queue]:
        return {queue for holder, _, queue in self.calls.values() if holder is slot and queue}

    def _died(self, slot: _ActorSlot, queues: set[Queue], error: Exception) -> None:
        """Return the dead actor's shards to the queue and start a new actor, unless too many died in a row."""
        ray.kill(slot.actor)
        self.meters.died(slot)
        slot.misses, slot.loading = 0, None
        self.calls = {ref: call for ref, call in self.calls.items() if call[0] is not slot}
        reason, free = reason_of(error), _is_node_loss(error)
        lost = [shard for queue in queues for shard in queue.lost(slot, f"killed its actor: {reason}", free)]
        failed = any(shard in queue.failed for queue in queues for shard in lost)
        slot.deaths = 0 if failed else slot.deaths + (not free)
        # A shard may have killed an actor that was labelling, and shards have their own limit. An actor that died while loading
        # was killed by its engine.
        limit = SLOT_PATIENCE * self.attempts if slot.ready else self.attempts
        slot.trouble = f"{slot.spec.variant}: {reason}"
        cause = getattr(error, "cause", None)
        slot.refused = cause if isinstance(cause, Disagreement | ConfigError) else None
        self._tell("engine", 0.0, slot, error=reason)
        self._log("actor died", slot, reason=reason, shards=[shard.id for shard in lost])
        self.progress.say(f"an actor of {slot.spec.variant} died, {len(lost)} shards go back: {reason}")
        if slot.deaths < limit:
            self._start(slot)
        else:
            slot.actor, slot.ready = None, False
            self.progress.say(f"{slot.spec.variant}: one actor fewer after {slot.deaths} deaths in a row")


def needs(spec: EngineSpec) -> dict[str, float]:
    """Return the Ray resources that one actor occupies, by name."""
    return {name: amount for name, amount in (("CPU", spec.cpus), ("GPU", spec.gpus)) if amount}


def fitting_actors(
    free: Mapping[str, float], specs: Sequence[EngineSpec], coming: Sequence[EngineSpec] = ()
) -> list[EngineSpec]:
    """Return the actors that fit into the `free` resources, one of each kind in turn, after resources are
    reserved for those in `coming`.
    """
    unreserved, joining = dict(free), []

    def fits(spec: EngineSpec) -> bool:
        takes = needs(spec)
        if not takes or any(unreserved.get(name, 0) < amount for name, amount in takes.items()):
            return False
        unreserved.update({name: unreserved[name] - amount for name, amount in takes.items()})
        return True

    for spec in coming:
        fits(spec)
    while more := [spec for spec in specs if fits(spec)]:
        joining += more
    return joining


def _is_node_loss(error: Exception) -> bool:
    """Return whether the actor's node was lost or is unreachable. Then its shards are not to blame."""
    return isinstance(error, RayActorError) and (not isinstance(error, ActorDiedError) or "its node has died" in str(error))


def reason_of(error: Exception) -> str:
    """Return the type of an error's cause and its most telling line, in at most 500 characters."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    line = next((line for line in lines if "because" in line), lines[0] if lines else "")
    return f"{type(cause).__name__}: {line}"[:500]


def load_frequent_answers(store: Store) -> ray.ObjectRef:
    """Load the answers to the frequent messages on the cluster. Returns a reference, so that the driver never holds them."""
    return _load_frequent_answers.remote(store)


@ray.remote(num_cpus=0)
def _load_frequent_answers(store: Store) -> pa.Table | None:
    try:
        return frequent.load(store)
    except Exception as error:
        # Without the table the run is slower but still correct.
        log.warning("goes on without the table of frequent messages: %s", reason_of(error))
        return None
