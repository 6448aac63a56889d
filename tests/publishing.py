"""A shop whose finished runs are published: to a Delta table, an Iceberg table or a folder of partitions."""

import io
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
import tables
from deltalake import DeltaTable

from intent.lake import open_target
from intent.lake.target import RUN
from intent.run.columns import Columns, partitions
from intent.run.driver import identify
from intent.run.ledger import Ledger
from intent.run.progress import Tally
from intent.run.publish import Publication
from intent.run.rows import ShardReader
from intent.run.shard import plan_shards
from intent.run.worker import Worker
from intent.storage import StorageOptions, open_store

COLUMNS = Columns(keep=("dt", "shop"))
NAMES = ["id", "action", "product", "quantity", "confidence", "status", "variant", "dt", "shop"]
MON, TUE = "2026-11-23", "2026-11-24"
MESSAGES = ("two milks", "refuse", "eggs")


class Shop:
    """Logs and finished runs below `root`, and the target of their labels."""

    def __init__(self, root, kind: str, partition_by=("dt",)):
        self.root, self.kind, self.partition_by = str(root), kind, partition_by
        self.to = {"delta": f"delta:{root}/table", "iceberg": "iceberg:prod/shop.labels", "folder": f"{root}/table"}[kind]

    def finish(self, day=MON, identity=runs.IDENTITY, shops=("7", "8", None), messages=MESSAGES, variant="rule"):
        """Label the log of `day` by the run of `identity`."""
        table = pa.table(
            {
                "id": [f"{day}-{n}" for n in range(30)],
                "message": [messages[n % len(messages)] for n in range(30)],
                "shop": pa.array([shops[n // len(messages) % len(shops)] for n in range(30)], pa.string()),
            }
        )
        log = open_store(f"{self.root}/in/dt={day}")
        if not log.stat("log.parquet"):
            runs.put_table(log, "log.parquet", table)
        listing, run = identify(f"{self.root}/in/dt={day}", StorageOptions(), identity, COLUMNS)
        output = self.output(day, identity)
        ledger = Ledger(output, run)
        plan = ledger.plan(lambda: plan_shards(listing, COLUMNS, 10))
        worker = Worker(runs.RuleClassifier(variant), runs.CART, COLUMNS, run.fingerprint)
        reader, tally = ShardReader(listing.store, COLUMNS.read, plan.types), Tally()
        parts = {shard.id: ledger.publish(worker.label(shard, reader.read(shard))) for shard in plan.shards}
        for part in parts.values():
            tally.add(part)
        ledger.commit(plan, parts, tally.summary(0, output.uri).as_dict())
        return output

    def output(self, day: str = MON, identity=runs.IDENTITY):
        return open_store(f"{self.root}/out-{identity.prompt}/dt={day}")

    def publication(self, day: str = MON, **kwargs) -> Publication:
        target = open_target(self.to, self.partition_by, StorageOptions())
        return replace(Publication(target, runs.CART, COLUMNS, f"{self.root}/in/dt={day}", day), **kwargs)

    def rows(self) -> pa.Table:
        """Return the rows that readers see."""
        if self.kind == "delta":
            return DeltaTable(f"{self.root}/table").to_pyarrow_table().select(NAMES)
        if self.kind == "iceberg":
            return tables.iceberg("shop.labels").scan().to_arrow().select(NAMES)
        parts = []
        store = open_store(f"{self.root}/table")
        for blob in store.list():
            if not blob.key.startswith("_"):
                rows = pq.read_table(io.BytesIO(store.read(blob.key)))
                for name, value in partitions(blob.key).items():
                    rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(rows)))
                parts.append(rows.select(NAMES).replace_schema_metadata(None))
        return pa.concat_tables(parts)

    def check(self, *outputs) -> None:
        """Check that readers have every labelled row of these runs exactly once, and nothing else."""
        expected = pa.concat_tables([runs.read(output, "labelled/").select(NAMES) for output in outputs]).to_pylist()
        rows = self.rows().to_pylist()
        assert Counter(map(repr, rows)) == Counter(map(repr, expected))

    def commits(self) -> int:
        if self.kind == "delta":
            return len([entry for entry in DeltaTable(f"{self.root}/table").history() if entry.get(RUN)])
        return len([s for s in tables.iceberg("shop.labels").metadata.snapshots if s.summary[RUN]])


only_tables = pytest.mark.parametrize("shop", ["delta", "iceberg"], indirect=True)
only_iceberg = pytest.mark.parametrize("shop", ["iceberg"], indirect=True)
only_folder = pytest.mark.parametrize("shop", ["folder"], indirect=True)
OTHER = replace(runs.IDENTITY, prompt="other")


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
    """Check the target before any work, as `classify_log` does when it knows the columns."""
    types = types or pa.schema([("id", pa.string()), ("dt", pa.string()), ("shop", pa.string())])
    shop.publication().check(runs.IDENTITY, types)
