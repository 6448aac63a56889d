"""Make the variants of `jobs.quantize` that are not quantized: linear classifiers, and cascades of SVM and language model."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord, Files
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import CASCADE, LINEAR, SVM, VariantSpec
from intent.dataset import dataset
from intent.engine.cascade import Threshold
from intent.engine.embedding import write_embedding
from intent.engine.linear import require_one_choice
from intent.engine.svm import load_svm, write_svm
from intent.errors import ConfigError
from intent.evaluate.metrics import is_right
from intent.progress import Steps
from intent.storage import StorageOptions
from intent.task.schema import IntentSchema
from intent.train.linear import fit_embedding, fit_svm

MADE_HERE = (*LINEAR, CASCADE)
Errors = dict[str, Exception]


@dataclass(frozen=True)
class _Work:
    """The input of a task that makes a linear classifier, or a cascade of `svm` and `model`. It is small enough to send."""

    spec: VariantSpec
    workspace: str
    options: StorageOptions
    schema: IntentSchema
    data: Artifact
    record: ArtifactRecord
    precision: float
    svm: Artifact | None = None
    model: Artifact | None = None


def refusals(lineage: Lineage, specs: list[VariantSpec]) -> dict[str, ConfigError]:
    """Return the errors of the variants that the schema cannot have, by name."""
    refused = {}
    for spec in specs:
        try:
            if spec.engine in MADE_HERE:
                require_one_choice(lineage.schema, spec.name)
        except ConfigError as error:
            refused[spec.name] = error
    return refused


def attempt(lineage: Lineage, specs: list[VariantSpec], models: Mapping[str, Artifact]) -> tuple[dict[str, Artifact], Errors]:
    """Make the linear classifiers and cascades among `specs`. Returns the artifacts and, for those that failed, the errors.

    `models`: the language models of the cascades.
    """
    cascades = [spec for spec in specs if spec.engine == CASCADE]
    linear = [spec for spec in [*([VariantSpec(SVM, SVM)] if cascades else []), *specs] if spec.linear]
    variants, failed = _run({spec.name: (_make_linear, _work(lineage, spec, lineage.linear_record(spec))) for spec in linear})
    svm = variants.get(SVM)
    works = {
        spec.name: _work(lineage, spec, lineage.cascade_record(spec, svm, model), svm, model)
        for spec in cascades
        if svm and spec.model and (model := models.get(spec.model.name))
    }
    cascade_variants, cascade_errors = _run({name: (_make_cascade, work) for name, work in works.items()})
    if not svm:
        cascade_errors |= {spec.name: failed[SVM] for spec in cascades}
    return variants | cascade_variants, failed | cascade_errors


def _work(
    lineage: Lineage, spec: VariantSpec, record: ArtifactRecord, svm: Artifact | None = None, model: Artifact | None = None
) -> _Work:
    config = lineage.config
    common = (spec, config.workspace, lineage.options, lineage.schema, lineage.data(), record, config.quant.cascade_precision)
    return _Work(*common, svm, model)


def _run(tasks: dict) -> tuple[dict[str, Artifact], Errors]:
    import ray

    if not tasks:
        return {}, {}
    running = {name: ray.remote(num_cpus=1, max_retries=1)(make).remote(work) for name, (make, work) in tasks.items()}
    variants, failed = {}, {}
    with Steps("quantize") as steps:
        for name, ref in running.items():
            steps.update(0, 0, "is fitted", name)
            try:
                variants[name] = ray.get(ref)
            except ray.exceptions.RayError as error:
                failed[name] = getattr(error, "cause", None) or error
            steps.end(name, "failed" if name in failed else "done")
    return variants, failed


def _make_linear(work: _Work) -> Artifact:
    def build(folder: Path) -> None:
        files = Files(work.data, work.options)
        training, validation = (dataset.read_split(files, split) for split in ("train", "validation"))
        if work.spec.engine == SVM:
            write_svm(folder, fit_svm(training, validation, work.schema))
        else:
            write_embedding(folder, fit_embedding(work.spec, folder, training, validation, work.schema))

    return artifacts.make(work.workspace, work.record, build, work.options)


def _make_cascade(work: _Work) -> Artifact:
    """Make a cascade, whose folder holds the files of both models and the threshold, so that loading needs nothing else."""

    model, svm = work.model, work.svm
    assert model is not None and svm is not None, "a cascade is made of two models"

    def build(folder: Path) -> dict:
        for part in (model, svm):
            source = artifacts.fetch(part, work.options)
            for key in part.record.files:
                (folder / key).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / key, folder / key)
        examples = dataset.read_split(Files(work.data, work.options), "validation")
        predictions = load_svm(folder, work.schema).classify([example.message for example in examples])
        right = np.array(
            [is_right(example.intent, prediction) for example, prediction in zip(examples, predictions, strict=True)]
        )
        threshold = Threshold.reaching(np.array([prediction.confidence for prediction in predictions]), right, work.precision)
        threshold.write(folder)
        return {**model.record.metrics, **asdict(threshold)}

    return artifacts.make(work.workspace, work.record, build, work.options)
