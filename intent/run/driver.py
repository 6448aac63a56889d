"""Run one labelling run in stages: list the input, plan, count frequent messages, label, account, and commit.

The driver holds shards and receipts, never rows. This module uses the actor pool but not Ray.
"""

import io
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NoReturn, TextIO

from intent.artifacts import fingerprint
from intent.errors import ConfigError, IntentError, ManifestLost, ShardsFailed
from intent.lake import DELTA, ICEBERG, Snapshot
from intent.retrieve.route import Asks
from intent.run import frequent
from intent.run.actor import RunContext
from intent.run.actor_pool import ActorPool, EngineSpec, load_frequent_answers, reason_of
from intent.run.cache_check import Trust
from intent.run.columns import Columns, partitions
from intent.run.config import FleetConfig
from intent.run.events import Event, Listener, planned, unheard
from intent.run.ledger import FAILED, Ledger, RunIdentity, begun_versions, probe
from intent.run.listing import Listing, list_input, named
from intent.run.metrics import Meters
from intent.run.part import Committed, Receipt
from intent.run.progress import Progress, Stage, Summary, Tally, say
from intent.run.publish import Publication
from intent.run.queue import Queue
from intent.run.shard import MOST_SHARDS, Footer, Plan, Shard, input_fingerprint, plan_shards, shard_rows
from intent.run.survey import find_frequent, is_short, read_footers_on_cluster
from intent.storage import Blob, StorageOptions, Store, inside, open_store
from intent.task.schema import IntentSchema

FREQUENT_MESSAGES = 100_000
# With a catalog of shelves, the table holds all messages up to this number, so that each shelf's prompt is computed once.
SHELVED_MESSAGES = 500_000


def classify_log(
    input_uri: str | Sequence[str],
    output_uri: str,
    options: StorageOptions,
    identity: RunIdentity,
    schema: IntentSchema,
    engines: Sequence[EngineSpec],
    fleet: FleetConfig,
    columns: Columns = Columns(),
    frequent_messages: int | None = None,
    stream: TextIO | None = None,
    pattern: str | None = None,
    version: int | None = None,
    publication: Publication | None = None,
    listener: Listener = unheard,
    router: Callable[[], Callable[[Sequence[str]], Asks]] | None = None,
) -> Summary:
    """Label every row of the objects below `input_uri` (one or several) into `output_uri`, exactly once.

    Ray must be initialized. `pattern`: names of the data objects; None: every object that is Parquet by name or content.
    `version`: of the table to read; None: the version that the run started with, or else the current one. `publication`: where
    the caller will publish the labels; it is checked before the run is planned. `router`: see `RunContext`.

    Raises RunMismatch if the output holds another run, StoreUnfit if it lacks conditional writes, ManifestLost if another
    driver finished first, and ShardsFailed after all other shards are done.
    """
    columns.check(schema)
    store = open_store(output_uri, options)
    require_apart(store, input_uri, options)
    listing, run = identify(input_uri, options, identity, columns, pattern, version, [store])
    ledger = Ledger(store, run)
    ledger.require_same()
    if manifest := ledger.manifest():
        ledger.close(manifest["summary"])
        frequent.delete(store)
        return Summary(**{**manifest["summary"], "already_done": True})
    if publication:
        publication.check(run)
    probe(ledger.store)
    store.clean_up()
    meters = Meters(run.fingerprint)

    def cut() -> Plan:
        plan = _cut(listing, columns, engines, fleet, meters, stream)
        if publication:
            publication.check(run, plan.types)
        return plan

    started = time.monotonic()
    plan = ledger.plan(cut)
    listener(planned(plan, listing.store.uri, time.monotonic() - started))
    if plan.left_out:
        say(f"leaves out {len(plan.left_out):,} objects: {named(plan.left_out)}", stream)
    context = RunContext(listing.store, ledger, schema, columns, plan.types, router=router)
    if frequent_messages is None:
        frequent_messages = SHELVED_MESSAGES if router else FREQUENT_MESSAGES
    return _Run(context, plan, engines, fleet.attempts, frequent_messages, meters, stream, listener).finish()


def _cut(
    listing: Listing,
    columns: Columns,
    engines: Sequence[EngineSpec],
    fleet: FleetConfig,
    meters: Meters,
    stream: TextIO | None,
) -> Plan:
    """Cut the listed rows into shards. Their size suits the slowest engine, unless the configuration gives it."""

    def footers(source: Store | Snapshot, blobs: Sequence[Blob], names: Sequence[str]) -> list[Footer]:
        title = f"plans {len(blobs):,} objects of {source.uri}"
        with Stage("footers", title, "object", len(blobs), stream, meters.survey) as stage:
            return read_footers_on_cluster(source, blobs, names, stage, fleet.attempts)

    if fleet.rows_per_shard:
        return plan_shards(listing, columns, fleet.rows_per_shard, footers)
    rows = shard_rows(min(engine.rate for engine in engines))
    return plan_shards(listing, columns, rows, footers, MOST_SHARDS)


