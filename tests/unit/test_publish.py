"""A finished run's labels in a Delta table, an Iceberg table or a folder of partitions: once, whole, or refused by name."""

import pickle
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
import runs
import tables
from deltalake import DeltaTable
from publishing import (
    COLUMNS,
    MON,
    OTHER,
    TUE,
    Shop,
    check_before_work,
    fields_of,
    make,
    only_folder,
    only_iceberg,
    only_tables,
)
from pyiceberg.catalog import load_catalog
from servers import BUCKET

from intent.errors import ConfigError, CorruptData, IntentError, RunMismatch
from intent.lake import iceberg_target
from intent.lake.delta_target import DeltaTarget
from intent.lake.iceberg_target import IcebergTarget
from intent.lake.target import PARTS, RUN, SOURCE
from intent.run.columns import Columns
from intent.run.driver import identify
from intent.run.ledger import Ledger
from intent.run.listing import list_input
from intent.run.scan import open_reader, read_source_footers
from intent.run.shard import plan_shards
from intent.run.staged import Staged
from intent.storage import StorageOptions, open_store


def test_each_day_is_published_once(shop):
    monday, tuesday = shop.finish(MON), shop.finish(TUE)
    for _ in range(2):
        for day, output in ((MON, monday), (TUE, tuesday)):
            shop.publication(day).commit(output)
    shop.check(monday, tuesday)


@only_tables
def test_the_commit_says_whose_labels_it_has(shop):
    shop.publication().commit(shop.finish())
    run = Ledger(shop.output(), runs.IDENTITY).manifest()["fingerprint"]
    if shop.kind == "delta":
        [properties] = [entry for entry in DeltaTable(f"{shop.root}/table").history() if entry.get(RUN)]
    else:
        properties = tables.iceberg("shop.labels").current_snapshot().summary.additional_properties
    assert properties[RUN] == run and properties[SOURCE] == f"{shop.root}/in/dt={MON}" and PARTS in properties
    assert (properties["intent.rows"], properties["intent.labelled"], properties["intent.rejected"]) == ("30", "20", "10")


@only_tables
def test_a_commit_whose_reply_was_lost_is_found_also_by_another_driver(shop, monkeypatch):
    output = shop.finish()
    monkeypatch.setattr(type(output), "put_if_absent", lambda *_: (_ for _ in ()).throw(ConnectionError("gone")))
    with pytest.raises(ConnectionError):
        shop.publication().commit(output)
    monkeypatch.undo()
    tables.use_catalog(monkeypatch, Path(shop.root))
    assert "version" in shop.publication().commit(output)
    shop.check(output)
    assert shop.commits() == 1


@only_iceberg
@pytest.mark.parametrize("error", ["CommitFailedException", "CommitStateUnknownException"])
def test_a_commit_that_landed_and_is_reported_as_refused_or_unknown_is_neither_repeated_nor_undone(shop, monkeypatch, error):
    """A proxy may repeat a request whose reply it lost."""
    from pyiceberg import exceptions
    from pyiceberg.catalog.sql import SqlCatalog

    commit, calls = SqlCatalog.commit_table, []

    def lost(self, *args):
        calls.append(commit(self, *args))
        raise getattr(exceptions, error)("the reply was lost")

    output = shop.finish()
    make(shop, fields_of(shop), ("dt",))
    monkeypatch.setattr(SqlCatalog, "commit_table", lost)
    shop.publication().commit(output)
    monkeypatch.setattr(SqlCatalog, "commit_table", commit)
    shop.check(output)
    assert len(calls) == shop.commits() == 1


KILLED = """
import os, pickle, sys
from intent.lake import iceberg_target
from intent.run import publish
from intent.storage import LocalStore

die, batches = lambda *_, **__: os._exit(137), publish._batches

def some(staged):
    yield next(batches(staged))
    die()

step, file = sys.argv[1:]
if step == "before":
    publish.Staged = die
if step == "while rows are written":
    publish._batches = some
if step == "before the commit":
    iceberg_target._add = die
if step == "after the commit":
    LocalStore.put_if_absent = die
with open(file, "rb") as file:
    publication, output = pickle.load(file)
publication.commit(output)
"""


