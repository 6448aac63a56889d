"""A run from Parquet to Parquet, the same on disk and on S3."""

import io
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
import shelves

from intent import artifacts, hardware
from intent.artifacts import ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import publish_models
from intent.errors import ConfigError, RunMismatch
from intent.run import driver, metrics
from intent.run.columns import Columns
from intent.run.config import FleetConfig
from intent.run.driver import classify_log
from intent.run.ledger import Ledger, RunIdentity
from intent.storage import StorageOptions, open_store
from jobs.app import load_config
from jobs.classify import describe

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_catalog_of_thousands_is_asked_shelf_by_shelf(root, tmp_path):
    names = shelves.many(4000)
    messages = [f"please add one {name}" for name in names[::4]] + ["?!", None]
    runs.write_log(open_store(f"{root}/in"), files=2, rows=1002, messages=messages)
    log = tmp_path / "prompts"
    engine = shelves.engine(names, 100, log=str(log))
    runs.run(root, [engine], rows_per_shard=100, router=partial(shelves.router, names, 100))
    runs.check_run(root)
    given = runs.read(open_store(f"{root}/in"), "").to_pylist()
    message_of = {row["id"]: row["message"] for row in given}
    labelled = runs.read(open_store(f"{root}/out"), "labelled/").to_pylist()
    assert len(labelled) == 2002
    wrong = [row for row in labelled if row["action"] == "add" and not message_of[row["id"]].endswith(row["product"])]
    assert not wrong and sum(row["action"] == "add" for row in labelled) > 1900
    asked = Counter(log.read_text().splitlines())
    # A shelf may be in two chunks, and at the end an idle actor may do one again.
    assert len(asked) > 30 and sum(asked.values()) < 1.5 * len(asked)


def test_every_row_is_labelled_abstained_or_rejected(root):
    log = open_store(f"{root}/in")
    runs.write_log(log, files=3, rows=100, messages=["two milks", "unsure", "refuse me", None, "", "hello", "x" * 5000])
    heard = []
    summary = runs.run(root, [runs.engine("a"), runs.engine("b")], listener=heard.append)
    manifest = runs.check_run(root)
    assert (heard[0].name, heard[-1].name) == ("plan", "commit")
    assert heard[0].facts["rows"] == heard[-1].facts["rows"] == 300 and heard[0].facts["objects"] == 3
    assert sum(event.facts["rows"] for event in heard if event.name == "shard") == 300
    assert {event.facts["variant"] for event in heard if event.name == "engine"} <= {"a", "b"}
    assert not any(event.error for event in heard) and all(event.seconds >= 0 for event in heard)
    assert (summary.rows, summary.rejected, summary.abstained) == (300, manifest["rejected"], manifest["abstained"])
    assert sum(entry["rows"] for entry in summary.variants.values()) == summary.labelled + summary.abstained
    out = open_store(f"{root}/out")
    labelled = runs.read(out, "labelled/")
    assert labelled.schema.names == ["id", "action", "product", "quantity", "confidence", "status", "variant"]
    assert labelled.schema.field("confidence").type == pa.float32()
    row = next(row for row in labelled.to_pylist() if row["id"] == "0-0")
    assert (row["action"], row["product"], row["quantity"], row["status"]) == ("add", "Milk", 9, "ok")
    row = next(row for row in labelled.to_pylist() if row["id"] == "0-1")
    assert (row["action"], row["product"], row["quantity"], row["status"]) == (None, None, None, "abstained")
    reasons = {row["id"]: row["reason"] for row in runs.read(out, "rejected/").to_pylist()}
    assert reasons["0-2"] == "message of 900 tokens is over the limit of 256"
    assert reasons["0-3"] == "null message" and reasons["0-4"] == "empty message"
    assert reasons["0-6"] == "message of 5000 characters is over the limit of 4096"
    assert json.loads(out.read("summary.json"))["rows"] == 300


def test_a_short_logs_frequent_messages_are_counted_while_the_engines_load(tmp_path, monkeypatch):
    root, loads, counted = str(tmp_path), tmp_path / "loads", tmp_path / "counted"
    runs.write_log(open_store(f"{root}/in"), files=2, rows=60)

    def count(*args):
        runs.wait_until(loads.exists)
        result = find_frequent(*args)
        counted.touch()
        return result

    def before():
        loads.touch()
        runs.wait_until(counted.exists)

    find_frequent = driver.find_frequent
    monkeypatch.setattr(driver, "find_frequent", count)
    # The actors take every CPU of the cluster.
    summary = runs.run(root, [runs.engine(cpus=1, actors=2, before=before)])
    runs.check_run(root)
    assert summary.classified < summary.rows


