"""Read and write a data set's files: Parquet files per split, the catalogs they refer to, the schema, and a card."""

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
    """Yield (key, Parquet bytes) of each file of a split. A file has at most ROWS_PER_FILE rows."""
    for number, low in enumerate(range(0, examples.num_rows, ROWS_PER_FILE)):
        yield f"{split}-{number:05d}.parquet", parquet(examples.slice(low, ROWS_PER_FILE))


def split_keys(files: Files, split: str) -> list[str]:
    """Return the keys of a split's files. Raises MissingArtifact if the data set does not have the split."""
    keys = [key for key in files.keys(f"{split}-") if key.endswith(".parquet")]
    if not keys:
        raise MissingArtifact(f"{files.uri} has no {split}-*.parquet; make it with python -m jobs.generate")
    return keys


def read_file(files: Files, key: str) -> list[Example]:
    """Read the examples of one file of a split."""
    return from_table(pq.read_table(io.BytesIO(files.read(key))))


def read_split(files: Files, split: str) -> list[Example]:
    """Read all examples of a split. Raises MissingArtifact if the data set does not have the split."""
    return [example for key in split_keys(files, split) for example in read_file(files, key)]


def write_catalogs(folder: Path, catalogs: Mapping[str, Sequence[str]]) -> None:
    """Write the catalogs that the examples of the data set in `folder` refer to. `catalogs`: products' names by id."""
    columns = {"id": pa.array(list(catalogs), pa.string()), "names": pa.array(catalogs.values(), pa.list_(pa.string()))}
    (folder / CATALOGS).write_bytes(parquet(pa.table(columns)))


def read_catalogs(files: Files, ids: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Return the products' names by catalog id. Give `ids` to read only those, because there may be hundreds of thousands."""
    table = pq.read_table(io.BytesIO(files.read(CATALOGS)))
    if ids is not None:
        table = table.filter(pc.is_in(table["id"], pa.array(sorted(set(ids)), pa.string())))
    return dict(zip(table["id"].to_pylist(), map(tuple, table["names"].to_pylist()), strict=True))


def write_schema(folder: Path, schema: IntentSchema) -> None:
    """Write the schema of the examples' intents to `folder`."""
    (folder / SCHEMA).write_text(json.dumps(schema.identity(), ensure_ascii=False, indent=1), encoding="utf-8")


def read_schema(files: Files) -> IntentSchema:
    """Read the schema of the examples' intents. Raises MissingArtifact if an older version made the data set."""
    if SCHEMA not in files.keys(SCHEMA):
        raise MissingArtifact(f"{files.uri} has no {SCHEMA}; make it again with python -m jobs.generate")
    return IntentSchema.of(json.loads(files.read(SCHEMA)))


def parquet(table: pa.Table) -> bytes:
    """Serialize a table as Parquet, compressed with zstd."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
