"""The table of frequent messages: its messages, and the number of duplicates that it saves."""

import numpy as np
import pyarrow as pa
import pytest
import runs

from intent.run import frequent
from intent.run.columns import Columns
from intent.run.listing import list_input
from intent.run.rows import ShardReader
from intent.run.shard import plan_shards
from intent.run.worker import Worker
from intent.storage import open_store


class Counting(runs.RuleClassifier):
    seen = 0

    def classify(self, messages):
        self.seen += len(messages)
        return super().classify(messages)


def zipf(rows: int, distinct: int, seed: int) -> np.ndarray:
    weights = np.arange(1, distinct + 1) ** -1.1
    return np.random.default_rng(seed).choice(distinct, rows, p=weights / weights.sum())


def count(tmp_path, drawn, rows_per_shard, limit):
    source = open_store(str(tmp_path / "in"))
    table = pa.table({"id": np.arange(len(drawn)), "message": [f"message {n}" for n in drawn]})
    runs.put_table(source, "log.parquet", table)
    shards = plan_shards(list_input(source.uri), Columns(), rows_per_shard).shards
    reader = ShardReader(source, ["message", "id"])
    return reader, shards, frequent.count(reader, "message", shards, limit, 100)


def test_on_a_zipf_log_the_model_sees_hardly_more_than_each_distinct_message(tmp_path):
    drawn = zipf(50_000, 5_000, seed=7)
    reader, shards, counts = count(tmp_path, drawn, 2_500, limit=4_000)
    out = open_store(str(tmp_path / "out"))
    frequent.publish_messages(out, frequent.choose(counts, 4_000))
    worker = Worker(Counting(), runs.CART, Columns(), "run")
    chunks = frequent.chunks(out)
    for chunk in chunks:
        frequent.label(out, worker, chunk)
    assert frequent.missing(out, chunks) == []
    known = frequent.load(out)
    for shard in shards:
        part = worker.label(shard, reader.read(shard), known)
        assert part.receipt.labelled == shard.rows
    assert worker.classifier.seen <= 1.15 * len(set(drawn.tolist()))


@pytest.mark.parametrize("limit", [10, 100])
def test_the_most_frequent_are_found_in_bounded_memory(tmp_path, limit):
    drawn = zipf(40_000, 20_000, seed=3)
    _, shards, counts = count(tmp_path, drawn, 1_000, limit)
    assert len(counts) <= frequent.SLACK * limit
    rows = [drawn[shard.start : shard.start + shard.rows] for shard in shards]
    exact = np.bincount(np.concatenate([np.unique(part) for part in rows]))
    chosen = [exact[int(message.split()[1])] for message in frequent.choose(counts, limit).to_pylist()]
    assert len(chosen) == limit and min(chosen) >= 0.8 * np.sort(exact)[-limit]


def test_merging_drops_the_rarest_and_of_equally_rare_ones_the_last():
    counts = pa.table(
        {"message": list("zyxwvutsr"), "shards": [1, 1, 1, 2, 1, 1, 1, 3, 1], "rows": [1, 1, 1, 2, 1, 1, 5, 3, 1]}
    )
    merged = frequent.merge([counts.slice(0, 5), counts.slice(5)], 2)
    assert merged["message"].to_pylist() == ["z", "w", "t", "s"]


def test_a_message_of_one_shard_only_is_not_in_the_table():
    counts = pa.table({"message": ["a", "b", "c"], "shards": [1, 3, 2], "rows": [9, 3, 9]})
    assert frequent.choose(counts, 10).to_pylist() == ["b", "c"]


def test_there_is_no_table_where_nothing_is_frequent(tmp_path):
    out = open_store(str(tmp_path))
    frequent.publish_messages(out, pa.array([], pa.string()))
    assert frequent.chunks(out) == [] and frequent.load(out) is None
