"""The listing of an input: objects that it reads, leaves out or refuses, the same on disk and on S3."""

import pyarrow as pa
import pytest
import runs

from intent.errors import ConfigError
from intent.run.columns import Columns
from intent.run.listing import list_input
from intent.run.shard import plan_shards
from intent.storage import open_store

LOG = pa.table({"id": [1, 2], "message": ["milk", "eggs"]})


def put(root: str, *keys: str) -> None:
    for key in keys:
        runs.put_table(open_store(root), key, LOG)


def plan(root: str, pattern: str | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """(why, or "" where it is read, by key; what is left out, and why, by key)."""
    made = plan_shards(list_input(root, pattern=pattern), Columns(), 10)
    return {shard.blob.key: shard.reason for shard in made.shards}, dict(made.left_out)


def test_data_is_recognized_by_content_if_its_name_does_not_say(root):
    names = ["a.parquet", "b.parq", "c.PARQUET", "d.snappy.pq", "000000_0", "dt=1/20261123_07_x", "part-0.c000", "_dt=2/e"]
    put(root, *names)
    store = open_store(root)
    for hidden in ("_SUCCESS", "_metadata", "dt=1/_temporary/0/x.parquet", "_started_1"):
        store.put(hidden, b"x")
    others = {"notes.txt": b"bring milk", "rows.csv": b"id,message\n1,milk\n" * 9_000, "folder_$folder$": b"", "x": b"PAR0"}
    for key, data in others.items():
        store.put(key, data)
    read, left_out = plan(root)
    assert read == dict.fromkeys(names, "")
    assert [*left_out] == sorted(others) and left_out["folder_$folder$"] == "is empty"
    assert all(left_out[key].startswith("not a Parquet file") for key in ("notes.txt", "rows.csv", "x"))


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_a_broken_link_among_the_data_is_refused(root, tmp_path):
    put(root, "a.parquet")
    (tmp_path / "d.parquet").symlink_to("gone.parquet")
    with pytest.raises(ConfigError, match="d.parquet': is a broken link"):
        list_input(root)


def test_what_is_parquet_and_broken_is_a_fault_and_not_left_out(root):
    put(root, "a.parquet", "b")
    store = open_store(root)
    whole = store.read("b")
    for key, data in {"b": whole[:-10], "c.parquet": b"text", "d.parquet": b"", "e": b"text" + whole[4:]}.items():
        store.put(key, data)
    store.put("large", b"PAR1" + b"x" * 100_000)
    read, left_out = plan(root)
    assert not left_out and [key for key, why in read.items() if why] == ["b", "c.parquet", "d.parquet", "large"]


@pytest.mark.parametrize("pattern", ["part-*", "dt=*/part-*", "*0?"])
def test_a_pattern_selects_the_data(root, pattern):
    put(root, "dt=1/part-00", "dt=1/other.parquet")
    open_store(root).put("dt=1/part-01", b"text")
    read, left_out = plan(root, pattern)
    assert read["dt=1/part-00"] == "" and read["dt=1/part-01"].startswith("not a Parquet file")
    assert left_out == {"dt=1/other.parquet": "does not match input_pattern"}


def test_an_input_without_data_is_refused_with_its_objects(root):
    with pytest.raises(ConfigError, match="input=.*: holds no object; name the folder or prefix"):
        list_input(root)
    open_store(root).put("rows.csv", b"id,message")
    with pytest.raises(ConfigError, match="input=.*: holds no Parquet, but 'rows.csv'; name the folder"):
        plan(root)
    with pytest.raises(ConfigError, match=r"input_pattern='\*.pq': matches no object of .*, which has 'rows.csv'"):
        list_input(root, pattern="*.pq")


@pytest.mark.parametrize("name", ["log.parquet", "000000_0", "week#2?.PARQUET"])
def test_one_object_is_an_input_whatever_its_name(root, name):
    put(f"{root}/in", name, "other")
    assert [blob.key for blob in list_input(f"{root}/in/{name}").blobs] == [name]


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_an_object_beside_the_prefix_of_its_name_is_not_left_out(root):
    put(root, "log/a", "log")
    with pytest.raises(ConfigError, match="is an object and a prefix; name the prefix as .*/log/"):
        list_input(f"{root}/log")
    assert [blob.key for blob in list_input(f"{root}/log/").blobs] == ["a"]
    # Some tools mark a folder like this.
    open_store(root).put("log", b"")
    assert [blob.key for blob in list_input(f"{root}/log").blobs] == ["a"]


def test_a_folder_that_is_named_like_a_file_is_an_input(root):
    # Spark writes a table like this.
    put(f"{root}/log.parquet", "part-0.parquet")
    assert plan(f"{root}/log.parquet")[0] == {"part-0.parquet": ""}


def test_several_folders_are_one_input(root):
    put(f"{root}/2026/11/22/23", "a", "b")
    put(f"{root}/2026/11/23", "00", "01/c", "02/d")
    uris = [f"{root}/2026/11/{hour}" for hour in ("22/22", "22/23", "23/00", "23/01")]
    listing = list_input(uris)
    assert [blob.key for blob in listing.blobs] == ["22/23/a", "22/23/b", "23/00", "23/01/c"]
    assert listing.store.uri == open_store(f"{root}/2026/11").uri


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/00000-0a1b.metadata.json", "Iceberg"),
    ],
)
def test_a_table_whose_files_hold_removed_rows_is_refused_also_by_a_partition(root, mark, kind):
    folder = "data/dt=2026-11-23" if kind == "Iceberg" else "dt=2026-11-23"
    put(f"{root}/table/{folder}", "part-0.parquet")
    open_store(f"{root}/table").put(mark, b"{}")
    inputs = [f"{root}/table", f"{root}/table/{folder}", f"{root}/table/{folder}/part-0.parquet"]
    for uri in inputs if kind == "Hudi" else [*inputs, root]:
        with pytest.raises(ConfigError, match=f"input=.*/table is a {kind} table, whose files may hold rows that were deleted"):
            list_input(uri)


def test_a_delta_table_below_the_input_or_one_of_its_files_is_not_read_as_plain_parquet(root):
    put(f"{root}/in/table/dt=2026-11-23", "part-0.parquet")
    open_store(f"{root}/in/table").put("_delta_log/00000000000000000000.json", b"{}")
    for uri in (f"{root}/in", f"{root}/in/table/dt=2026-11-23/part-0.parquet"):
        with pytest.raises(
            ConfigError, match="/in/table is a Delta table, whose files may hold rows that were deleted; name the table itself"
        ):
            list_input(uri)
    for uri in (f"{root}/in/table", f"{root}/in/table/dt=2026-11-23"):
        with pytest.raises(ConfigError, match="/in/table': is a Delta table that cannot be read"):
            list_input(uri)


def test_a_folder_of_metadata_makes_no_table(root):
    put(root, "metadata/a.parquet", "data/b.parquet")
    assert len(list_input(root).blobs) == 2
