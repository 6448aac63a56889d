"""Measure one variant on one kind of hardware. The artifact has its predictions and its figures, and is made once.

A worker runs `measure` and nothing else. This module knows loaders and artifacts. It knows no cluster.
"""

import io
import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord, Files, fingerprint
from intent.artifacts.loader import ClassifierLoader
from intent.artifacts.variant import VariantSpec
from intent.dataset import dataset
from intent.dataset.example import Example
from intent.engine import Prediction, Status
from intent.errors import IntentError
from intent.evaluate.divergence import decisions_of
from intent.evaluate.scope import has_outside
from intent.evaluate.speed import Load, Speed
from intent.evaluate.speed import measure as measure_speed
from intent.hardware import GPU, Hardware
from intent.progress import Report, unreported
from intent.storage import StorageOptions

# Raise it if the way to measure changes, so that old measurements are not reused.
VERSION = 2
LIMIT = 2 * 3600.0  # seconds
PREDICTIONS, VALIDATION, SPEED = "predictions.parquet", "validation.parquet", "speed.json"
DECISIONS = "decisions.parquet"
SPLIT = "test"


@dataclass(frozen=True)
class Trial:
    """A variant to measure on a data set's held-out messages and some hardware.

    `batch`: messages that are classified together; None: as many as the engine finds memory for.
    """

    loader: ClassifierLoader
    data: Artifact
    hardware: Hardware
    batch: int | None

    @property
    def validates(self) -> bool:
        """Return whether validation messages are labeled too, to set the threshold for messages out of scope."""
        return has_outside(self.loader.prompt.schema)

    @property
    def decides(self) -> bool:
        """Return whether one language model makes every decision, so that it can be compared with the unquantized one."""
        spec = VariantSpec.parse(self.loader.name)
        return not spec.linear and spec.model is None

    @property
    def record(self) -> ArtifactRecord:
        """Return the record of the measurement. It has everything that affects the result."""
        loader = self.loader
        settings: dict[str, Any] = {
            "variant": loader.name,
            "batch": self.batch,
            "hardware": asdict(self.hardware),
            "split": SPLIT,
        }
        engine = {"device": loader.options.device.value, "max_message_tokens": loader.options.max_message_tokens}
        settings |= engine | {"abstain_below": loader.options.abstain_below, "version": VERSION}
        settings |= {"validation": True} if self.validates else {}
        inputs = {"variant": loader.variant.fingerprint, "data": self.data.fingerprint}
        return ArtifactRecord("measurement", settings, inputs | {"schema": fingerprint(loader.prompt.schema.identity())})


def measure(trial: Trial, workspace: str, options: StorageOptions, report: Report = unreported) -> Artifact:
    """Return the measurement, and make it in this process if it does not exist.

    Raises IntentError if it takes longer than LIMIT.
    """

    def build(folder: Path) -> dict:
        files = Files(trial.data, options)
        examples, catalogs = dataset.read_split(files, SPLIT), dataset.read_catalogs(files)
        on_gpu = trial.hardware.kind == GPU
        with time_limit(LIMIT):
            load = lambda names: trial.loader.with_catalog(names)()  # noqa: E731
            predictions, speed = measure_speed(load, examples, catalogs, on_gpu, report)
            if trial.validates:
                validation = _label(load, dataset.read_split(files, "validation"), report)
                (folder / VALIDATION).write_bytes(dataset.parquet(to_table(validation)))
            if trial.decides:
                # It comes after the measurement of speed and memory, which it would change.
                (folder / DECISIONS).write_bytes(dataset.parquet(decisions_of(load, examples, catalogs, report)))
        (folder / PREDICTIONS).write_bytes(dataset.parquet(to_table(predictions)))
        (folder / SPEED).write_text(json.dumps(asdict(speed), indent=1))
        return asdict(speed)

    return artifacts.make(workspace, trial.record, build, options)


def _label(load: Load, examples: Sequence[Example], report: Report) -> list[Prediction]:
    """Return a prediction for each example of a schema without a catalog."""
    report(0, 0, "", "labels validation messages")
    classifier = load(())
    try:
        return classifier.classify([example.message for example in examples])
    finally:
        cast(Any, classifier).close()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise IntentError if a block takes longer, because other measurements wait for its CPUs.

    It works only on the main thread, since it uses SIGALRM.
    """

    def end(*_) -> None:
        raise IntentError(
            f"not measured in {seconds / 3600:g} hours; measure fewer messages (data.test) or use faster hardware"
        )

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(measurement: Artifact, options: StorageOptions) -> tuple[list[Prediction], Speed]:
    """Return a measurement's predictions, in the order of the test split, and its speed."""
    files = Files(measurement, options)
    return _read(files, PREDICTIONS), Speed(**json.loads(files.read(SPEED)))


def read_validation(measurement: Artifact, options: StorageOptions) -> list[Prediction] | None:
    """Return a measurement's predictions for the validation messages, or None if it has none."""
    return _read(Files(measurement, options), VALIDATION) if VALIDATION in measurement.record.files else None


def read_decisions(measurement: Artifact, options: StorageOptions) -> pa.Table | None:
    """Return a measurement's table of decisions (`divergence.decisions_of`), or None if it has none."""
    if DECISIONS not in measurement.record.files:
        return None
    return pq.read_table(io.BytesIO(Files(measurement, options).read(DECISIONS)))


def _read(files: Files, key: str) -> list[Prediction]:
    return from_table(pq.read_table(io.BytesIO(files.read(key))))


def to_table(predictions: Sequence[Prediction]) -> pa.Table:
    """Return predictions as a table with one row each. `intent` is JSON text."""
    rows = [asdict(p) | {"intent": json.dumps(p.intent, ensure_ascii=False), "status": str(p.status)} for p in predictions]
    kinds = {"intent": pa.string(), "confidence": pa.float64(), "slots": pa.list_(pa.float64()), "status": pa.string()}
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds | {"reason": pa.string(), "variant": pa.string()}))


def from_table(table: pa.Table) -> list[Prediction]:
    """Return the predictions of a table made by `to_table`."""
    return [
        Prediction(**row | {"intent": json.loads(row["intent"]), "slots": tuple(row["slots"]), "status": Status(row["status"])})
        for row in table.to_pylist()
    ]
