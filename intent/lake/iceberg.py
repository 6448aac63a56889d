"""Read one snapshot of an Iceberg table as input, with pyiceberg.

Pyiceberg's own configuration lists the catalogs and how to reach them: `PYICEBERG_CATALOG__PROD__URI` and similar variables, or
`~/.pyiceberg.yaml`, on every node.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import cached_property, reduce

import pyarrow as pa

from intent.errors import ConfigError
from intent.lake.snapshot import ICEBERG, Snapshot, Where, endpoint_of, need, one_line, plain
from intent.storage import Blob, StorageOptions

EXTRA = "iceberg"
COMPACT = "apply them first, as Spark's rewrite_data_files does with 'delete-file-threshold' => '1'"


class IcebergSnapshot(Snapshot):
    """A snapshot of an Iceberg table."""

    @classmethod
    def open(cls, uri: str, wheres: Sequence[Where], version: int | None, options: StorageOptions) -> "IcebergSnapshot":
        table = load_table(uri, options, "input")
        if table is None:
            raise ConfigError("input", uri, "the catalog has no such table")
        current = table.metadata.current_snapshot_id
        if version is None and current is None:
            raise ConfigError("input", uri, "the table has no snapshot yet; nothing was written to it")
        if version is not None and table.snapshot_by_id(version) is None:
            snapshot_ids = [snapshot.snapshot_id for snapshot in table.metadata.snapshots][-3:]
            raise ConfigError(
                "input_version", version, f"{uri} does not have this snapshot, or no longer; the last are {snapshot_ids}"
            )
        return cls(uri, version or current, tuple(tuple(where.items()) for where in wheres), options)

    def files(self) -> list[Blob]:
        for key, task in self._tasks.items():
            if task.file.file_format.value not in ("PARQUET", "ORC"):
                raise ConfigError(
                    "input", self.uri, f"{key} is {task.file.file_format.value}, which is not supported; rewrite it"
                )
        etag = self.etag(str(self._table.metadata.table_uuid))
        return [Blob(key, self._tasks[key].file.file_size_in_bytes, etag) for key in sorted(self._tasks)]

    def schema(self) -> pa.Schema:
        return plain(self._table.schema().as_arrow())

    def rows(self, blob: Blob) -> int:
        from pyiceberg.expressions import AlwaysTrue

        task = self._tasks[blob.key]
        if not task.delete_files and task.residual == AlwaysTrue():
            return task.file.record_count
        return sum(len(batch) for batch in self.batches(blob, self.schema().names[:1]))

    def batches(self, blob: Blob, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        from pyiceberg.io.pyarrow import ArrowScan

        scan = self._scan(tuple(columns))
        reader = ArrowScan(self._table.metadata, self._table.io, scan.projection(), scan.row_filter)
        for batch in reader.to_record_batches([self._tasks[blob.key]]):
            yield batch.select(list(columns))

    @cached_property
    def _table(self):
        """Return the table with the columns and their names of this snapshot."""
        table = load_table(self.uri, self.options, "input")
        if table is None or (snapshot := table.snapshot_by_id(self.version)) is None:
            raise ConfigError(
                "input", self.uri, f"no longer has the snapshot {self.version}; start a new run with a new output"
            )
        if snapshot.schema_id is not None:
            table.metadata = table.metadata.model_copy(update={"current_schema_id": snapshot.schema_id})
        return table

    def _scan(self, columns: tuple[str, ...] = ("*",)):
        return self._table.scan(row_filter=self._filter, selected_fields=columns, snapshot_id=self.version)

    @cached_property
    def _tasks(self) -> dict:
        """Return the library's scan tasks by file key. Keys are relative to the table's folder, or absolute outside it."""
        try:
            tasks = list(self._scan().plan_files())
        except ValueError as error:
            if "equality deletes" not in str(error):
                raise ConfigError("input", self.uri, f"cannot be planned: {one_line(error)}") from error
            remedy = f"has rows removed by equality deletes, which pyiceberg does not read; {COMPACT}"
            raise ConfigError("input", self.uri, remedy) from error
        folder = self._table.location().rstrip("/") + "/"
        return {task.file.file_path.removeprefix(folder): task for task in tasks}

    @cached_property
    def _filter(self):
        from pyiceberg.expressions import AlwaysTrue, And, Or

        schema = self._table.schema()
        each = [reduce(And, (self._equal(schema, *pair) for pair in where), AlwaysTrue()) for where in self.wheres]
        return reduce(Or, each) if each else AlwaysTrue()

    def _equal(self, schema, name: str, text: str | None):
        """Return the filter of the rows with this value or, in a timestamp column, of this day in UTC."""
        from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, IsNull, LessThan, literal
        from pyiceberg.types import TimestampType, TimestamptzType

        if name not in schema.column_names:
            raise ConfigError("input", f"{self.uri}/{name}=", f"the table has the columns {schema.column_names}")
        if text is None:
            return IsNull(name)
        kind = schema.find_type(name)
        try:
            if not isinstance(kind, TimestampType | TimestamptzType):
                literal(text).to(kind)
                return EqualTo(name, text)
            day, zone = date.fromisoformat(text), "+00:00" if isinstance(kind, TimestamptzType) else ""
            first, last = (f"{at.isoformat()}T00:00:00{zone}" for at in (day, day + timedelta(days=1)))
            return And(GreaterThanOrEqual(name, first), LessThan(name, last))
        except (ValueError, TypeError):
            remedy = f"the table's column {name!r} is {kind}; give such a value, or the day of a time as YYYY-MM-DD"
            raise ConfigError("input", f"{self.uri}/{name}={text}", remedy) from None


def load_table(uri: str, options: StorageOptions, field: str):
    """Load the table, or return None if the catalog lacks it. Raises ConfigError if it cannot be read."""
    catalog, identifier = open_catalog(uri, options, field)
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        return catalog.load_table(identifier)
    except (NoSuchTableError, NoSuchNamespaceError):
        return None
    except Exception as error:
        raise ConfigError(field, uri, f"is an Iceberg table that cannot be read: {one_line(error)}") from error


def open_catalog(uri: str, options: StorageOptions, field: str):
    """Open the catalog. Returns (catalog, the table's name in it). Raises ConfigError if pyiceberg is not configured for it."""
    need("pyiceberg.catalog", EXTRA, field, uri)
    from pyiceberg.catalog import load_catalog

    name, _, identifier = uri.removeprefix(ICEBERG).partition("/")
    properties = {"s3.endpoint": endpoint_of(options), "s3.region": options.region}
    try:
        return load_catalog(name, **{key: value for key, value in properties.items() if value}), identifier
    except Exception as error:
        variable = f"PYICEBERG_CATALOG__{name.upper()}__URI"
        remedy = f"pyiceberg has no working catalog {name!r} ({one_line(error)}); set {variable} on every node"
        raise ConfigError(field, uri, remedy) from error
