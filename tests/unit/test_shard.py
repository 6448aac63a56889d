"""Every row of every readable object is in exactly one shard of about the requested size."""

import base64
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from intent.errors import ConfigError, CorruptData
from intent.run import frequent
from intent.run.columns import Columns
from intent.run.listing import Listing, list_input
from intent.run.rows import ShardReader, distinct
from intent.run.shard import Footer, plan_shards, shard_rows
from intent.run.worker import Worker
from intent.storage import Blob, open_store

TYPES = {"id": pa.int64(), "message": pa.string()}


def plan(footer: Footer, rows_per_shard: int, most: int | None = None):
    return plan_shards(Listing(None, [footer.blob]), Columns(), rows_per_shard, lambda *_: [footer], most).shards


def cut(groups: list[int], rows_per_shard: int):
    return plan(Footer(Blob("log", 1, "e"), tuple(groups), TYPES), rows_per_shard)


def planned(uri: str, rows_per_shard: int = 10, columns: Columns = Columns()):
    return plan_shards(list_input(uri), columns, rows_per_shard)


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
    footer = Footer(Blob("log", 1, "e"), (1_000,) * 10, TYPES)
    sizes = [len(plan(footer, 100, most)) for most in (None, 1_000, 20)]
    assert sizes == [100, 100, 20]


def test_an_id_changes_with_the_objects_version():
    assert len({plan(Footer(blob, (9,), TYPES), 9)[0].id for blob in VERSIONS}) == 3


VERSIONS = [Blob("a", 1, "1"), Blob("a", 1, "2"), Blob("b", 1, "1")]


def test_reading_the_shards_gives_back_the_table(tmp_path):
    table = pa.table({"id": list(range(1000)), "message": [f"m{n}" for n in range(1000)]})
    (tmp_path / "sub").mkdir()
    pq.write_table(table, tmp_path / "sub" / "a.parquet", row_group_size=170)
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=30)
    for name in ("_temporary.parquet", ".hidden.parquet", "note.txt"):
        (tmp_path / name).write_text("not data")
    listing = list_input(str(tmp_path))
    assert [blob.key for blob in listing.blobs] == ["b.parquet", "note.txt", "sub/a.parquet"]
    reader = ShardReader(listing.store, ["message", "id"])
    for rows_per_shard in (7, 64, 5000):
        plan = plan_shards(listing, Columns(), rows_per_shard)
        assert [*plan.left_out] == ["note.txt"]
        read = pa.concat_tables([reader.read(shard) for shard in plan.shards])
        assert read.select(["id", "message"]).combine_chunks() == pa.concat_tables([table, table]).combine_chunks()


def test_what_may_not_be_read_is_named_and_not_planned_as_broken(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", id=[1], message=["milk"])
    listing = list_input(str(tmp_path))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listing.store, "read_tail", refuse)
    with pytest.raises(ConfigError, match=r"input=.*a\.parquet.*may not be read"):
        plan_shards(listing, Columns(), 10)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), pa.ArrowMemoryError("out of memory")])
def test_trouble_of_the_machine_is_no_fault_of_the_object(tmp_path, monkeypatch, error):
    write(tmp_path / "a.parquet", id=[1], message=["milk"])
    [shard] = planned(str(tmp_path)).shards
    reader, read = ShardReader(open_store(str(tmp_path)), ["id"]), pq.ParquetFile.read_row_groups

    def fail(*_, **__):
        monkeypatch.setattr(pq.ParquetFile, "read_row_groups", read)
        raise error

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", fail)
    with pytest.raises(type(error), match="memory|Errno"):
        frequent.count(reader, "id", [shard], 10, 10)
    assert len(reader.read(shard)) == 1


def test_a_footer_of_more_than_the_first_read_is_read_whole(tmp_path):
    table = pa.table({"id": [1], "message": ["milk"]}).replace_schema_metadata({"long": "x" * 200_000})
    pq.write_table(table, tmp_path / "a.parquet")
    [shard] = planned(str(tmp_path)).shards
    assert shard.rows == 1 and not shard.reason


def test_the_footer_of_many_row_groups_is_read_once_for_all_shards(tmp_path, monkeypatch):
    messages = [f"message {n}" for n in range(3_000)]
    pq.write_table(pa.table({"id": range(3_000), "message": messages}), tmp_path / "a.parquet", row_group_size=2)
    shards = planned(str(tmp_path), 100).shards
    parsed, opened = [], []
    count(monkeypatch, pq, "read_metadata", parsed)
    count(monkeypatch, pq.ParquetFile, "read_row_groups", opened)
    reader = ShardReader(open_store(str(tmp_path)), ["id", "message"])
    read = pa.concat_tables([reader.read(shard) for shard in shards])
    assert read["message"].to_pylist() == messages and len(shards) == 30
    assert (len(parsed), len(opened)) == (1, 30)


def count(monkeypatch, owner, name: str, calls: list) -> None:
    method = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls.append(name) or method(*args, **kwargs))