def require_apart(
    output: Store, input_uri: str | Sequence[str], options: StorageOptions, field: str = "output", of: str = "the input"
) -> None:
    """Raise ConfigError if the output is inside the input, where a listing would take it for input."""
    for uri in [input_uri] if isinstance(input_uri, str) else input_uri:
        if not uri.startswith(ICEBERG) and inside(output, open_store(uri.removeprefix(DELTA), options)):
            raise ConfigError(field, output.uri, f"is inside {of}; name a place outside it")


def identify(
    input_uri: str | Sequence[str],
    options: StorageOptions,
    identity: RunIdentity,
    columns: Columns,
    pattern: str | None = None,
    version: int | None = None,
    begun: Sequence[Store] = (),
) -> tuple[Listing, RunIdentity]:
    """List the input and complete the identity of the run that labels it. Raises ConfigError if there are no objects.

    `begun`: stores that may hold an earlier plan of the run. The run keeps the table version of that plan.
    """
    listing = list_input(input_uri, options, pattern, version, begun_versions(begun))
    folders = {} if listing.table else partitions(f"{listing.store.uri}/")
    folder_columns = {name: folders[name] for name in columns.keep if name in folders}
    read = fingerprint(
        [
            columns.id,
            columns.message,
            columns.keep,
            *([folder_columns] if folder_columns else []),
            *["explode"] * columns.explode,
        ]
    )
    return listing, replace(identity, input=input_fingerprint(listing.blobs), columns=read)


