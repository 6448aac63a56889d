"""Read messages that people labelled, from a file or folder of Parquet, CSV or JSON lines, into the splits of a data set.

Every row becomes an example or is counted under the reason why not. Knows columns and schemas; knows nothing of models.
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

SAID = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
NAMES = {name: split for split, names in SAID.items() for name in names}
MAX_CHARACTERS = 4096  # of a message, as in a night
UNKNOWN_LANGUAGE = "und"
GENERATOR = "labelled"
IN_SCOPE, OUT_OF_SCOPE = "in_scope", "out_of_scope"
MOST_REFUSED = 0.1
# Longer text in the place of a label is not a label, and must not be logged.
LABEL_CHARACTERS, LABELS = 64, 200

Row = Mapping[str, object]
Numbered = Iterator[tuple[int, Row | None]]


class BadRow(ValueError):
    """Why a row is not an example, without any of its text."""


@dataclass
class Imported:
    """The imported rows: examples by split, refused rows by reason with the place of the first, and unknown values by slot."""

    splits: dict[str, list[Example]] = field(default_factory=lambda: {name: [] for name in SPLITS})
    refused: Counter = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, set[str]] = field(default_factory=dict)


def read_files(uri: str, options: StorageOptions = StorageOptions()) -> dict[str, bytes]:
    """Read the data files at `uri`, a file or a folder, by key. Raises ConfigError if there is none, or one of another kind."""
    return read_tables(uri, options, "labelled.uri", sorted(READERS))


def fingerprint_of(files: Mapping[str, bytes]) -> str:
    return sha256("".join(sha256(files[key]) for key in sorted(files)).encode())[:16]


def examples_of(
    files: Mapping[str, bytes], config: LabelledConfig, schema: IntentSchema, catalog: Sequence[str] = ()
) -> Imported:
    """Read all rows of `files`, before rows are compared with each other.

    Raises ConfigError if a file cannot be read or lacks a column.
    """
    wanted = schema.names if schema.repeat == 1 else [INTENTS]
    imported, slots = Imported(), config.slots or wanted
    if len(slots) != len(wanted):
        remedy = f"name a column for each of {wanted}, in this order"
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
    """Raise ConfigError if MOST_REFUSED or more of the rows are not examples: then the file is wrong, not the rows."""
    refused = imported.refused.total()
    rows = refused + sum(map(len, imported.splits.values()))
    if refused and refused >= MOST_REFUSED * rows:
        told = "; ".join(f"{reason}: {n} (first {imported.first[reason]})" for reason, n in imported.refused.most_common())
        unknown = {slot: sorted(values) for slot, values in imported.unknown.items()}
        more = f"; not in the schema or catalog: {unknown}" if unknown else ""
        raise ConfigError("labelled.uri", uri, f"{refused} of {rows} rows are refused; correct the file: {told}{more}")


def keep_apart(imported: Imported, evaluation: Iterable[str] = ()) -> None:
    """Keep the first of repeated messages, and no message that nearly repeats one of a split kept before it.

    Test messages are kept before validation's, those before training's, and `evaluation` before all. Each split is then in the
    order of a hash, so that its first messages are of all kinds.
    """
    known = list(evaluation)
    for split in reversed(SPLITS):
        seen, examples = Evaluation(known), imported.splits[split]
        fresh = [example for example in examples if not seen.has(normal_form(example.message))]
        unique = deduplicate(fresh)
        imported.splits[split] = sorted(unique.kept, key=lambda example: _place(example.message))
        imported.refused[f"{split}: nearly repeats a message held out"] += len(examples) - len(fresh)
        imported.refused[f"{split}: repeats an earlier row"] += unique.repeated
        imported.refused[f"{split}: repeats an earlier row with another label"] += unique.contradicting
        known += [example.message for example in unique.kept]
    imported.refused = +imported.refused


def _example(
    id: str, row: Row | None, config: LabelledConfig, schema: IntentSchema, catalog: Sequence[str], unknown: dict[str, set[str]]
) -> tuple[str, Example]:
    if row is None:
        raise BadRow("not a row: no JSON object, or more or fewer cells than columns")
    message = normalize(_text(row, config.message))
    if not message:
        raise BadRow("empty message")
    if len(message) > MAX_CHARACTERS:
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
    """Read the slots' values. An empty cell is null after a value that ends the intent, and a Count's default before it."""
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
    """Return the split that the row names, or that a hash of the message's text gives, so that it is the same in any file."""
    if config.split:
        said = NAMES.get(_text(row, config.split).casefold())
        if said is None:
            raise BadRow(f"split: none of {sorted(NAMES)}")
        return said
    place = _place(message)
    if place < config.test_share:
        return "test"
    return "validation" if place < config.test_share + config.validation_share else "train"


def _place(message: str) -> float:
    """Return a message's place in [0, 1), whatever the other messages are."""
    return int.from_bytes(blake2b(message_key(message).encode(), digest_size=8).digest(), "big") / 2**64


def _text(row: Row, column: str) -> str:
    """Return a cell as text without white space around it; empty if there is none. A whole number may come as a float."""
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
    """Yield the file's rows with their line or number; None for an entry that is not a row."""
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
    """Convert text to bytes: a string column is not known to be UTF-8 before `_text`."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = _binary(column.type)
    return column if kind == column.type else column.cast(kind)


def _binary(kind: pa.DataType) -> pa.DataType:
    """Return the type with bytes for text, also in the items of a list."""
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