def write(path, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


KEPT = Columns(keep=("shop",))


def read_all(tmp_path, columns: Columns = Columns()) -> pa.Table:
    """Return every row. Uses one reader per shard, as actors on several nodes do."""
    plan = planned(str(tmp_path), 10, columns)
    store = open_store(str(tmp_path))
    return pa.concat_tables([ShardReader(store, columns.read, plan.types).read(shard) for shard in plan.shards])


ONE_TYPE = [
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.uint8(), pa.int32(), pa.int32()),
    (pa.string(), pa.string_view(), pa.string()),
    (pa.large_string(), pa.string(), pa.string()),
    (pa.dictionary(pa.int32(), pa.string()), pa.string(), pa.string()),
    (pa.string(), pa.binary(), pa.binary()),
    (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    (pa.null(), pa.int64(), pa.int64()),
    (pa.float32(), pa.float64(), pa.float64()),
]


@pytest.mark.parametrize(("first", "second", "both"), ONE_TYPE)
def test_ids_and_kept_columns_have_one_type_whatever_each_object_has(tmp_path, first, second, both):
    for name, kind in (("a", first), ("b", second)):
        values = pa.nulls(2, kind) if kind == pa.null() else _values(kind)
        write(tmp_path / f"{name}.parquet", id=values, shop=values, message=["milk", "eggs"])
    rows = read_all(tmp_path, KEPT)
    assert rows.schema.field("id").type == rows.schema.field("shop").type == both
    assert rows["id"][2:] == pa.chunked_array([_values(second)]).cast(both)


def _values(kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(["1", "2"]).dictionary_encode()
    return pa.array(["1", "2"]).cast(kind) if "str" in str(kind) or "bin" in str(kind) else pa.array([1, 2]).cast(kind)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.int64(), pa.string()),
        (pa.int64(), pa.float64()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.list_(pa.int64()), pa.list_(pa.string())),
    ],
)
def test_types_that_do_not_go_together_are_refused_with_the_names_of_both_objects(tmp_path, first, second):
    for name, kind in (("a", first), ("b", second)):
        write(tmp_path / f"{name}.parquet", id=[1], shop=pa.nulls(1, kind), message=["milk"])
    with pytest.raises(ConfigError) as refused:
        planned(str(tmp_path), columns=KEPT)
    named = f"keep_columns='shop': is {first} in a.parquet and {second} in b.parquet; write all objects with one type"
    assert str(refused.value).replace("element: ", "item: ").startswith(named.replace("element: ", "item: "))


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.binary_view(), pa.large_string(), pa.uuid(), pa.decimal128(20), pa.float16()]
)
def test_rows_of_every_type_can_be_rejected(tmp_path, kind):
    values = pa.array([b"0" * 16, b"1" * 16], pa.binary(16)).cast(kind) if kind == pa.uuid() else _values(kind)
    write(tmp_path / "a.parquet", id=values, shop=values, message=["milk", None])
    rows = read_all(tmp_path, KEPT)
    part = Worker(runs.RuleClassifier(), runs.CART, KEPT, "run").label(planned(str(tmp_path)).shards[0], rows)
    assert (part.receipt.labelled, part.receipt.rejected) == (1, 1)


@pytest.mark.parametrize("column", [pa.nulls(2), pa.array([float("nan"), None]), pa.array([None, None], pa.float32())])
def test_a_message_column_without_any_message_rejects_its_rows(tmp_path, column):
    columns = Columns(keep=("message",))
    write(tmp_path / "a.parquet", id=[1, 2], message=column)
    write(tmp_path / "b.parquet", id=[3], message=["milk"])
    plan = planned(str(tmp_path), columns=columns)
    reader = ShardReader(open_store(str(tmp_path)), columns.read, plan.types)
    worker = Worker(runs.RuleClassifier(), runs.CART, columns, "run")
    nothing, milk = (worker.label(shard, reader.read(shard)) for shard in plan.shards)
    assert (nothing.receipt.rejected, milk.receipt.labelled) == (2, 1)
    assert pq.read_table(pa.BufferReader(nothing.rejected))["reason"].to_pylist() == ["null message"] * 2
    tables = [pq.read_table(pa.BufferReader(part.data)) for part in (nothing, milk)]
    assert pa.concat_tables(tables)["message"].to_pylist() == ["milk"]


def test_numbers_are_no_messages(tmp_path):
    write(tmp_path / "a.parquet", id=[1], message=[2])
    with pytest.raises(ConfigError, match="columns=.*a.parquet its column 'message' is int64, not text"):
        planned(str(tmp_path))
    write(tmp_path / "b.parquet", id=[1], message=["milk"])
    assert [shard.reason for shard in planned(str(tmp_path)).shards] == ["its column 'message' is int64, not text", ""]
    write(tmp_path / "a.parquet", id=[1, 2], message=[0.5, None])
    shard = planned(str(tmp_path)).shards[0]
    with pytest.raises(CorruptData, match="holds numbers"):
        distinct(ShardReader(open_store(str(tmp_path)), ["message"]).read(shard)["message"])