def test_lists_are_a_column_or_a_row_an_item_and_every_id_is_there(root):
    messages = ["milk and eggs", "unsure", "refuse me", "hello", "milk"]
    for form, columns in (("nested", Columns()), ("exploded", Columns(explode=True))):
        runs.write_log(open_store(f"{root}/{form}/in"), files=2, rows=50, messages=messages)
        summary = runs.run(f"{root}/{form}", [runs.engine(lists=True)], schema=runs.BASKET, columns=columns)
        runs.check_run(f"{root}/{form}")
        assert (summary.rows, summary.labelled, summary.abstained, summary.rejected) == (100, 60, 20, 20)
        assert summary.classified < 30 and summary.variants["rule"]["rows"] == 80
    out = open_store(f"{root}/exploded/out")
    rows = [(row["id"], row["item"], row["product"], row["quantity"]) for row in runs.read(out, "labelled/").to_pylist()]
    assert len(rows) == 20 * (2 + 1 + 1 + 1)
    first = {"0-0": [(1, "Milk", 13), (2, "Eggs", 1)], "0-1": [(None, None, None)], "0-3": [(None, None, None)]}
    assert {id: [row[1:] for row in rows if row[0] == id] for id in first} == first
    listed = json.loads(out.read("manifest.json"))["parts"]
    assert sum(entry["labelled"]["rows"] for entry in listed) == len(rows)
    with pytest.raises(RunMismatch, match="columns"):
        runs.run(f"{root}/exploded", [runs.engine(lists=True)], schema=runs.BASKET)


def test_keys_are_not_urls_and_omitted_objects_are_named(root):
    """If a part of a name were cut off, two weeks would share one input and one output."""
    for week in ("week#1", "week#2", "week?1 50%+=ü"):
        log = open_store(f"{root}/{week}/in")
        runs.write_log(log, files=1, rows=10, messages=[f"{week} milk", None], key="part-{:05}")
        log.put("notes.txt", b"not a log")
        summary = runs.run(f"{root}/{week}")
        assert not summary.already_done and (summary.rows, summary.objects_left_out) == (10, 1)
        out = open_store(f"{root}/{week}/out")
        manifest = Ledger(out, runs.IDENTITY).verify()
        assert [entry["object"] for entry in manifest["parts"]] == ["part-00000"]
        assert manifest["left_out"].keys() == summary.left_out.keys() == {"notes.txt"}
        assert set(runs.read(out, "labelled/")["quantity"].to_pylist()) == {len(f"{week} milk")}
        assert "left out: 1 objects of the input, all named in manifest.json\n  'notes.txt': not a Parquet" in describe(summary)
        assert runs.run(f"{root}/{week}").left_out == summary.left_out


