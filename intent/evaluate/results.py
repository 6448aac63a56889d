"""Turn measurements into the rows of a report: plain values that JSON and Parquet can hold."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import pyarrow as pa

from intent.artifacts import Artifact, ArtifactRecord, Files, code_version, find
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import VariantSpec
from intent.dataset import dataset
from intent.dataset.example import Example
from intent.engine import Prediction
from intent.evaluate import hosted, scope
from intent.evaluate.divergence import NOT_COMPARED, compare
from intent.evaluate.measurement import SPLIT, Trial
from intent.evaluate.metrics import agreement, agreement_by_slot, confusion, is_right, loss, score
from intent.evaluate.speed import Speed
from intent.storage import StorageOptions
from intent.task.schema import IntentSchema

WORST = 20
HOSTED, REFERENCE = "endpoint", "reference"
WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Measured:
    """A trial's result.

    `hourly_price`: USD per hour of the hardware, which the trial used alone; None: unknown. `validation`: predictions for the
    validation messages, if a threshold is set on them. `decisions`: reads the table of `divergence.decisions_of`, or returns
    None if there is none. A table can have many megabytes, so it is read only while it is compared.
    """

    trial: Trial
    predictions: Sequence[Prediction]
    speed: Speed
    hourly_price: float | None
    validation: Sequence[Prediction] | None = None
    decisions: Callable[[], pa.Table | None] = lambda: None


@dataclass(frozen=True)
class AccuracyTarget:
    """The basis of a threshold for messages out of scope.

    `validation`: the validation messages. `accuracy`: the share of those in scope that must still be answered right.
    """

    validation: Sequence[Example]
    accuracy: float


@dataclass(frozen=True)
class Sources:
    """The inputs of the measurements, and how they were made.

    `examples`: the held-out ones. `card`: the data card, as Markdown. `records`: (URI, record) of the data, the checkpoint and
    its inputs, by name. `date`: in UTC. `command`: the job's command line. `code`: the version of the code.
    """

    examples: list[Example]
    card: str
    records: dict[str, tuple[str, ArtifactRecord]]
    date: str = ""
    command: str = ""
    code: str = ""

    @classmethod
    def read(cls, lineage: Lineage, command: str, trained: bool = True) -> "Sources":
        """Read the sources. `trained`: include the checkpoint, because a measured variant was made from it."""
        data = lineage.held_out()
        files, records = Files(data, lineage.options), {"examples": (data.uri, data.record)}
        card = files.read(dataset.CARD).decode() if dataset.CARD in data.record.files else ""
        if trained:
            records |= _trained(lineage)
        how = (datetime.now(UTC).date().isoformat(), command, code_version())
        return cls(dataset.read_split(files, SPLIT), card, records, *how)


def _trained(lineage: Lineage) -> dict[str, tuple[str, ArtifactRecord]]:
    """Return the records of the checkpoint and of its inputs that still exist.

    Its training examples are left out if they are from the data set of the held-out examples.
    """
    checkpoint = lineage.checkpoint()
    records = {"checkpoint": (checkpoint.uri, checkpoint.record)}
    for name, kind in (("base", "base"), ("training examples", "data")):
        fingerprint = str(checkpoint.record.inputs.get(kind))
        uri = lineage.config.data.uri if kind == "data" else None
        artifact = find(uri or f"{lineage.config.workspace}/{kind}-{fingerprint}", lineage.options)
        if artifact is None or fingerprint not in (artifact.fingerprint, artifact.record.fingerprint):
            continue
        if artifact.fingerprint != lineage.held_out().fingerprint:
            records[name] = (artifact.uri, artifact.record)
    return records


def results_of(
    schema: IntentSchema, examples: Sequence[Example], measured: Mapping[str, Measured], target: AccuracyTarget | None = None
) -> dict[str, dict]:
    """Return a plain result by row name. Each is compared with the unquantized reference, if that was measured."""
    return {
        name: _result(schema, examples, row, reference_of(measured, row))
        | _scope(schema, examples, row.predictions, row.validation, target)
        for name, row in measured.items()
    }


def _scope(
    schema: IntentSchema,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    validation: Sequence[Prediction] | None = None,
    target: AccuracyTarget | None = None,
) -> dict:
    """Return the figures in and out of scope for a schema of labels, else nothing.

    "answered": of the answers as they are. "thresholded": with the threshold that keeps the requested accuracy.
    """
    if not scope.of_labels(schema):
        return {}
    figures: dict = {"answered": asdict(scope.measure(schema, examples, predictions))}
    if target and validation is not None:
        threshold, most = scope.threshold_at(schema, target.validation, validation, target.accuracy)
        figures |= {"asked": target.accuracy, "most": most}
        if threshold is not None:
            figures["thresholded"] = asdict(scope.measure(schema, examples, predictions, threshold))
    return {"scope": figures}


def reference_of(measured: Mapping[str, Measured], row: Measured | None = None) -> Measured | None:
    """Return the first reference on the row's own model of hardware, else the first of all; None if none was measured."""
    references = [other for other in measured.values() if other.trial.loader.name.startswith(REFERENCE)]
    same = [other for other in references if row and other.trial.hardware.model == row.trial.hardware.model]
    return next(iter(same + references), None)


