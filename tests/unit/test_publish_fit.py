"""Labels that do not fit a table are refused by name before any work."""

from dataclasses import replace

import pyarrow as pa
import pytest
import runs
import tables
from deltalake import DeltaTable
from publishing import MON, TUE, check_before_work, fields_of, make, only_iceberg, only_tables

from intent.errors import ConfigError
from intent.lake import open_target
from intent.lake.target import Labels
from intent.storage import StorageOptions
from intent.task.schema import Choice, Entity


@only_tables
def test_lists_of_items_are_columns_of_a_table_too(shop):
    basket = replace(runs.CART, slots=(Choice("action", ("add", "remove")), Entity("product")), repeat=3)
    fields = shop.publication(schema=basket).fields(
        pa.schema([("id", pa.string()), ("dt", pa.string()), ("shop", pa.string())])
    )
    item = {"action": "add", "product": "Milk", "confidence": 0.5}
    rows = [{"id": f"{n}", "intents": [item] * n or None, "status": "ok"} for n in range(3)]
    target = open_target(shop.to, (), StorageOptions())
    for day in (MON, TUE):
        target.check(fields, day, "run")
        batches = pa.Table.from_pylist([row | {"id": row["id"] + day} for row in rows], fields).to_batches()
        target.commit(Labels(day, f"run of {day}", day, "parts", fields, {}, lambda batches=batches: iter(batches)))
    stored = (
        DeltaTable(f"{shop.root}/table").to_pyarrow_table()
        if shop.kind == "delta"
        else tables.iceberg("shop.labels").scan().to_arrow()
    )
    assert sorted(len(items or []) for items in stored["intents"].to_pylist()) == [0, 0, 1, 1, 2, 2]
    assert item in stored["intents"].to_pylist()[-1] + stored["intents"].to_pylist()[1]
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
