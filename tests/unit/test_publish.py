"""A finished run's labels in a Delta table, an Iceberg table or a folder of partitions: once, whole, or refused by name."""

import io
import pickle
import subprocess
import sys
import threading
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nights
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tables
from deltalake import DeltaTable
from pyiceberg.catalog import load_catalog
from servers import BUCKET

from intent.errors import ConfigError, CorruptData, IntentError, RunMismatch
from intent.lake import iceberg_target, open_target
from intent.lake.delta_target import DeltaTarget
from intent.lake.iceberg_target import IcebergTarget
from intent.lake.target import NIGHT, PARTS, RUN, Labels
from intent.run.columns import Columns, partitions
from intent.run.driver import identify
from intent.run.ledger import Ledger
from intent.run.listing import list_input
from intent.run.progress import Tally
from intent.run.publish import Publication
from intent.run.rows import ShardReader
from intent.run.scan import open_reader, read_source_footers
from intent.run.shard import plan_shards
from intent.run.staged import Staged
from intent.run.worker import Worker
from intent.storage import StorageOptions, open_store
from intent.task.schema import Choice, Entity

COLUMNS = Columns(keep=("dt", "shop"))
NAMES = ["id", "action", "product", "quantity", "confidence", "status", "variant", "dt", "shop"]
MON, TUE = "2026-11-23", "2026-11-24"
MESSAGES = ("two milks", "refuse", "eggs")


