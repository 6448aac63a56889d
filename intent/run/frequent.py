"""Find the run's most frequent messages in a first pass, and label each once for all workers.

A shard labels each distinct message once, so a message counts as frequent if it is in many shards. The output gets
`frequent/messages.parquet`, then `frequent/answers-<range>.parquet`, each written once.

If the catalog is cut into shelves, the table holds messages of a single shard too. It has one row for each shelf that a message
is asked about, ordered by shelf, so that a shelf's prompt is computed once for all its messages of the run. `load` picks one
answer for each message.
"""

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.engine import Status
from intent.engine.shelved import surest
from intent.errors import CorruptData
from intent.retrieve.route import Asks
from intent.run import new_labels
from intent.run.part import RECEIPT, Receipt
from intent.run.rows import ShardReader, distinct, groups_of, refuse
from intent.run.scan import TableReader
from intent.run.shard import Shard
from intent.run.worker import CACHED, Worker
from intent.storage import Store

FOLDER = "frequent"
MESSAGES = f"{FOLDER}/messages.parquet"
COUNTS = pa.schema([("message", pa.string()), ("shards", pa.int64()), ("rows", pa.int64())])
# While counting, memory holds at most this many times the table's size. The messages with the lowest counts so far are dropped.
SLACK = 8
CHUNKS, LEAST, MOST = 64, 64, 1_000
# Columns of an ask: its shelf, whether it is the first of its message, and how many asks its message has. Column of its answer:
# whether it names a product.
SHELF, FIRST, ASKS, NAMED = "shelf", "first", "asks", "named"


def count(
    reader: "ShardReader | TableReader", column: str, shards: Iterable[Shard], limit: int, max_characters: int
) -> pa.Table:
    """Count the shards and the rows that hold each message. Returns columns (message, shards, rows) of at least the `limit`
    most frequent messages.
    """
    tables, size = [COUNTS.empty_table()], 0
    for shard in shards:
        try:
            messages, indices = distinct(reader.read(shard)[column])
        except CorruptData:
            # Labelling the shard will report this.
            continue
        texts, reasons = refuse(messages, max_characters)
        rows = pa.array(np.bincount(indices, minlength=len(texts))[: len(texts)])
        counts = pa.table([texts, pa.repeat(pa.scalar(1, pa.int64()), len(texts)), rows], COUNTS).filter(reasons.is_null())
        tables.append(counts)
        size += len(counts)
        if size > SLACK * limit:
            tables = [merge(tables, limit)]
            size = len(tables[0])
    return merge(tables, limit)