def _result(schema: IntentSchema, examples: Sequence[Example], row: Measured, reference: Measured | None) -> dict:
    trial, rate = row.trial, row.speed.messages_per_second
    variant = trial.loader.variant
    files = variant.record.files.items()
    return {
        "variant": trial.loader.name,
        "engine": VariantSpec.parse(trial.loader.name).engine,
        "output_format": trial.loader.options.output_format,
        "batch": trial.batch,
        "hardware": asdict(trial.hardware),
        "threads": trial.loader.options.threads,
        **_quality(schema, examples, row.predictions, reference),
        **_divergence(row, reference),
        **asdict(row.speed),
        **_answered(row.predictions),
        **{name: variant.record.metrics[name] for name in ("types", "fell_back") if name in variant.record.metrics},
        "file_bytes": sum(entry["bytes"] for key, entry in files if key.endswith(WEIGHTS) and "/" not in key),
        "price_per_million": None if row.hourly_price is None else row.hourly_price / 3600 / rate * 1e6,
        "uri": variant.uri,
        "fingerprint": variant.fingerprint,
    }


def _divergence(row: Measured, reference: Measured | None) -> dict:
    """Return the figures of `divergence.compare`, without values if there is nothing to compare."""
    ours = row.decisions()
    theirs = reference.decisions() if reference and ours is not None else None
    return NOT_COMPARED if ours is None or theirs is None else compare(theirs, ours)


def _answered(predictions: Sequence[Prediction]) -> dict:
    """Return the share of the messages that each model of a cascade answered, by its variant."""
    counts = Counter(prediction.variant for prediction in predictions if prediction.variant)
    return {"answered": {name: n / len(predictions) for name, n in counts.items()}} if counts else {}


def hosted_result(
    schema: IntentSchema, examples: Sequence[Example], artifact: Artifact, options: StorageOptions, reference: Measured | None
) -> dict:
    """Return the result of a model behind an endpoint. Figures that only the endpoint's owner knows are None.

    `artifact`: the result of `hosted.measure`.
    """
    predictions, figures = hosted.read(artifact, options)
    config = artifact.record.config
    return {
        "variant": config["model"],
        "engine": HOSTED,
        "output_format": "json",
        "batch": config["concurrency"],
        "hardware": {"kind": HOSTED, "model": config["url"] or "api.openai.com", "count": 1},
        "threads": None,
        **_quality(schema, examples, predictions, reference),
        **NOT_COMPARED,
        **_scope(schema, examples, predictions),
        **dict.fromkeys(field.name for field in fields(Speed)),
        **asdict(figures),
        "file_bytes": None,
        "price_per_million": figures.cost / len(examples) * 1e6 if figures.cost else None,
        "uri": artifact.uri,
        "fingerprint": artifact.fingerprint,
    }


def _quality(
    schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction], reference: Measured | None
) -> dict:
    """Return the figures of the answers. Without a reference, agreement and loss are None."""
    theirs = reference and reference.predictions
    return {
        "reference": reference and reference.trial.loader.name,
        "score": asdict(score(schema, examples, predictions)),
        "agreement": theirs and agreement(predictions, theirs),
        "agreement_slots": theirs and agreement_by_slot(schema, predictions, theirs),
        "loss": theirs and loss(examples, predictions, theirs),
        "confusion": confusion(schema, examples, predictions),
        "worst": worst(examples, predictions),
    }


def worst(examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[dict]:
    """Return the WORST wrong answers with the highest confidence, most confident first."""
    wrong = [(p.confidence, e, p) for e, p in zip(examples, predictions, strict=True) if not is_right(e.intent, p)]
    wrong.sort(key=lambda entry: (-entry[0], entry[1].id))
    return [
        {"message": e.message, "meant": e.intent, "said": p.intent, "confidence": confidence, "status": str(p.status)}
        for confidence, e, p in wrong[:WORST]
    ]
