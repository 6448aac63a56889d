"""Define a labeled message and its Parquet columns."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from intent.task.schema import Intent, to_json

ARROW = pa.schema(
    [
        ("id", pa.string()),
        ("message", pa.string()),
        ("intent", pa.string()),
        ("language", pa.string()),
        ("catalog", pa.string()),
        ("phenomena", pa.list_(pa.string())),
        ("generator", pa.string()),
        ("seed", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Example:
    """Hold a message, its intent and its provenance.

    `catalog`: the id of its product list among the data set's catalogs; empty: the job's own catalog. `phenomena`: names of the
    message's features, such as "number_word", "typo" or "out_of_scope". `generator`: name and version, or a teacher's model.
    `seed`: of the generator.
    """

    id: str
    message: str
    intent: Intent
    language: str
    catalog: str = ""
    phenomena: tuple[str, ...] = ()
    generator: str = ""
    seed: int = 0


def to_table(examples: Iterable[Example]) -> pa.Table:
    """Build a table with the columns ARROW. Intents become JSON text."""
    rows = [{**vars(example), "intent": to_json(example.intent)} for example in examples]
    return pa.Table.from_pydict({name: [row[name] for row in rows] for name in ARROW.names}, schema=ARROW)


def from_table(table: pa.Table) -> list[Example]:
    """Parse the examples of a table with the columns ARROW. Other columns are ignored."""
    return [
        Example(**{**row, "intent": json.loads(row["intent"]), "phenomena": tuple(row["phenomena"])})
        for row in table.select(ARROW.names).to_pylist()
    ]
