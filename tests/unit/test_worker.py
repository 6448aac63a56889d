"""A worker's rows: rejections with reasons, one classification per message, answers in the order of the rows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs

from intent.config import ClassifyConfig, NightlyConfig
from intent.errors import ConfigError, IntentError
from intent.run import frequent
from intent.run.columns import Columns
from intent.run.part import open_part
from intent.run.rows import distinct, refuse
from intent.run.shard import Shard
from intent.run.worker import Worker
from intent.storage import Blob, open_store
from jobs.app import load_config


class Counting(runs.RuleClassifier):
    seen = ()

    def classify(self, messages):
        self.seen = [*self.seen, *messages]
        return [runs.rule(message) for message in messages]


def label(messages, columns=Columns(), frequent_answers=None, **kept):
    rows = pa.table({"id": list(range(len(messages))), "message": messages, **kept})
    worker = Worker(Counting(), runs.CART, columns, "run", max_characters=20)
    part = worker.label(Shard(Blob("log", 1, "e"), 0, len(messages)), rows, frequent_answers)
    labelled = pq.read_table(pa.BufferReader(part.data)).to_pylist()
    rejected = pq.read_table(pa.BufferReader(part.rejected)).to_pylist() if part.rejected else []
    return part.receipt, labelled, rejected, worker.classifier.seen


def test_a_message_is_classified_once_and_answered_everywhere():
    receipt, labelled, _, seen = label(["milk", "two eggs", "milk", "milk", "two eggs"])
    assert sorted(seen) == ["milk", "two eggs"] and receipt.classified == 2
    assert [row["quantity"] for row in labelled] == [4, 8, 4, 4, 8]
    assert [row["id"] for row in labelled] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())],
)
def test_text_of_every_arrow_type_is_read_alike(kind):
    plain = ["milk", None, "", "x" * 21, "milk"]
    messages = pa.array(plain).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(plain).cast(kind)
    receipt, labelled, rejected, _ = label(messages)
    assert [row["id"] for row in labelled] == [0, 4]
    assert [(row["id"], row["reason"]) for row in rejected] == [
        (1, "null message"),
        (2, "empty message"),
        (3, "message of 21 characters is over the limit of 20"),
    ]
    assert (receipt.rows, receipt.labelled, receipt.rejected) == (5, 2, 3)


def test_rows_that_no_model_was_asked_about_are_counted_apart_from_those_that_it_rejected():
    receipt, _, rejected, _ = label(["milk", None, "refuse it", "", "refuse it"])
    assert (len(rejected), receipt.refused, receipt.classified) == (4, 2, 2)


def test_characters_are_counted_not_bytes():
    assert label(["🥛" * 20])[0].labelled == 1
    assert label(["🥛" * 21])[0].rejected == 1


def test_what_is_known_needs_no_model():
    worker = Worker(Counting(variant="other"), runs.CART, Columns(), "run")
    grouped = worker.answer(pa.array([b"milk", b"unsure", b"refuse it"]))
    known = grouped.table.take(pa.array(grouped.position[:-1])).add_column(
        0, "message", pa.array(["milk", "unsure", "refuse it"])
    )
    receipt, labelled, rejected, seen = label(["milk", "eggs", "unsure", "refuse it"], frequent_answers=known)
    assert seen == ["eggs"] and receipt.variants == {"other": 2, "rule": 1}
    assert [row["status"] for row in labelled] == ["ok", "ok", "abstained"] and rejected[0]["id"] == 3


def test_all_rows_may_be_rejected():
    receipt, labelled, rejected, seen = label(pa.array([None, None], pa.string()))
    assert (receipt.labelled, len(rejected), labelled, list(seen)) == (0, 2, [], [])


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda predictions: predictions[:1], "1 predictions for 2 messages"),
        (lambda predictions: predictions[::-1], "the answer of another message for message 1 of 2"),
        (lambda predictions: [predictions[0], predictions[0]], "the answer of another message for message 2 of 2"),
    ],
)
def test_an_engine_that_loses_moves_or_repeats_an_answer_labels_nothing(harm, expected):
    class Odd(runs.RuleClassifier):
        def classify(self, messages):
            return harm(super().classify(messages))

    worker = Worker(Odd(), runs.CART, Columns(), "run")
    with pytest.raises(IntentError, match=f"rule gave .*{expected}") as refused:
        worker.answer(pa.array([b"two milks", b"unsure"]))
    assert "milks" not in str(refused.value)


def test_columns_that_the_output_has_already_are_refused():
    with pytest.raises(ConfigError, match="keep_columns=\\['status'\\]"):
        Columns(keep=("shop", "status")).check(runs.CART)


def test_distinct_messages_and_their_indices():
    messages, indices = distinct(pa.chunked_array([["a", None], ["b", "a"]]))
    assert messages.to_pylist() == [b"a", b"b"] and np.array_equal(indices, [0, 2, 1, 0])


def test_refusals_are_of_the_bytes_as_they_are():
    _, reasons = refuse(pa.array([b"\xff", b"ok", b"\t", b"\xc3\x28"]), 10)
    assert reasons.to_pylist() == ["invalid UTF-8", None, "empty message", "invalid UTF-8"]


SAID = ["milk and eggs", "hello", "unsure", "milk", None, "milk and eggs", "refuse"]


def label_lists(explode, messages=SAID, frequent_answers=None):
    rows = pa.table({"id": list(range(len(messages))), "message": messages, "shop": ["s"] * len(messages)})
    columns = Columns(keep=("shop",), explode=explode)
    worker = Worker(runs.RuleClassifier(lists=True), runs.BASKET, columns, "run")
    part = worker.label(Shard(Blob("log", 1, "e"), 0, len(messages)), rows, frequent_answers)
    assert open_part(part.data, "here").receipt == part.receipt
    return part.receipt, pq.read_table(pa.BufferReader(part.data))


MILK = {"action": "add", "product": "Milk", "quantity": 13, "confidence": 1.0}
EGGS = {"action": "remove", "product": "Eggs", "quantity": 1, "confidence": 0.875}


def test_a_row_has_its_list_of_items_each_with_its_confidence():
    receipt, table = label_lists(explode=False)
    assert table.column_names == ["id", "intents", "confidence", "status", "variant", "shop"]
    assert [*table.schema][1:5] == runs.BASKET.label_fields()
    assert dict(zip(table["id"].to_pylist(), table["intents"].to_pylist(), strict=True)) == {
        0: [MILK, EGGS],
        1: [],
        2: None,
        3: [MILK | {"quantity": 4}],
        5: [MILK, EGGS],
    }
    assert table["status"].to_pylist() == ["ok", "ok", "abstained", "ok", "ok"]
    assert (receipt.labelled, receipt.abstained, receipt.rejected, receipt.file_rows) == (4, 1, 2, 5)


def test_a_row_an_item_keeps_a_row_for_each_message_without_one_so_that_every_id_is_accounted_for():
    receipt, table = label_lists(explode=True)
    head = ["id", "item", "action", "product", "quantity", "item_confidence", "confidence", "status", "variant", "shop"]
    assert table.column_names == head and [*table.schema][1:9] == runs.BASKET.label_fields(exploded=True)
    rows = [tuple(row[name] for name in (*head[:6], "status")) for row in table.to_pylist()]
    assert rows == [
        (0, 1, "add", "Milk", 13, 1.0, "ok"),
        (0, 2, "remove", "Eggs", 1, 0.875, "ok"),
        (1, None, None, None, None, None, "ok"),
        (2, None, None, None, None, None, "abstained"),
        (3, 1, "add", "Milk", 4, 1.0, "ok"),
        (5, 1, "add", "Milk", 13, 1.0, "ok"),
        (5, 2, "remove", "Eggs", 1, 0.875, "ok"),
    ]
    assert set(table["shop"].to_pylist()) == {"s"} and table["confidence"].null_count == 0
    assert (receipt.labelled, receipt.abstained, receipt.rejected, receipt.file_rows) == (4, 1, 2, 7)
    assert receipt.variants == {"rule": 5}, "messages, not items"


def test_every_message_may_be_without_an_item():
    for messages, rows in ((["hello", "hello"], 2), (["refuse"], 0)):
        receipt, table = label_lists(explode=True, messages=messages)
        assert receipt.file_rows == len(table) == rows
        assert table.schema.field("item").type == pa.int32() and table["item"].null_count == rows


def test_lists_that_are_known_need_no_model(tmp_path):
    store = open_store(str(tmp_path))
    frequent.publish_messages(store, pa.array(["milk and eggs", "hello"]))
    worker = Worker(runs.RuleClassifier("other", lists=True), runs.BASKET, Columns(), "run")
    for chunk in frequent.chunks(store):
        frequent.label(store, worker, chunk)
    receipt, table = label_lists(explode=False, frequent_answers=frequent.load(store))
    assert receipt.classified == 3 and receipt.variants == {"other": 3, "rule": 2}
    assert table.to_pylist()[0]["intents"] == [MILK, EGGS]


def test_a_row_an_item_is_for_lists_and_its_columns_are_taken():
    refusal = "explode=True: the schema 'cart' has one intent a message"
    for job, kind in (("classify", ClassifyConfig), ("nightly", NightlyConfig)):
        with pytest.raises(ConfigError, match=refusal):
            load_config(job, ["input=/x", "output=/y", "explode=true"], kind)
        assert load_config(job, ["input=/x", "output=/y", "explode=true", "schema=basket"], kind).explode
    with pytest.raises(ConfigError, match="keep_columns=\\['item'\\]"):
        Columns(keep=("item",), explode=True).check(runs.BASKET)
    Columns(keep=("item", "action")).check(runs.BASKET)
    with pytest.raises(ConfigError, match="keep_columns=\\['intents'\\]"):
        Columns(keep=("intents",)).check(runs.BASKET)
