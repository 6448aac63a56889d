"""A Delta or Iceberg table as a run's input: the rows of one version, or a refusal that says what to do."""

import json
import pickle
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import tables
from deltalake import DeltaTable

from intent.errors import ConfigError, CorruptData
from intent.run import scan
from intent.run.columns import Columns
from intent.run.driver import identify
from intent.run.ledger import Ledger, RunIdentity, begun_versions
from intent.run.listing import list_input
from intent.run.scan import open_reader, read_source_footers
from intent.run.shard import plan_shards
from intent.storage import StorageOptions, open_store

RUN = RunIdentity({"rule": "1"}, "p", "s", "c")


@pytest.fixture(params=["delta", "iceberg"])
def log(request, tmp_path, monkeypatch):
    """A table: `log.uri`, and `log.write(rows)`."""
    tables.use_catalog(monkeypatch, tmp_path)

    class Log:
        kind = request.param
        uri = str(tmp_path / "log") if request.param == "delta" else tables.LOG

        def write(self, table: pa.Table) -> int:
            if self.kind == "delta":
                tables.write_delta(self.uri, table)
                return DeltaTable(self.uri).version()
            return tables.write_iceberg("shop.log", table).current_snapshot().snapshot_id

        def delete(self, predicate: str) -> None:
            if self.kind == "delta":
                DeltaTable(self.uri).delete(predicate)
            else:
                tables.iceberg("shop.log").delete(predicate)

    return Log()


def plan(uri, columns: Columns = Columns(), rows_per_shard: int = 3, **kwargs):
    listing = list_input(uri, **kwargs)
    return listing, plan_shards(listing, columns, rows_per_shard, read_source_footers)


def read(uri, columns: Columns = Columns(), rows_per_shard: int = 3, **kwargs) -> list[dict]:
    listing, made = plan(uri, columns, rows_per_shard, **kwargs)
    reader = open_reader(pickle.loads(pickle.dumps(listing.store)), columns.read, made.types)
    return [row for shard in made.shards for row in reader.read(shard).to_pylist()]


def ids(uri, **kwargs) -> list[int]:
    return sorted(row["id"] for row in read(uri, **kwargs))


def test_every_row_is_in_one_shard_whatever_the_windows_are(log, monkeypatch):
    monkeypatch.setattr(scan, "WINDOW_ROWS", 7)
    log.write(tables.rows(0, 30))
    log.write(tables.rows(30, 31))
    for rows_per_shard in (1, 3, 10, 100):
        rows = read(log.uri, rows_per_shard=rows_per_shard)
        assert [row["id"] for row in sorted(rows, key=lambda row: row["id"])] == [*range(31)]
        assert all(row["message"] == f"add {row['id']} milk" for row in rows)


def test_shards_may_be_read_in_any_order(log, monkeypatch):
    monkeypatch.setattr(scan, "WINDOW_ROWS", 7)
    log.write(tables.rows(0, 30))
    listing, made = plan(log.uri)
    reader = open_reader(listing.store, ["id"])
    assert sorted(n for shard in reversed(made.shards) for n in reader.read(shard)["id"].to_pylist()) == [*range(30)]


def test_a_version_is_read_despite_later_writes_and_dropped_files_are_not(log):
    first = log.write(tables.rows(0, 5))
    log.write(tables.rows(5, 8))
    listing, made = plan(log.uri)
    log.delete("id = 1")
    log.write(tables.rows(8, 9))
    reader = open_reader(pickle.loads(pickle.dumps(listing.store)), ["id"], made.types)
    assert sorted(n for shard in made.shards for n in reader.read(shard)["id"].to_pylist()) == [*range(8)]
    assert ids(log.uri) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert ids(log.uri, version=first) == [*range(5)]


def test_a_run_goes_on_with_the_version_that_it_was_planned_with(log, tmp_path):
    log.write(tables.rows(0, 5))
    output = open_store(str(tmp_path / "out"))

    def begin(version: int | None = None):
        return identify(log.uri, StorageOptions(), RUN, Columns(), None, version, [output])

    listing, run = begin()
    Ledger(output, run).plan(lambda: plan_shards(listing, Columns(), 3, read_source_footers))
    later = log.write(tables.rows(5, 8))
    assert begun_versions([output]) == {log.uri: listing.table[1]}
    again, same = begin()
    assert again.table == listing.table and same == run
    Ledger(output, same).require_same()
    _, other = begin(later)
    with pytest.raises(ConfigError, match="holds a run of other input"):
        Ledger(output, other).require_same()