class Shop:
    """Logs and finished runs below `root`, and where the labels are published."""

    def __init__(self, root, kind: str, partition_by=("dt",)):
        self.root, self.kind, self.partition_by = str(root), kind, partition_by
        self.to = {"delta": f"delta:{root}/table", "iceberg": "iceberg:prod/shop.labels", "folder": f"{root}/table"}[kind]

    def finish(self, day=MON, identity=nights.IDENTITY, shops=("7", "8", None), messages=MESSAGES, variant="rule"):
        """The log of `day`, labelled by the run of `identity`."""
        table = pa.table(
            {
                "id": [f"{day}-{n}" for n in range(30)],
                "message": [messages[n % len(messages)] for n in range(30)],
                "shop": pa.array([shops[n // len(messages) % len(shops)] for n in range(30)], pa.string()),
            }
        )
        log = open_store(f"{self.root}/in/dt={day}")
        if not log.stat("log.parquet"):
            nights.put_table(log, "log.parquet", table)
        listing, run = identify(f"{self.root}/in/dt={day}", StorageOptions(), identity, COLUMNS)
        output = self.output(day, identity)
        ledger = Ledger(output, run)
        plan = ledger.plan(lambda: plan_shards(listing, COLUMNS, 10))
        worker = Worker(nights.RuleClassifier(variant), nights.CART, COLUMNS, run.fingerprint)
        reader, tally = ShardReader(listing.store, COLUMNS.read, plan.types), Tally()
        parts = {shard.id: ledger.publish(worker.label(shard, reader.read(shard))) for shard in plan.shards}
        for part in parts.values():
            tally.add(part)
        ledger.commit(plan, parts, tally.summary(0, output.uri).as_dict())
        return output

    def output(self, day: str = MON, identity=nights.IDENTITY):
        return open_store(f"{self.root}/out-{identity.prompt}/dt={day}")

    def publication(self, day: str = MON, **kwargs) -> Publication:
        target = open_target(self.to, self.partition_by, StorageOptions())
        return replace(Publication(target, nights.CART, COLUMNS, f"{self.root}/in/dt={day}", day), **kwargs)

    def rows(self) -> pa.Table:
        """What readers see."""
        if self.kind == "delta":
            return DeltaTable(f"{self.root}/table").to_pyarrow_table().select(NAMES)
        if self.kind == "iceberg":
            return tables.iceberg("shop.labels").scan().to_arrow().select(NAMES)
        found = []
        store = open_store(f"{self.root}/table")
        for blob in store.list():
            if not blob.key.startswith("_"):
                rows = pq.read_table(io.BytesIO(store.read(blob.key)))
                for name, value in partitions(blob.key).items():
                    rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(rows)))
                found.append(rows.select(NAMES).replace_schema_metadata(None))
        return pa.concat_tables(found)

    def check(self, *outputs) -> None:
        """Readers have every labelled row of these runs once, as the parts have it, and nothing else."""
        expected = pa.concat_tables([nights.read(output, "labelled/").select(NAMES) for output in outputs]).to_pylist()
        found = self.rows().to_pylist()
        assert Counter(map(repr, found)) == Counter(map(repr, expected))

    def commits(self) -> int:
        if self.kind == "delta":
            return len([entry for entry in DeltaTable(f"{self.root}/table").history() if entry.get(RUN)])
        return len([s for s in tables.iceberg("shop.labels").metadata.snapshots if s.summary[RUN]])


@pytest.fixture(params=["delta", "iceberg", "folder"])
def shop(request, tmp_path, monkeypatch) -> Shop:
    tables.use_catalog(monkeypatch, tmp_path)
    return Shop(tmp_path, request.param)


only_tables = pytest.mark.parametrize("shop", ["delta", "iceberg"], indirect=True)
only_iceberg = pytest.mark.parametrize("shop", ["iceberg"], indirect=True)
only_folder = pytest.mark.parametrize("shop", ["folder"], indirect=True)
OTHER = replace(nights.IDENTITY, prompt="other")


def test_nights_are_published_once_each(shop):
    monday, tuesday = shop.finish(MON), shop.finish(TUE)
    for _ in range(2):
        for day, output in ((MON, monday), (TUE, tuesday)):
            shop.publication(day).commit(output)
    shop.check(monday, tuesday)


@only_tables
def test_the_commit_says_whose_labels_it_has(shop):
    shop.publication().commit(shop.finish())
    run = Ledger(shop.output(), nights.IDENTITY).manifest()["fingerprint"]
    if shop.kind == "delta":
        [said] = [entry for entry in DeltaTable(f"{shop.root}/table").history() if entry.get(RUN)]
    else:
        said = tables.iceberg("shop.labels").current_snapshot().summary.additional_properties
    assert said[RUN] == run and said[NIGHT] == f"{shop.root}/in/dt={MON}" and PARTS in said
    assert (said["intent.rows"], said["intent.labelled"], said["intent.rejected"]) == ("30", "20", "10")


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
@pytest.mark.parametrize("said", ["CommitFailedException", "CommitStateUnknownException"])
def test_a_commit_that_landed_and_is_reported_as_refused_or_unknown_is_neither_repeated_nor_undone(shop, monkeypatch, said):
    """As where a proxy sends a request again whose reply it lost."""
    from pyiceberg import exceptions
    from pyiceberg.catalog.sql import SqlCatalog

    commit, calls = SqlCatalog.commit_table, []

    def lost(self, *args):
        calls.append(commit(self, *args))
        raise getattr(exceptions, said)("the reply was lost")

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
def test_of_two_drivers_that_commit_at_once_both_end_with_one_commit_of_each_night(shop, monkeypatch, same):
    days = (MON, MON) if same else (MON, TUE)
    outputs = {day: shop.finish(day) for day in {*days}}
    target = DeltaTarget if shop.kind == "delta" else IcebergTarget
    looked, meet, ends = target._published, threading.Barrier(2, timeout=30), []
    met = threading.local()

    def look(self, *args):
        found = looked(self, *args)
        if not hasattr(met, "done"):
            met.done = True
            # Both have seen the table without the night.
            meet.wait()
        return found

    monkeypatch.setattr(target, "_published", look)
    # Who makes the table is another race.
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
    # A catalog is there before its tables are.
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
def test_another_run_of_a_night_is_refused_by_name_before_and_at_the_commit(shop):
    first = shop.finish()
    shop.publication().commit(first)
    run = Ledger(first, nights.IDENTITY).manifest()["fingerprint"]
    second = shop.finish(identity=OTHER)
    _, other = identify(f"{shop.root}/in/dt={MON}", StorageOptions(), OTHER, COLUMNS)
    said = rf"publish=.*holds the labels of .*/in/dt={MON} from another run \({run}\)"
    with pytest.raises(RunMismatch, match=said):
        shop.publication().check(other)
    with pytest.raises(RunMismatch, match=said):
        shop.publication().commit(second)
    shop.check(first)


@only_tables
def test_the_table_remembers_a_night_after_its_history_is_gone(shop):
    """As it is expired after some days."""
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
def test_a_night_without_labelled_rows_is_published_too(shop):
    output = shop.finish(messages=("refuse",))
    shop.publication().commit(output)
    assert len(shop.rows()) == 0 and shop.commits() == 1


@only_tables
def test_a_column_without_any_value_is_text_in_a_table_that_is_made(shop):
    output = shop.finish(shops=(None,))
    shop.publication().commit(output)
    shop.check(output)


def fields_of(shop: Shop) -> pa.Schema:
    return shop.publication().fields(pa.schema([("id", pa.string()), ("dt", pa.string()), ("shop", pa.string())]))


def make(shop: Shop, fields: pa.Schema, partition_by=()) -> None:
    if shop.kind == "delta":
        tables.write_delta(f"{shop.root}/table", fields.empty_table(), partition_by=list(partition_by) or None)
    else:
        table = tables.iceberg("shop.labels", fields)
        with table.update_spec() as spec:
            for name in partition_by:
                spec.add_identity(name)


def check_before_work(shop: Shop, types=None):
    """As `classify_log` does, once the columns are known."""
    types = types or pa.schema([("id", pa.string()), ("dt", pa.string()), ("shop", pa.string())])
    shop.publication().check(nights.IDENTITY, types)


@only_tables
def test_lists_of_items_are_columns_of_a_table_too(shop):
    basket = replace(nights.CART, slots=(Choice("action", ("add", "remove")), Entity("product")), repeat=3)
    fields = shop.publication(schema=basket).fields(
        pa.schema([("id", pa.string()), ("dt", pa.string()), ("shop", pa.string())])
    )
    item = {"action": "add", "product": "Milk", "confidence": 0.5}
    rows = [{"id": f"{n}", "intents": [item] * n or None, "status": "ok"} for n in range(3)]
    target = open_target(shop.to, (), StorageOptions())
    for night in (MON, TUE):
        target.check(fields, night, "run")
        batches = pa.Table.from_pylist([row | {"id": row["id"] + night} for row in rows], fields).to_batches()
        target.commit(Labels(night, f"run of {night}", night, "parts", fields, {}, lambda batches=batches: iter(batches)))
    found = (
        DeltaTable(f"{shop.root}/table").to_pyarrow_table()
        if shop.kind == "delta"
        else tables.iceberg("shop.labels").scan().to_arrow()
    )
    assert sorted(len(items or []) for items in found["intents"].to_pylist()) == [0, 0, 1, 1, 2, 2]
    assert item in found["intents"].to_pylist()[-1] + found["intents"].to_pylist()[1]
    with pytest.raises(ConfigError, match=r"partition_by=\['intents'\]: holds lists"):
        open_target(shop.to, ("intents",), StorageOptions()).check(fields, MON, "run")


@only_tables
def test_a_table_that_does_not_fit_is_refused_by_name_of_its_column_before_any_work(shop):
    fields = fields_of(shop)
    make(shop, fields.remove(fields.get_field_index("shop")), ("dt",))
    with pytest.raises(ConfigError, match=r"publish=.*the table has no column \['shop'\], but \['id', .*; add it"):
        check_before_work(shop)


@only_tables
def test_a_column_of_another_type_is_refused_and_a_wider_one_is_filled(shop):
    fields = fields_of(shop)
    at = fields.get_field_index("quantity")
    wide = {"quantity": pa.int64(), "confidence": pa.float64()}
    fields = pa.schema([(field.name, wide.get(field.name, field.type)) for field in fields] + [("more", pa.string())])
    make(shop, fields, ("dt",))
    check_before_work(shop)
    shop.publication().commit(shop.finish())
    assert len(shop.rows()) == 20
    shop.to = shop.to + "2" if shop.kind == "iceberg" else shop.to
    if shop.kind == "delta":
        shop.root = f"{shop.root}/2"
        shop.to = f"delta:{shop.root}/table"
        make(shop, fields.set(at, pa.field("quantity", pa.string())), ("dt",))
    else:
        table = tables.iceberg("shop.labels2", fields.set(at, pa.field("quantity", pa.string())))
        with table.update_spec() as spec:
            spec.add_identity("dt")
    with pytest.raises(ConfigError, match="the table's column 'quantity' is string, and the labels' is int"):
        check_before_work(shop)


@only_tables
def test_a_value_that_the_table_wants_and_a_row_lacks_is_named(shop):
    fields = fields_of(shop)
    at = fields.get_field_index("shop")
    make(shop, fields.set(at, fields.field(at).with_nullable(False)), ("dt",))
    check_before_work(shop)
    with pytest.raises(ConfigError, match="publish='shop': the table requires a value in every row, and .* have none"):
        shop.publication().commit(shop.finish())
    assert len(shop.rows()) == 0


@only_tables
def test_partitions_that_the_table_does_not_have_are_refused(shop):
    make(shop, fields_of(shop), ("shop",))
    with pytest.raises(ConfigError, match=r"partition_by=\['dt'\]: the table .* is partitioned by \['shop'\]"):
        check_before_work(shop)
    shop.partition_by = ()
    check_before_work(shop)
    output = shop.finish()
    shop.publication().commit(output)
    shop.check(output)


@only_iceberg
def test_a_table_that_is_partitioned_by_a_transform_is_refused(shop):
    from pyiceberg.transforms import BucketTransform

    table = tables.iceberg("shop.labels", fields_of(shop))
    with table.update_spec() as spec:
        spec.add_field("id", BucketTransform(4), "id_bucket")
    shop.partition_by = ()
    with pytest.raises(ConfigError, match=r"partitioned by \['id_bucket'\], which are not plain columns"):
        check_before_work(shop)


@pytest.mark.parametrize("shop", ["delta"], indirect=True)
def test_a_table_that_asks_more_of_its_writers_is_refused(shop):
    make(shop, fields_of(shop))
    shop.partition_by = ()
    tables.require_feature(f"{shop.root}/table", "deletionVectors", "fromTheFuture")

    def change(action: dict) -> None:
        if "protocol" in action:
            action["protocol"]["readerFeatures"] = ["deletionVectors"]

    tables.log_entries(f"{shop.root}/table", 0, change)
    with pytest.raises(ConfigError, match="publish=.*fromTheFuture"):
        check_before_work(shop)


@only_tables
def test_what_the_format_has_no_type_for_is_refused_before_any_work(shop):
    kind = pa.time64("us") if shop.kind == "delta" else pa.duration("s")
    with pytest.raises(ConfigError, match="has no such column"):
        check_before_work(shop, pa.schema([("id", pa.string()), ("dt", pa.string()), ("shop", kind)]))


@only_iceberg
def test_a_staged_night_is_on_a_branch_only_and_its_files_are_those_that_are_published(shop):
    monday = shop.finish(MON)
    shop.publication().commit(monday)
    output = shop.finish(TUE)
    said = shop.publication(TUE).stage(Staged(output))
    branch = said.rpartition("branch ")[2]
    assert branch.startswith(f"intent-{TUE}-") and said == shop.publication(TUE).stage(Staged(output))
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
def test_a_night_that_was_labelled_anew_replaces_its_branch(shop):
    output = shop.finish()
    said = shop.publication().stage(Staged(output))
    for blob in list(output.list()):
        output.delete(blob.key)
    output = shop.finish(variant="anew")
    assert shop.publication().stage(Staged(output)) == said
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
def test_a_partition_with_rows_of_another_night_or_of_nobody_is_not_touched(shop):
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
    said = {(row["shop"], row["variant"]) for row in shop.rows().to_pylist()}
    assert len(shop.rows()) == 20 and len(said) == 3 and {variant for _, variant in said} == {"rule", "other"}
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
def test_on_s3_a_night_is_published_once_and_can_be_read_as_an_input(s3_endpoint, tmp_path, monkeypatch, kind):
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