def merge(tables: Sequence[pa.Table], limit: int) -> pa.Table:
    """Add up counts. Keeps only the most frequent messages if there are more than SLACK / 2 times `limit`."""
    table = pa.concat_tables(tables)
    summed = table.group_by("message", use_threads=False).aggregate([("shards", "sum"), ("rows", "sum")])
    summed = summed.rename_columns(COUNTS.names)
    if len(summed) <= SLACK // 2 * limit:
        return summed
    # Of equally frequent messages, the first stay: comparing the texts of a million messages takes a second.
    order = np.lexsort((-summed["rows"].to_numpy(), -summed["shards"].to_numpy()))
    return summed.take(pa.array(np.sort(order[: SLACK // 4 * limit])))


def choose(counts: pa.Table, limit: int, least: int = 2) -> pa.Array:
    """Return at most `limit` messages that are in `least` shards or more, most frequent first."""
    counts = counts.filter(pc.greater_equal(counts["shards"], least))
    order = pc.sort_indices(counts, [("shards", "descending"), ("rows", "descending"), ("message", "ascending")])
    return counts["message"].take(order[:limit]).combine_chunks()


def publish_messages(store: Store, messages: pa.Array) -> None:
    """Write the table of frequent messages, unless it exists."""
    store.put_if_absent(MESSAGES, _bytes(pa.table({"message": messages})))


def publish_asks(store: Store, messages: pa.Array, asks: Asks) -> None:
    """Write the table of messages with one row per ask, ordered by shelf, unless it exists."""
    order = np.lexsort((asks.rows, asks.shelves))
    texts = messages.take(pa.array(asks.rows[order]))
    shelves, many = asks.shelves[order].astype(np.int32), np.bincount(asks.rows)[asks.rows[order]].astype(np.int8)
    table = pa.table({"message": texts, SHELF: shelves, FIRST: asks.first[order], ASKS: many})
    store.put_if_absent(MESSAGES, _bytes(table, MOST))


def chunks(store: Store) -> list[Shard]:
    """Cut the table's messages into chunks of LEAST to MOST rows, about CHUNKS of them. The result does not depend on the
    actors, so that a run that continues finds the same chunks.

    Raises FileNotFoundError if there is no table.
    """
    if (blob := store.stat(MESSAGES)) is None:
        raise FileNotFoundError(f"{store.uri} has no {MESSAGES}")
    data = store.read(MESSAGES)
    metadata = pq.read_metadata(io.BytesIO(data))
    rows = metadata.num_rows
    size = min(max(LEAST, rows // CHUNKS), MOST)
    edges = list(range(0, rows, size))
    if SHELF in metadata.schema.names:
        edges = _edges(pq.read_table(io.BytesIO(data), columns=[SHELF])[SHELF].to_numpy(), size)
    return [Shard(blob, start, stop - start, start) for start, stop in pairwise([*edges, rows])]


def _edges(shelves: np.ndarray, size: int) -> list[int]:
    """Return the first row of each chunk of about `size` rows. A chunk begins with a shelf, unless the shelf fills several
    chunks.
    """
    begins = np.flatnonzero(np.diff(shelves, prepend=-2)).tolist()
    edges: list[int] = []
    for start, stop in pairwise([*begins, len(shelves)]):
        if not edges or stop - edges[-1] > size:
            edges += list(range(start, stop, size))
    return edges


def label(store: Store, worker: Worker, chunk: Shard) -> Receipt:
    """Label a chunk and publish its answers, unless they exist. Returns a receipt of 0 rows that says where the answers came
    from.
    """
    rows = _rows_of(store, chunk)
    messages = rows["message"].combine_chunks()
    if SHELF in rows.column_names:
        asks = Asks(np.arange(len(rows)), rows[SHELF].to_numpy().astype(np.int64), rows[FIRST].to_numpy())
        answers = worker.ask(messages, asks)
        table = answers.table.append_column(NAMED, pa.array(worker.weights(answers.table)[1])).add_column(
            0, "message", messages
        )
        table = table.append_column(FIRST, rows[FIRST]).append_column(ASKS, rows[ASKS])
    else:
        answers = worker.answer(messages.cast(pa.binary()))
        table = answers.table.take(pa.array(answers.position[:-1])).add_column(0, "message", messages)
    receipt = Receipt(chunk.id, worker.run, 0, 0, 0, 0, **worker.receipt_fields(answers))
    new_labels.keep(store, f"frequent-{chunk.start:09d}", answers.fresh)
    store.put_if_absent(_key(chunk), _bytes(table.replace_schema_metadata({RECEIPT: json.dumps(asdict(receipt))})))
    return receipt


def missing(store: Store, planned: Sequence[Shard]) -> list[Shard]:
    """Return the chunks whose answers are not in the store."""
    keys = {blob.key for blob in store.list(f"{FOLDER}/")}
    return [chunk for chunk in planned if _key(chunk) not in keys]


def answered(store: Store) -> list[tuple[int, Receipt | None]]:
    """Return the number of messages and the receipt of each chunk whose answers are in the store."""
    return [(_rows(blob.key), _receipt(store, blob.key)) for blob in store.list(f"{FOLDER}/answers-")]


def load(store: Store) -> pa.Table | None:
    """Return all answers by message, or None if there are none."""
    keys = [blob.key for blob in store.list(f"{FOLDER}/answers-")]
    with ThreadPoolExecutor(store.parallel) as pool:
        tables = list(pool.map(lambda key: _table(store, key), keys))
    # Files of versions without a label cache lack the column.
    tables = [t if CACHED in t.column_names else t.append_column(CACHED, pa.repeat(False, len(t))) for t in tables]
    if not tables:
        return None
    whole = pa.concat_tables([t.replace_schema_metadata() for t in tables]).combine_chunks()
    return _one_each(whole) if NAMED in whole.column_names else whole


def _one_each(answers: pa.Table) -> pa.Table:
    """Return the surest answer to each message that was asked about several shelves, without messages that lack an answer."""
    rows = answers["message"].combine_chunks().dictionary_encode().indices.to_numpy()
    whole = np.bincount(rows)[rows] == answers[ASKS].to_numpy()
    answers, rows = answers.filter(pa.array(whole)), rows[whole]
    asks = Asks(rows, np.zeros(len(rows), np.int32), answers[FIRST].to_numpy())
    fine = pc.not_equal(answers["status"], str(Status.REJECTED)).to_numpy()
    indices = surest(asks, fine, answers[NAMED].to_numpy(), answers["confidence"].to_numpy())
    return answers.take(pa.array(indices)).drop_columns([FIRST, ASKS, NAMED])


def delete(store: Store) -> None:
    """Delete the table. It holds messages, and a run that has its manifest no longer needs it."""
    for blob in list(store.list(f"{FOLDER}/")):
        store.delete(blob.key)


def _rows_of(store: Store, chunk: Shard) -> pa.Table:
    """Return the chunk's rows of the table of messages. Reads only the row groups that hold them."""
    with store.open(MESSAGES, chunk.blob) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        groups, offset = groups_of(np.cumsum([0, *sizes]), chunk)
        return file.read_row_groups(groups).slice(offset, chunk.rows)


def _table(store: Store, key: str) -> pa.Table:
    # Not read_table: it imports pyarrow.dataset first, which adds 0.6 seconds to every actor's start.
    return pq.ParquetFile(io.BytesIO(store.read(key)), page_checksum_verification=True).read()


def _receipt(store: Store, key: str) -> Receipt | None:
    """Return the receipt, or None if an older version wrote the file."""
    metadata = pq.read_metadata(io.BytesIO(store.read(key))).metadata or {}
    return Receipt(**json.loads(metadata[RECEIPT])) if RECEIPT in metadata else None


def _rows(key: str) -> int:
    return int(key.removesuffix(".parquet").split("-")[-1])


def _key(chunk: Shard) -> str:
    return f"{FOLDER}/answers-{chunk.start:09d}-{chunk.rows}.parquet"


def _bytes(table: pa.Table, group: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=group, write_page_checksum=True)
    return sink.getvalue().to_pybytes()