def test_partitions_of_a_delta_table_are_inputs_and_their_columns_can_be_kept_or_be_the_id(tmp_path):
    shops = ["Café #1 %/x", "7", None, "7"]
    table = tables.rows(0, 4, shop=shops, dt=["2026-11-23", "2026-11-23", "2026-11-23", "2026-11-24"])
    tables.write_delta(tmp_path / "log", table, partition_by=["dt", "shop"])
    columns = Columns(keep=("shop", "dt"))
    rows = {row["id"]: (row["shop"], row["dt"]) for row in read(str(tmp_path / "log"), columns)}
    assert rows == {n: (shops[n], table["dt"][n].as_py()) for n in range(4)}
    day = f"{tmp_path}/log/dt=2026-11-23"
    assert ids(day) == ids(f"delta:{day}") == [0, 1, 2]
    assert ids(f"{day}/shop=Caf%C3%A9%20%231%20%25%2Fx") == [0]
    assert ids(f"{day}/shop=__HIVE_DEFAULT_PARTITION__") == [2]
    assert ids([f"{day}/shop=7", f"{tmp_path}/log/dt=2026-11-24/shop=7"]) == [1, 3]
    assert [row["shop"] for row in read(f"{day}/shop=7", Columns(id="shop", message="dt"))] == ["7"]
    with pytest.raises(ConfigError, match="partitioned by .*'dt', 'shop'.*not by 'id'"):
        list_input(f"{tmp_path}/log/id=1")
    with pytest.raises(ConfigError, match="no rows there at version 0"):
        list_input(f"{tmp_path}/log/dt=2026-11-25")


def test_a_numbers_partition_may_have_leading_zeros(tmp_path):
    tables.write_delta(tmp_path / "log", tables.rows(0, 2, hour=[7, 8]), partition_by=["hour"])
    assert ids(f"{tmp_path}/log/hour=07") == [0]
    with pytest.raises(ConfigError, match="hour=seven.*is int64"):
        list_input(f"{tmp_path}/log/hour=seven")


@pytest.mark.parametrize("log", ["iceberg"], indirect=True)
def test_rows_of_an_iceberg_table_are_an_input_by_a_value_or_by_the_day_of_a_time(log):
    times = pa.array([0, 86_399_999_999, 86_400_000_000, None], pa.timestamp("us", "UTC"))
    log.write(tables.rows(0, 4, shop=["7", "8", "8", None], at=times))
    assert ids(f"{log.uri}/shop=8") == [1, 2]
    assert ids(f"{log.uri}/shop=__HIVE_DEFAULT_PARTITION__") == [3]
    assert ids(f"{log.uri}/at=1970-01-01") == [0, 1]
    assert ids(f"{log.uri}/shop=8/at=1970-01-02") == [2]
    with pytest.raises(ConfigError, match="at=noon.*give such a value, or the day"):
        list_input(f"{log.uri}/at=noon")


@pytest.mark.parametrize("shop", [None, "Café #1 %/x"])
def test_rows_that_a_deletion_vector_removes_are_not_read(tmp_path, shop):
    partitions = {"partition_by": ["shop"]} if shop else {}
    tables.write_delta(tmp_path / "log", tables.rows(0, 10, shop=[shop or "7"] * 10), **partitions)
    tables.remove_by_vector(tmp_path / "log", [0, 4, 9])
    assert ids(str(tmp_path / "log")) == [1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("log", ["iceberg"], indirect=True)
def test_rows_that_iceberg_removes_by_position_are_not_read_and_equality_deletes_are_refused(log):
    log.write(tables.rows(0, 10))
    tables.remove_from_iceberg("shop.log", [0, 4, 9])
    assert ids(log.uri) == [1, 2, 3, 5, 6, 7, 8]
    tables.remove_from_iceberg("shop.log", [1], equality=True)
    with pytest.raises(ConfigError, match="removed by equality deletes, which pyiceberg does not read; apply them first"):
        list_input(log.uri)


def test_a_column_that_came_later_is_null_in_earlier_files_and_one_that_was_renamed_keeps_its_rows(log):
    first = log.write(tables.rows(0, 2))
    if log.kind == "delta":
        tables.write_delta(log.uri, tables.rows(2, 3, shop=["7"]), schema_mode="merge")
    else:
        with tables.iceberg("shop.log").update_schema() as update:
            from pyiceberg.types import StringType

            update.add_column("shop", StringType())
            update.rename_column("message", "text")
        log.write(tables.rows(2, 3, shop=["7"]).rename_columns(["id", "text", "shop"]))
    message = "message" if log.kind == "delta" else "text"
    rows = {row["id"]: row for row in read(log.uri, Columns(message=message, keep=("shop",)))}
    assert [rows[n]["shop"] for n in range(3)] == [None, None, "7"]
    assert rows[0][message] == "add 0 milk"
    assert [row["message"] for row in read(log.uri, version=first)] == ["add 0 milk", "add 1 milk"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (Columns(message="text"), r"columns=\['text'\]: .* has no such column at version \d+; it has \['id', 'message'\]"),
        (Columns(message="id", id="message"), "its column 'id' is int64, not text"),
    ],
)
def test_columns_that_do_not_fit_are_refused_before_any_row_is_read(log, columns, expected):
    log.write(tables.rows(0, 2))
    with pytest.raises(ConfigError, match=expected):
        plan(log.uri, columns)


