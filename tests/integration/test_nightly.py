"""Nightly runs as the job runs them, from waiting to publishing, on a cluster with a rule-based engine."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import runs
import tables

from intent.artifacts import Artifact, ArtifactRecord
from intent.config import NightlyConfig
from intent.label_cache import LabelCache, Reader, Scope, find_secret, scopes
from intent.run.ledger import Ledger
from intent.storage import open_store
from jobs import classify, nightly
from jobs.app import load_config
from jobs.caching import label_cache

pytestmark = pytest.mark.usefixtures("ray_cluster")
USUAL, ODD = ["two milks", "milk please", "hello"], ["hello", "hello there"]


def engines(lineage, variants, batches):
    return [replace(runs.engine("rule", cpus=0.2), cache=label_cache(lineage, "rule", variants["rule"]))]


def learned(root: str, message: str) -> bool:
    """Return whether the workspace's cache has a label of the message."""
    base = open_store(f"{root}/workspace")
    [name] = scopes(base)
    facts = json.loads(base.read(f"cache/{name}/pointer.json"))["facts"]
    scope = Scope.of(facts, find_secret(base))
    assert scope.name == name
    reader = Reader.open(LabelCache(open_store(f"{root}/workspace/cache/{name}"), scope))
    return bool(reader.look(pa.array([message])).hit[0])


@pytest.fixture
def command(root, tmp_path, monkeypatch, capfd):
    """Return a function that runs the job on the log below `root` and returns its exit code and output."""
    variants = {"rule": Artifact("nowhere", ArtifactRecord("variant-rule", {}, {}))}
    monkeypatch.setattr(nightly, "serving", lambda lineage, models, begun: (variants, {}))
    for module in (classify, nightly):
        monkeypatch.setattr(module, "engines", engines)
    (tmp_path / "mine.csv").write_text("name\nMilk\n")
    gold = [{"message": "two milks", "action": "add", "product": "Milk", "quantity": 9}, {"message": "hello", "action": "none"}]
    (tmp_path / "gold.json").write_text(json.dumps(gold))
    addresses = [f"input='{root}/in/dt={{date}}'", f"output='{root}/labels/dt={{date}}'", f"workspace={root}/workspace"]
    rest = [f"catalog={tmp_path}/mine.csv", f"gate.gold={tmp_path}/gold.json", "arrival=_SUCCESS", "arrival_hours=0"]

    def run(*arguments: str) -> tuple[int, str]:
        code = nightly.run(load_config("nightly", [*addresses, *rest, *arguments], NightlyConfig))
        output = capfd.readouterr()
        return code, output.out + output.err

    return run


def write(root: str, day: int, messages: list[str]) -> None:
    store = open_store(f"{root}/in/dt=2026-11-0{day}")
    runs.write_log(store, files=2, messages=messages)
    store.put("_SUCCESS", b"")


def labels(root: str, day: int):
    return open_store(f"{root}/labels/dt=2026-11-0{day}")


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_a_backfill_continues_after_a_late_day_and_quarantines_an_unusual_one(root, command):
    for day, messages in ((1, USUAL), (2, USUAL), (4, ODD), (5, USUAL)):
        write(root, day, messages)
    code, output = command("date=2026-11-01..2026-11-05")
    assert code == 7, output
    # The second and the last day have no new messages. An unusual day adds nothing to the cache.
    assert output.count("the models saw 0 messages") == 2, output
    assert output.count("200 rows from the label cache") == 2, output
    assert learned(root, "two milks") and not learned(root, "hello there")
    for day, ended in ((1, 0), (2, 0), (3, 8), (4, 7), (5, 0)):
        assert f"run of 2026-11-0{day}: exit code {ended}" in output
    assert "arrival='_SUCCESS'" in output and "none is 100.0% of all rows, usually 33.0%" in output
    for day in (1, 2, 5):
        assert Ledger(labels(root, day), runs.IDENTITY).verify()["rows"] == 200
    assert not list(labels(root, 3).list()) and not list(labels(root, 4).list())

    code, output = command("date=2026-11-04", "gate.accept=true")
    assert code == 0 and "accepted by hand" in output and learned(root, "hello there")
    assert set(runs.read(labels(root, 4), "labelled/")["action"].to_pylist()) == {"none"}
    code, output = command("date=2026-11-04")
    assert code == 0 and "already done: 200 rows" in output


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_a_model_that_gets_the_gold_set_wrong_publishes_nothing(root, command, tmp_path):
    write(root, 1, USUAL)
    (tmp_path / "gold.json").write_text('{"message": "hello", "action": "add", "product": "Milk", "quantity": 1}')
    code, output = command("date=2026-11-01")
    assert code == 7 and "rule gets 0.0% of the gold set right" in output
    (tmp_path / "gold.json").write_text('{"message": "hello", "action": "buy"}')
    code, output = command("date=2026-11-01")
    assert code == 2 and "line 1: action='buy': not a value" in output
    assert not list(labels(root, 1).list())


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_an_engine_that_fails_on_the_gold_set_is_reported_without_its_words(root, command, tmp_path):
    write(root, 1, USUAL)
    (tmp_path / "gold.json").write_text('{"message": "raise two secret milks", "action": "none"}')
    code, output = command("date=2026-11-01")
    assert code == 1 and "rule raised RuntimeError in runs.py" in output
    assert "secret" not in output and "Traceback" not in output


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_a_day_with_bad_objects_is_labelled_again_once_they_are_repaired(root, command):
    """Other objects are another input, as the runbook says of exit code 3."""
    write(root, 1, USUAL)
    source = open_store(f"{root}/in/dt=2026-11-01")
    good = source.read("log-1.parquet")
    source.put("log-1.parquet", good[:-100])
    runs.write_log(source, files=1, rows=2, messages=["raise my secret"], key="odd-{}.parquet")
    code, output = command("date=2026-11-01")
    folder = re.search(r"see (\S+)/failed\.json", output)[1]
    assert code == 3 and folder.startswith(f"{root}/workspace/nights/") and "/staged/2026-11-01/" in folder
    failed = open_store(folder).read("failed.json").decode()
    assert {entry["object"] for entry in json.loads(failed)} == {"log-1.parquet", "odd-0.parquet"}
    assert "rule raised RuntimeError in runs.py" in failed
    assert not any("my secret" in text for text in (failed, output, *ray_logs()))

    source.put("log-1.parquet", good)
    source.delete("odd-0.parquet")
    code, output = command("date=2026-11-01")
    assert code == 0 and "200 rows = 200 labelled" in output
    assert Ledger(labels(root, 1), runs.IDENTITY).verify()["rows"] == 200
    assert not [blob for blob in open_store(f"{root}/workspace/nights").list() if "/staged/" in blob.key]


