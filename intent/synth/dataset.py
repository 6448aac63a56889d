"""A data set as files: Parquet shards a split, the catalogs they refer to, and a card."""

import io
import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from intent.artifacts.files import Files
from intent.errors import MissingArtifact
from intent.synth.example import Example, from_table

SPLITS = ("train", "validation", "test")
CATALOGS = "catalogs.json"
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


def read_catalogs(files: Files) -> dict[str, tuple[str, ...]]:
    return {key: tuple(names) for key, names in json.loads(files.read(CATALOGS)).items()}


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
