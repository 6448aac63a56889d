"""Make what `jobs.quantize` makes beside quantized checkpoints: the SVM, and cascades of it and a language model."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord, Files
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import CASCADE, SVM, VariantSpec
from intent.engine.cascade import Threshold
from intent.engine.svm import load_svm, require_one_choice, write_svm
from intent.errors import ConfigError
from intent.evaluate.metrics import is_right
from intent.progress import Steps
from intent.schema import IntentSchema
from intent.storage import StorageOptions
from intent.synth import dataset

Errors = dict[str, Exception]


@dataclass(frozen=True)
class _Work:
    """What a task needs to make the SVM, or a cascade of it and `model`; small enough to send."""

    workspace: str
    options: StorageOptions
    schema: IntentSchema
    data: Artifact
    record: ArtifactRecord
    precision: float
    svm: Artifact | None = None
    model: Artifact | None = None


def refusals(lineage: Lineage, specs: list[VariantSpec]) -> dict[str, ConfigError]:
    """Return the variants that the schema cannot have, by name."""
    try:
        require_one_choice(lineage.schema)
        return {}
    except ConfigError as error:
        return {spec.name: error for spec in specs if spec.engine in (SVM, CASCADE)}


def attempt(lineage: Lineage, specs: list[VariantSpec], models: Mapping[str, Artifact]) -> tuple[dict[str, Artifact], Errors]:
    """Make the SVM and the cascades among `specs`. Returns those made and why others could not be. `models`: of the
    cascades.
    """
    wanted = [spec for spec in specs if spec.engine in (SVM, CASCADE)]
    if not wanted:
        return {}, {}
    made, failed = _run({SVM: (_make_svm, _work(lineage, lineage.svm_record()))})
    svm = made.get(SVM)
    whole = {spec.name: spec for spec in wanted if spec.model and svm and spec.model.name in models}
    works = {
        name: _work(lineage, lineage.cascade_record(spec, svm, models[spec.model.name]), svm, models[spec.model.name])
        for name, spec in whole.items()
    }
    more, wrong = _run({name: (_make_cascade, work) for name, work in works.items()})
    if not svm:
        wrong |= {spec.name: failed[SVM] for spec in wanted}
    return made | more, failed | wrong


def _work(lineage: Lineage, record: ArtifactRecord, svm: Artifact | None = None, model: Artifact | None = None) -> _Work:
    config = lineage.config
    kept = (config.workspace, lineage.options, lineage.schema, lineage.data(), record, config.quant.cascade_precision)
    return _Work(*kept, svm, model)


def _run(tasks: dict) -> tuple[dict[str, Artifact], Errors]:
    import ray

    running = {name: ray.remote(num_cpus=1, max_retries=1)(make).remote(work) for name, (make, work) in tasks.items()}
    made, failed = {}, {}
    with Steps("quantize") as steps:
        for name, ref in running.items():
            steps.update(0, 0, "is fitted", name)
            try:
                made[name] = ray.get(ref)
            except ray.exceptions.RayError as error:
                failed[name] = getattr(error, "cause", None) or error
            steps.end(name, "failed" if name in failed else "done")
    return made, failed


def _make_svm(work: _Work) -> Artifact:
    def build(folder: Path) -> None:
        from intent.train.svm import fit

        files = Files(work.data, work.options)
        training, validation = (dataset.read_split(files, split) for split in ("train", "validation"))
        write_svm(folder, fit(training, validation, work.schema))

    return artifacts.make(work.workspace, work.record, build, work.options)


def _make_cascade(work: _Work) -> Artifact:
    """Make a folder with the files of both models and the threshold, so that loading needs nothing else."""

    def build(folder: Path) -> dict:
        for part in (work.model, work.svm):
            source = artifacts.fetch(part, work.options)
            for key in part.record.files:
                (folder / key).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / key, folder / key)
        examples = dataset.read_split(Files(work.data, work.options), "validation")
        found = load_svm(folder, work.schema).classify([example.message for example in examples])
        right = np.array([is_right(example.intent, given) for example, given in zip(examples, found, strict=True)])
        threshold = Threshold.reaching(np.array([given.confidence for given in found]), right, work.precision)
        threshold.write(folder)
        return {**work.model.record.metrics, **asdict(threshold)}

    return artifacts.make(work.workspace, work.record, build, work.options)
