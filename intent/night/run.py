"""A night from beginning to end: plan, label, account, and the manifest last.

The driver holds shards and receipts, never rows. Knows the fleet, not Ray.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TextIO

from intent.artifacts import fingerprint
from intent.config import FleetConfig
from intent.errors import ConfigError, IntentError, ManifestLost, ShardsFailed
from intent.lake import DELTA, ICEBERG, Snapshot
from intent.night import frequent
from intent.night.actor import Night
from intent.night.columns import Columns, partitions
from intent.night.events import Event, Listener, planned, unheard
from intent.night.fleet import EngineSpec, Fleet, load_known, reason_of
from intent.night.ledger import FAILED, Ledger, RunIdentity, begun_versions, probe
from intent.night.listing import Listing, list_input, named
from intent.night.metrics import Meters
from intent.night.part import Committed
from intent.night.progress import Progress, Stage, Summary, Tally, say
from intent.night.publish import Publication
from intent.night.queue import Queue
from intent.night.shard import MOST_SHARDS, Footer, Plan, Shard, input_fingerprint, plan_shards, shard_rows
from intent.night.survey import find_frequent, read_footers_on_cluster
from intent.night.trust import Trust
from intent.retrieve.route import Asks
from intent.schema import IntentSchema
from intent.storage import Blob, StorageOptions, Store, inside, open_store

FREQUENT_MESSAGES = 100_000
# With a catalog of shelves, where it is for all messages, so that each shelf's prompt is computed once.
SHELVED_MESSAGES = 500_000


def classify_night(
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
    """Label every row below `input_uri`, or below several, into `output_uri`, once; Ray is initialized.

    `pattern`: what the names of data look like; None: read what is Parquet by its name or its content. `version`: of the
    table that is read; None: the one that the run was begun with, or else the present one. `publication`: where the caller will
    publish the labels; asked, before the run is planned, whether it takes them. `router`: see `Night`.

    Raises RunMismatch, StoreUnfit, ManifestLost, or, after all others finished, ShardsFailed.
    """
    columns.check(schema)
    store = open_store(output_uri, options)
    require_apart(store, input_uri, options)
    listing, run = identify(input_uri, options, identity, columns, pattern, version, [store])
    ledger = Ledger(store, run)
    ledger.require_same()
    if manifest := ledger.manifest():
        ledger.close(manifest["summary"])
        frequent.forget(store)
        return Summary(**{**manifest["summary"], "already_done": True})
    if publication:
        publication.check(run)
    probe(ledger.store)
    store.tidy()
    meters = Meters(run.fingerprint)

    def cut() -> Plan:
        made = _cut(listing, columns, engines, fleet, meters, stream)
        if publication:
            publication.check(run, made.types)
        return made

    started = time.monotonic()
    plan = ledger.plan(cut)
    listener(planned(plan, listing.store.uri, time.monotonic() - started))
    if plan.left_out:
        say(f"leaves out {len(plan.left_out):,} objects: {named(plan.left_out)}", stream)
    night = Night(listing.store, ledger, schema, columns, plan.types, router=router)
    if frequent_messages is None:
        frequent_messages = SHELVED_MESSAGES if router else FREQUENT_MESSAGES
    return run_night(night, plan, engines, fleet.attempts, frequent_messages, meters, stream, listener)


def _cut(
    listing: Listing,
    columns: Columns,
    engines: Sequence[EngineSpec],
    fleet: FleetConfig,
    meters: Meters,
    stream: TextIO | None,
) -> Plan:
    """The listing's rows as shards, each of so many rows as the slowest engine labels in good time."""

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
    """Raises ConfigError where a listing of the input would show the output."""
    for uri in [input_uri] if isinstance(input_uri, str) else input_uri:
        if not uri.startswith(ICEBERG) and inside(output, open_store(uri.removeprefix(DELTA), options)):
            raise ConfigError(field, output.uri, f"is inside {of}; name a place outside of it")


def identify(
    input_uri: str | Sequence[str],
    options: StorageOptions,
    identity: RunIdentity,
    columns: Columns,
    pattern: str | None = None,
    version: int | None = None,
    begun: Sequence[Store] = (),
) -> tuple[Listing, RunIdentity]:
    """The input's objects, and the run that they and `identity` make. Raises ConfigError where there are none.

    `begun`: where the run may have been planned before, with a version of the table that it goes on with.
    """
    listing = list_input(input_uri, options, pattern, version, begun_versions(begun))
    folders = {} if listing.table else partitions(f"{listing.store.uri}/")
    kept = {name: folders[name] for name in columns.keep if name in folders}
    read = fingerprint([columns.id, columns.message, columns.keep, *([kept] if kept else []), *["explode"] * columns.explode])
    return listing, replace(identity, input=input_fingerprint(listing.blobs), columns=read)


