"""The user's own labelled messages: every row is an example or counted, and no split leaks into another."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intent.dataset import labelled
from intent.errors import ConfigError, CorruptData
from intent.task.config import LabelledConfig
from tests.tiny import BASKET, CART, LABELS, NAMES

PLAIN = LabelledConfig(uri="x")
EGGS = {"action": "add", "product": "Eggs", "quantity": 1}


def imported(files, config=PLAIN, schema=LABELS, catalog=()):
    return labelled.examples_of(files, config, schema, catalog)


def everything(result):
    return [example for examples in result.splits.values() for example in examples]


def parquet(table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_the_same_rows_mean_the_same_from_every_format():
    rows = [("where is my order", "order_status", "en"), ("Zurück damit", "return_item", "de"), ("42", "none", "en")]
    config = LabelledConfig(uri="x", message="text", slots=["topic"], language="lang")
    table = pa.table(dict(zip(("text", "topic", "lang"), map(list, zip(*rows, strict=True)), strict=True)))
    files = {
        "a.parquet": parquet(table.set_column(1, "topic", table["topic"].dictionary_encode())),
        "a.csv": "\ufefftext,topic,lang\n" + "".join(f'"{a}",{b},{c}\n' for a, b, c in rows),
        "a.jsonl": "\n".join(json.dumps({"text": a, "topic": b, "lang": c, "more": [1]}) for a, b, c in rows),
    }
    for key, data in files.items():
        result = imported({key: data if isinstance(data, bytes) else data.encode()}, config)
        assert not result.refused
        examples = {(e.message, e.intent["label"], e.language, e.phenomena) for e in everything(result)}
        assert examples == {(a, b, c, ("out_of_scope" if b == "none" else "in_scope",)) for a, b, c in rows}, key


def test_every_bad_row_is_counted_by_its_reason_and_its_text_is_not():
    csv = b"message,label\nok,none\n  ,none\nsecret one,refund\nsecret two,\n\xff\xfe,none\nsecret three,none,more\n"
    lines = [{"message": "fine", "label": "none"}, {"message": ["secret"], "label": "none"}, {"label": "none"}, [1]]
    jsonl = "\n".join(["{not json", *map(json.dumps, lines), json.dumps({"message": "x" * 5000, "label": "none"})])
    result = imported({"a.csv": csv, "b.jsonl": jsonl.encode()})
    assert sorted(example.message for example in everything(result)) == ["fine", "ok"]
    assert result.refused == {
        "empty message": 2,
        "label: not a value of the schema": 1,
        "label: empty": 1,
        "message: invalid UTF-8": 1,
        "message: not text": 1,
        "message over 4096 characters": 1,
        "not a row: not a JSON object, or more or fewer cells than columns": 3,
    }
    assert result.unknown == {"label": {"refund"}}
    assert "secret" not in str((result.refused, result.unknown))


def test_a_parquet_string_that_is_not_utf8_is_one_bad_row():
    column = pa.StringArray.from_buffers(2, pa.array([0, 2, 4], pa.int32()).buffers()[1], pa.py_buffer(b"ok\xff\xfe"))
    result = imported({"a.parquet": parquet(pa.table({"message": column, "label": ["none", "none"]}))})
    assert [example.message for example in everything(result)] == ["ok"]
    assert result.refused == {"message: invalid UTF-8": 1}


def test_carts_come_as_columns_an_empty_quantity_is_its_default_and_an_end_ends():
    csv = "message,action,product,quantity\nmilk,add,Eggs,\nmore,remove,Eggs,3\nhello,none,,\nlots,add,Eggs,100\n"
    result = imported({"a.csv": csv.encode()}, schema=CART, catalog=NAMES)
    assert {e.message: tuple(e.intent.values()) for e in everything(result)} == {
        "milk": ("add", "Eggs", 1),
        "more": ("remove", "Eggs", 3),
        "hello": ("none", None, None),
    }
    assert result.refused == {"quantity: not a value of the schema": 1}


def test_a_product_is_the_catalogs_however_its_spaces_are_written():
    csv = "message,action,product,quantity\nmilk,add,Whole\u00a0Milk  1L,\n".encode()
    assert not imported({"a.csv": csv}, schema=CART, catalog=NAMES).refused


def rows(messages, **more) -> dict[str, bytes]:
    lines = [{"message": message, "label": "none", **more} for message in messages]
    return {"a.jsonl": "\n".join(map(json.dumps, lines)).encode()}


def test_without_a_column_a_messages_split_is_its_own_whatever_the_file():
    messages = [f"message number {i} of the file" for i in range(2000)]
    whole, half = imported(rows(messages)), imported(rows(messages[::-2] + [m.upper() + "!" for m in messages]))
    sizes = [len(examples) for examples in whole.splits.values()]
    assert sizes == pytest.approx([1600, 200, 200], rel=0.2)
    place = {example.message: split for split, examples in whole.splits.items() for example in examples}
    for split, examples in half.splits.items():
        assert all(place[example.message.rstrip("!").lower()] == split for example in examples)


def test_what_nearly_repeats_a_held_out_message_is_not_trained_on():
    csv = """message,label,split
