"""Read a user's tables strictly: Parquet, CSV or JSON (an array, or lines), by the file's ending.

Never guesses a cell's type. An error names the line of a row that does not fit the header or is not UTF-8.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from intent.errors import ConfigError
from intent.storage import StorageOptions, open_store, split_uri

DELIMITERS = (",", ";", "\t")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Rows = list[tuple[str, dict[str, Any]]]


class Unreadable(ValueError):
    """A fault of a file, with its location."""


class Lacking(Unreadable):
    """A file without one of the required columns. `like`: its column that is most likely meant."""

    def __init__(self, required: Sequence[str], present: Sequence[str]):
        self.column = next(name for name in required if name not in present)
        self.like = next((name for name in present if name.casefold() == self.column.casefold()), next(iter(present), None))
        super().__init__(f"columns: {', '.join(present)}; give a column {self.column!r}")


def read_files(uri: str, options: StorageOptions, field: str, endings: Sequence[str] | None = None) -> dict[str, bytes]:
    """Read the data files at `uri`, by key: one file, or a folder as Spark writes it.

    Hidden files and names that begin with '_' are not data. Raises ConfigError, naming the setting `field`, if there is no
    file, or if a file is of another kind.
    """
    endings = endings or sorted(READERS)
    if "://" not in uri or ending_of(uri) in endings:
        parent, key = split_uri(uri)
        if (store := open_store(parent, options)).stat(key):
            if ending_of(key) not in endings:
                raise ConfigError(field, uri, f"name a file that ends in one of {endings}, or a folder of such files")
            return {key: store.read(key)}
    store = open_store(uri, options)
    keys = [blob.key for blob in store.list() if not any(part.startswith((".", "_")) for part in blob.key.split("/"))]
    if not keys:
        raise ConfigError(field, uri, f"no such file, and no folder with one; name a file that ends in one of {endings}")
    if other := [key for key in keys if ending_of(key) not in endings]:
        raise ConfigError(field, uri, f"{other[0]} does not end in one of {endings}; rename it, or take it out of the folder")
    return {key: store.read(key) for key in sorted(keys)}


def read_rows(data: bytes, source: str, columns: Sequence[str], field: str, setting: str | None = None) -> Rows:
    """Return (location, row) for each row, with at least `columns`. A text in a JSON array is a row with only the first column.

    CSV gives only text. `setting`: the setting that names the first column. Raises ConfigError, naming the setting `field`.
    """
    if (ending := ending_of(source)) not in READERS:
        raise ConfigError(field, source, f"name a file that ends in one of {sorted(READERS)}")
    try:
        return READERS[ending](data, columns)
    except Lacking as error:
        remedy = f", or {setting}={error.like}" if setting and error.like and error.column == columns[0] else ""
        raise ConfigError(field, source, f"{error}{remedy}") from None
    except Unreadable as error:
        raise ConfigError(field, source, str(error)) from None
    except (ValueError, OSError) as error:
        # pyarrow's errors are ValueErrors or OSErrors, and their first line is enough.
        raise ConfigError(field, source, f"cannot be read as {ending}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class CsvFile:
    """A CSV file: its text, its header, and the delimiter under which the header has the requested columns."""

    text: str
    delimiter: str
    header: list[str]

    @classmethod
    def of(cls, text: str, columns: Sequence[str]) -> "CsvFile":
        """Parse the text. Raises Lacking if no delimiter gives the columns, Unreadable if a column is named twice."""
        headers = {delimiter: _header(text, delimiter) for delimiter in DELIMITERS}
        fits = [delimiter for delimiter, header in headers.items() if set(columns) <= set(header)]
        if not fits:
            raise Lacking(columns, max(headers.values(), key=len))
        header = headers[fits[0]]
        if twice := [name for name in columns if header.count(name) > 1]:
            raise Unreadable(f"line 1 names the column {twice[0]!r} twice; rename one")
        return cls(text, fits[0], header)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, cells) of each row after the header, without blank lines. Raises Unreadable for unmatched quotes."""
        lines = _lines(self.text, self.delimiter)
        next(lines)
        return lines

    def named(self, cells: Sequence[str]) -> dict[str, str] | None:
        """Return the row by column; None if it has more or fewer cells than the header."""
        return dict(zip(self.header, cells, strict=True)) if len(cells) == len(self.header) else None


def decoded(data: bytes, errors: str = "strict") -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. Raises Unreadable, with the line, for other encodings."""
    if data.startswith(UTF_16):
        return data.decode("utf-16", errors)
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        line = data[start : error.start + 40].splitlines()[0].decode("cp1252", "replace")
        number = data.count(b"\n", 0, error.start) + 1
        remedy = "save the file as UTF-8, for example with iconv -f WINDOWS-1252 -t UTF-8"
        raise Unreadable(f"line {number} is not UTF-8 (as Windows-1252 it reads {line!r}); {remedy}") from None


def ending_of(key: str) -> str:
    """Return the ending of a name, in lower case and without the dot."""
    return key.rpartition(".")[2].lower()


def _lines(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of each row with cells."""
    reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise Unreadable(f"line {line}: {error}; check the quotes of the row that begins there") from None


def _header(text: str, delimiter: str) -> list[str]:
    _, cells = next(_lines(text, delimiter), (1, []))
    return [cell.strip() for cell in cells]


def _parquet(data: bytes, columns: Sequence[str]) -> Rows:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data))
    _require(columns, file.schema_arrow.names)
    return [(f"row {number}", row) for number, row in enumerate(file.read().to_pylist(), 1)]


def _csv(data: bytes, columns: Sequence[str]) -> Rows:
    file, rows = CsvFile.of(decoded(data), columns), []
    for line, cells in file.rows():
        if (row := file.named(cells)) is None:
            fault = f"line {line} has {len(cells)} cells and the header {len(file.header)}"
            raise Unreadable(f"{fault}; put a cell that holds {file.delimiter!r} in quotes")
        rows.append((f"line {line}", row))
    return rows


def _json(data: bytes, columns: Sequence[str]) -> Rows:
    text = decoded(data).strip()
    if text.startswith("["):
        entries = [(f"row {number}", entry) for number, entry in enumerate(json.loads(text), 1)]
    else:
        lines = enumerate(text.splitlines(), 1)
        entries = [(f"line {number}", _entry(line, number)) for number, line in lines if line.strip()]
    rows = [(location, {columns[0]: entry} if isinstance(entry, str) else entry) for location, entry in entries]
    for location, row in rows:
        if not isinstance(row, dict):
            raise Unreadable(f"{location} is not an object; give an array, or lines, of objects")
        _require(columns, list(row))
    return rows


def _entry(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise Unreadable(f"line {number} is not JSON: {error}") from None


def _require(columns: Sequence[str], present: Sequence[str]) -> None:
    if not set(columns) <= set(present):
        raise Lacking(columns, present)


READERS = {"parquet": _parquet, "csv": _csv, "tsv": _csv, "json": _json, "jsonl": _json}
