"""Read the products that a message can name, and normalize text for a model. Pure, except for reading a catalog's file."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from intent.errors import ConfigError
from intent.storage import StorageOptions
from intent.storage.table import read_files, read_rows

COLUMN = "name"
KEYCAP, TEN, EMOJI = "\N{COMBINING ENCLOSING KEYCAP}", "\N{KEYCAP TEN}", "\N{VARIATION SELECTOR-16}"
# The most characters of a name, far more than any product has, and the number of faults that an error lists.
LONGEST, NAMED = 300, 3
LINE_BREAK = " | "
ENCLOSED = ("CIRCLED", "PARENTHESIZED", "FULL STOP")


@dataclass(frozen=True)
class Catalog:
    """Product names in the order of their file: unique, non-empty, one line each."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[object], source: str = "catalog") -> "Catalog":
        """Check the names. Raises ConfigError with the row numbers, counted from 1, of names that are missing, empty, too long,
        or differ from another only in spaces, case or the script of digits.
        """
        return cls._of(((f"row {number}", name) for number, name in enumerate(names, 1)), source, COLUMN)

    @classmethod
    def parse(cls, data: bytes, source: str, column: str = COLUMN) -> "Catalog":
        """Parse the names in `column` of a Parquet, CSV or JSON file. The ending of `source` decides the format."""
        return cls._of(_names(data, source, column), source, column)

    @classmethod
    def read(cls, uri: str, column: str = COLUMN, options: StorageOptions = StorageOptions()) -> "Catalog":
        """Read and parse a file, or all files of a folder that Spark wrote. Raises ConfigError."""
        files = read_files(uri, options, "catalog")
        if any(uri.endswith(key) for key in files):
            [data] = files.values()
            return cls.parse(data, uri, column)
        named = ((f"{key} {at}", name) for key, data in files.items() for at, name in _names(data, f"{uri}/{key}", column))
        return cls._of(named, uri, column)

    @classmethod
    def _of(cls, names: Iterable[tuple[str, object]], source: str, column: str) -> "Catalog":
        cleaned: dict[str, tuple[str, str]] = {}
        empty: list[str] = []
        long: list[str] = []
        repeats: dict[str, list[str]] = {}
        for location, raw in names:
            if not isinstance(raw, str) or not (name := one_line(raw)):
                empty.append(location)
                continue
            if len(name) > LONGEST:
                long.append(location)
                continue
            key = ascii_digits(name).casefold()
            if key in cleaned:
                repeats.setdefault(key, []).append(location)
            else:
                cleaned[key] = (location, name)
        faults = [f"{_sentence_of(empty)} no text in the column {column!r}; fill or delete it"] if empty else []
        faults += [f"{_sentence_of(long)} more than {LONGEST} characters in the column {column!r}; shorten it"] if long else []
        # List the most frequent repeats first and, among equals, the first in the file.
        for key, locations in sorted(repeats.items(), key=lambda item: -len(item[1])):
            first, product = cleaned[key]
            faults.append(f"{_sentence_of(locations, 'repeats', 'repeat')} {product!r} of {first}; keep one")
        if faults:
            more = f"; beyond these {len(faults) - NAMED:,} faults" if len(faults) > NAMED else ""
            raise ConfigError("catalog", source, "; ".join(faults[:NAMED]) + more)
        if not cleaned:
            raise ConfigError("catalog", source, "has no products; add at least one row")
        return cls(tuple(name for _, name in cleaned.values()))


def _sentence_of(locations: list[str], one: str = "has", several: str = "have") -> str:
    """Return the beginning of a sentence with the first rows, the number of the others, and the verb."""
    named, more = ", ".join(locations[:NAMED]), f" and {len(locations) - NAMED:,} more" if len(locations) > NAMED else ""
    return f"{named}{more} {one if len(locations) == 1 else several}"


def _names(data: bytes, source: str, column: str) -> Iterator[tuple[str, object]]:
    return ((location, row[column]) for location, row in read_rows(data, source, [column], "catalog", "catalog_column"))


def normalize(text: str) -> str:
    """Normalize the text for a model, to one line with ASCII digits.

    A message then cannot imitate the end of its row in a prompt. A bar stands for a line break, because the lines of a note
    tell which number belongs to which product.
    """
    return ascii_digits(LINE_BREAK.join(filter(None, map(one_line, text.splitlines()))))


def ascii_digits(text: str) -> str:
    """Convert digits of every script, and numbers in circles or parentheses, to ASCII.

    Superscripts stay as they are: 5² is not 52.
    """
    return text if text.isascii() else text.replace(f"{EMOJI}{KEYCAP}", "").translate(_DIGITS)


def one_line(text: str) -> str:
    """Return NFC text without control, surrogate and unassigned characters, and with runs of white space as one space."""
    text = unicodedata.normalize("NFC", text)
    if text.isprintable():
        return " ".join(text.split())
    characters = (
        " " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn")
    )
    return " ".join("".join(characters).split())


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
