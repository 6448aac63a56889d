"""A night from beginning to end: plan, label, account, and the manifest last.

The driver holds shards and receipts, never rows. Knows the fleet, not Ray.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TextIO

from intent.artifacts import fingerprint
from intent.config import FleetConfig
from intent.errors import ConfigError, IntentError, ManifestLost, ShardsFailed
from intent.night import frequent
from intent.night.actor import Night
from intent.night.fleet import EngineSpec, Fleet, load_known, reason_of
from intent.night.ledger import FAILED, Ledger, RunIdentity, probe
from intent.night.metrics import Meters
from intent.night.part import Committed
from intent.night.progress import Progress, Stage, Summary, Tally, say
from intent.night.queue import Queue
from intent.night.shard import MOST_SHARDS, Footer, Shard, input_fingerprint, input_objects, plan_shards, shard_rows
from intent.night.survey import find_frequent, read_footers_on_cluster
from intent.night.worker import Columns
from intent.progress import Steps, counted
from intent.schema import IntentSchema
from intent.storage import Blob, StorageOptions, Store, inside, open_store

FREQUENT_MESSAGES = 100_000


def classify_night(
    input_uri: str,
    output_uri: str,
    options: StorageOptions,
    identity: RunIdentity,
    schema: IntentSchema,
    engines: Sequence[EngineSpec],
    fleet: FleetConfig,
    columns: Columns = Columns(),
    frequent_messages: int = FREQUENT_MESSAGES,
    stream: TextIO | None = None,
) -> Summary:
    """Label every row below `input_uri` into `output_uri`, once; Ray is initialized.

    Raises RunMismatch, StoreUnfit, ManifestLost, or, after all others finished, ShardsFailed.
    """
    columns.check(schema)
    store = open_store(output_uri, options)
    if inside(store, open_store(input_uri, options)):
        raise ConfigError("output", output_uri, "is inside the input; name a place outside of it")
    source, blobs, run = identify(input_uri, options, identity, columns)
    ledger = Ledger(store, run)
    ledger.require_same()
    if manifest := ledger.manifest():
        ledger.close(manifest["summary"])
        frequent.forget(store)
        return Summary(**{**manifest["summary"], "already_done": True})
    probe(ledger.store)
    store.tidy()
    meters = Meters(run.fingerprint)

    def footers(source: Store, blobs: Sequence[Blob]) -> list[Footer]:
        title = f"plans {len(blobs):,} objects of {source.uri}"
        with Stage("footers", title, "object", len(blobs), stream, meters.survey) as stage:
            return read_footers_on_cluster(source, blobs, stage, fleet.attempts)

    def cut() -> list[Shard]:
        if fleet.rows_per_shard:
            return plan_shards(source, blobs, columns.read, fleet.rows_per_shard, footers)
        rows = shard_rows(min(engine.rate for engine in engines))
        return plan_shards(source, blobs, columns.read, rows, footers, MOST_SHARDS)

    shards, night = ledger.plan(cut), Night(source, ledger, schema, columns)
    return run_night(night, shards, engines, fleet.attempts, frequent_messages, meters, stream)


def identify(
    input_uri: str, options: StorageOptions, identity: RunIdentity, columns: Columns
) -> tuple[Store, list[Blob], RunIdentity]:
    """The input's store and objects, and the run that they and `identity` make. Raises ConfigError where there are none."""
    source, blobs = input_objects(input_uri, options)
    named = fingerprint([columns.id, columns.message, columns.keep])
    return source, blobs, replace(identity, input=input_fingerprint(blobs), columns=named)


def run_night(
    night: Night,
    shards: Sequence[Shard],
    engines: Sequence[EngineSpec],
    attempts: int,
    frequent_messages: int,
    meters: Meters,
    stream: TextIO | None = None,
) -> Summary:
    ledger = night.ledger
    parts = _made(ledger, shards, stream)
    todo = [shard for shard in shards if shard.id not in parts and not shard.reason]
    queue = Queue(todo, attempts, failed={shard: shard.reason for shard in shards if shard.reason})
    tally = Tally(classified=frequent.answered(ledger.store))
    for part in parts.values():
        tally.add(part, fresh=False)

    def done(shard: Shard, part: Committed) -> None:
        parts[shard.id] = part
        tally.add(part)

    # Before the fleet takes the cluster's CPUs.
    chunks = _frequent_chunks(night, shards, frequent_messages, attempts, meters, stream) if todo else []
    with Progress(sum(max(0, shard.rows) for shard in shards), tally, stream) as progress:
        if todo:
            first = Queue(frequent.missing(ledger.store, chunks), attempts)
            with Fleet(night, engines, attempts, progress, meters) as fleet:
                progress.frequent(sum(chunk.rows for chunk in chunks))
                fleet.run(first, "label_frequent", done=lambda chunk, _: tally.answer(chunk.rows))
                progress.rows()
                for chunk, reason in first.failed.items():
                    progress.say(f"{chunk.rows:,} frequent messages are left to their shards: {reason}")
                queue.retries = first.retries
                fleet.run(queue, "label", load_known(ledger.store) if chunks else None, done)
    if queue.failed:
        with suppress(IntentError, OSError):
            # A store that fails too must not hide which shards did.
            ledger.record_failed(queue.failed)
        raise ShardsFailed(_describe(queue.failed, len(parts), ledger.store.uri))
    summary = tally.summary(queue.retries, ledger.store.uri)
    try:
        ledger.commit(shards, parts, summary.as_dict())
    except ManifestLost:
        frequent.forget(ledger.store)
        raise
    frequent.forget(ledger.store)
    return summary


def _made(ledger: Ledger, shards: Sequence[Shard], stream: TextIO | None) -> dict[str, Committed]:
    """The parts that an earlier run made, by shard."""
    committed = ledger.committed_ids()
    ids = [shard.id for shard in shards if shard.id in committed]
    if not ids:
        return {}
    with Steps("checks the parts of an earlier run", stream=stream) as steps:
        found = counted(ledger.all_committed(ids), len(ids), steps.report, "part")
        return {part.receipt.shard: part for part in found}


def _describe(failed: dict[Shard, str], done: int, uri: str) -> str:
    rows = [shard.counted for shard in failed]
    known = sum(row for row in rows if isinstance(row, int))
    unknown = f" and {rows.count('unknown')} of unknown size" if "unknown" in rows else ""
    lines = [f"  {shard.blob.key!r} rows {shard.start}+{shard.counted}: {why}" for shard, why in list(failed.items())[:10]]
    head = f"{len(failed)} shards ({known} rows{unknown}) failed, {done} are done; see {uri}/{FAILED}; {_remedy(failed)}:"
    return "\n".join([head, *lines])


def _remedy(failed: dict[Shard, str]) -> str:
    """A plan never changes: what could not be read when it was made, no later run of it tries."""
    unread = sum(bool(shard.reason) for shard in failed)
    if not unread:
        return "then run again"
    anew = f"{unread} could not be read when they were planned: mend their objects and start a new run with a new output"
    return anew if unread == len(failed) else f"run again for the others; {anew}"


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
