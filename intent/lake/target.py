"""Define the interface of a target of labels, and check that labels fit. Knows Arrow, but no target's library."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from intent.errors import ConfigError, RunMismatch

# The properties of a commit.
RUN, SOURCE, PARTS = "intent.run", "intent.night", "intent.parts"


@dataclass(frozen=True)
class Labels:
    """A run's labelled rows, to be published once.

    `source`: the address of their input. `run`: the run's fingerprint. `name`: a name for people, used in branches. `parts`:
    the fingerprint of the files that hold the rows. `facts`: further properties of the commit. `batches`: yields the rows from
    the start, always in the same order.
    """

    source: str
    run: str
    name: str
    parts: str
    fields: pa.Schema
    facts: Mapping[str, str]
    batches: Callable[[], Iterator[pa.RecordBatch]]

    @property
    def properties(self) -> dict[str, str]:
        """Return the properties of the commit."""
        facts = {f"intent.{name}": str(value) for name, value in self.facts.items()}
        return {RUN: self.run, SOURCE: self.source, PARTS: self.parts} | facts


class Target(Protocol):
    """A place where a run's labels are published once: a table, or a folder of partitions."""

    @property
    def uri(self) -> str:
        """Return the address of the table or folder."""

    def check(self, fields: pa.Schema | None, source: str, run: str) -> None:
        """Raise ConfigError if the library, the table or a column is missing or unfit, RunMismatch if it has another run's
        labels.

        `fields`: of the labels, once they are known.
        """

    def stage(self, labels: Labels) -> str:
        """Write the labels to a branch that readers do not see by default. Returns the branch, or "" if there
        are no branches.
        """

    def commit(self, labels: Labels) -> str:
        """Publish the labels, unless they are published. Returns the version. Raises RunMismatch as `check`."""


def other_run(uri: str, source: str, theirs: str, more: str = "") -> RunMismatch:
    """Return the error of an input that another run has published. `more`: a further remedy."""
    remedy = f"holds the labels of {source} from another run ({theirs}); publish to another table{more}"
    return RunMismatch("publish", uri, remedy)


def require_fits(uri: str, table: pa.Schema, fields: pa.Schema) -> None:
    """Raise ConfigError, naming the columns, if rows of `fields` do not fit into a table."""
    if lacking := [field.name for field in fields if field.name not in table.names]:
        remedy = f"the table has no column {lacking}, but {table.names}; add it, or publish to another table"
        raise ConfigError("publish", uri, remedy)
    if required := [field.name for field in table if field.name not in fields.names and not field.nullable]:
        remedy = (
            f"the table requires a value of {required}, which labels do not have; make it optional, or add it to keep_columns"
        )
        raise ConfigError("publish", uri, remedy)
    for field in fields:
        if not _widens(field.type, kind := table.field(field.name).type):
            remedy = f"the table's column {field.name!r} is {kind}, and the labels' is {field.type}; publish to another table"
            raise ConfigError("publish", uri, remedy)


def require_partitions(uri: str, partitions: Sequence[str], has: Sequence[str], fields: pa.Schema | None) -> None:
    """Raise ConfigError if a table is partitioned by other columns, or if the labels lack one."""
    if fields is not None and (lacking := [name for name in partitions if name not in fields.names]):
        raise ConfigError("partition_by", lacking, f"labels have only the columns {fields.names}; add it to keep_columns")
    if fields is not None and (nested := [name for name in partitions if pa.types.is_nested(fields.field(name).type)]):
        raise ConfigError("partition_by", nested, "holds lists, which cannot name a partition; leave it out")
    if partitions and list(partitions) != list(has):
        raise ConfigError(
            "partition_by", list(partitions), f"the table {uri} is partitioned by {list(has)}; give these, or none"
        )


def aligned(batch: pa.RecordBatch, fields: pa.Schema) -> pa.RecordBatch:
    """Return the rows with the columns of `fields`, cast or null. Raises ConfigError if a required column has nulls."""
    for field in fields:
        if not field.nullable and field.name in batch.schema.names and (nulls := batch.column(field.name).null_count):
            remedy = f"the table requires a value in every row, and {nulls} rows or more have none; make the column optional"
            raise ConfigError("publish", field.name, remedy)
    columns = [
        batch.column(field.name).cast(field.type) if field.name in batch.schema.names else pa.nulls(len(batch), field.type)
        for field in fields
    ]
    return pa.RecordBatch.from_arrays(columns, schema=fields)


def _widens(kind: pa.DataType, wide: pa.DataType) -> bool:
    """Return whether `wide` can hold every value of `kind`."""
    if kind == wide:
        return True
    families = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if not any(test(kind) and test(wide) for test in families):
        return False
    return pa.unify_schemas([pa.schema([("a", kind)]), pa.schema([("a", wide)])], promote_options="permissive").types[0] == wide