@only_tables
def test_a_driver_that_is_killed_before_during_or_after_the_commit_is_followed_by_one_that_publishes_once(shop):
    output, file = shop.finish(), Path(shop.root, "publication")
    file.write_bytes(pickle.dumps((shop.publication(), output)))
    before = "before the commit" if shop.kind == "iceberg" else "before"
    for step in [before, "while rows are written", "after the commit"]:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, step, str(file)],
            env={"PYTHONPATH": ":".join(sys.path), **tables.catalog_variables(Path(shop.root))},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 137, done.stderr
        if step != "after the commit":
            assert not _exists(shop) or len(shop.rows()) == 0
    assert shop.commits() == 1
    shop.publication().commit(output)
    shop.check(output)
    assert shop.commits() == 1


def _exists(shop: Shop) -> bool:
    try:
        return shop.rows() is not None
    except Exception:
        return False


@only_tables
@pytest.mark.parametrize("same", [True, False])
def test_two_drivers_that_commit_at_once_make_one_commit_of_each_day(shop, monkeypatch, same):
    days = (MON, MON) if same else (MON, TUE)
    outputs = {day: shop.finish(day) for day in {*days}}
    target = DeltaTarget if shop.kind == "delta" else IcebergTarget
    looked, meet, ends = target._published, threading.Barrier(2, timeout=30), []
    met = threading.local()

    def look(self, *args):
        result = looked(self, *args)
        if not hasattr(met, "done"):
            met.done = True
            # Both have seen the table without the run.
            meet.wait()
        return result

    monkeypatch.setattr(target, "_published", look)
    # The race to create the table is another test.
    make(shop, fields_of(shop), ("dt",))

    def drive(day: str) -> None:
        try:
            ends.append(shop.publication(day).commit(outputs[day]))
        except IntentError as error:
            ends.append(error)

    drivers = [threading.Thread(target=drive, args=(day,)) for day in days]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert all(isinstance(end, str) for end in ends), ends
    shop.check(*outputs.values())
    assert shop.commits() == len(outputs)
    assert len({*ends}) == len(outputs)


