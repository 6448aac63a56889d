"""Every row of every readable object is in exactly one shard, of about the wanted size."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intent.errors import ConfigError
from intent.night import frequent
from intent.night.rows import ShardReader
from intent.night.shard import Footer, input_objects, plan_shards, shard_rows
from intent.storage import Blob, open_store


def cut(groups: list[int], rows_per_shard: int):
    footer = Footer(Blob("log", 1, "e"), tuple(groups), ("id",))
    return plan_shards(None, [footer.blob], ["id"], rows_per_shard, lambda store, blobs: [footer])


@settings(deadline=None)
@given(st.lists(st.integers(0, 500), max_size=12), st.integers(1, 300))
def test_shards_cover_all_rows_once_and_are_not_far_from_the_wanted_size(groups, rows_per_shard):
    shards = cut(groups, rows_per_shard)
    assert [shard.start for shard in shards] == [sum(s.rows for s in shards[:i]) for i in range(len(shards))]
    assert sum(shard.rows for shard in shards) == sum(groups)
    assert all(0 < shard.rows <= max(1, 2.5 * rows_per_shard) for shard in shards)
    assert len({shard.id for shard in shards}) == len(shards)


def test_small_row_groups_are_put_together_and_a_large_one_is_cut():
    assert [(s.start, s.rows) for s in cut([10, 10, 10, 10], 20)] == [(0, 20), (20, 20)]
    assert [(s.start, s.rows, s.run) for s in cut([100], 40)] == [(0, 50, 0), (50, 50, 0)]


def test_a_slow_engine_gets_small_shards_but_a_long_log_not_too_many():
    assert [shard_rows(rate) for rate in (0.1, 8.0, 100.0, 8_000.0, math.inf)] == [256, 256, 3_000, 20_000, 20_000]
    footer = Footer(Blob("log", 1, "e"), (1_000,) * 10, ("id",))
    sizes = [len(plan_shards(None, [footer.blob], ["id"], 100, lambda *_: [footer], most)) for most in (None, 1_000, 20)]
    assert sizes == [100, 100, 20]


def test_an_id_changes_with_the_objects_version():
    ids = {plan_shards(None, [b], ["id"], 9, lambda _, bs: [Footer(bs[0], (9,), ("id",))])[0].id for b in VERSIONS}
    assert len(ids) == 3


VERSIONS = [Blob("a", 1, "1"), Blob("a", 1, "2"), Blob("b", 1, "1")]


def test_reading_the_shards_gives_back_the_table(tmp_path):
    table = pa.table({"id": list(range(1000)), "message": [f"m{n}" for n in range(1000)]})
    (tmp_path / "sub").mkdir()
    pq.write_table(table, tmp_path / "sub" / "a.parquet", row_group_size=170)
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=30)
    for name in ("_temporary.parquet", ".hidden.parquet", "note.txt"):
        (tmp_path / name).write_text("not data")
    store, blobs = input_objects(str(tmp_path))
    assert [blob.key for blob in blobs] == ["b.parquet", "sub/a.parquet"]
    reader = ShardReader(store, ["message", "id"])
    for rows_per_shard in (7, 64, 5000):
        shards = plan_shards(store, blobs, ["id", "message"], rows_per_shard)
        read = pa.concat_tables([reader.read(shard) for shard in shards])
        assert read.select(["id", "message"]).combine_chunks() == pa.concat_tables([table, table]).combine_chunks()


def test_an_input_without_parquet_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"input=.*holds no object that ends in \.parquet"):
        input_objects(str(tmp_path))


def test_a_folder_that_is_named_like_a_file_is_an_input(tmp_path):
    # As Spark writes a table.
    (tmp_path / "log.parquet").mkdir()
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "log.parquet" / "part-0.parquet")
    store, blobs = input_objects(str(tmp_path / "log.parquet"))
    assert [(shard.blob.key, shard.rows) for shard in plan_shards(store, blobs, ["id"], 10)] == [("part-0.parquet", 2)]


def test_what_may_not_be_read_is_named_and_not_planned_as_broken(tmp_path, monkeypatch):
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    store = open_store(str(tmp_path))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store, "read_tail", refuse)
    with pytest.raises(ConfigError, match=r"input=.*a\.parquet.*may not be read"):
        plan_shards(store, list(store.list()), ["id"], 10)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), pa.ArrowMemoryError("out of memory")])
def test_trouble_of_the_machine_is_no_fault_of_the_object(tmp_path, monkeypatch, error):
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    store = open_store(str(tmp_path))
    [shard] = plan_shards(store, list(store.list()), ["id"], 10)
    reader, read = ShardReader(store, ["id"]), pq.ParquetFile.read_row_groups

    def fail(*_, **__):
        monkeypatch.setattr(pq.ParquetFile, "read_row_groups", read)
        raise error

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", fail)
    with pytest.raises(type(error), match="memory|Errno"):
        frequent.count(reader, "id", [shard], 10, 10)
    assert len(reader.read(shard)) == 1


def test_a_footer_of_more_than_the_first_read_is_read_whole(tmp_path):
    table = pa.table({"id": [1]}).replace_schema_metadata({"long": "x" * 200_000})
    pq.write_table(table, tmp_path / "a.parquet")
    store = open_store(str(tmp_path))
    [shard] = plan_shards(store, list(store.list()), ["id"], 10)
    assert shard.rows == 1 and not shard.reason