def test_a_version_that_is_not_there_is_refused_by_name(log):
    log.write(tables.rows(0, 2))
    with pytest.raises(
        ConfigError, match="input_version=77: .*(does not have this snapshot|name a version that the table still has)"
    ):
        list_input(log.uri, version=77)
    with pytest.raises(ConfigError, match="input_pattern='part-.*lists its own files; use null"):
        list_input(log.uri, pattern="part-*")


def test_files_have_no_versions(tmp_path):
    with pytest.raises(ConfigError, match="input_version=3: .* is not a table"):
        list_input(str(tmp_path), version=3)


def test_a_file_that_is_gone_fails_its_shard_by_name(log, tmp_path):
    log.write(tables.rows(0, 2))
    listing, made = plan(log.uri)
    [path] = [path for path in tmp_path.rglob("*.parquet")]
    path.unlink()
    with pytest.raises(CorruptData, match="is gone since version .* was planned"):
        open_reader(listing.store, ["id"]).read(made.shards[0])


@pytest.mark.parametrize(
    ("features", "reader", "expected"),
    [
        (["fromTheFuture"], 3, "fromTheFuture"),
        ([], 9, "(version 9|cannot be read: .*[Vv]ersion)"),
    ],
)
def test_a_delta_table_of_an_unknown_format_is_refused_by_name(tmp_path, features, reader, expected):
    tables.write_delta(tmp_path / "log", tables.rows(0, 2))
    tables.require_feature(tmp_path / "log", *features, reader=reader)
    with pytest.raises(ConfigError, match=f"input=.*{expected}"):
        list_input(str(tmp_path / "log"))


def test_a_delta_table_whose_columns_have_other_names_in_its_files_is_refused(tmp_path):
    tables.write_delta(tmp_path / "log", tables.rows(0, 2))

    def change(action: dict) -> None:
        if "metaData" in action:
            action["metaData"]["configuration"]["delta.columnMapping.mode"] = "name"

    tables.require_feature(tmp_path / "log", "columnMapping")
    tables.log_entries(tmp_path / "log", 0, change)
    with pytest.raises(ConfigError, match="input=.*(columnMapping|column mapping)"):
        list_input(str(tmp_path / "log"))


@pytest.mark.parametrize("log", ["iceberg"], indirect=True)
def test_an_iceberg_table_of_an_unknown_format_is_refused_by_name(log):
    log.write(tables.rows(0, 2))
    path = Path(tables.iceberg("shop.log").metadata_location.removeprefix("file://"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format-version": 9}))
    with pytest.raises(ConfigError, match="is an Iceberg table that cannot be read: .*9"):
        list_input(log.uri)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("iceberg:prod", "name catalog, namespace and table: iceberg:CATALOG/NAMESPACE.TABLE"),
        ("iceberg:prod/shop.nothing", "the catalog has no such table"),
        ("iceberg:other/shop.log", "no working catalog 'other'.*set PYICEBERG_CATALOG__OTHER__URI on every node"),
        ("iceberg:prod/shop.log/7", "'7' is not a part of the table iceberg:prod/shop.log"),
    ],
)
def test_an_address_that_names_no_table_is_refused_with_the_remedy(log, uri, expected):
    with pytest.raises(ConfigError, match=expected):
        list_input(uri)


@pytest.mark.parametrize("uri", ["{}", "iceberg:prod/shop.log"])
def test_without_the_library_the_error_names_the_install_command(tmp_path, monkeypatch, uri):
    tables.write_delta(tmp_path / "log", tables.rows(0, 2))
    for name in [*sys.modules]:
        if name.split(".")[0] in ("deltalake", "pyiceberg"):
            monkeypatch.delitem(sys.modules, name)
    for name in ("deltalake", "pyiceberg"):
        monkeypatch.setitem(sys.modules, name, None)
    remedy = r"needs the package '(deltalake|pyiceberg)[.\w]*'; .*pip install '\.\[(delta|iceberg)\]'"
    with pytest.raises(ConfigError, match=remedy):
        list_input(uri.format(tmp_path / "log"))


def test_a_catalogs_address_with_a_password_is_not_told(monkeypatch):
    from pyiceberg import catalog
    from pyiceberg.utils.config import Config

    monkeypatch.setenv("PYICEBERG_CATALOG__OTHER__URI", "owner:canary@host/db")
    monkeypatch.setattr(catalog, "_ENV_CONFIG", Config())
    with pytest.raises(ConfigError, match=r"no working catalog 'other' .*\(hidden\)@host") as refused:
        list_input("iceberg:other/shop.log")
    assert "canary" not in str(refused.value)
