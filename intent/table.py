"""Rows of a small file that a user made: Parquet, CSV or JSON (an array, or lines), told apart by its ending."""

import csv
import io
import json
from collections.abc import Sequence

from intent.errors import ConfigError


def read_rows(data: bytes, source: str, columns: Sequence[str], field: str) -> list[dict]:
    """The rows, with `columns` at least. CSV gives text only. Raises ConfigError, naming the configuration's `field`."""
    readers = {"parquet": _parquet, "csv": _csv, "json": _json, "jsonl": _json}
    ending = source.rsplit(".", 1)[-1].lower()
    if ending not in readers:
        raise ConfigError(field, source, f"name a file that ends in one of {sorted(readers)}")
    try:
        rows = readers[ending](data)
        if lacking := [column for column in columns if any(column not in row for row in rows)]:
            raise KeyError(*lacking)
        return rows
    except Exception as error:
        named = " and ".join(map(repr, columns))
        raise ConfigError(field, source, f"cannot be read as {ending} with a column {named}: {error}") from error


def _parquet(data: bytes) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(data)).to_pylist()


def _csv(data: bytes) -> list[dict]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))


def _json(data: bytes) -> list[dict]:
    text = data.decode("utf-8-sig").strip()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