how do i get a refund for this order,none,test
how do i get a refund for THIS order?,none,val
where is my parcel,order_status,dev
Where is my parcel!,order_status,train
how do i get a refund for this new order,return_item,training
send it back,return_item,train
Send it back,return_item,train
send it back.,none,train
gold,none,train
other,none,somewhere
"""
    result = imported({"a.csv": csv.encode()}, LabelledConfig(uri="x", split="split"))
    labelled.keep_apart(result, ["gold"])
    kept = {split: [example.message for example in examples] for split, examples in result.splits.items()}
    assert kept == {
        "train": ["send it back"],
        "validation": ["where is my parcel"],
        "test": ["how do i get a refund for this order"],
    }
    assert sum(result.refused.values()) + 3 == 10
    assert result.refused["train: nearly repeats a message held out"] == 3
    assert result.refused["train: repeats an earlier row with another label"] == 1


def test_what_cannot_be_read_is_refused_by_name(tmp_path):
    with pytest.raises(
        ConfigError, match=r"labelled.uri='a.csv': columns: message, topic; give a column 'label', or .*labelled.slots"
    ):
        imported({"a.csv": b"message,topic\nx,y\n"})
    with pytest.raises(ConfigError, match=r"labelled\.slots=\['topic'\].*'action', 'product', 'quantity'"):
        imported({}, LabelledConfig(uri="x", slots=["topic"]), CART, NAMES)
    with pytest.raises(CorruptData, match=r"a\.parquet"):
        imported({"a.parquet": b"PAR1 no"})
    (tmp_path / "notes.txt").write_text("x")
    for uri in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(ConfigError, match=r"labelled\.uri"):
            labelled.read_files(str(uri))
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "a.csv").write_text("message,label\n")
    assert list(labelled.read_files(str(tmp_path))) == list(labelled.read_files(str(tmp_path / "a.csv"))) == ["a.csv"]


def test_a_file_of_which_a_tenth_is_refused_ends_with_an_error_that_says_where():
    def file(good, bad):
        return {"a.csv": ("message,label\n" + "fine,none\n" * good + "secret,refund\n" * bad).encode()}

    labelled.require_most(imported(file(good=91, bad=10)), "x")
    with pytest.raises(
        ConfigError, match=r"10 of 100 rows .*not a value of the schema: 10 \(first a.csv:92\).*refund"
    ) as refused:
        labelled.require_most(imported(file(good=90, bad=10)), "x")
    assert "secret" not in str(refused.value)


def test_an_open_quote_does_not_swallow_the_rest():
    with pytest.raises(ConfigError, match=r"a\.csv.*line 3: .*quotes"):
        imported({"a.csv": b'message,label\nok,none\n"open,none\nlost,none\n'})


def test_semicolons_and_tabs_are_found_by_the_header():
    for data in (b"label;message\nnone;a, b\n", b"label\tmessage\nnone\ta, b\n", "label;message\nnone;a, b\n".encode("utf-16")):
        (example,) = everything(imported({"a.csv": data}))
        assert example.message == "a, b"
    (example,) = everything(imported({"a.csv": "message,label\n２ eggs,none\n".encode()}))
    assert example.message == "2 eggs", "as a model reads it"


TWO = [{"action": "add", "product": "Whole\u00a0Milk 1L", "quantity": 2}, {"action": "remove", "product": "Eggs"}]


def test_lists_come_as_json_in_one_column_from_every_format():
    wanted = {
        "milk": {"intents": [{"action": "add", "product": "Whole Milk 1L", "quantity": 2}, EGGS | {"action": "remove"}]},
        "hello": {"intents": []},
        "twice": {"intents": [EGGS | {"quantity": 3}]},
    }
    lists = {"milk": TWO, "hello": [], "twice": [EGGS, EGGS | {"quantity": 2}]}
    quoted = {message: json.dumps(items).replace('"', '""') for message, items in lists.items()}
    kind = BASKET.arrow_fields()[0].type
    files = {
        "a.csv": "message,intents\n" + "".join(f'{message},"{text}"\n' for message, text in quoted.items()),
        "a.jsonl": "\n".join(json.dumps({"message": message, "intents": items}) for message, items in lists.items()),
        "b.jsonl": "\n".join(json.dumps({"message": m, "intents": {"intents": items}}) for m, items in lists.items()),
        "a.parquet": parquet(pa.table({"message": list(lists), "intents": pa.array(list(lists.values()), kind)})),
    }
    for key, data in files.items():
        result = imported({key: data if isinstance(data, bytes) else data.encode()}, schema=BASKET, catalog=NAMES)
        assert not result.refused, key
        assert {e.message: e.intent for e in everything(result)} == wanted, key
        assert {e.message: e.phenomena for e in everything(result)}["hello"] == ("out_of_scope",)


def test_a_list_that_is_none_is_counted_by_its_reason_and_its_text_is_not():
    cells = {
        "a": "",
        "b": "secret",
        "c": '[{"action": "add", "product": "Eggs", "secret": 1}]',
        "d": [EGGS] * 5,
        "e": [EGGS | {"product": "refund"}],
        "f": [EGGS | {"quantity": 0}],
        "g": [EGGS | {"quantity": ["secret"]}],
        "h": [],
    }
    lines = "\n".join(json.dumps({"message": message, "intents": cell}) for message, cell in cells.items())
    result = imported({"a.jsonl": lines.encode()}, schema=BASKET, catalog=NAMES)
    assert [example.message for example in everything(result)] == ["h"]
    assert result.refused == {
        "intents: empty; write [] for the empty list": 1,
        "intents: not a JSON list of objects with ['action', 'product', 'quantity']": 2,
        "intents: more than 4 items": 1,
        "product: not a value of the schema": 1,
        "quantity: not a value of the schema": 1,
        "quantity: not text": 1,
    }
    assert result.unknown == {"product": {"refund"}, "quantity": {"0"}}
    assert "secret" not in str((result.refused, result.unknown))
    with pytest.raises(ConfigError, match=r"labelled.slots.*the one column that holds lists"):
        imported({"a.jsonl": lines.encode()}, LabelledConfig(uri="x", slots=["a", "b"]), schema=BASKET)


def test_text_within_a_parquet_list_that_is_not_utf8_is_one_bad_row():
    text = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
    item = pa.StructArray.from_arrays([pa.array(["add"]), text], ["action", "product"])
    lists = pa.ListArray.from_arrays(pa.array([0, 0, 1], pa.int32()), item)
    result = imported({"a.parquet": parquet(pa.table({"message": ["a", "b"], "intents": lists}))}, schema=BASKET, catalog=NAMES)
    assert [example.message for example in everything(result)] == ["a"]
    assert result.refused == {"product: invalid UTF-8": 1}
