"""Define where a run's labels are published, once, and check that they fit. Knows Arrow; each target's module knows its
library.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from intent.errors import ConfigError, RunMismatch

# The properties of a commit.
RUN, NIGHT, PARTS = "intent.run", "intent.night", "intent.parts"


@dataclass(frozen=True)
class Labels:
    """A run's labelled rows, to be published once.

    `night`: the address of their input. `run`: the run's fingerprint. `name`: for people, in the names of branches. `parts`:
    fingerprint of the files that hold the rows. `facts`: further properties of the commit. `batches`: yields the rows, each
    time from the start and in the same order.
    """

    night: str
    run: str
    name: str
    parts: str
    fields: pa.Schema
    facts: Mapping[str, str]
    batches: Callable[[], Iterator[pa.RecordBatch]]

    @property
    def properties(self) -> dict[str, str]:
        said = {f"intent.{name}": str(value) for name, value in self.facts.items()}
        return {RUN: self.run, NIGHT: self.night, PARTS: self.parts} | said


class Target(Protocol):
    """A place where a run's labels are published, once: a table, or a folder of partitions."""

    @property
    def uri(self) -> str:
        """The table or folder."""

    def check(self, fields: pa.Schema | None, night: str, run: str) -> None:
        """Raise ConfigError for what can be known before any work: the library, the table, its columns, another run's labels.

        `fields`: of the labels, once they are known.
        """

    def stage(self, labels: Labels) -> str:
        """Put the labels where only those who ask for them read them. Returns where; "" if the target has no such place."""

    def commit(self, labels: Labels) -> str:
        """Publish the labels, or find them published. Returns the version. Raises RunMismatch if another run's labels are
        there.
        """


def other_run(uri: str, night: str, theirs: str, more: str = "") -> RunMismatch:
    remedy = f"holds the night of {night} as another run ({theirs}) labelled it; publish to another table{more}"
    return RunMismatch("publish", uri, remedy)


def require_fits(uri: str, table: pa.Schema, fields: pa.Schema) -> None:
    """Raise ConfigError, naming the columns, if rows of `fields` do not fit into a table."""
    if lacking := [field.name for field in fields if field.name not in table.names]:
        remedy = f"the table has no column {lacking}, but {table.names}; add it, or publish to another table"
        raise ConfigError("publish", uri, remedy)
    if strange := [field.name for field in table if field.name not in fields.names and not field.nullable]:
        remedy = f"the table wants a value of {strange}, which labels do not have; make it optional, or add it to keep_columns"
        raise ConfigError("publish", uri, remedy)
    for field in fields:
        if not _widens(field.type, kind := table.field(field.name).type):
            remedy = f"the table's column {field.name!r} is {kind}, and the labels' is {field.type}; publish to another table"
            raise ConfigError("publish", uri, remedy)


def require_partitions(uri: str, wanted: Sequence[str], has: Sequence[str], fields: pa.Schema | None) -> None:
    """Raise ConfigError if a table has other partitions, or if the labels do not have such a column."""
    if fields is not None and (lacking := [name for name in wanted if name not in fields.names]):
        raise ConfigError("partition_by", lacking, f"labels have the columns {fields.names}; add it to keep_columns")
    if fields is not None and (nested := [name for name in wanted if pa.types.is_nested(fields.field(name).type)]):
        raise ConfigError("partition_by", nested, "holds lists, which no partition is named by; leave it out")
    if wanted and list(wanted) != list(has):
        raise ConfigError("partition_by", list(wanted), f"the table {uri} is partitioned by {list(has)}; give these, or none")


def aligned(batch: pa.RecordBatch, fields: pa.Schema) -> pa.RecordBatch:
    """Return the rows with the columns of `fields`: cast, or null. Raises ConfigError if the table does not accept null."""
    for field in fields:
        if not field.nullable and field.name in batch.schema.names and (nulls := batch.column(field.name).null_count):
            remedy = f"the table wants a value in every row, and {nulls} rows or more have none; make the column optional"
            raise ConfigError("publish", field.name, remedy)
    columns = [
        batch.column(field.name).cast(field.type) if field.name in batch.schema.names else pa.nulls(len(batch), field.type)
        for field in fields
    ]
    return pa.RecordBatch.from_arrays(columns, schema=fields)


def _widens(kind: pa.DataType, wide: pa.DataType) -> bool:
    """Return whether every value of one type is a value of the other."""
    if kind == wide:
        return True
    families = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if not any(test(kind) and test(wide) for test in families):
        return False
    return pa.unify_schemas([pa.schema([("a", kind)]), pa.schema([("a", wide)])], promote_options="permissive").types[0] == wide
