"""Write a run's labels as one snapshot of an Iceberg table, on a branch until the gate accepts them (write-audit-publish).

The data files are written first. One commit adds them, on the condition that the branch's head has not changed, so a writer
that commits has seen every earlier commit. The same commit records the run's fingerprint in a table property.
"""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.artifacts import fingerprint
from intent.errors import ConfigError, IntentError
from intent.lake.iceberg import load_table, open_catalog
from intent.lake.snapshot import one_line, plain
from intent.lake.target import PARTS, RUN, SOURCE, Labels, aligned, other_run, require_fits, require_partitions
from intent.storage import StorageOptions

ATTEMPTS = 20
MAIN = "main"
# Memory holds the rows of one file at a time.
FILE_ROWS = 1 << 20


@dataclass(frozen=True)
class IcebergTarget:
    """An Iceberg table. `partition_by`: the columns that partition a new table; those of an existing one must be the same."""

    uri: str
    partition_by: tuple[str, ...] = ()
    options: StorageOptions = StorageOptions()

    def check(self, fields: pa.Schema | None, source: str, run: str) -> None:
        """Raise ConfigError or RunMismatch, as `Target.check`."""
        table = load_table(self.uri, self.options, "publish")
        require_partitions(self.uri, self.partition_by, _partitions(table, self.uri) if table else self.partition_by, fields)
        if fields is not None:
            self._require_columns(fields)
        if table is None:
            return
        if fields is not None:
            require_fits(self.uri, _schema(table), fields)
        self._published(table, source, run)

    def stage(self, labels: Labels) -> str:
        """Commit the labels to a branch of the table, from which `commit` takes the data files. Returns the branch."""
        branch, files = _branch(labels), None
        for _ in range(ATTEMPTS):
            table = self._open(labels.fields)
            if self._published(table, labels.source, labels.run):
                return ""
            if staged := _snapshot(table, branch, labels.run):
                if _is_of(table, staged, labels):
                    return f"{self.uri}, branch {branch}"
                # The staged folder was deleted and the log labelled again.
                with _one_try():
                    table.manage_snapshots().remove_branch(branch).commit()
                continue
            files = self._write(table, labels) if files is None else files
            if (head := table.current_snapshot()) is None:
                # Before its first snapshot, a table cannot have another branch than `main`.
                with _one_try():
                    table.add_files([])
                continue
            if table.snapshot_by_name(branch) is None:
                # The branch starts at the table's head, so its readers see the table as it will be.
                with _one_try():
                    table.manage_snapshots().create_branch(head.snapshot_id, branch).commit()
                continue
            with _one_try(), table.transaction() as transaction:
                _add(transaction, files, labels, branch)
        raise self._refused()

    def commit(self, labels: Labels) -> str:
        """Add the labels to the main branch in one commit, unless they are published. Returns the snapshot."""
        files = None
        for _ in range(ATTEMPTS):
            table = self._open(labels.fields)
            if version := self._published(table, labels.source, labels.run):
                self._forget_branches(table, labels.source)
                return version
            if files is None:
                staged = _snapshot(table, _branch(labels), labels.run)
                if staged is not None and _is_of(table, staged, labels):
                    files = _files_of(table, staged)
                else:
                    files = self._write(table, labels)
            with _one_try(), table.transaction() as transaction:
                _add(transaction, files, labels, MAIN)
                transaction.set_properties({_property(labels.source): labels.run})
        raise self._refused()

    def _open(self, fields: pa.Schema):
        """Open the table, and create it if needed. Several drivers may do so at once."""
        if (table := load_table(self.uri, self.options, "publish")) is None:
            # If several drivers create it at once, all but one get an error that depends on the catalog.
            try:
                self._make(fields)
            except Exception as error:
                if load_table(self.uri, self.options, "publish") is None:
                    raise ConfigError("publish", self.uri, f"the table cannot be created: {one_line(error)}") from error
            table = load_table(self.uri, self.options, "publish")
        require_fits(self.uri, _schema(table), fields)
        table.catalog = _OneTry(table.catalog)
        return table

    def _make(self, fields: pa.Schema) -> None:
        catalog, identifier = open_catalog(self.uri, self.options, "publish")
        namespace = identifier.rpartition(".")[0]
        try:
            catalog.create_namespace_if_not_exists(namespace)
        except Exception:
            if not catalog.namespace_exists(namespace):
                raise
        with catalog.create_table_transaction(identifier, fields) as transaction, transaction.update_spec() as spec:
            for name in self.partition_by:
                spec.add_identity(name)

    def _require_columns(self, fields: pa.Schema) -> None:
        # Creating a table calls this too, and it has no public equivalent.
        from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids

        try:
            _pyarrow_to_schema_without_ids(fields)
        except Exception as error:
            raise ConfigError("publish", self.uri, f"Iceberg has no such column: {one_line(error)}") from error

    def _published(self, table, source: str, run: str) -> str | None:
        """Return the snapshot with the run's labels. Raises RunMismatch if another run of the same input is published.

        A property of the table records this, because snapshots expire.
        """
        if (theirs := table.properties.get(key := _property(source))) is None:
            return None
        if theirs != run:
            raise other_run(self.uri, source, theirs, f", or, if its rows were taken out, unset the table's property {key}")
        return str(_snapshot(table, MAIN, run) or "(expired)")

    def _write(self, table, labels: Labels) -> list[str]:
        """Write the data files, each for one partition. Readers see them once a commit adds them."""
        fields, folder = _schema(table), f"{table.location().rstrip('/')}/data/intent-{labels.run[:16]}-{uuid.uuid4().hex}"
        files = []
        for rows in _chunks(labels.batches(), fields):
            for part in _split(rows, _partitions(table, self.uri)):
                files.append(f"{folder}-{len(files):05}.parquet")
                with table.io.new_output(files[-1]).create() as output:
                    pq.write_table(part, output, write_page_checksum=True)
        return files

    def _forget_branches(self, table, source: str) -> None:
        """Delete the branches of this input, including those of other runs."""
        for name, ref in list(table.refs().items()):
            if name.startswith("intent-") and _summary(table.snapshot_by_id(ref.snapshot_id)).get(SOURCE) == source:
                with _one_try():
                    table.manage_snapshots().remove_branch(name).commit()

    def _refused(self) -> IntentError:
        return IntentError(f"{self.uri}: other writers keep committing to the table; run again")


