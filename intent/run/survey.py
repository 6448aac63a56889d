"""Read a run's footers and find its most frequent messages, on the cluster and before labelling.

The number of tasks depends on the work, not on the CPUs at hand, so that a cluster without workers grows for waiting tasks.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from intent.errors import IntentError
from intent.lake import Snapshot
from intent.run import frequent
from intent.run.actor import RunContext
from intent.run.progress import Stage
from intent.run.queue import MAX_FREE_RETRIES
from intent.run.scan import open_reader, read_source_footers
from intent.run.shard import Footer, Shard
from intent.storage import Blob, Store

# Up to this many objects, the driver itself reads the footers, FOOTERS_AT_ONCE at a time. For more objects, tasks read this
# many each.
FOOTERS_PER_TASK, FOOTERS_AT_ONCE = 1_000, 100
# Opening a shard takes about as long as counting this many rows.
ROWS_PER_TASK, ROWS_PER_SHARD = 1_000_000, 5_000
# The number of count tables that are merged at once.
MERGED = 8
TICK_SECONDS = 1.0
T = TypeVar("T")


def read_footers_on_cluster(
    store: Store | Snapshot, blobs: Sequence[Blob], columns: Sequence[str], stage: Stage, attempts: int
) -> list[Footer]:
    """Return the footers of `blobs`, in order, with the types of `columns`. Raises the error of a task's last attempt."""
    if len(blobs) <= FOOTERS_PER_TASK:
        return [footer for batch in _slices(blobs, FOOTERS_AT_ONCE) for footer in _read_here(store, batch, columns, stage)]
    batches = _slices(blobs, FOOTERS_PER_TASK)
    tasks = _Tasks(batches, lambda batch: [_footers.remote(store, batch, columns)], stage, attempts)
    by_batch: dict[int, Any] = {}
    while tasks.flying:
        by_batch |= {number: footers for [number], footers, _ in tasks.finished()}
    return [footer for number in range(len(batches)) for footer in by_batch[number]]


def find_frequent(context: RunContext, shards: Sequence[Shard], limit: int, stage: Stage, attempts: int) -> None:
    """Count the messages of `shards` on the cluster, and publish the `limit` most frequent. The counts stay on the cluster.

    Raises the error of a task's last attempt.
    """
    batches = cut(shards)
    # The tasks of a short log need no CPU, because actors may hold all CPUs of the cluster.
    options = {"num_cpus": 0 if len(batches) < 2 else 1}
    count, merge = _count.options(**options), _merge.options(**options)
    tasks = _Tasks(batches, lambda batch: count.remote(context, batch, limit), stage, attempts)
    tables: deque[tuple[list[int], ray.ObjectRef]] = deque()
    while True:
        for numbers, published, (_, table) in tasks.finished():
            if published:
                return
            tables.append((numbers, table))
        while len(tables) >= MERGED or (tables and not tasks.flying):
            some = [tables.popleft() for _ in range(min(MERGED, len(tables)))]
            numbers = [number for counted, _ in some for number in counted]
            publish = context if len(numbers) == len(batches) else None
            tasks.add(numbers, merge.remote(publish, limit, *(table for _, table in some)))


def is_short(shards: Sequence[Shard]) -> bool:
    """Return whether a single task can count all messages."""
    return len(cut(shards)) < 2


def cut(shards: Sequence[Shard]) -> list[Sequence[Shard]]:
    """Split `shards`, in order, into batches that take about equally long to count."""
    batches, start, work = [], 0, 0
    for stop, shard in enumerate(shards, 1):
        work += shard.rows + ROWS_PER_SHARD
        if work >= ROWS_PER_TASK or stop == len(shards):
            batches.append(shards[start:stop])
            start, work = stop, 0
    return batches


class _Tasks(Generic[T]):
    """Track Ray tasks: one for each of `batches`, started by `begin`, and follow-up tasks on their results.

    A task's first result comes to the driver; the others stay on the cluster. If a task fails, its batches start again, because
    their results may be lost with a node. Ray itself retries nothing, so every retry is counted.
    """

    def __init__(
        self, batches: Sequence[Sequence[T]], begin: Callable[[Sequence[T]], list[ray.ObjectRef]], stage: Stage, attempts: int
    ):
        self.batches, self.begin, self.stage, self.attempts = batches, begin, stage, attempts
        self.flying: dict[ray.ObjectRef, tuple[list[int], list[ray.ObjectRef]]] = {}
        self.done: set[int] = set()
        self.tries: Counter[int] = Counter()
        for number in range(len(batches)):
            self.add([number], begin(batches[number]))

    def add(self, numbers: list[int], results: list[ray.ObjectRef]) -> None:
        self.flying[results[0]] = numbers, results

    def finished(self) -> Iterator[tuple[list[int], object, list[ray.ObjectRef]]]:
        """Yield (numbers of the batches, first result, all results) of each task that has ended. Waits at most TICK_SECONDS."""
        self._tell()
        ready, rest = ray.wait(list(self.flying), timeout=TICK_SECONDS)
        ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0] if ready and rest else []
        for ref in ready:
            numbers, results = self.flying.pop(ref)
            try:
                first = ray.get(ref)
            except RayError as error:
                self._again(numbers, error)
                continue
            self.done.update(numbers)
            yield numbers, first, results
        self._tell()

    def _again(self, numbers: list[int], error: RayError) -> None:
        self.tries.update(numbers)
        self.done.difference_update(numbers)
        # A task is not to blame for a lost node.
        limit = self.attempts if isinstance(error, RayTaskError) else MAX_FREE_RETRIES
        if isinstance(error, IntentError) or max(self.tries[number] for number in numbers) >= limit:
            raise error
        for number in numbers:
            self.add([number], self.begin(self.batches[number]))

    def _tell(self) -> None:
        note = "" if ray.cluster_resources().get("CPU") else "the cluster has no CPU yet"
        self.stage.update(sum(len(self.batches[number]) for number in self.done), self.tries.total(), note)


def _slices(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _read_here(store: Store | Snapshot, blobs: Sequence[Blob], columns: Sequence[str], stage: Stage) -> list[Footer]:
    footers = read_source_footers(store, blobs, columns)
    stage.update(stage.done + len(footers))
    return footers


@ray.remote(num_cpus=1, max_retries=0)
def _footers(store: Store | Snapshot, blobs: Sequence[Blob], columns: Sequence[str]) -> list[Footer]:
    return read_source_footers(store, blobs, columns)


@ray.remote(num_cpus=1, max_retries=0, num_returns=2)
def _count(context: RunContext, shards: Sequence[Shard], limit: int) -> tuple[bool, pa.Table]:
    column = context.columns.message
    return False, frequent.count(open_reader(context.source, [column]), column, shards, limit, context.max_characters)


@ray.remote(num_cpus=1, max_retries=0, num_returns=2)
def _merge(context: RunContext | None, limit: int, *tables: pa.Table) -> tuple[bool, pa.Table | None]:
    """Add up counts. With a `context`, these are all counts: publish the most frequent messages instead of returning them."""
    counts = frequent.merge(tables, limit)
    if context is None:
        return False, counts
    if context.router is None:
        frequent.publish_messages(context.ledger.store, frequent.choose(counts, limit))
    else:
        messages = frequent.choose(counts, limit, least=1)
        frequent.publish_asks(context.ledger.store, messages, context.router()(messages.to_pylist()))
    return True, None
