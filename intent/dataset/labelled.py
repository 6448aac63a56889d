"""Import labeled messages from a file or folder of Parquet, CSV or JSON lines into the splits of a data set.

Every row becomes an example or is counted as refused with its reason. This module knows columns and schemas. It knows nothing
of models.
"""

import codecs
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import pyarrow as pa
import pyarrow.parquet as pq

from intent.dataset.dataset import SPLITS
from intent.dataset.deduplicate import Evaluation, deduplicate, message_key, normal_form
from intent.dataset.example import Example
from intent.errors import ConfigError, CorruptData
from intent.storage import StorageOptions, sha256
from intent.storage.table import CsvFile, Lacking, Unreadable, decoded, ending_of
from intent.storage.table import read_files as read_tables
from intent.task.catalog import normalize, one_line
from intent.task.config import LabelledConfig
from intent.task.schema import INTENTS, Count, Entity, Intent, IntentSchema, items_of

SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
MAX_CHARACTERS = 4096  # of a message, as in a run
UNKNOWN_LANGUAGE = "und"
GENERATOR = "labelled"
IN_SCOPE, OUT_OF_SCOPE = "in_scope", "out_of_scope"
MOST_REFUSED = 0.1
# Longer text is not a label but perhaps a message, which must not be logged.
LABEL_CHARACTERS, LABELS = 64, 200

Row = Mapping[str, object]
Numbered = Iterator[tuple[int, Row | None]]


class BadRow(ValueError):
    """A row is not an example. The text is the reason and never quotes the row."""


@dataclass
class Imported:
    """Hold the imported rows.

    `splits`: examples by split. `refused`: the number of refused rows by reason. `first`: by reason, file and line or row
    number of the first refused row. `unknown`: by slot, values that are not in the schema or catalog.
    """

    splits: dict[str, list[Example]] = field(default_factory=lambda: {name: [] for name in SPLITS})
    refused: Counter = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, set[str]] = field(default_factory=dict)


def read_files(uri: str, options: StorageOptions = StorageOptions()) -> dict[str, bytes]:
    """Read the data files at `uri`, a file or a folder, by key. Raises ConfigError if none exists or one has another format."""
    return read_tables(uri, options, "labelled.uri", sorted(READERS))


def fingerprint_of(files: Mapping[str, bytes]) -> str:
    """Hash the files' content, in the order of their keys."""
    return sha256("".join(sha256(files[key]) for key in sorted(files)).encode())[:16]


def examples_of(
    files: Mapping[str, bytes], config: LabelledConfig, schema: IntentSchema, catalog: Sequence[str] = ()
) -> Imported:
    """Read all rows of `files`. Duplicates and leaks are removed later by `keep_apart`.

    Raises ConfigError if a file cannot be read or lacks a column, and CorruptData if a file is damaged.
    """
    expected = schema.names if schema.repeat == 1 else [INTENTS]
    imported, slots = Imported(), config.slots or expected
    if len(slots) != len(expected):
        remedy = f"name a column for each of {expected}, in this order"
        remedy = remedy if schema.repeat == 1 else "name the one column that holds lists of intents"
        raise ConfigError("labelled.slots", slots, remedy)
    columns = [config.message, *slots, config.language, config.split]
    for key in sorted(files):
        for number, row in _rows(key, files[key], [name for name in columns if name]):
            try:
                split, example = _example(f"{key}:{number}", row, config, schema, catalog, imported.unknown)
                imported.splits[split].append(example)
            except BadRow as error:
                imported.refused[str(error)] += 1
                imported.first.setdefault(str(error), f"{key}:{number}")
    return imported


def require_most(imported: Imported, uri: str) -> None:
    """Raise ConfigError if a share MOST_REFUSED of the rows or more is refused, because the file is probably wrong then."""
    refused = imported.refused.total()
    rows = refused + sum(map(len, imported.splits.values()))
    if refused and refused >= MOST_REFUSED * rows:
        reasons = "; ".join(f"{reason}: {n} (first {imported.first[reason]})" for reason, n in imported.refused.most_common())
        unknown = {slot: sorted(values) for slot, values in imported.unknown.items()}
        more = f"; not in the schema or catalog: {unknown}" if unknown else ""
        raise ConfigError("labelled.uri", uri, f"{refused} of {rows} rows are refused; correct the file: {reasons}{more}")