def test_an_object_without_rows_needs_no_columns(tmp_path):
    write(tmp_path / "a.parquet", other=pa.array([], pa.int64()))
    write(tmp_path / "b.parquet", id=pa.array([], pa.string()), message=pa.array([], pa.int64()))
    write(tmp_path / "c.parquet", id=[1], message=["milk"])
    plan = planned(str(tmp_path))
    assert [(shard.blob.key, shard.reason) for shard in plan.shards] == [("c.parquet", "")]
    assert plan.types.field("id").type == pa.int64()


def test_a_column_that_nobody_reads_may_have_any_type(tmp_path):
    """For example, other writers have 128-bit integers, which Arrow does not have."""
    path = tmp_path / "a.parquet"
    write(path, id=["1"], message=["milk"], huge=[1])
    written = pq.read_metadata(path).metadata[b"ARROW:schema"]
    before, _, after = base64.b64decode(written).rpartition((64).to_bytes(4, "little"))
    wider = base64.b64encode(before + (128).to_bytes(4, "little") + after)
    path.write_bytes(path.read_bytes().replace(written, wider))
    with pytest.raises(pa.ArrowNotImplementedError, match="Integers with more than 64 bits"):
        pq.read_table(path, columns=["id"])
    assert read_all(tmp_path).to_pylist() == [{"id": "1", "message": "milk"}]


def test_a_column_that_is_there_twice_is_refused_by_name(tmp_path):
    pq.write_table(pa.table([[1], [2], ["milk"]], ["id", "id", "message"]), tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", id=[1], message=["milk"])
    assert [shard.reason for shard in planned(str(tmp_path)).shards] == ["has several columns ['id']", ""]


def test_columns_that_only_folders_name_can_be_kept(tmp_path):
    columns = Columns(keep=("dt", "shop", "hour"))
    for shop, name in (("Caf%C3%A9 %231", "Café #1"), ("__HIVE_DEFAULT_PARTITION__", None)):
        folder = tmp_path / "dt=2026-11-23" / f"shop={shop}" / "hour=07"
        write(folder / "part-0", id=[name], message=["milk"])
    for root in (tmp_path, tmp_path / "dt=2026-11-23"):
        rows = {row["id"]: row for row in read_all(root, columns).to_pylist()}
        for name in ("Café #1", None):
            assert rows[name] == {"id": name, "message": "milk", "dt": "2026-11-23", "shop": name, "hour": "07"}
    with pytest.raises(ConfigError, match="has no column \\['market'\\]"):
        planned(str(tmp_path), columns=Columns(keep=("market",)))


@pytest.mark.parametrize("columns", [Columns(id="shop"), Columns(message="shop"), Columns("shop", "dt", ("id",))])
def test_columns_that_only_folders_name_can_be_the_id_or_the_message(tmp_path, columns):
    for shop in ("Caf%C3%A9", "__HIVE_DEFAULT_PARTITION__"):
        write(tmp_path / "dt=2026-11-23" / f"shop={shop}" / "part-0", id=[7, 8], message=["milk", "eggs"])
    row = {"id": 7, "message": "milk", "shop": "Café", "dt": "2026-11-23"}
    rows = read_all(tmp_path, columns).to_pylist()
    assert {name: row[name] for name in columns.read} in rows and len(rows) == 4
    assert [each["shop"] for each in rows].count(None) == 2


def test_a_column_of_the_file_goes_before_its_folders(tmp_path):
    write(tmp_path / "shop=1" / "a.parquet", id=[1], message=["milk"], shop=["one"])
    assert read_all(tmp_path, KEPT)["shop"].to_pylist() == ["one"]


@pytest.mark.parametrize("plain_footer", [False, True])
def test_an_encrypted_object_is_refused_by_that_name(tmp_path, plain_footer):
    encrypt(tmp_path / "a.parquet", plain_footer)
    if plain_footer:
        [shard] = planned(str(tmp_path)).shards
        with pytest.raises(CorruptData, match="a.parquet: is encrypted, which is not read; decrypt it first"):
            ShardReader(open_store(str(tmp_path)), ["id", "message"]).read(shard)
        assert len(ShardReader(open_store(str(tmp_path)), ["id"]).read(shard)) == 2
    else:
        with pytest.raises(ConfigError, match="input='a.parquet': is encrypted"):
            planned(str(tmp_path))
    write(tmp_path / "b.parquet", id=[1], message=["milk"])
    assert [shard.reason.split(",")[0] for shard in planned(str(tmp_path)).shards] == [
        "" if plain_footer else "is encrypted",
        "",
    ]


def encrypt(path, plain_footer: bool) -> None:
    from pyarrow.parquet import encryption

    class Client(encryption.KmsClient):
        def wrap_key(self, key, name):
            return base64.b64encode(key)

        def unwrap_key(self, key, name):
            return base64.b64decode(key)

    keys = encryption.EncryptionConfiguration("footer", column_keys={"column": ["message"]}, plaintext_footer=plain_footer)
    factory = encryption.CryptoFactory(lambda _: Client())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), keys)
    table = pa.table({"id": [1, 2], "message": ["milk", "eggs"]})
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
