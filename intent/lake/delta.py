"""Read one version of a Delta table as input, with deltalake."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from intent.errors import ConfigError
from intent.lake.snapshot import Snapshot, Where, endpoint_of, need, one_line, plain
from intent.storage import Blob, StorageOptions

EXTRA = "delta"
MOST_READER_VERSION = 3
# Features that tables may require of their readers. They are Arrow's own types, or deltalake applies them, or they concern only
# the log.
READ = {"timestampNtz", "deletionVectors", "v2Checkpoint", "vacuumProtocolCheck", "columnMapping"}
PURGE = "rewrite the table without it, or name another table"


class DeltaSnapshot(Snapshot):
    """A version of a Delta table."""

    @classmethod
    def open(cls, uri: str, wheres: Sequence[Where], version: int | None, options: StorageOptions) -> "DeltaSnapshot":
        table = open_table(uri, version, options, "input")
        if table is None:
            raise ConfigError("input", uri, "holds no Delta table; name its folder")
        require_readable(table, uri)
        snapshot = cls(uri, table.version(), tuple(tuple(where.items()) for where in wheres), options)
        columns = table.metadata().partition_columns
        if unknown := next((name for where in wheres for name in where if name not in columns), None):
            raise ConfigError("input", f"{uri}/{unknown}=", f"the table is partitioned by {columns}, not by {unknown!r}")
        return snapshot

    def files(self) -> list[Blob]:
        etag = self.etag(self._table.metadata().id)
        blobs = (Blob(key, entry["size_bytes"], etag) for key, entry in self._entries.items() if self._wanted(entry))
        return sorted(blobs, key=lambda blob: blob.key)

    def schema(self) -> pa.Schema:
        return plain(pa.schema(self._table.schema().to_arrow()))

    def rows(self, blob: Blob) -> int:
        entry, keep = self._entries[blob.key], self._keeps.get(blob.key)
        if entry["num_records"] is not None:
            return entry["num_records"] - (0 if keep is None else int(np.count_nonzero(~keep)))
        return sum(len(batch) for batch in self.batches(blob, []))

    def batches(self, blob: Blob, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        schema, values = self.schema(), self._entries[blob.key]["partition"] or {}
        read = [name for name in columns if name not in values]
        scan = ds.ParquetFragmentScanOptions(pre_buffer=True, page_checksum_verification=True)
        fragment = ds.ParquetFileFormat(default_fragment_scan_options=scan).make_fragment(blob.key, self._files)
        keep, at = self._keeps.get(blob.key), 0
        stored = pa.schema([field for field in schema if field.name not in values])
        for batch in fragment.to_batches(schema=stored, columns=read, use_threads=False):
            table, at = pa.Table.from_batches([batch]), at + len(batch)
            if keep is not None:
                mask = keep[at - len(batch) : at]
                table = table.filter(pa.array(np.append(mask, np.ones(len(batch) - len(mask), bool))))
            columns_of = [
                table[name] if name in read else pa.repeat(pa.scalar(values[name], schema.field(name).type), len(table))
                for name in columns
            ]
            yield from (pa.table(columns_of, list(columns)) if columns else table).to_batches()

    @cached_property
    def _table(self):
        if (table := open_table(self.uri, self.version, self.options, "input")) is None:
            raise ConfigError("input", self.uri, "no longer holds a Delta table; start a new run with a new output")
        return table

    @cached_property
    def _entries(self) -> dict[str, dict]:
        table = pa.table(self._table.get_add_actions())
        names = [name for name in ("path", "size_bytes", "num_records", "partition") if name in table.column_names]
        entries = table.select(names).to_pylist()
        # The log writes paths as URLs.
        return {unquote(entry["path"]): {"num_records": None, "partition": {}} | entry for entry in entries}

    @cached_property
    def _keeps(self) -> dict[str, np.ndarray]:
        """Return, for each file with deleted rows, which rows remain, as bool [rows]."""
        if "deletionVectors" not in (self._table.protocol().reader_features or ()):
            return {}
        root, by_path, table = self._table.table_uri, {}, pa.table(self._table.deletion_vectors())
        for uri, selection in zip(table["filepath"].to_pylist(), table["selection_vector"], strict=True):
            path = uri.removeprefix(root).removeprefix("/")
            by_path[path if path in self._entries else unquote(path)] = selection.values.to_numpy(zero_copy_only=False)
        return by_path

    @cached_property
    def _files(self) -> pyarrow.fs.FileSystem:
        from deltalake.fs import DeltaStorageHandler

        sizes = {key: entry["size_bytes"] for key, entry in self._entries.items()}
        handler = DeltaStorageHandler(self._table.table_uri, storage_options(self.uri, self.options), sizes)
        return pyarrow.fs.PyFileSystem(handler)

    def _wanted(self, entry: dict) -> bool:
        values = entry["partition"] or {}
        return not self.wheres or any(all(self._same(values[name], name, text) for name, text in w) for w in self.wheres)

    def _same(self, value: object, name: str, text: str | None) -> bool:
        if text is None or value is None:
            return text is None and value is None
        kind = self.schema().field(name).type
        try:
            return pc.equal(pa.scalar(value, kind), pa.scalar(text).cast(kind)).as_py()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise ConfigError("input", f"{self.uri}/{name}={text}", f"the table's column {name!r} is {kind}") from None


def open_table(uri: str, version: int | None, options: StorageOptions, field: str):
    """Open the DeltaTable, or return None if there is none. Raises ConfigError if it, or the version, cannot be read."""
    deltalake = need("deltalake", EXTRA, field, uri)
    try:
        return deltalake.DeltaTable(uri, version=version, storage_options=storage_options(uri, options))
    except deltalake.exceptions.TableNotFoundError:
        return None
    except ConfigError:
        raise
    except Exception as error:
        if version is not None:
            remedy = f"of the Delta table {uri} cannot be read ({one_line(error)}); name a version that the table still has"
            raise ConfigError(f"{field}_version", version, remedy) from error
        raise ConfigError(field, uri, f"is a Delta table that cannot be read: {one_line(error)}") from error


def require_readable(table, uri: str) -> None:
    """Raise ConfigError if the table requires an unknown feature of its readers."""
    protocol, mode = table.protocol(), table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if protocol.min_reader_version > MOST_READER_VERSION:
        fault = f"needs readers of Delta's version {protocol.min_reader_version}; {MOST_READER_VERSION} is known"
        raise ConfigError("input", uri, f"{fault}; {PURGE}")
    if lacking := sorted({*(protocol.reader_features or ())} - READ):
        raise ConfigError("input", uri, f"needs the reader features {lacking}, which are not supported; {PURGE}")
    if mode != "none":
        remedy = "its columns have other names in its files (delta.columnMapping.mode), which is not supported"
        raise ConfigError("input", uri, f"{remedy}; {PURGE}")


def storage_options(uri: str, options: StorageOptions) -> dict[str, str]:
    """Return deltalake's options for S3, without credentials, which it finds as boto3 does."""
    if not uri.startswith("s3://"):
        return {}
    settings = {"conditional_put": "etag"}
    if endpoint := endpoint_of(options):
        settings |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}
    return settings | ({"AWS_REGION": options.region} if options.region else {})