def keep_apart(imported: Imported, evaluation: Iterable[str] = ()) -> None:
    """Remove repeated messages within each split, and near-duplicates between splits and of `evaluation`.

    Of near-duplicates, `evaluation` takes precedence, then test, validation and training. Each split is then sorted by a hash,
    so that its first messages are a random sample.
    """
    evaluation_messages = list(evaluation)
    for split in reversed(SPLITS):
        held_out, examples = Evaluation(evaluation_messages), imported.splits[split]
        fresh = [example for example in examples if not held_out.has(normal_form(example.message))]
        unique = deduplicate(fresh)
        imported.splits[split] = sorted(unique.examples, key=lambda example: _position(example.message))
        imported.refused[f"{split}: nearly repeats a message held out"] += len(examples) - len(fresh)
        imported.refused[f"{split}: repeats an earlier row"] += unique.repeated
        imported.refused[f"{split}: repeats an earlier row with another label"] += unique.contradicting
        evaluation_messages += [example.message for example in unique.examples]
    imported.refused = +imported.refused


def _example(
    id: str, row: Row | None, config: LabelledConfig, schema: IntentSchema, catalog: Sequence[str], unknown: dict[str, set[str]]
) -> tuple[str, Example]:
    if row is None:
        raise BadRow("not a row: not a JSON object, or more or fewer cells than columns")
    text = _text(row, config.message)
    message = normalize(text)
    if not message:
        raise BadRow("empty message")
    if len(text) > MAX_CHARACTERS:
        raise BadRow(f"message over {MAX_CHARACTERS} characters")
    intent = _intent(row, config, schema, catalog, unknown)
    language = (_text(row, config.language) if config.language else "") or UNKNOWN_LANGUAGE
    return _split(row, message, config), Example(id, message, intent, language, "", _scope(intent, schema), GENERATOR)


def _scope(intent: Intent, schema: IntentSchema) -> tuple[str, ...]:
    if schema.repeat > 1:
        return (IN_SCOPE if items_of(intent) else OUT_OF_SCOPE,)
    return (OUT_OF_SCOPE if intent[schema.names[0]] in schema.nothing else IN_SCOPE,) if schema.nothing else ()


def _intent(
    row: Row, config: LabelledConfig, schema: IntentSchema, catalog: Sequence[str], unknown: dict[str, set[str]]
) -> Intent:
    if schema.repeat == 1:
        return schema.intent(_values(row, config.slots or schema.names, schema, catalog, unknown))
    [column] = config.slots or [INTENTS]
    items = _items(row, column, schema)
    values = [value for item in items for value in _values(item, schema.names, schema, catalog, unknown)]
    return schema.check(schema.intent(values), catalog)


def _items(row: Row, column: str, schema: IntentSchema) -> Sequence[Row]:
    cell = row.get(column)
    try:
        return schema.items_in(cell if isinstance(cell, list | dict) else _text(row, column), column)
    except BadRow:
        raise
    except ValueError as error:
        raise BadRow(str(error)) from None


def _values(
    row: Row, columns: Sequence[str], schema: IntentSchema, catalog: Sequence[str], unknown: dict[str, set[str]]
) -> list[str | int]:
    """Read the slots' values, up to one that ends the intent. An empty cell of a Count means its default.

    Raises BadRow if a value is not in the schema or catalog, and adds a short one to `unknown`.
    """
    values: list[str | int] = []
    for slot, column in zip(schema.slots, columns, strict=True):
        raw = _text(row, column)
        value: str | int = raw
        if isinstance(slot, Entity):
            value = one_line(raw)
        if isinstance(slot, Count):
            value = int(raw) if raw.isdecimal() else (raw or slot.default)
        if value not in slot.domain(catalog):
            if raw and len(raw) <= LABEL_CHARACTERS and len(unknown.setdefault(slot.name, set())) < LABELS:
                unknown[slot.name].add(raw)
            raise BadRow(f"{slot.name}: not a value of the schema" if raw else f"{slot.name}: empty")
        values.append(value)
        if value in slot.ends:
            break
    return values