class _Run:
    """Take a planned run from its shards to its manifest, stage by stage.

    `parts`: the committed parts by shard id. `tally` counts the rows of every part. `trust` checks the label cache by them.
    """

    def __init__(
        self,
        context: RunContext,
        plan: Plan,
        engines: Sequence[EngineSpec],
        attempts: int,
        frequent_messages: int,
        meters: Meters,
        stream: TextIO | None,
        listener: Listener,
    ):
        self.context, self.plan, self.engines, self.attempts = context, plan, engines, attempts
        self.frequent_messages, self.meters, self.stream, self.listener = frequent_messages, meters, stream, listener
        self.ledger, self.store = context.ledger, context.ledger.store
        self.parts: dict[str, Committed] = {}
        self.tally = Tally()
        self.trust = Trust([spec.cache for spec in engines if spec.cache], lambda line: say(line, stream))

    def finish(self) -> Summary:
        """Count the parts of earlier tries, label the other shards, and commit the run."""
        self._recover()
        queue = self._queue()
        self._label(queue)
        if queue.failed:
            self._fail(queue)
        return self._commit(queue.retries)

    def _recover(self) -> None:
        """Count the parts and the answers to frequent messages of earlier tries, each part verified."""
        for messages, receipt in frequent.answered(self.store):
            self._count_answers(messages, receipt)
        committed = self.ledger.committed_ids()
        if not (ids := [shard.id for shard in self.plan.shards if shard.id in committed]):
            return
        title = f"checks {len(ids):,} parts that an earlier run made"
        with Stage("parts", title, "part", len(ids), self.stream, self.meters.survey) as stage:
            for part in self.ledger.all_committed(ids):
                self._count_part(part, fresh=False)
                stage.update(len(self.parts))

    def _queue(self) -> Queue:
        """Queue the shards that have no part. Shards whose objects could not be read at planning have failed already."""
        todo = [shard for shard in self.plan.shards if shard.id not in self.parts and not shard.reason]
        return Queue(todo, self.attempts, failed={shard: shard.reason for shard in self.plan.shards if shard.reason})

    def _label(self, queue: Queue) -> None:
        """Label the run's most frequent messages once for all shards, and then the queue's shards."""
        # Count a short log while the engines load. Count a long one first, before the actors occupy the cluster's CPUs.
        beside = is_short(self.plan.shards)
        chunks = self._frequent_chunks() if queue.open and not beside else []
        rows = sum(max(0, shard.rows) for shard in self.plan.shards)
        with Progress(rows, self.tally, self.stream) as progress:
            self.trust.tell = progress.say
            if queue.open:
                with ActorPool(
                    self.context, self.engines, self.attempts, progress, self.meters, self.trust.distrusted, self.listener
                ) as pool:
                    if beside:
                        chunks = pool.load_while(partial(self._frequent_chunks, quiet=True))
                    queue.retries = self._label_frequent(pool, chunks, progress)
                    progress.rows()
                    frequent_answers = load_frequent_answers(self.store) if chunks else None
                    pool.run(queue, "label", frequent_answers, lambda _, part: self._count_part(part))
            self.trust.close()

    def _frequent_chunks(self, quiet: bool = False) -> list[Shard]:
        """Return the run's most frequent messages as chunks to label. Returns no chunks if a table cannot save work.

        `quiet`: show no progress, because another stage shows its own.
        """
        readable = [shard for shard in self.plan.shards if not shard.reason]
        if self.frequent_messages < 1 or len(readable) < 2:
            return []
        try:
            if self.store.stat(frequent.MESSAGES) is None:
                title = f"counts the messages of {len(readable):,} shards, to find the most frequent"
                stream = io.StringIO() if quiet else self.stream
                with Stage("messages", title, "shard", len(readable), stream, self.meters.survey) as stage:
                    find_frequent(self.context, readable, self.frequent_messages, stage, self.attempts)
            return frequent.chunks(self.store)
        except Exception as error:
            # Without the table the run is slower but still correct.
            say(f"goes on without the table of frequent messages: {reason_of(error)}", self.stream)
            return []

    def _label_frequent(self, pool: ActorPool, chunks: Sequence[Shard], progress: Progress) -> int:
        """Label the chunks that have no answers yet. Returns the number of retries."""
        queue = Queue(frequent.missing(self.store, chunks), self.attempts)
        progress.frequent(sum(chunk.rows for chunk in chunks))
        pool.run(queue, "label_frequent", done=lambda chunk, part: self._count_answers(chunk.rows, part.receipt))
        for chunk, reason in queue.failed.items():
            progress.say(f"{chunk.rows:,} frequent messages are left to their shards: {reason}")
        return queue.retries

    def _count_answers(self, messages: int, receipt: Receipt | None) -> None:
        self.tally.answer(messages, receipt)
        self.trust.weigh(receipt)

    def _count_part(self, part: Committed, fresh: bool = True) -> None:
        self.parts[part.receipt.shard] = part
        self.tally.add(part, fresh)
        self.trust.weigh(part.receipt)

    def _fail(self, queue: Queue) -> NoReturn:
        with suppress(IntentError, OSError):
            # If the store fails too, the error must still say which shards failed.
            self.ledger.record_failed(queue.failed)
        raise ShardsFailed(_describe(queue.failed, queue.final, len(self.parts), self.store.uri))

    def _commit(self, retries: int) -> Summary:
        """Write the manifest, and delete the files that only an unfinished run needs."""
        summary = self.tally.summary(retries, self.store.uri).leaving_out(self.plan.left_out)
        started = time.monotonic()
        try:
            self.ledger.commit(self.plan, self.parts, summary.as_dict())
        except ManifestLost:
            frequent.delete(self.store)
            raise
        facts = {"parts": len(self.parts), "rows": summary.rows}
        self.listener(Event("commit", time.monotonic() - started, facts))
        frequent.delete(self.store)
        return summary


def _describe(failed: dict[Shard, str], final: int, done: int, uri: str) -> str:
    rows = [shard.counted for shard in failed]
    counted = sum(row for row in rows if isinstance(row, int))
    unknown = f" and {rows.count('unknown')} of unknown size" if "unknown" in rows else ""
    lines = [f"  {shard.blob.key!r} rows {shard.start}+{shard.counted}: {why}" for shard, why in list(failed.items())[:10]]
    head = (
        f"{len(failed)} shards ({counted} rows{unknown}) failed, {done} are done; see {uri}/{FAILED}; {_remedy(failed, final)}:"
    )
    return "\n".join([head, *lines])


def _remedy(failed: dict[Shard, str], final: int) -> str:
    """Return the remedies for failed shards. A plan never changes, so a retry cannot help a shard that planning could not read.

    `final`: how many of the other shards fail again until their objects change.
    """
    unread = sum(bool(shard.reason) for shard in failed)
    remedies = []
    if unread + final < len(failed):
        remedies.append("run again for the others" if unread + final else "then run again")
    anew = "repair their objects and start a new run with a new output"
    remedies += [f"{unread} could not be read when they were planned: {anew}"] if unread else []
    remedies += [f"{final} fail again as they are: follow each one's reason, or {anew}"] if final else []
    return "; ".join(remedies)