def test_parts_open_together_whatever_types_the_objects_have(tmp_path):
    log, columns = open_store(str(tmp_path / "in")), Columns(keep=("shop", "dt"))
    for number, kind in enumerate([pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.null()]):
        shop = pa.nulls(3) if kind == pa.null() else pa.array(["x", None, "z"], pa.string())
        shop = shop.dictionary_encode() if pa.types.is_dictionary(kind) else shop.cast(kind)
        ids = pa.array(range(3 * number, 3 * number + 3), pa.int32() if number else pa.int64())
        table = pa.table({"id": ids, "message": ["milk", None, "eggs"], "shop": shop})
        runs.put_table(log, f"dt=2026-11-2{number}/part", table)
    runs.run(str(tmp_path), columns=columns)
    assert Ledger(open_store(str(tmp_path / "out")), runs.IDENTITY).verify()["rows"] == 12
    # All files have one schema, so any reader can open them together.
    rows = pq.read_table(tmp_path / "out" / "labelled").sort_by("id").to_pylist()
    assert [row["id"] for row in rows] == [n for n in range(12) if n % 3 != 1]
    assert [row["shop"] for row in rows] == ["x", "z"] * 3 + [None, None]
    assert [row["dt"] for row in rows] == [f"2026-11-2{n}" for n in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert sorted(pq.read_table(tmp_path / "out" / "rejected")["id"].to_pylist()) == [1, 4, 7, 10]


def test_types_that_do_not_go_together_are_refused_before_any_write(tmp_path):
    for number, ids in enumerate([[1], ["one"]]):
        runs.put_table(open_store(str(tmp_path / "in")), f"log-{number}", pa.table({"id": ids, "message": ["milk"]}))
    with pytest.raises(ConfigError, match="id_column='id': is int64 in log-0 and string in log-1"):
        runs.run(str(tmp_path))
    assert runs.snapshot(str(tmp_path)) == {}


def test_a_finished_run_does_nothing_and_says_so(root):
    runs.write_log(open_store(f"{root}/in"))
    assert not runs.run(root).already_done
    before = runs.snapshot(root)
    again = runs.run(root)
    assert again.already_done and again.rows == 300
    assert runs.snapshot(root) == before


def test_labels_are_the_same_on_disk_and_s3(tmp_path, s3_endpoint):
    tables = []
    for root in (str(tmp_path), "s3://runs/same"):
        runs.write_log(open_store(f"{root}/in"), messages=["two milks", "unsure", None, "hello there"])
        runs.run(root)
        tables.append(runs.read(open_store(f"{root}/out"), "labelled/").sort_by("id"))
    assert tables[0] == tables[1]


@pytest.mark.parametrize("field", ["models", "prompt", "schema", "catalog"])
def test_another_run_is_refused_by_name(tmp_path, field):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"))
    runs.run(root)
    before = runs.snapshot(root)
    other = RunIdentity(**{**vars(runs.IDENTITY), field: {"other": "2"} if field == "models" else "other"})
    with pytest.raises(RunMismatch, match=f"other {field} "):
        runs.run(root, identity=other)
    assert runs.snapshot(root) == before


def test_a_changed_input_is_refused_by_name(root):
    runs.write_log(open_store(f"{root}/in"))
    runs.run(root)
    runs.write_log(open_store(f"{root}/in"), files=1, key="late-{}.parquet")
    with pytest.raises(RunMismatch, match="other input "):
        runs.run(root)


def test_columns_are_named_and_passed_through(tmp_path):
    root = str(tmp_path)
    table = pa.table({"key": [1, 2, 3], "text": ["a milk", "b", None], "shop": ["x", "y", "z"], "other": [1.0, 2.0, 3.0]})
    runs.put_table(open_store(f"{root}/in"), "log.parquet", table)
    runs.run(root, columns=Columns("key", "text", ("shop",)))
    labelled = runs.read(open_store(f"{root}/out"), "labelled/")
    assert labelled.schema.field("id").type == pa.int64()
    assert labelled.select(["id", "shop"]).to_pydict() == {"id": [1, 2], "shop": ["x", "y"]}


def test_a_missing_column_is_refused_before_any_write(tmp_path):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"))
    with pytest.raises(
        ConfigError,
        match=r"log-0.parquet has no column \['text'\]; it has \['id', 'message'\]; correct id_column, message_column",
    ):
        runs.run(root, columns=Columns("id", "text"))
    assert runs.snapshot(root) == {}


def test_frequent_messages_are_classified_once_and_counted_once(tmp_path, monkeypatch):
    root, output = str(tmp_path), io.StringIO()
    runs.write_log(open_store(f"{root}/in"), files=4, rows=500, messages=[f"add {n} milks" for n in range(50)])
    # The messages of a short log are counted while the engines load, without progress of its own.
    monkeypatch.setattr(driver, "is_short", lambda shards: False)
    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "commit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs.run(root, [runs.engine("a"), runs.engine("b")], rows_per_shard=100, stream=output)
    summary = runs.run(root, rows_per_shard=100, stream=output)
    runs.check_run(root)
    for line in (
        "plans 4 objects of ",
        "counts the messages of 20 shards, to find the most frequent: 20 of 20 shards in ",
        "labels the most frequent messages: waits for the first of 2 actors",
        "labels the most frequent messages: 50 of 50 messages in ",
        "labels rows: 2,000 of 2,000 rows in ",
        "checks 20 parts that an earlier run made: 20 of 20 parts in ",
    ):
        assert line in output.getvalue(), output.getvalue()
    assert summary.classified == 50 and summary.duplicates_saved == 1950


def test_frequent_messages_that_cannot_be_labelled_first_are_left_to_their_shards(tmp_path):
    root, output = str(tmp_path), io.StringIO()
    runs.write_log(open_store(f"{root}/in"), files=4, rows=500, messages=[f"add {n} milks" for n in range(50)])

    def refuse():
        from intent.run import frequent

        def label(*args):
            raise OSError("the table cannot be written")

        frequent.label = label

    summary = runs.run(root, [runs.engine(before=refuse)], rows_per_shard=100, stream=output)
    runs.check_run(root)
    assert "50 frequent messages are left to their shards: OSError: the table cannot be written" in output.getvalue()
    assert summary.classified == 20 * 50 and summary.duplicates_saved == 1000 and summary.retries == 2


def test_one_file_as_input_and_shards_sized_by_the_engine(tmp_path):
    log, out = tmp_path / "in", open_store(str(tmp_path / "out"))
    runs.write_log(open_store(str(log)), files=2, rows=600)
    uri = str(log / "log-1.parquet")
    slow = replace(runs.engine(), rate=1.0)
    classify_log(uri, out.uri, StorageOptions(), runs.IDENTITY, runs.CART, [slow], FleetConfig())
    assert set(runs.read(out, "labelled/")["id"].to_pylist()) == {f"1-{row}" for row in range(600)}
    assert len(list(out.list("labelled/"))) == 2


def test_the_command_ends_with_3_where_an_object_cannot_be_read(tmp_path):
    record = ArtifactRecord(
        "variant-svm", {"output_format": "compact"}, {"schema": Lineage(load_config("generate", [])).schema_fingerprint}
    )
    model = artifacts.make(str(tmp_path), record, lambda folder: (folder / "model").write_text("is never loaded") and None)
    publish_models(str(tmp_path), {"svm": model}, StorageOptions())
    open_store(str(tmp_path / "in")).put("broken.parquet", b"PAR1")
    addresses = [f"input={tmp_path}/in", f"output={tmp_path}/out", f"workspace={tmp_path}", "engine.variants=[svm]"]
    command = [sys.executable, "-m", "jobs.classify", *addresses]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "error: 1 shards (0 rows and 1 of unknown size) failed, 0 are done" in done.stderr
    assert "'broken.parquet' rows 0+unknown: not a Parquet file" in done.stderr and "Traceback" not in done.stderr


def test_parts_carry_their_receipt_and_page_checksums(store, root):
    runs.write_log(open_store(f"{root}/in"), files=1, messages=["milk", None])
    runs.run(root)
    out = open_store(f"{root}/out")
    key = next(blob.key for blob in out.list("labelled/"))
    receipt = json.loads(pq.read_metadata(io.BytesIO(out.read(key))).metadata[b"intent.receipt"])
    assert receipt["rows"] == receipt["labelled"] + receipt["abstained"] + receipt["rejected"] > 0
    assert receipt["fingerprint"] == json.loads(out.read("manifest.json"))["fingerprint"]


def test_the_cost_of_a_run_uses_the_price_of_the_named_processor(tmp_path, monkeypatch):
    paid, output = Counter(), io.StringIO()

    def inc(counter, amount, tags):
        paid[counter.info["name"]] += amount

    monkeypatch.setattr(metrics.Counter, "inc", inc)
    runs.write_log(open_store(f"{tmp_path}/in"))
    named = replace(runs.engine(cpus=0.5, seconds=0.2), prices={"cpu": None, hardware.cpu(1).model: 3600.0})
    summary = runs.run(str(tmp_path), [named], frequent_messages=0, stream=output)
    assert "the cost leaves out" not in output.getvalue()
    # Half a CPU at a dollar a second, for as long as the actor was there, which computed 3 shards or more.
    assert 0.5 * 0.2 * 3 < paid["intent_cost_usd"] < 0.5 * (summary.seconds + 10)


def test_a_processor_without_a_price_is_reported_once(tmp_path):
    output = io.StringIO()
    runs.write_log(open_store(f"{tmp_path}/in"))
    runs.run(str(tmp_path), [replace(runs.engine(actors=2), prices={"cpu": None, "Tesla T4": 1.0})], stream=output)
    assert output.getvalue().count(f"the cost leaves out {hardware.cpu(1).model!r}: cluster.prices has no price of it") == 1


def test_messages_that_a_model_rejects_take_nothing_from_the_duplicates_saved(tmp_path):
    """300 rows: 75 null, and 225 that hold 3 messages, of which the model rejects two."""
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"), files=3, rows=100, messages=["two milks", None, "refuse a", "refuse b"])
    summary = runs.run(root)
    assert (summary.rejected, summary.classified, summary.duplicates_saved) == (225, 3, 222)
    assert runs.run(root).duplicates_saved == 222
