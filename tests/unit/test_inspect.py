"""`jobs.inspect` describes a run and detects every difference from the manifest."""

import json
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
import runs

from intent.config import InspectConfig
from intent.errors import ConfigError
from intent.run.columns import Columns
from intent.run.ledger import LABELLED, REJECTED, Ledger, part_key
from intent.run.shard import Plan, Shard
from intent.run.worker import Worker
from intent.storage import Blob, open_store
from jobs import inspect
from jobs.app import load_config

SHARDS = [Shard(Blob(f"log-{n}.parquet", 1, "e"), 0, 4) for n in range(2)]
PLAN = Plan(SHARDS, None, {"notes.txt": "not a Parquet file"})
ROWS = pa.table({"id": ["a", "b\x1b[2J", "<b>", None], "message": ["milk", "unsure", "refuse", None]})


def label(store, shards=SHARDS, schema=runs.CART, explode=False) -> Ledger:
    ledger = Ledger(store, runs.IDENTITY)
    ledger.plan(lambda: PLAN)
    classifier = runs.RuleClassifier(lists=schema.repeat > 1)
    worker = Worker(classifier, schema, Columns(explode=explode), runs.IDENTITY.fingerprint)
    parts = {shard.id: ledger.publish(worker.label(shard, ROWS)) for shard in shards}
    if len(parts) == len(SHARDS):
        summary = {"seconds": 2.0, "retries": 1, "classified": 6, "duplicates_saved": 0}
        ledger.commit(PLAN, parts, summary)
    return ledger


@pytest.fixture
def look(root, capfd) -> Callable[..., tuple[int, str]]:
    """Return a function that runs the job on the folder `root` and returns its exit code and output."""

    def run(*arguments: str) -> tuple[int, str]:
        code = inspect.run(load_config("inspect", [f"output={root}", *arguments], InspectConfig))
        output = capfd.readouterr()
        return code, output.out + output.err

    return run


def test_a_finished_run_is_shown_and_whole(store, look):
    label(store)
    before = {blob.key: blob.etag for blob in store.list()}
    code, output = look()
    assert code == 0, output
    for line in (
        "finished",
        "model rule: 1",
        "shards: 2 of 2",
        "rows: 8 = 2 labelled + 2 abstained + 4 rejected",
        "rule: 4 rows",
        "0.9 to 0.95            2 100.0%",
        "0.2 to 0.3             2 100.0%",
        "4 rows from row 0 of 'log-1.parquet'",
        "2: message of N tokens is over the limit of 256; ids such as <b>, <b>",
        "2: null message; ids such as null",
        "'notes.txt': not a Parquet file",
    ):
        assert line in output, output
    assert before == {blob.key: blob.etag for blob in store.list()}


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_a_list_counts_once_where_each_item_has_a_row(store, look):
    label(store, schema=runs.BASKET, explode=True)
    code, output = look()
    assert code == 0 and "0.9 to 0.95            2 100.0%" in output


@pytest.mark.parametrize("harm", ["flipped", "missing", "more", "rejected", "counts", "another", "plan", "manifest"])
def test_each_way_that_a_run_can_be_damaged_is_named(store, look, harm):
    ledger = label(store)
    keys = [part_key(kind, SHARDS[0].id) for kind in (LABELLED, REJECTED)]
    manifest, named = json.loads(store.read("manifest.json")), keys[0]
    if harm == "flipped":
        data = bytearray(store.read(keys[0]))
        data[20] ^= 1
        store.put(keys[0], bytes(data))
    if harm == "missing":
        store.delete(keys[0])
    if harm == "more":
        named = part_key(LABELLED, "ffff")
        store.put(named, b"")
    if harm == "rejected":
        named = keys[1]
        store.put(named, b"")
    if harm == "counts":
        named = "rows is 9, but its parts have 8"
        store.put("manifest.json", json.dumps(manifest | {"rows": 9}).encode())
    if harm == "another":
        manifest["parts"][0]["labelled"], manifest["parts"][1]["labelled"] = (manifest["parts"][n]["labelled"] for n in (1, 0))
        named = "shard is"
        store.put("manifest.json", json.dumps(manifest).encode())
    if harm == "plan":
        named = "plan.json: is missing"
        store.delete("plan.json")
    if harm == "manifest":
        named = "its shards differ from those of plan.json"
        store.delete(keys[0])
        store.delete(keys[1])
        del manifest["parts"][0]
        manifest |= {name: manifest[name] // 2 for name in ("rows", "labelled", "abstained", "rejected")}
        store.put("manifest.json", json.dumps(manifest).encode())
    code, output = look()
    assert code == 1 and f"error: {store.uri}" in output and named in output
    assert ledger.run == runs.IDENTITY


def test_an_unfinished_run_is_shown_as_far_as_it_is(store, look):
    label(store, SHARDS[:1]).record_failed({SHARDS[1]: "is cut short"})
    code, output = look()
    assert code == 3, output
    for line in ("not finished", "shards: 1 of 2", "rows: 4 = 1 labelled", "'log-1.parquet' rows 0+4: is cut short"):
        assert line in output, output
    key = part_key(LABELLED, SHARDS[0].id)
    store.put(key, store.read(key)[:-30])
    code, output = look()
    assert code == 1 and f"{key}: not a part of a run" in output


def test_what_is_no_run_is_refused_with_the_remedy(root, look):
    with pytest.raises(ConfigError, match="output=.*holds no run; name the output of jobs.classify"):
        look()
    with pytest.raises(ConfigError, match="output=.*is the address of many runs"):
        look(f"output='{root}/dt={{date}}'")


@pytest.mark.parametrize("text", ["{", "[]", '{"run": {}}', '{"run": null, "shards": []}'])
def test_a_plan_that_cannot_be_read_is_one_clear_line(command_lines, tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    done = command_lines.run("inspect", f"output={tmp_path}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"error: {tmp_path}")


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_the_page_shows_the_same_and_runs_nothing(store, root, look, tmp_path):
    label(store)
    code, output = look(f"html={tmp_path}/pages/run.html")
    text = open_store(f"{tmp_path}/pages").read("run.html").decode()
    assert code == 0 and "page: " in output and "<b>" not in text and "\x1b" not in text
    words = []
    parser = HTMLParser()
    parser.handle_data = words.append
    parser.feed(text)
    shown = " ".join(words)
    for line in (
        "every part matches its manifest",
        "log-1.parquet from row 0",
        "null message",
        "confidence of ok rows",
        "<b>",
    ):
        assert line in shown
    store.delete(part_key(LABELLED, SHARDS[0].id))
    assert look(f"html={tmp_path}/pages/run.html")[0] == 1
    assert "damaged: 1 faults" in open_store(f"{tmp_path}/pages").read("run.html").decode()


def test_ids_of_any_type_can_be_shown():
    from intent.run.inspection import _shown

    strange = pa.array([b"ok \xff"]).cast(pa.binary()).view(pa.binary())
    assert _shown(strange[0]) == "ok �"
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")])
    assert _shown(broken[0]) == "�"
    assert _shown(pa.scalar("a\nb\x1b")) == "a\\nb\\x1b" and _shown(pa.scalar(7)) == "7"
    assert len(_shown(pa.scalar("x" * 500))) < 100
