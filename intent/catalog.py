"""The products that a message can name. Pure but for reading the file it is given."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from intent.errors import ConfigError
from intent.table import read_rows

COLUMN = "name"


@dataclass(frozen=True)
class Catalog:
    """Product names in the order of their file: unique, non-empty, one line each."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[object], source: str = "catalog") -> "Catalog":
        """Refuses a missing or empty name, and one that repeats another but for case, with its row number, counted from 1."""
        cleaned: dict[str, tuple[int, str]] = {}
        for row, raw in enumerate(names, 1):
            if not isinstance(raw, str) or not (name := normalize(raw)):
                raise ConfigError("catalog", source, f"row {row} has no text in the column {COLUMN!r}; fill or delete it")
            first, known = cleaned.setdefault(name.casefold(), (row, name))
            if first != row:
                raise ConfigError("catalog", source, f"row {row} repeats {known!r} of row {first}; keep one")
        if not cleaned:
            raise ConfigError("catalog", source, "has no products; add at least one row")
        return cls(tuple(name for _, name in cleaned.values()))

    @classmethod
    def parse(cls, data: bytes, source: str) -> "Catalog":
        """A Parquet, CSV or JSON (array or lines) file with a column `name`; the kind is told by the ending of `source`."""
        return cls.of((row[COLUMN] for row in read_rows(data, source, [COLUMN], "catalog")), source)


def normalize(text: str) -> str:
    """NFC, without control, surrogate and unassigned characters, runs of white space as one space.

    A message or a name is therefore one line: it can never look like the end of its own row in a prompt.
    """
    text = unicodedata.normalize("NFC", text)
    if text.isprintable():
        return " ".join(text.split())
    kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn"))
    return " ".join("".join(kept).split())
