"""A run with a catalog cut into shelves: a worker's parts, the table of all messages, and the label cache."""

from dataclasses import replace

import caches
import numpy as np
import pyarrow as pa
import pytest
import runs
import shelves

from intent.engine.shelved import RETRIEVER, Shelved
from intent.label_cache import Reader
from intent.run import frequent, new_labels
from intent.run.columns import Columns
from intent.run.listing import list_input
from intent.run.rows import ShardReader
from intent.run.shard import plan_shards
from intent.run.worker import Worker
from intent.storage import open_store

MESSAGES = [*(f"please add one {name}" for name in shelves.NAMES), "?!", "not the red shoe small rather the blue hammer large"]


def worker(**kwargs) -> Worker:
    return Worker(shelves.shelved(), runs.CART, Columns(), "run", **kwargs)


def as_bytes(messages) -> pa.Array:
    return pa.array(messages).cast(pa.binary())


def answers(grouped) -> list[dict]:
    return grouped.table.take(pa.array(grouped.position[:-1])).drop_columns(["intent.cached"]).to_pylist()


def test_a_worker_labels_as_its_classifier_does_whatever_shares_a_shard():
    together = answers(worker().answer(as_bytes(MESSAGES)))
    assert [row["product"] for row in together[: len(shelves.NAMES)]] == shelves.NAMES
    assert together[-2]["variant"] == RETRIEVER
    for at in range(0, len(MESSAGES), 7):
        assert answers(worker().answer(as_bytes(MESSAGES[at : at + 7]))) == together[at : at + 7]


def test_what_is_less_sure_than_the_threshold_is_abstained_after_the_shelves_are_compared():
    labels = answers(worker(abstain_below=0.1).answer(as_bytes(["one red shoe small", "one brown bicycle large"])))
    assert [row["status"] for row in labels] == ["ok", "ok"]
    labels = answers(worker(abstain_below=0.17).answer(as_bytes(["one red shoe small", "one brown bicycle large"])))
    assert [(row["status"], row["product"]) for row in labels] == [("abstained", None), ("ok", "brown bicycle large")]


def table(tmp_path, messages):
    """Return a store with the table of `messages`, and its chunks."""
    out = open_store(str(tmp_path / "out"))
    asks = shelves.shelved().route(messages)
    frequent.publish_asks(out, pa.array(messages), asks)
    return out, asks, frequent.chunks(out)


def test_with_the_table_each_shelf_is_asked_once_in_a_whole_run(tmp_path):
    source = open_store(str(tmp_path / "in"))
    drawn = np.random.default_rng(5).permutation(MESSAGES * 2)
    runs.put_table(source, "log.parquet", pa.table({"id": np.arange(len(drawn)), "message": drawn}))
    planned = plan_shards(list_input(source.uri), Columns(), 40).shards
    out, _, chunks = table(tmp_path, MESSAGES)
    labelling = worker()
    for chunk in chunks:
        frequent.label(out, labelling, chunk)
    asked = [prompt for prompt, _ in labelling.classifier.classifier.asked]
    assert len(chunks) >= 3
    assert len(asked) == len(set(asked))
    known, reader = frequent.load(out), ShardReader(source, ["message", "id"])
    parts = [labelling.label(shard, reader.read(shard), known) for shard in planned]
    assert sum(part.receipt.labelled for part in parts) == len(drawn)
    assert sum(part.receipt.classified for part in parts) == 0
    alone = answers(worker().answer(as_bytes(MESSAGES)))
    assert sorted(map(str, known.drop_columns(["intent.cached", "message"]).to_pylist())) == sorted(map(str, alone))


def test_messages_are_counted_once_however_many_shelves_they_are_asked_about(tmp_path):
    out, asks, chunks = table(tmp_path, MESSAGES)
    receipts = [frequent.label(out, worker(), chunk) for chunk in chunks]
    assert len(asks) > len(MESSAGES)
    assert sum(receipt.classified for receipt in receipts) == len(MESSAGES)


def test_a_message_of_which_an_answer_is_missing_is_left_to_its_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(frequent, "LEAST", 16)
    out, asks, chunks = table(tmp_path, MESSAGES)
    for chunk in chunks[1:]:
        frequent.label(out, worker(), chunk)
    known = frequent.load(out)
    lost = set(asks.rows[np.lexsort((asks.rows, asks.shelves))][: chunks[0].rows].tolist())
    assert set(known["message"].to_pylist()) == {message for row, message in enumerate(MESSAGES) if row not in lost}


@pytest.mark.parametrize("sizes", [[3, 3, 3], [40], [1, 30, 1, 2]])
def test_chunks_begin_where_shelves_do_or_cut_a_large_one(sizes):
    column = np.repeat(np.arange(len(sizes)), sizes)
    edges = [*frequent._edges(column, 10), len(column)]
    assert edges[0] == 0
    assert max(np.diff(edges)) <= 10
    begins = {0, *np.cumsum(sizes).tolist()}
    assert all(edge in begins or sizes[column[edge]] > 10 for edge in edges[:-1])


def test_a_changed_product_is_asked_about_again_on_its_own_shelves_alone(tmp_path):
    cache = caches.cache(str(tmp_path / "w"), sample=0.0)
    first = worker(reader=Reader.open(cache))
    made = first.answer(as_bytes(MESSAGES))
    out = open_store(str(tmp_path / "out"))
    new_labels.keep(out, "first", made.fresh)
    new_labels.learn(out, [cache])
    again = worker(reader=Reader.open(cache))
    assert answers(again.answer(as_bytes(MESSAGES))) == answers(made)
    assert not again.classifier.classifier.asked
    names = ["red shoe tiny" if name == "red shoe small" else name for name in shelves.NAMES]
    changed = worker(reader=Reader.open(cache))
    changed.classifier = Shelved(shelves.NamingClassifier(), shelves.index(tuple(names)), runs.CART)
    grouped = changed.answer(as_bytes(MESSAGES))
    assert 0 < grouped.classified < len(MESSAGES) / 2
    assert {row["product"] for row in answers(grouped)} >= set(names) - {"red shoe tiny"}
    assert replace(grouped, fresh=None).found == len(MESSAGES) - grouped.classified
