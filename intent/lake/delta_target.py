"""Write a run's labels as one commit of a Delta table.

The commit carries two of Delta's application transactions, one for the run and one for its input. The log keeps them. If two
writers race with the same transaction, only one commits, whatever else is appended meanwhile.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from intent.artifacts import fingerprint
from intent.errors import ConfigError, IntentError
from intent.lake.delta import EXTRA, PURGE, open_table, storage_options
from intent.lake.snapshot import need, one_line, plain
from intent.lake.target import RUN, SOURCE, Labels, aligned, other_run, require_fits, require_partitions
from intent.storage import StorageOptions

ATTEMPTS = 20
# Features that a table may require of its writers.
WRITTEN = {
    "appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns", "timestampNtz", "deletionVectors",
    "columnMapping", "v2Checkpoint", "vacuumProtocolCheck",
}  # fmt: skip


@dataclass(frozen=True)
class DeltaTarget:
    """A Delta table. `partition_by`: the columns that partition a new table; those of an existing one must be the same."""

    uri: str
    partition_by: tuple[str, ...] = ()
    options: StorageOptions = StorageOptions()

    def check(self, fields: pa.Schema | None, source: str, run: str) -> None:
        """Raise ConfigError or RunMismatch, as `Target.check`."""
        deltalake = need("deltalake", EXTRA, "publish", self.uri)
        table = open_table(self.uri, None, self.options, "publish")
        if fields is not None:
            try:
                deltalake.Schema.from_arrow(fields)
            except Exception as error:
                raise ConfigError("publish", self.uri, f"Delta has no such column: {one_line(error)}") from error
        has = table.metadata().partition_columns if table else self.partition_by
        require_partitions(self.uri, self.partition_by, has, fields)
        if table is None:
            return
        _require_writable(table, self.uri)
        if fields is not None:
            require_fits(self.uri, _schema(table), fields)
        self._published(table, source, run)

    def stage(self, labels: Labels) -> str:
        """Return "": Delta has no branches."""
        return ""

    def commit(self, labels: Labels) -> str:
        """Append the labels in one commit, unless they are published. Returns the table's version."""
        from deltalake import CommitProperties, Transaction, write_deltalake
        from deltalake.exceptions import CommitFailedError

        refused = None
        for _ in range(ATTEMPTS):
            table = self._open(labels.fields)
            if self._published(table, labels.source, labels.run):
                return self._version(labels.run)
            require_fits(self.uri, _schema(table), labels.fields)
            once = [Transaction(name, 1) for name in (_app(RUN, labels.run), _app(SOURCE, labels.source))]
            properties = CommitProperties(custom_metadata=labels.properties, app_transactions=once)
            rows = _Rows(labels, _schema(table))
            try:
                write_deltalake(table, rows.reader(), mode="append", commit_properties=properties)
            except CommitFailedError as error:
                # Another driver committed labels of the same input, or the rows break a rule of the table.
                refused = error
                continue
            except Exception as error:
                raise (rows.error or IntentError(f"{self.uri}: the labels cannot be written: {one_line(error)}")) from error
        raise IntentError(
            f"{self.uri}: the table refused the commit {ATTEMPTS} times ({one_line(refused)}); fix the cause and run again"
        )

    def _open(self, fields: pa.Schema):
        """Open the table, and create it if needed. Several drivers may do so at once."""
        from deltalake import DeltaTable, Schema

        if (table := open_table(self.uri, None, self.options, "publish")) is None:
            options = storage_options(self.uri, self.options)
            schema, partitions = Schema.from_arrow(fields), list(self.partition_by)
            try:
                DeltaTable.create(self.uri, schema, mode="ignore", partition_by=partitions, storage_options=options)
            except Exception as error:
                if open_table(self.uri, None, self.options, "publish") is None:
                    raise ConfigError("publish", self.uri, f"the table cannot be created: {one_line(error)}") from error
            table = open_table(self.uri, None, self.options, "publish")
        return table

    def _published(self, table, source: str, run: str) -> bool:
        """Return whether the run is published. Raises RunMismatch if another run of the same input is."""
        if table.transaction_version(_app(RUN, run)) is not None:
            return True
        if table.transaction_version(_app(SOURCE, source)) is not None:
            theirs = next((entry.get(RUN) for entry in table.history() if entry.get(SOURCE) == source), "no longer named")
            raise other_run(self.uri, source, theirs)
        return False

    def _version(self, run: str) -> str:
        """Return the version of the run's commit, or "" if the log no longer has it."""
        table = open_table(self.uri, None, self.options, "publish")
        return str(next((entry.get("version", "") for entry in table.history() if entry.get(RUN) == run), ""))


class _Rows:
    """The rows for one attempt. `error`: the error of reading them, of which the library reports only the text."""

    def __init__(self, labels: Labels, fields: pa.Schema):
        self.labels, self.fields = labels, fields
        self.error: IntentError | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.fields, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self.labels.batches():
                yield aligned(batch, self.fields)
        except IntentError as error:
            self.error = error
            raise


def _schema(table) -> pa.Schema:
    return _with_nullable(plain(schema := pa.schema(table.schema().to_arrow())), schema)


def _with_nullable(schema: pa.Schema, like: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(like.field(field.name).nullable) for field in schema])


def _app(kind: str, name: str) -> str:
    return f"{kind}:{name if kind == RUN else fingerprint(name)}"


def _require_writable(table, uri: str) -> None:
    if lacking := sorted({*(table.protocol().writer_features or ())} - WRITTEN):
        raise ConfigError("publish", uri, f"needs the writer features {lacking}, which are not supported; {PURGE}")
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise ConfigError("publish", uri, f"its columns have other names in its files (delta.columnMapping.mode); {PURGE}")