def run_night(
    night: Night,
    plan: Plan,
    engines: Sequence[EngineSpec],
    attempts: int,
    frequent_messages: int,
    meters: Meters,
    stream: TextIO | None = None,
    listener: Listener = unheard,
) -> Summary:
    ledger, shards = night.ledger, plan.shards
    parts = _earlier_parts(ledger, shards, meters, stream)
    todo = [shard for shard in shards if shard.id not in parts and not shard.reason]
    queue = Queue(todo, attempts, failed={shard: shard.reason for shard in shards if shard.reason})
    tally, trust = Tally(), Trust([spec.cache for spec in engines if spec.cache], lambda line: say(line, stream))
    for messages, receipt in frequent.answered(ledger.store):
        tally.answer(messages, receipt)
        trust.weigh(receipt)
    for part in parts.values():
        tally.add(part, fresh=False)
        trust.weigh(part.receipt)

    def answered(chunk: Shard, part: Committed) -> None:
        tally.answer(chunk.rows, part.receipt)
        trust.weigh(part.receipt)

    def done(shard: Shard, part: Committed) -> None:
        parts[shard.id] = part
        tally.add(part)
        trust.weigh(part.receipt)

    # Before the fleet takes the cluster's CPUs.
    chunks = _frequent_chunks(night, shards, frequent_messages, attempts, meters, stream) if todo else []
    with Progress(sum(max(0, shard.rows) for shard in shards), tally, stream) as progress:
        trust.tell = progress.say
        if todo:
            first = Queue(frequent.missing(ledger.store, chunks), attempts)
            with Fleet(night, engines, attempts, progress, meters, trust.distrusted, listener) as fleet:
                progress.frequent(sum(chunk.rows for chunk in chunks))
                fleet.run(first, "label_frequent", done=answered)
                progress.rows()
                for chunk, reason in first.failed.items():
                    progress.say(f"{chunk.rows:,} frequent messages are left to their shards: {reason}")
                queue.retries = first.retries
                fleet.run(queue, "label", load_known(ledger.store) if chunks else None, done)
        trust.close()
    if queue.failed:
        with suppress(IntentError, OSError):
            # A store that fails too must not hide which shards did.
            ledger.record_failed(queue.failed)
        raise ShardsFailed(_describe(queue.failed, queue.final, len(parts), ledger.store.uri))
    summary = tally.summary(queue.retries, ledger.store.uri).leaving_out(plan.left_out)
    started = time.monotonic()
    try:
        ledger.commit(plan, parts, summary.as_dict())
    except ManifestLost:
        frequent.forget(ledger.store)
        raise
    listener(Event("commit", time.monotonic() - started, {"parts": len(parts), "rows": summary.rows}))
    frequent.forget(ledger.store)
    return summary


def _earlier_parts(ledger: Ledger, shards: Sequence[Shard], meters: Meters, stream: TextIO | None) -> dict[str, Committed]:
    """What earlier runs of the night have made, by shard, each checked."""
    made = ledger.committed_ids()
    if not (ids := [shard.id for shard in shards if shard.id in made]):
        return {}
    parts: dict[str, Committed] = {}
    title = f"checks {len(ids):,} parts that an earlier run made"
    with Stage("parts", title, "part", len(ids), stream, meters.survey) as stage:
        for part in ledger.all_committed(ids):
            parts[part.receipt.shard] = part
            stage.update(len(parts))
    return parts


def _describe(failed: dict[Shard, str], final: int, done: int, uri: str) -> str:
    rows = [shard.counted for shard in failed]
    known = sum(row for row in rows if isinstance(row, int))
    unknown = f" and {rows.count('unknown')} of unknown size" if "unknown" in rows else ""
    lines = [f"  {shard.blob.key!r} rows {shard.start}+{shard.counted}: {why}" for shard, why in list(failed.items())[:10]]
    head = (
        f"{len(failed)} shards ({known} rows{unknown}) failed, {done} are done; see {uri}/{FAILED}; {_remedy(failed, final)}:"
    )
    return "\n".join([head, *lines])


def _remedy(failed: dict[Shard, str], final: int) -> str:
    """What can help. A plan never changes: what could not be read when it was made, no later run of it tries.

    `final`: how many of the others another try cannot help, as their objects are.
    """
    unread = sum(bool(shard.reason) for shard in failed)
    told = []
    if unread + final < len(failed):
        told.append("run again for the others" if unread + final else "then run again")
    anew = "mend their objects and start a new run with a new output"
    told += [f"{unread} could not be read when they were planned: {anew}"] if unread else []
    told += [f"{final} fail again as they are: do what each says, or {anew}"] if final else []
    return "; ".join(told)


def _frequent_chunks(
    night: Night, shards: Sequence[Shard], limit: int, attempts: int, meters: Meters, stream: TextIO | None
) -> list[Shard]:
    """The night's most frequent messages, as chunks for the fleet to label; none where a table cannot save work."""
    store, readable = night.ledger.store, [shard for shard in shards if not shard.reason]
    if limit < 1 or len(readable) < 2:
        return []
    try:
        if store.stat(frequent.MESSAGES) is None:
            title = f"counts the messages of {len(readable):,} shards, to find the most frequent"
            with Stage("messages", title, "shard", len(readable), stream, meters.survey) as stage:
                find_frequent(night, readable, limit, stage, attempts)
        return frequent.chunks(store)
    except Exception as error:
        # Without the table the night is slower, and no less right.
        say(f"goes on without the table of frequent messages: {reason_of(error)}", stream)
        return []
