"""Read the products that a message can name, and normalize text for a model. Pure, except for reading the given file."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from intent.errors import ConfigError
from intent.storage import StorageOptions
from intent.table import read_files, read_rows

COLUMN = "name"
KEYCAP, TEN, EMOJI = "\N{COMBINING ENCLOSING KEYCAP}", "\N{KEYCAP TEN}", "\N{VARIATION SELECTOR-16}"
ENCLOSED = ("CIRCLED", "PARENTHESIZED", "FULL STOP")


@dataclass(frozen=True)
class Catalog:
    """Product names in the order of their file: unique, non-empty, one line each."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[object], source: str = "catalog") -> "Catalog":
        """Check the names. A missing or empty name, or one that differs from another only in case or in the script of its
        digits, is refused with its row number, counted from 1.
        """
        return cls._of(((f"row {number}", name) for number, name in enumerate(names, 1)), source, COLUMN)

    @classmethod
    def parse(cls, data: bytes, source: str, column: str = COLUMN) -> "Catalog":
        """Parse the names in `column` of a Parquet, CSV or JSON (array or lines) file. The ending of `source` tells
        its kind.
        """
        return cls._of(_names(data, source, column), source, column)

    @classmethod
    def read(cls, uri: str, column: str = COLUMN, options: StorageOptions = StorageOptions()) -> "Catalog":
        """Read and parse a file, or all files of a folder, as Spark writes it."""
        files = read_files(uri, options, "catalog")
        if any(uri.endswith(key) for key in files):
            [data] = files.values()
            return cls.parse(data, uri, column)
        named = ((f"{key} {at}", name) for key, data in files.items() for at, name in _names(data, f"{uri}/{key}", column))
        return cls._of(named, uri, column)

    @classmethod
    def _of(cls, names: Iterable[tuple[str, object]], source: str, column: str) -> "Catalog":
        cleaned: dict[str, tuple[str, str]] = {}
        for place, raw in names:
            if not isinstance(raw, str) or not (name := one_line(raw)):
                raise ConfigError("catalog", source, f"{place} has no text in the column {column!r}; fill or delete it")
            first, known = cleaned.setdefault(ascii_digits(name).casefold(), (place, name))
            if first != place:
                raise ConfigError("catalog", source, f"{place} repeats {known!r} of {first}; keep one")
        if not cleaned:
            raise ConfigError("catalog", source, "has no products; add at least one row")
        return cls(tuple(name for _, name in cleaned.values()))


def _names(data: bytes, source: str, column: str) -> Iterator[tuple[str, object]]:
    return ((place, row[column]) for place, row in read_rows(data, source, [column], "catalog", "catalog_column"))


def normalize(text: str) -> str:
    """Return the text as a model reads it: one line, with ASCII digits."""
    return ascii_digits(one_line(text))


def ascii_digits(text: str) -> str:
    """Convert digits of every script, and numbers in circles or parentheses, to ASCII.

    Superscripts stay as they are: 5² is not 52.
    """
    return text if text.isascii() else text.replace(f"{EMOJI}{KEYCAP}", "").translate(_DIGITS)


def one_line(text: str) -> str:
    """Return NFC text without control, surrogate and unassigned characters, and with runs of white space as one space.

    So a message or a name is one line and can never look like the end of its own row in a prompt.
    """
    text = unicodedata.normalize("NFC", text)
    if text.isprintable():
        return " ".join(text.split())
    kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn"))
    return " ".join("".join(kept).split())


class _Digits(dict[int, str | int | None]):
    """Map each code point to the ASCII number that it stands for, or to itself."""

    def __missing__(self, code: int) -> str | int | None:
        c, self[code] = chr(code), code
        if c.isdecimal():
            self[code] = str(unicodedata.decimal(c))
        elif unicodedata.category(c) == "No" and any(word in unicodedata.name(c) for word in ENCLOSED):
            self[code] = f"{unicodedata.numeric(c):g}"
        return self[code]


_DIGITS = _Digits({ord(KEYCAP): None, ord(TEN): "10"})