def ray_logs() -> list[str]:
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    return [path.read_text(errors="replace") for path in logs.rglob("*") if path.is_file()]


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_a_published_day_is_done_even_if_its_input_has_expired(root, command):
    write(root, 1, USUAL)
    assert command("date=2026-11-01")[0] == 0
    source = open_store(f"{root}/in/dt=2026-11-01")
    for blob in list(source.list()):
        source.delete(blob.key)
    code, output = command("date=2026-11-01")
    assert code == 0 and "already done, and its input is no longer there" in output


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_a_day_of_hourly_firehose_folders_in_the_shops_time_zone(root, command):
    for hour in ("2026/10/31/21", "2026/10/31/22", "2026/11/01/00", "2026/11/01/21", "2026/11/01/22"):
        runs.write_log(open_store(f"{root}/in/{hour}"), files=1, rows=20, messages=USUAL, key=f"shop-{hour[-2:]}-{{}}")
    code, output = command(
        f"input='{root}/in/{{year-2h}}/{{month-2h}}/{{day-2h}}/{{hour-2h}}'",
        f"output='{root}/labels/year={{year}}/month={{month:d}}/day={{day:d}}'",
        "arrival=null",
        "date=2026-11-01",
    )
    assert code == 0 and "60 rows = 60 labelled" in output
    manifest = Ledger(open_store(f"{root}/labels/year=2026/month=11/day=1"), runs.IDENTITY).verify()
    objects = [entry["object"] for entry in manifest["parts"]]
    assert objects == ["10/31/22/shop-22-0", "11/01/00/shop-00-0", "11/01/21/shop-21-0"]


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_days_of_a_delta_table_are_published_to_an_iceberg_table_and_an_unusual_one_stays_on_a_branch(
    root, command, tmp_path, monkeypatch
):
    tables.use_catalog(monkeypatch, tmp_path)
    for day, messages in ((1, USUAL), (2, ODD), (3, USUAL)):
        rows = {"id": [f"{day}-{n}" for n in range(60)], "message": [messages[n % len(messages)] for n in range(60)]}
        table = pa.table(rows | {"dt": [f"2026-11-0{day}"] * 60})
        tables.write_delta(f"{root}/in", table, partition_by=["dt"])
    settings = ["arrival=null", "keep_columns=[dt]", "publish=iceberg:prod/shop.labels", "partition_by=[dt]"]
    code, output = command("date=2026-11-01..2026-11-03", *settings)
    assert code == 7 and "and in iceberg:prod/shop.labels, branch intent-2026-11-02-" in output
    published = tables.iceberg("shop.labels")
    assert Counter(published.scan().to_arrow()["dt"].to_pylist()) == {"2026-11-01": 60, "2026-11-03": 60}

    # The table changed meanwhile. A started run reads its own version, and a finished run stays finished.
    tables.write_delta(f"{root}/in", table.slice(0, 1), partition_by=["dt"])
    code, output = command("date=2026-11-02", "gate.accept=true", *settings)
    assert code == 0 and "accepted by hand" in output
    code, output = command("date=2026-11-01..2026-11-03", *settings)
    assert code == 0 and output.count("already done: 60 rows") == 3, output
    published = tables.iceberg("shop.labels")
    assert Counter(published.scan().to_arrow()["dt"].to_pylist()) == {f"2026-11-0{day}": 60 for day in (1, 2, 3)}
    assert [*published.refs()] == ["main"]
