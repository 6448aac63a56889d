"""Find the run's most frequent messages in a first pass, and label each once for all workers.

A shard labels equal messages once anyway, so a message is frequent if it is in many shards. The output gets
`frequent/messages.parquet`, then `frequent/answers-<range>.parquet`, each written once.
"""

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.errors import CorruptData
from intent.night import fresh
from intent.night.part import RECEIPT, Receipt
from intent.night.rows import ShardReader, distinct, refuse
from intent.night.scan import TableReader
from intent.night.shard import Shard
from intent.night.worker import CACHED, Worker
from intent.storage import Store

FOLDER = "frequent"
MESSAGES = f"{FOLDER}/messages.parquet"
COUNTS = pa.schema([("message", pa.string()), ("shards", pa.int64()), ("rows", pa.int64())])
# While counting, memory holds at most this many times the table's size. The messages with the lowest counts so far are dropped.
SLACK = 8
CHUNKS, LEAST, MOST = 64, 64, 1_000


def count(
    reader: "ShardReader | TableReader", column: str, shards: Iterable[Shard], limit: int, max_characters: int
) -> pa.Table:
    """Count in how many of `shards`, and in how many rows, each message is. Returns columns (message, shards, rows) of at least
    the `limit` most frequent messages.
    """
    tables, size = [COUNTS.empty_table()], 0
    for shard in shards:
        try:
            messages, places = distinct(reader.read(shard)[column])
        except CorruptData:
            # The shard itself will report this.
            continue
        texts, reasons = refuse(messages, max_characters)
        rows = pa.array(np.bincount(places, minlength=len(texts))[: len(texts)])
        found = pa.table([texts, pa.repeat(pa.scalar(1, pa.int64()), len(texts)), rows], COUNTS).filter(reasons.is_null())
        tables.append(found)
        size += len(found)
        if size > SLACK * limit:
            tables = [merge(tables, limit)]
            size = len(tables[0])
    return merge(tables, limit)


def merge(tables: Sequence[pa.Table], limit: int) -> pa.Table:
    """Add up counts. Keeps only the most frequent messages if there are more than SLACK / 2 times `limit`."""
    table = pa.concat_tables(tables)
    summed = table.group_by("message", use_threads=False).aggregate([("shards", "sum"), ("rows", "sum")])
    summed = summed.rename_columns(COUNTS.names)
    return summed if len(summed) <= SLACK // 2 * limit else _most(summed, SLACK // 4 * limit)


def choose(counts: pa.Table, limit: int) -> pa.Array:
    """Return at most `limit` messages that are in two shards or more, most frequent first."""
    return _most(counts.filter(pc.greater(counts["shards"], 1)), limit)["message"].combine_chunks()


def _most(counts: pa.Table, limit: int) -> pa.Table:
    order = pc.sort_indices(counts, [("shards", "descending"), ("rows", "descending"), ("message", "ascending")])
    return counts.take(order[:limit])


def publish_messages(store: Store, messages: pa.Array) -> None:
    store.put_if_absent(MESSAGES, _bytes(pa.table({"message": messages})))


def chunks(store: Store) -> list[Shard]:
    """Cut the table's messages into shards for the fleet: large ones if there are many messages, and enough for every actor if
    there are few. The result does not depend on the fleet.
    """
    if (blob := store.stat(MESSAGES)) is None:
        raise FileNotFoundError(f"{store.uri} has no {MESSAGES}")
    rows = pq.read_metadata(io.BytesIO(store.read(MESSAGES))).num_rows
    size = min(max(LEAST, rows // CHUNKS), MOST)
    return [Shard(blob, start, min(size, rows - start), start) for start in range(0, rows, size)]


def label(store: Store, worker: Worker, chunk: Shard) -> Receipt:
    """Publish a chunk's answers unless they exist. Returns where they came from, as the receipt of no rows."""
    messages = _messages(store).slice(chunk.start, chunk.rows)
    found = worker.answer(messages.cast(pa.binary()))
    receipt = Receipt(chunk.id, worker.run, 0, 0, 0, 0, **worker.asked(found))
    table = found.table.take(pa.array(found.position[:-1])).add_column(0, "message", messages)
    fresh.keep(store, f"frequent-{chunk.start:09d}", found.fresh)
    store.put_if_absent(_key(chunk), _bytes(table.replace_schema_metadata({RECEIPT: json.dumps(asdict(receipt))})))
    return receipt


def missing(store: Store, planned: Sequence[Shard]) -> list[Shard]:
    found = {blob.key for blob in store.list(f"{FOLDER}/")}
    return [chunk for chunk in planned if _key(chunk) not in found]


def answered(store: Store) -> list[tuple[int, Receipt | None]]:
    """For each chunk whose answers are in the store, yield the number of its messages and the receipt of its answers."""
    return [(_rows(blob.key), _receipt(store, blob.key)) for blob in store.list(f"{FOLDER}/answers-")]


def load(store: Store) -> pa.Table | None:
    """Return all answers by message, or None if there are none."""
    keys = [blob.key for blob in store.list(f"{FOLDER}/answers-")]
    tables = [_table(store, key) for key in keys]
    # An older version without a label cache made it.
    tables = [t if CACHED in t.column_names else t.append_column(CACHED, pa.repeat(False, len(t))) for t in tables]
    return pa.concat_tables([t.replace_schema_metadata() for t in tables]).combine_chunks() if tables else None


def forget(store: Store) -> None:
    """Delete the table: it holds messages, and a run that has its manifest no longer needs it."""
    for blob in list(store.list(f"{FOLDER}/")):
        store.delete(blob.key)


def _messages(store: Store) -> pa.Array:
    return _table(store, MESSAGES)["message"].combine_chunks()


def _table(store: Store, key: str) -> pa.Table:
    # Not read_table: it imports pyarrow.dataset first, which adds 0.6 seconds to every actor's start.
    return pq.ParquetFile(io.BytesIO(store.read(key)), page_checksum_verification=True).read()


def _receipt(store: Store, key: str) -> Receipt | None:
    """Return the receipt, or None if an older version wrote the file."""
    found = pq.read_metadata(io.BytesIO(store.read(key))).metadata or {}
    return Receipt(**json.loads(found[RECEIPT])) if RECEIPT in found else None


def _rows(key: str) -> int:
    return int(key.removesuffix(".parquet").split("-")[-1])


def _key(chunk: Shard) -> str:
    return f"{FOLDER}/answers-{chunk.start:09d}-{chunk.rows}.parquet"


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    return sink.getvalue().to_pybytes()
