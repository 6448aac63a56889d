"""Read, label and publish shards in an actor's process, with a loaded classifier.

Knows nothing of Ray or the queue. Calls come from several threads, so that one shard is read and another written while a third
is computed. Only one thread computes at a time.
"""

import logging
import platform
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from intent import hardware
from intent.engine import Classifier
from intent.errors import CorruptData
from intent.hardware import Hardware
from intent.label_cache import LabelCache, Reader
from intent.lake import Snapshot
from intent.retrieve.route import Asks
from intent.run import frequent, new_labels
from intent.run.columns import Columns
from intent.run.ledger import Ledger
from intent.run.part import Committed
from intent.run.scan import open_reader
from intent.run.shard import Shard
from intent.run.worker import MAX_CHARACTERS, Worker
from intent.storage import Store
from intent.task.schema import IntentSchema

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
    """Settings that all actors of a run share. `types`: the types of the id and the kept columns in every part.

    `router`: set for a catalog of shelves. A worker calls it to get the function that chooses the shelves of each message.
    """

    source: Store | Snapshot
    ledger: Ledger
    schema: IntentSchema
    columns: Columns
    types: pa.Schema | None = None
    max_characters: int = MAX_CHARACTERS
    router: Callable[[], Callable[[Sequence[str]], Asks]] | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a shard: the committed `part`, or the `reason` why there is none. `final`: a retry cannot help.

    `seconds`: the time of computing alone, without reading and writing.
    """

    part: Committed | None = None
    reason: str = ""
    final: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Loaded:
    """`uses`: the processors that an actor occupies. `ignored`: the label cache files that it ignores, with the reasons."""

    uses: tuple[Hardware, ...]
    ignored: tuple[str, ...] = ()


class Actor:
    """Label shards with one classifier. Call `load` before the first shard."""

    def __init__(self, context: RunContext):
        self.context = context
        self.reader = open_reader(context.source, context.columns.read, context.types)
        self.computing = threading.Lock()

    def arrive(self) -> str:
        """Return this host's name at once, which tells the driver that the actor has a node."""
        return platform.node()

    def load(
        self,
        load: Callable[[], Classifier],
        cpus: float,
        gpus: float,
        abstain_below: float = 0.0,
        cache: LabelCache | None = None,
    ) -> Loaded:
        """Load the classifier with `load()`, for an actor of `cpus` and `gpus`, and open the label cache."""
        context = self.context
        run = context.ledger.run.fingerprint
        reader = Reader.open(cache, run) if cache else None
        self.worker = Worker(load(), context.schema, context.columns, run, context.max_characters, abstain_below, reader)
        uses = tuple(part for part in (hardware.cpu(cpus), hardware.gpu(gpus) if gpus else None) if part)
        return Loaded(uses, tuple(reader.notes) if reader else ())

    def label(self, shard: Shard, frequent_answers: pa.Table | None, distrusted: Collection[str] = ()) -> Outcome:
        """Label and publish a shard. `distrusted`: tokens of the label caches that the run no longer uses."""
        return _outcome(lambda: self._label(shard, frequent_answers, distrusted))

    def label_frequent(self, chunk: Shard, frequent_answers: None, distrusted: Collection[str] = ()) -> Outcome:
        """Label and publish a chunk of the frequent messages."""

        def run() -> tuple[Committed, float]:
            with self.computing:
                started = time.monotonic()
                self._trust(distrusted)
                receipt = frequent.label(self.context.ledger.store, self.worker, chunk)
                return Committed(receipt, 0, ""), time.monotonic() - started

        return _outcome(run)

    def _trust(self, distrusted: Collection[str]) -> None:
        reader = self.worker.reader
        if reader and reader.trusted and reader.token in distrusted:
            reader.forget()

    def _label(self, shard: Shard, frequent_answers: pa.Table | None, distrusted: Collection[str]) -> tuple[Committed, float]:
        ledger = self.context.ledger
        rows = self.reader.read(shard)
        with self.computing:
            # A speculative copy, or another driver's actor, may have finished first.
            if ledger.holds(shard):
                return ledger.committed(shard.id), 0.0
            log.info("labelling", extra={"run": ledger.run.fingerprint, "shard": shard.id, "rows": shard.rows})
            started = time.monotonic()
            if distrusted:
                self._trust(distrusted)
            part = self.worker.label(shard, rows, frequent_answers)
            seconds = time.monotonic() - started
        new_labels.keep(ledger.store, shard.id, part.fresh)
        return ledger.publish(part), seconds


def _outcome(run: Callable[[], tuple[Committed | None, float]]) -> Outcome:
    try:
        part, seconds = run()
        return Outcome(part, seconds=seconds)
    except CorruptData as error:
        return Outcome(reason=str(error), final=True)
    except Exception as error:
        return Outcome(reason=f"{type(error).__name__}: {error}"[:500])
