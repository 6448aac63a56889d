"""Turn measurements into the rows of a report: plain values that JSON and Parquet can hold."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from intent.artifacts import Artifact, ArtifactRecord, Files, code_version, find
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import VariantSpec
from intent.dataset import dataset
from intent.dataset.example import Example
from intent.engine import Prediction
from intent.evaluate import hosted, scope
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
    """A trial's result. `hourly_price`: USD per hour of the hardware that it used alone, or None. `validation`: predictions of
    the validation messages, if a threshold is set on them.
    """

    trial: Trial
    predictions: Sequence[Prediction]
    speed: Speed
    hourly_price: float | None
    validation: Sequence[Prediction] | None = None


@dataclass(frozen=True)
class Asked:
    """The basis of a threshold for messages out of scope: validation messages, and the share of those in scope that must still
    be answered right.
    """

    validation: Sequence[Example]
    accuracy: float


@dataclass(frozen=True)
class Sources:
    """Where the measurements came from: the held-out examples, the data's card and its records; and how they were made: the day
    (UTC), the command, the code.
    """

    examples: list[Example]
    card: str
    records: dict[str, tuple[str, ArtifactRecord]]
    date: str = ""
    command: str = ""
    code: str = ""

    @classmethod
    def read(cls, lineage: Lineage, command: str, trained: bool = True) -> "Sources":
        """Read the sources. `trained`: something that was measured comes from the checkpoint."""
        data = lineage.held_out()
        files, records = Files(data, lineage.options), {"examples": (data.uri, data.record)}
        card = files.read(dataset.CARD).decode() if dataset.CARD in data.record.files else ""
        if trained:
            records |= _trained(lineage)
        how = (datetime.now(UTC).date().isoformat(), command, code_version())
        return cls(dataset.read_split(files, SPLIT), card, records, *how)


def _trained(lineage: Lineage) -> dict[str, tuple[str, ArtifactRecord]]:
    """Return the checkpoint and its inputs, as far as they exist here. Its examples may differ from the held-out ones' data
    set.
    """
    checkpoint = lineage.checkpoint()
    records = {"checkpoint": (checkpoint.uri, checkpoint.record)}
    for what, kind in (("base", "base"), ("training examples", "data")):
        named = str(checkpoint.record.inputs.get(kind))
        given = lineage.config.data.uri if kind == "data" else None
        found = find(given or f"{lineage.config.workspace}/{kind}-{named}", lineage.options)
        if found is None or named not in (found.fingerprint, found.record.fingerprint):
            continue
        if found.fingerprint != lineage.held_out().fingerprint:
            records[what] = (found.uri, found.record)
    return records


def results_of(
    schema: IntentSchema, examples: Sequence[Example], measured: Mapping[str, Measured], asked: Asked | None = None
) -> dict[str, dict]:
    """Return a result by row name. Each is compared with the unquantized reference, if that was measured."""
    return {
        name: _result(schema, examples, row, reference_of(measured, row))
        | _scope(schema, examples, row.predictions, row.validation, asked)
        for name, row in measured.items()
    }


def _scope(
    schema: IntentSchema,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    validation: Sequence[Prediction] | None = None,
    asked: Asked | None = None,
) -> dict:
    """Return, for labels, the figures in and out of scope: as answered, and with the threshold that keeps the requested
    accuracy.
    """
    if not scope.of_labels(schema):
        return {}
    found: dict = {"answered": asdict(scope.measure(schema, examples, predictions))}
    if asked and validation is not None:
        threshold, most = scope.threshold_at(schema, asked.validation, validation, asked.accuracy)
        found |= {"asked": asked.accuracy, "most": most}
        if threshold is not None:
            found["thresholded"] = asdict(scope.measure(schema, examples, predictions, threshold))
    return {"scope": found}


def reference_of(measured: Mapping[str, Measured], row: Measured | None = None) -> Measured | None:
    """Return the first reference of the row's own hardware class, else the first of all; None if none was measured."""
    found = [other for other in measured.values() if other.trial.loader.name.startswith(REFERENCE)]
    same = [other for other in found if row and other.trial.hardware.model == row.trial.hardware.model]
    return next(iter(same + found), None)


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
        **asdict(row.speed),
        **_answered(row.predictions),
        **{name: variant.record.metrics[name] for name in ("types", "fell_back") if name in variant.record.metrics},
        "file_bytes": sum(entry["bytes"] for key, entry in files if key.endswith(WEIGHTS) and "/" not in key),
        "price_per_million": None if row.hourly_price is None else row.hourly_price / 3600 / rate * 1e6,
        "uri": variant.uri,
        "fingerprint": variant.fingerprint,
    }


def _answered(predictions: Sequence[Prediction]) -> dict:
    """Return the share of the messages that each model of a cascade answered, by its variant."""
    counts = Counter(found.variant for found in predictions if found.variant)
    return {"answered": {name: n / len(predictions) for name, n in counts.items()}} if counts else {}


def hosted_result(
    schema: IntentSchema, examples: Sequence[Example], made: Artifact, options: StorageOptions, reference: Measured | None
) -> dict:
    """Return the row of a model behind an endpoint, measured as `made`. What only its owner knows is None."""
    found, figures = hosted.read(made, options)
    config = made.record.config
    return {
        "variant": config["model"],
        "engine": HOSTED,
        "output_format": "json",
        "batch": config["concurrency"],
        "hardware": {"kind": HOSTED, "model": config["url"] or "api.openai.com", "count": 1},
        "threads": None,
        **_quality(schema, examples, found, reference),
        **_scope(schema, examples, found),
        **dict.fromkeys(field.name for field in fields(Speed)),
        **asdict(figures),
        "file_bytes": None,
        "price_per_million": figures.cost / len(examples) * 1e6 if figures.cost else None,
        "uri": made.uri,
        "fingerprint": made.fingerprint,
    }


def _quality(
    schema: IntentSchema, examples: Sequence[Example], found: Sequence[Prediction], reference: Measured | None
) -> dict:
    """Return the figures of the answers. Without a reference there is neither agreement nor loss."""
    theirs = reference and reference.predictions
    return {
        "reference": reference and reference.trial.loader.name,
        "score": asdict(score(schema, examples, found)),
        "agreement": theirs and agreement(found, theirs),
        "agreement_slots": theirs and agreement_by_slot(schema, found, theirs),
        "loss": theirs and loss(examples, found, theirs),
        "confusion": confusion(schema, examples, found),
        "worst": worst(examples, found),
    }


def worst(examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[dict]:
    """Return the wrong answers with the highest confidence."""
    wrong = [(p.confidence, e, p) for e, p in zip(examples, predictions, strict=True) if not is_right(e.intent, p)]
    wrong.sort(key=lambda entry: (-entry[0], entry[1].id))
    return [
        {"message": e.message, "meant": e.intent, "said": p.intent, "confidence": confidence, "status": str(p.status)}
        for confidence, e, p in wrong[:WORST]
    ]
