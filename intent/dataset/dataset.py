"""A data set as files: Parquet shards a split, the catalogs they refer to, the schema of its answers, and a card."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.artifacts.files import Files
from intent.dataset.example import Example, from_table
from intent.errors import MissingArtifact
from intent.task.schema import IntentSchema

SPLITS = ("train", "validation", "test")
CATALOGS = "catalogs.parquet"
SCHEMA = "schema.json"
CARD = "card.md"
CHART = "card.svg"
ROWS_PER_FILE = 50_000


def split_files(split: str, examples: pa.Table) -> Iterable[tuple[str, bytes]]:
    """(key, Parquet bytes) of each shard of a split."""
    for number, low in enumerate(range(0, examples.num_rows, ROWS_PER_FILE)):
        yield f"{split}-{number:05d}.parquet", parquet(examples.slice(low, ROWS_PER_FILE))


def split_keys(files: Files, split: str) -> list[str]:
    """Raises MissingArtifact where the data set has no such split."""
    keys = [key for key in files.keys(f"{split}-") if key.endswith(".parquet")]
    if not keys:
        raise MissingArtifact(f"{files.uri} has no {split}-*.parquet; make it with python -m jobs.generate")
    return keys


def read_file(files: Files, key: str) -> list[Example]:
    return from_table(pq.read_table(io.BytesIO(files.read(key))))


def read_split(files: Files, split: str) -> list[Example]:
    """Raises MissingArtifact where the data set has no such split."""
    return [example for key in split_keys(files, split) for example in read_file(files, key)]


def write_catalogs(folder: Path, catalogs: Mapping[str, Sequence[str]]) -> None:
    """Write the catalogs, by id, that the examples of the data set in `folder` refer to."""
    columns = {"id": pa.array(list(catalogs), pa.string()), "names": pa.array(catalogs.values(), pa.list_(pa.string()))}
    (folder / CATALOGS).write_bytes(parquet(pa.table(columns)))


def read_catalogs(files: Files, ids: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Return the names in each catalog, or in each of `ids`: there may be hundreds of thousands."""
    table = pq.read_table(io.BytesIO(files.read(CATALOGS)))
    if ids is not None:
        table = table.filter(pc.is_in(table["id"], pa.array(sorted(set(ids)), pa.string())))
    return dict(zip(table["id"].to_pylist(), map(tuple, table["names"].to_pylist()), strict=True))


def write_schema(folder: Path, schema: IntentSchema) -> None:
    """Write the schema of the answers in the data set in `folder`."""
    (folder / SCHEMA).write_text(json.dumps(schema.identity(), ensure_ascii=False, indent=1), encoding="utf-8")


def read_schema(files: Files) -> IntentSchema:
    """Return the schema of the answers. Raises MissingArtifact where an older version made the data set."""
    if SCHEMA not in files.keys(SCHEMA):
        raise MissingArtifact(f"{files.uri} has no {SCHEMA}; make it again with python -m jobs.generate")
    return IntentSchema.of(json.loads(files.read(SCHEMA)))


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