class _OneTry:
    """A catalog that reports a refused commit as a commit of unknown state.

    Otherwise the library would retry on top of the commit that came first, which may be of the same input. If a proxy repeated
    a commit that had succeeded, the library would also delete the manifests of that commit.
    """

    def __init__(self, catalog):
        self._catalog = catalog

    def __getattr__(self, name: str):
        return getattr(self._catalog, name)

    def commit_table(self, *args, **kwargs):
        from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

        try:
            return self._catalog.commit_table(*args, **kwargs)
        except CommitFailedException as error:
            raise CommitStateUnknownException(str(error)) from error


def _one_try() -> suppress:
    """Ignore a refused commit. The caller reads the table again, because either the commit or only its reply was lost."""
    from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

    return suppress(CommitFailedException, CommitStateUnknownException)


def _add(transaction, files: list[str], labels: Labels, branch: str) -> None:
    transaction.add_files(files, snapshot_properties=labels.properties, branch=branch, check_duplicate_files=False)


def _property(source: str) -> str:
    return f"{SOURCE}.{fingerprint(source)}"


def _snapshot(table, branch: str, run: str) -> int | None:
    """Return the run's snapshot among the ancestors of the head of `branch`."""
    from pyiceberg.table.snapshots import ancestors_of

    ancestors = ancestors_of(table.snapshot_by_name(branch), table.metadata)
    return next((each.snapshot_id for each in ancestors if _summary(each).get(RUN) == run), None)


def _summary(snapshot) -> dict[str, str]:
    return snapshot.summary.additional_properties if snapshot and snapshot.summary else {}


def _branch(labels: Labels) -> str:
    return f"intent-{labels.name}-{labels.run[:8]}"


def _is_of(table, snapshot_id: int, labels: Labels) -> bool:
    return _summary(table.snapshot_by_id(snapshot_id)).get(PARTS) == labels.parts


def _files_of(table, snapshot_id: int) -> list[str]:
    """Return the data files that a snapshot added."""
    snapshot = table.snapshot_by_id(snapshot_id)
    manifests = [each for each in snapshot.manifests(table.io) if each.added_snapshot_id == snapshot_id]
    entries = [entry for manifest in manifests for entry in manifest.fetch_manifest_entry(table.io)]
    return [entry.data_file.file_path for entry in entries if entry.snapshot_id == snapshot_id]


def _schema(table) -> pa.Schema:
    schema = table.schema().as_arrow()
    return pa.schema([field.with_nullable(schema.field(field.name).nullable) for field in plain(schema)])


def _partitions(table, uri: str) -> list[str]:
    """Return the partition columns. Raises ConfigError if rows are not partitioned by values of columns."""
    from pyiceberg.transforms import IdentityTransform

    spec = table.spec()
    if other := [field.name for field in spec.fields if not isinstance(field.transform, IdentityTransform)]:
        remedy = f"the table is partitioned by {other}, which are not plain columns; publish to a table without such partitions"
        raise ConfigError("publish", uri, remedy)
    return [table.schema().find_column_name(field.source_id) for field in spec.fields]


def _chunks(batches: Iterator[pa.RecordBatch], fields: pa.Schema) -> Iterator[pa.Table]:
    buffer, rows = [], 0
    for batch in batches:
        buffer.append(aligned(batch, fields))
        rows += len(batch)
        if rows >= FILE_ROWS:
            yield pa.Table.from_batches(buffer, fields)
            buffer, rows = [], 0
    if rows:
        yield pa.Table.from_batches(buffer, fields)


def _split(rows: pa.Table, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of each combination of values, in order of first occurrence."""
    if not columns:
        yield rows
        return
    for values in rows.select(columns).group_by(columns).aggregate([]).to_pylist():
        mask = None
        for name, value in values.items():
            same = pc.is_null(rows[name]) if value is None else pc.equal(rows[name], pa.scalar(value, rows[name].type))
            mask = same if mask is None else pc.and_(mask, same)
        yield rows.filter(pc.fill_null(mask, False))
