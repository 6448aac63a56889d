"""Write a run's labels as Hive partitions of a folder, `dt=2026-11-23/labels.parquet`, one object each.

`_intent/<input>.json`, written last, lists the partitions of an input. Another run of the same input replaces them, and removes
those that it has no rows for.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.artifacts import fingerprint
from intent.errors import ConfigError, CorruptData
from intent.lake.snapshot import HIVE_NULL
from intent.lake.target import SOURCE, Labels, aligned, require_partitions
from intent.storage import StorageOptions, Store, open_store

FILE = "labels.parquet"
MOST_PARTITIONS = 500
_NAMED = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_date, pa.types.is_boolean)


@dataclass(frozen=True)
class FolderTarget:
    """A folder of Hive partitions. `partition_by`: the columns that name the folders."""

    uri: str
    partition_by: tuple[str, ...] = ()
    options: StorageOptions = StorageOptions()

    def check(self, fields: pa.Schema | None, source: str, run: str) -> None:
        """Raise ConfigError if the labels cannot be partitioned so."""
        if not self.partition_by:
            raise ConfigError("partition_by", [], "give the columns that name the folders, such as [dt]")
        if fields is None:
            return
        require_partitions(self.uri, self.partition_by, self.partition_by, fields)
        for name in self.partition_by:
            if not any(test(kind := fields.field(name).type) for test in _NAMED):
                raise ConfigError("partition_by", name, f"is {kind}; folders are named by text, integers, dates or booleans")
        if len(self.partition_by) == len(fields):
            raise ConfigError("partition_by", list(self.partition_by), "leaves no column for the files")

    def stage(self, labels: Labels) -> str:
        """Return "": folders have no branches."""
        return ""

    def commit(self, labels: Labels) -> str:
        """Publish the labels. Raises ConfigError, before it writes, if a partition holds rows of another input."""
        store, index = open_store(self.uri, self.options), f"_intent/{fingerprint(labels.source)}.json"
        before = _read(store, index)
        if before.get("run") == labels.run:
            return f"{len(before['partitions'])} partitions"
        with TemporaryDirectory(prefix="intent-partitions-") as scratch:
            files = _write(labels, self.partition_by, Path(scratch))
            for folder in files:
                _require_own(store, folder, labels.source)
            for folder, path in files.items():
                store.put_file(f"{folder}/{FILE}", path)
        for folder in before.get("partitions", []):
            if folder not in files:
                store.delete(f"{folder}/{FILE}")
        store.put(index, json.dumps({"night": labels.source, "run": labels.run, "partitions": sorted(files)}).encode())
        return f"{len(files)} partitions"


def _read(store: Store, key: str) -> dict:
    try:
        return json.loads(store.read(key))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CorruptData(f"{store.uri}/{key}: not JSON ({error}); delete it and run again") from error


def _require_own(store: Store, folder: str, source: str) -> None:
    for blob in store.list(f"{folder}/"):
        if blob.key != f"{folder}/{FILE}":
            remedy = f"{store.uri} has {blob.key}, which no run wrote; move it away, because a partition is replaced as a whole"
            raise ConfigError("publish", folder, remedy)
        with store.open(blob.key) as file:
            theirs = (pq.read_metadata(file).metadata or {}).get(SOURCE.encode(), b"").decode()
        if theirs != source:
            remedy = f"{store.uri} already has it from {theirs or 'no run'}; partition by a column that distinguishes {source}"
            raise ConfigError("publish", folder, remedy)


@dataclass
class _Files:
    """Local files of partitions, by folder, open until `stack` closes."""

    labels: Labels
    columns: tuple[str, ...]
    scratch: Path
    stack: ExitStack
    paths: dict[str, Path] = field(default_factory=dict)
    writers: dict[str, pq.ParquetWriter] = field(default_factory=dict)

    def add(self, folder: str, rows: pa.Table) -> None:
        if folder not in self.writers:
            if len(self.writers) == MOST_PARTITIONS:
                raise ConfigError(
                    "partition_by", list(self.columns), f"makes more than {MOST_PARTITIONS} partitions; use fewer"
                )
            self.paths[folder] = self.scratch / f"{len(self.paths)}.parquet"
            metadata = {name.encode(): value.encode() for name, value in self.labels.properties.items()}
            writer = pq.ParquetWriter(self.paths[folder], rows.schema.with_metadata(metadata), write_page_checksum=True)
            self.writers[folder] = self.stack.enter_context(writer)
        self.writers[folder].write_table(rows)


def _write(labels: Labels, columns: tuple[str, ...], scratch: Path) -> dict[str, Path]:
    """Write a local file for each partition. Returns the paths by folder. The same labels give the same bytes."""
    with ExitStack() as stack:
        files = _Files(labels, columns, scratch, stack)
        for batch in labels.batches():
            for folder, rows in _split(pa.Table.from_batches([aligned(batch, labels.fields)]), columns):
                files.add(folder, rows.drop_columns(list(columns)))
    return files.paths


def _split(rows: pa.Table, columns: tuple[str, ...]) -> Iterator[tuple[str, pa.Table]]:
    names = pc.binary_join_element_wise(*(_folders(rows[name], name) for name in columns), "/")
    for folder in pc.unique(names).to_pylist():
        yield folder, rows.filter(pc.equal(names, folder))


def _folders(column: pa.ChunkedArray, name: str) -> pa.Array:
    """Return `name=value` of each row, as Hive writes it."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    values = [HIVE_NULL if value is None else quote(value, safe=" ") for value in encoded.dictionary.to_pylist()]
    folders = pa.array([f"{quote(name, safe=' ')}={value}" for value in [*values, HIVE_NULL]])
    return folders.take(encoded.indices.fill_null(len(values)))
