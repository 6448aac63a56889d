"""Publish a finished run's labels once to one more place: as one commit of a table, or as partitions of a folder.

The output is the source of truth. Its file `published-<target>.json`, written last, records the publication. The commit carries
the run's fingerprint, so a driver that died before writing that file does not publish twice. Knows ledger and targets; nothing
of Ray.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from intent.artifacts import fingerprint
from intent.errors import CorruptData
from intent.lake.target import Labels, Target
from intent.run.columns import Columns
from intent.run.ledger import RunIdentity
from intent.run.staged import Staged
from intent.storage import Store
from intent.task.schema import IntentSchema

COUNTS = ("rows", "labelled", "abstained", "rejected")


@dataclass(frozen=True)
class Publication:
    """Where and how to publish a run. `source`: the input's address; a table gets the labels of an input once. `name`: a name
    for people, such as the date.
    """

    target: Target
    schema: IntentSchema
    columns: Columns
    source: str
    name: str

    def check(self, run: RunIdentity, types: pa.Schema | None = None) -> None:
        """Raise ConfigError if the target cannot take the labels. `types`: of the id and the kept columns,
        once they are known.
        """
        self.target.check(types and self.fields(types), self.source, run.fingerprint)

    def stage(self, staged: Staged) -> str:
        """Write a run that has not passed the gate to a branch. Returns the branch, or "" if the target has no branches."""
        return self.target.stage(self._labels(staged))

    def commit(self, output: Store) -> str:
        """Publish the finished run in `output`, unless it is published. Returns the target and its version as text."""
        key = f"published-{fingerprint(self.target.uri)}.json"
        if (receipt := _read(output, key)) is None:
            staged = Staged(output)
            version = self.target.commit(self._labels(staged))
            receipt = {"to": self.target.uri, "version": version, "run": staged.ledger.run.fingerprint}
            output.put_if_absent(key, json.dumps(receipt).encode())
        return f"{receipt['to']}, version {receipt['version']}"

    def fields(self, types: pa.Schema) -> pa.Schema:
        """Return the columns of labelled parts. `types`: of the id and the kept columns."""
        label_fields, kept_fields = (
            self.schema.label_fields(self.columns.explode),
            [types.field(name) for name in self.columns.keep],
        )
        fields = pa.schema([("id", types.field(self.columns.id).type), *label_fields, *kept_fields])
        # Tables have no null type, so a column without any value becomes text.
        return pa.schema([(field.name, pa.string() if pa.types.is_null(field.type) else field.type) for field in fields])

    def _labels(self, staged: Staged) -> Labels:
        plan = staged.ledger.plan(_no_plan)
        facts = {name: staged.summary[name] for name in COUNTS}
        run, parts = staged.ledger.run.fingerprint, fingerprint([entry["sha256"] for entry in staged.parts.values()])
        return Labels(self.source, run, self.name, parts, self.fields(plan.types), facts, lambda: _batches(staged))


def _batches(staged: Staged) -> Iterator[pa.RecordBatch]:
    for table in staged.map(lambda data, _: pq.read_table(io.BytesIO(data), page_checksum_verification=True)):
        yield from table.replace_schema_metadata(None).combine_chunks().to_batches()


def _no_plan():
    raise CorruptData("the run has no plan.json, so it is not finished; delete its output and run again")


def _read(output: Store, key: str) -> dict | None:
    try:
        return json.loads(output.read(key))
    except FileNotFoundError:
        return None