def test_drivers_that_make_the_table_at_once_make_one(shop):
    outputs = [shop.finish(day) for day in (MON, TUE)]
    # A catalog exists before its tables do.
    load_catalog(tables.CATALOG)
    meet, ends = threading.Barrier(2, timeout=30), []

    def drive(day: str, output) -> None:
        meet.wait()
        ends.append(shop.publication(day).commit(output))

    drivers = [threading.Thread(target=drive, args=pair) for pair in zip((MON, TUE), outputs, strict=True)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert len(ends) == 2
    shop.check(*outputs)


@only_tables
def test_another_run_of_a_day_is_refused_by_name_before_and_at_the_commit(shop):
    first = shop.finish()
    shop.publication().commit(first)
    run = Ledger(first, runs.IDENTITY).manifest()["fingerprint"]
    second = shop.finish(identity=OTHER)
    _, other = identify(f"{shop.root}/in/dt={MON}", StorageOptions(), OTHER, COLUMNS)
    refusal = rf"publish=.*holds the labels of .*/in/dt={MON} from another run \({run}\)"
    with pytest.raises(RunMismatch, match=refusal):
        shop.publication().check(other)
    with pytest.raises(RunMismatch, match=refusal):
        shop.publication().commit(second)
    shop.check(first)


@only_tables
def test_the_table_knows_a_published_day_after_its_history_has_expired(shop):
    """The history of a table expires after some days."""
    output = shop.finish()
    shop.publication().commit(output)
    if shop.kind == "delta":
        table = DeltaTable(f"{shop.root}/table")
        table.create_checkpoint()
        for path in Path(shop.root, "table/_delta_log").glob("*.json"):
            path.unlink()
    else:
        tables.iceberg("shop.labels").append(shop.rows().slice(0, 0))
        table = tables.iceberg("shop.labels")
        table.maintenance.expire_snapshots().by_id(table.metadata.snapshots[0].snapshot_id).commit()
    for blob in list(output.list("published-")):
        output.delete(blob.key)
    shop.publication().commit(output)
    with pytest.raises(RunMismatch, match="from another run"):
        shop.publication().commit(shop.finish(identity=OTHER))
    shop.check(output)


@only_tables
def test_a_part_that_is_not_the_manifests_is_named_and_nothing_is_committed(shop):
    output = shop.finish()
    [*_, last] = output.list("labelled/")
    output.put(last.key, output.read(last.key)[:-1] + b"x")
    with pytest.raises(CorruptData, match=f"{last.key}: SHA-256 differs from its manifest's"):
        shop.publication().commit(output)
    assert len(shop.rows()) == 0


@only_tables
def test_a_day_without_labelled_rows_is_published_too(shop):
    output = shop.finish(messages=("refuse",))
    shop.publication().commit(output)
    assert len(shop.rows()) == 0 and shop.commits() == 1


@only_tables
def test_a_column_without_any_value_is_text_in_a_table_that_is_made(shop):
    output = shop.finish(shops=(None,))
    shop.publication().commit(output)
    shop.check(output)


@only_iceberg
def test_a_staged_run_is_on_a_branch_only_and_its_files_are_published_unchanged(shop):
    monday = shop.finish(MON)
    shop.publication().commit(monday)
    output = shop.finish(TUE)
    message = shop.publication(TUE).stage(Staged(output))
    branch = message.rpartition("branch ")[2]
    assert branch.startswith(f"intent-{TUE}-") and message == shop.publication(TUE).stage(Staged(output))
    shop.check(monday)
    table = tables.iceberg("shop.labels")
    head = table.snapshot_by_name(branch)
    assert len(table.scan(snapshot_id=head.snapshot_id).to_arrow()) == 40
    files = iceberg_target._files_of(table, head.snapshot_id)
    shop.publication(TUE).commit(output)
    shop.check(monday, output)
    table = tables.iceberg("shop.labels")
    assert iceberg_target._files_of(table, table.current_snapshot().snapshot_id) == files
    assert [*table.refs()] == ["main"]


@only_iceberg
def test_a_day_that_was_labelled_again_replaces_its_branch(shop):
    output = shop.finish()
    message = shop.publication().stage(Staged(output))
    for blob in list(output.list()):
        output.delete(blob.key)
    output = shop.finish(variant="anew")
    assert shop.publication().stage(Staged(output)) == message
    shop.publication().commit(output)
    shop.check(output)


@only_folder
def test_a_partition_is_one_object_that_is_replaced_as_a_whole(shop):
    shop.partition_by = ("dt", "shop")
    first = shop.finish(shops=("Café #1 %/x", "7", None))
    shop.publication().commit(first)
    shop.check(first)
    before = [blob.key for blob in open_store(f"{shop.root}/table").list() if not blob.key.startswith("_")]
    assert len(before) == 3 and all(key.endswith("/labels.parquet") for key in before)
    open_store(f"{shop.root}/in/dt={MON}").delete("log.parquet")
    second = shop.finish(identity=OTHER, shops=("7", "9"))
    shop.publication().commit(second)
    shop.check(second)


@only_folder
def test_a_partition_with_rows_of_another_day_or_an_unknown_writer_is_not_touched(shop):
    shop.partition_by = ("shop",)
    monday, tuesday = shop.finish(MON), shop.finish(TUE, shops=("new", "8"))
    shop.publication(MON).commit(monday)
    with pytest.raises(ConfigError, match=f"publish='shop=8': .* already has it from .*dt={MON}; partition by a column"):
        shop.publication(TUE).commit(tuesday)
    shop.check(monday)
    shop.partition_by = ("dt", "shop")
    open_store(f"{shop.root}/table").put(f"dt={TUE}/shop=new/part-0.parquet", b"x")
    with pytest.raises(ConfigError, match="part-0.parquet, which no run wrote.*move it away"):
        shop.publication(TUE).commit(tuesday)


@only_folder
def test_a_folder_whose_publishing_was_cut_off_is_whole_in_each_partition_and_the_next_run_ends_it(shop, monkeypatch):
    shop.partition_by = ("dt", "shop")
    first = shop.finish()
    shop.publication().commit(first)
    second, put, done = shop.finish(identity=OTHER, variant="other"), type(first).put_file, []

    def cut_off(self, key, path):
        if done:
            raise ConnectionError("gone")
        done.append(key)
        put(self, key, path)

    monkeypatch.setattr(type(first), "put_file", cut_off)
    with pytest.raises(ConnectionError):
        shop.publication().commit(second)
    partitions = {(row["shop"], row["variant"]) for row in shop.rows().to_pylist()}
    assert len(shop.rows()) == 20 and len(partitions) == 3 and {variant for _, variant in partitions} == {"rule", "other"}
    monkeypatch.setattr(type(first), "put_file", put)
    shop.publication().commit(second)
    shop.check(second)


@only_folder
def test_columns_that_name_no_folder_are_refused(shop):
    shop.partition_by = ("confidence",)
    with pytest.raises(ConfigError, match="partition_by='confidence': is float; folders are named by text"):
        check_before_work(shop)
    shop.partition_by = ("market",)
    with pytest.raises(ConfigError, match=r"partition_by=\['market'\]: labels have only the columns"):
        check_before_work(shop)
    shop.partition_by = ()
    with pytest.raises(ConfigError, match="give the columns that name the folders"):
        check_before_work(shop)


@only_iceberg
def test_a_catalog_behind_rest_is_read_and_committed_to_by_configuration_alone(shop, monkeypatch):
    make(shop, fields_of(shop), ("dt",))
    rest = tables.RestCatalog()
    try:
        name = "PYICEBERG_CATALOG__REMOTE__"
        variables = {f"{name}TYPE": "rest", f"{name}URI": rest.uri, f"{name}TOKEN": "canary"}
        tables.use_catalog(monkeypatch, Path(shop.root), **variables)
        shop.to = "iceberg:remote/shop.labels"
        monday, tuesday = shop.finish(MON), shop.finish(TUE)
        shop.publication(MON).commit(monday)
        assert "branch intent-" in shop.publication(TUE).stage(Staged(tuesday))
        shop.publication(TUE).commit(tuesday)
        shop.check(monday, tuesday)
        assert read_back(f"iceberg:remote/shop.labels/dt={TUE}") == 20
        with pytest.raises(ConfigError, match="the catalog has no such table"):
            list_input("iceberg:remote/shop.other")
        assert "Bearer canary" in rest.tokens
    finally:
        rest.close()


def read_back(uri: str) -> int:
    listing, columns = list_input(uri), Columns(message="variant", keep=("dt", "status"))
    plan = plan_shards(listing, columns, 100, read_source_footers)
    reader = open_reader(pickle.loads(pickle.dumps(listing.store)), columns.read, plan.types)
    return sum(len(reader.read(shard)) for shard in plan.shards)


@pytest.mark.parametrize("kind", ["delta", "iceberg", "folder"])
def test_on_s3_a_day_is_published_once_and_can_be_read_as_an_input(s3_endpoint, tmp_path, monkeypatch, kind):
    root = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    tables.use_catalog(monkeypatch, tmp_path, PYICEBERG_CATALOG__PROD__WAREHOUSE=f"{root}/warehouse")
    shop = Shop(root, kind)
    output = shop.finish()
    for _ in range(2):
        shop.publication().commit(output)
    if kind == "folder":
        shop.check(output)
    else:
        assert read_back(f"{root}/table/dt={MON}" if kind == "delta" else f"{shop.to}/dt={MON}") == 20