def _split(row: Row, message: str, config: LabelledConfig) -> str:
    """Return the split that the row names, or else the split of the message's hash, which is the same in any file."""
    if config.split:
        split = SPLIT_OF.get(_text(row, config.split).casefold())
        if split is None:
            raise BadRow(f"split: not one of {sorted(SPLIT_OF)}")
        return split
    position = _position(message)
    if position < config.test_share:
        return "test"
    return "validation" if position < config.test_share + config.validation_share else "train"


def _position(message: str) -> float:
    """Hash a message to [0, 1). Duplicates get the same number."""
    return int.from_bytes(blake2b(message_key(message).encode(), digest_size=8).digest(), "big") / 2**64


def _text(row: Row, column: str) -> str:
    """Return a cell as text without surrounding white space, or "" if it is null. Raises BadRow for another type.

    Text, bytes and integers are accepted. So is a float with an integer value, because a column of integers with nulls may be
    stored as floats.
    """
    value = row.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, bool) or not isinstance(value, bytes | int | str):
        if value is None:
            return ""
        raise BadRow(f"{column}: not text")
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
        text.encode()
    except UnicodeError:
        raise BadRow(f"{column}: invalid UTF-8") from None
    return text.strip()


def _rows(key: str, data: bytes, columns: Sequence[str]) -> Numbered:
    """Yield (line or row number, row) of a file. The row is None if an entry is not a row.

    Raises ConfigError if a column is missing or the text cannot be parsed, and CorruptData if the file is damaged.
    """
    try:
        yield from READERS[ending_of(key)](data, columns)
    except Lacking as error:
        remedy = "name yours with labelled.message, labelled.slots, labelled.language or labelled.split"
        raise ConfigError("labelled.uri", key, f"{error}, or {remedy}") from None
    except Unreadable as error:
        raise ConfigError("labelled.uri", key, str(error)) from None
    except pa.ArrowException as error:
        raise CorruptData(f"labelled.uri: {key} cannot be read as {ending_of(key)}: {error}") from error


def _parquet(data: bytes, columns: Sequence[str]) -> Numbered:
    file = pq.ParquetFile(io.BytesIO(data))
    _require(columns, file.schema_arrow.names)
    batches = file.iter_batches(columns=list(dict.fromkeys(columns)))
    rows = (row for b in batches for row in pa.table([_bytes(column) for column in b.columns], b.schema.names).to_pylist())
    yield from enumerate(rows, 1)


def _bytes(column: pa.Array) -> pa.Array:
    """Convert text to bytes. A string column may have invalid UTF-8, which only `_text` checks, row by row."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = _binary(column.type)
    return column if kind == column.type else column.cast(kind)


def _binary(kind: pa.DataType) -> pa.DataType:
    """Replace text by bytes in a type, also inside lists and structs."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_binary(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_binary(field.type)) for field in kind])
    return pa.large_binary() if kind in (pa.string(), pa.large_string()) else kind


def _csv(data: bytes, columns: Sequence[str]) -> Numbered:
    file = CsvFile.of(decoded(data, errors="surrogateescape"), columns)
    for line, cells in file.rows():
        yield line, file.named(cells)


def _json(data: bytes, columns: Sequence[str]) -> Numbered:
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield number, row if isinstance(row, dict) else None


def _require(columns: Sequence[str], names: Sequence[str]) -> None:
    if not set(columns) <= set(names):
        raise Lacking(columns, names)


READERS: dict[str, Callable[[bytes, Sequence[str]], Numbered]] = {
    "parquet": _parquet,
    "csv": _csv,
    "tsv": _csv,
    "jsonl": _json,
}
