"""The products that a message can name. Pure but for reading the file it is given."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from intent.errors import ConfigError

COLUMN = "name"


@dataclass(frozen=True)
class Catalog:
    """Product names in the order of their file: unique, non-empty, one line each."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[object], source: str = "catalog") -> "Catalog":
        """Refuses a missing, empty or repeated name with its row number, counted from 1."""
        cleaned: dict[str, int] = {}
        for row, raw in enumerate(names, 1):
            if not isinstance(raw, str) or not (name := normalize(raw)):
                raise ConfigError("catalog", source, f"row {row} has no text in the column {COLUMN!r}; fill or delete it")
            if name in cleaned:
                raise ConfigError("catalog", source, f"row {row} repeats {name!r} of row {cleaned[name]}; keep one")
            cleaned[name] = row
        if not cleaned:
            raise ConfigError("catalog", source, "has no products; add at least one row")
        return cls(tuple(cleaned))

    @classmethod
    def parse(cls, data: bytes, source: str) -> "Catalog":
        """A Parquet, CSV or JSON (array or lines) file with a column `name`; the kind is told by the ending of `source`."""
        readers = {"parquet": _parquet, "csv": _csv, "json": _json, "jsonl": _json}
        ending = source.rsplit(".", 1)[-1].lower()
        if ending not in readers:
            raise ConfigError("catalog", source, f"name a file that ends in one of {sorted(readers)}")
        try:
            return cls.of(readers[ending](data), source)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError("catalog", source, f"cannot be read as {ending} with a column {COLUMN!r}: {error}") from error


def normalize(text: str) -> str:
    """NFC, without control, surrogate and unassigned characters, runs of white space as one space.

    A message or a name is therefore one line: it can never look like the end of its own row in a prompt.
    """
    text = unicodedata.normalize("NFC", text)
    kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn"))
    return " ".join("".join(kept).split())


def _parquet(data: bytes) -> list:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(data), columns=[COLUMN])[COLUMN].to_pylist()


def _csv(data: bytes) -> list:
    return [row[COLUMN] for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig")))]


def _json(data: bytes) -> list:
    text = data.decode("utf-8-sig").strip()
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    return [row[COLUMN] for row in rows]
