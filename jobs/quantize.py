"""Make variants: GPTQ and GGUF from the checkpoint, in parallel Ray tasks, and SVM, embeddings and cascades."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord, Files
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import publish_models
from intent.artifacts.variant import CASCADE, LINEAR, VariantSpec
from intent.config import JobConfig
from intent.dataset import dataset
from intent.engine import golden_set
from intent.engine.context import config_tokens
from intent.engine.golden_set import GoldenSet
from intent.engine.load import EngineOptions, load_classifier
from intent.errors import ConfigError, IntentError
from intent.progress import Report, polled, unreported
from intent.quantize import contents
from intent.storage import StorageOptions
from intent.task.prompt import Prompt, load_tokenizer
from intent.task.schema import IntentSchema
from jobs import cascade
from jobs.app import Steps, cluster, job, reason_of, say
from jobs.context import CONFIG, CONTEXT, require_trainable
from jobs.generate import generate
from jobs.nodes import task_cpus
from jobs.reports import Reports

# The metric of a checkpoint and its variants with the number of messages that the checkpoint was trained on.
TRAINED_ON = "messages"


def quantize(lineage: Lineage, specs: list[VariantSpec]) -> dict[str, Artifact]:
    """Make the variants, as `make` does, and publish them as the workspace's models."""
    variants = make(lineage, specs)
    publish_variants(lineage, variants)
    return {spec.name: variants[spec.name] for spec in specs if spec.name in variants}


def make(lineage: Lineage, specs: list[VariantSpec]) -> dict[str, Artifact]:
    """Make the missing variants and parts of cascades. Returns all of them, by name.

    Attempts all before it raises the first error.
    """
    require_context(lineage, specs)
    if refused := refusals(lineage, specs):
        raise next(iter(refused.values()))
    variants, failed = attempt(lineage, specs)
    if failed:
        raise next(iter(failed.values()))
    return variants


def publish_variants(lineage: Lineage, variants: dict[str, Artifact]) -> None:
    """Publish the result of `attempt` as the workspace's models, and drop variants of other checkpoints."""
    of_checkpoint = any(not VariantSpec.parse(name).linear for name in variants)
    checkpoint = lineage.checkpoint().fingerprint if of_checkpoint else None
    publish_models(lineage.config.workspace, variants, lineage.options, checkpoint)


def require_context(lineage: Lineage, specs: list[VariantSpec]) -> None:
    """Raise ConfigError if the catalog is too long for the checkpoint of `specs`."""
    if any(not spec.linear and spec.engine != "base" for spec in specs):
        require_trainable(lineage, lineage.checkpoint)


def attempt(
    lineage: Lineage, specs: list[VariantSpec], with_gold: bool = True
) -> tuple[dict[str, Artifact], dict[str, Exception]]:
    """Make variants and the parts of cascades. Returns the artifacts and, for `specs` that failed, the errors. Publishes
    nothing.

    `with_gold`: add the golden set.
    """
    specs = [spec for spec in specs if spec.engine != "base"]
    needed = list(dict.fromkeys(part for spec in specs for part in [*spec.parts, spec]))
    models = [spec for spec in needed if spec.engine not in (*LINEAR, CASCADE)]
    variants, failed = _attempt_models(lineage, models, with_gold) if models else ({}, {})
    cascade_variants, cascade_errors = cascade.attempt(lineage, specs, variants)
    variants, failed = variants | cascade_variants, failed | cascade_errors
    for spec in specs:
        if spec.model and spec.model.name in failed:
            failed.setdefault(spec.name, failed[spec.model.name])
    return variants, {spec.name: failed[spec.name] for spec in specs if spec.name in failed}


def _attempt_models(
    lineage: Lineage, specs: list[VariantSpec], with_gold: bool
) -> tuple[dict[str, Artifact], dict[str, Exception]]:
    """Make the variants of the checkpoint, in parallel."""
    import ray

    checkpoint = lineage.checkpoint()
    cpus, gpus = _cpus(lineage), int(ray.cluster_resources().get("GPU", 0) > 0)
    task = ray.remote(max_retries=1)(make_variant)
    variants = _existing(lineage, checkpoint, specs)
    if len(variants) == len(specs):
        return variants, {}
    failed: dict[str, Exception] = {}
    waiting = {}
    try:
        data = _messages(lineage, checkpoint) if with_gold or any(spec.calibrated for spec in specs) else None
        gold = _gold(lineage, checkpoint, data, gpus) if with_gold and data else None
    except ray.exceptions.RayError as error:
        why = IntentError(f"the golden set that variants are checked against could not be made: {reason_of(error)}")
        return variants, {spec.name: why for spec in specs if spec.name not in variants}
    with Steps("quantize") as steps, Reports(steps) as reports:
        for spec in specs:
            if spec.name in variants:
                continue
            resources = {"num_cpus": cpus, "num_gpus": gpus if spec.engine == "gptq" else 0}
            work = _Work(lineage, checkpoint, data if spec.calibrated else None, spec)
            steps.update(0, 0, "waits for its turn", spec.name)
            waiting[task.options(**resources).remote(work, gold, reports.of(spec.name))] = spec
        while waiting:
            (ref,), _ = ray.wait(list(waiting), num_returns=1)
            spec = waiting.pop(ref)
            try:
                variants[spec.name] = ray.get(ref)
            except ray.exceptions.RayError as error:
                failed[spec.name] = getattr(error, "cause", None) or error
            reports.end(spec.name, "failed" if spec.name in failed else "done")
    return variants, failed


def _existing(lineage: Lineage, checkpoint: Artifact, specs: list[VariantSpec]) -> dict[str, Artifact]:
    """Return the existing variants among `specs`."""
    variants = {}
    for spec in specs:
        where = artifacts.artifact_uri(lineage.config.workspace, lineage.variant_record(checkpoint, spec))
        if variant := checkpoint if spec.engine == "reference" else artifacts.find(where, lineage.options):
            variants[spec.name] = variant
    return variants


def _messages(lineage: Lineage, checkpoint: Artifact) -> Artifact:
    """Return the messages that calibrate and check the variants of `checkpoint`. Makes them if training needed no data set."""
    own = lineage.of_messages(checkpoint)
    return lineage.data() if own is lineage else generate(own, own.config.data)


class _Work:
    """The input of a task that makes one variant. It is small enough to send."""

    def __init__(self, lineage: Lineage, checkpoint: Artifact, data: Artifact | None, spec: VariantSpec):
        self.workspace, self.options = lineage.config.workspace, lineage.options
        self.checkpoint, self.data, self.spec = checkpoint, data, spec
        self.record = lineage.variant_record(checkpoint, spec)
        self.schema, self.output_format = lineage.schema, checkpoint.record.output_format
        self.messages, self.cpus = lineage.config.quant.calibration_messages, _cpus(lineage)


def _cpus(lineage: Lineage) -> int:
    return task_cpus(lineage.config.cluster, lineage.config.quant.cpus)


def refusals(lineage: Lineage, specs: list[VariantSpec]) -> dict[str, ConfigError]:
    """Return the errors of the variants that this checkpoint cannot have, by name, before any work."""
    from intent.engine.reference import check_precision
    from intent.quantize.gptq import check_group_size

    refused = cascade.refusals(lineage, specs)
    if checked := [spec for spec in specs if spec.runs in ("gptq", "reference") and spec.name not in refused]:
        folder = artifacts.fetch(lineage.checkpoint(), lineage.options)
        for spec in checked:
            model = spec.model or spec
            try:
                if model.engine == "gptq":
                    check_group_size(folder, model.group_size)
                check_precision(folder, model.precision, "quant.variants")
            except ConfigError as error:
                refused[spec.name] = error
    return refused


@dataclass(frozen=True)
class _GoldWork:
    """The input of a task that labels the golden set with the unquantized model."""

    workspace: str
    record: ArtifactRecord
    checkpoint: Artifact
    data: Artifact
    schema: IntentSchema
    options: StorageOptions
    threads: int


def _gold(lineage: Lineage, checkpoint: Artifact, data: Artifact, gpus: int) -> Artifact:
    """Return the golden set of `checkpoint`, made on the cluster if it does not exist."""
    import ray

    cpus = _cpus(lineage)
    record = lineage.golden_set_record(checkpoint, data)
    work = _GoldWork(lineage.config.workspace, record, checkpoint, data, lineage.schema, lineage.options, cpus)
    if artifact := artifacts.find(artifacts.artifact_uri(work.workspace, record), work.options):
        return artifact
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=1)(make_gold)
    with Steps("golden set") as steps, Reports(steps) as reports:
        artifact = ray.get(task.remote(work, reports.of()))
        reports.end()
    return artifact


def make_gold(work: _GoldWork, report: Report = unreported) -> Artifact:
    """Label validation messages about one catalog with the unquantized model."""

    def build(folder: Path) -> None:
        files = Files(work.data, work.options)
        examples = dataset.read_split(files, "validation")
        catalogs = dataset.read_catalogs(files)
        # Every actor computes this prompt before it labels, so take the shortest catalog.
        catalog = min((example.catalog for example in examples), key=lambda id: len(catalogs.get(id, ())))
        messages = dict.fromkeys(example.message for example in examples if example.catalog == catalog)
        prompt = Prompt(work.schema, catalogs.get(catalog, ()))
        options = EngineOptions(work.checkpoint.record.output_format, threads=work.threads)
        report(0, 0, "", "loads the unquantized model")
        reference = load_classifier(artifacts.fetch(work.checkpoint, work.options), "reference", prompt, options)
        candidates = list(messages)[: golden_set.CANDIDATES]
        with polled(
            lambda: getattr(reference, "answered", 0),
            len(candidates),
            report,
            "message",
            "labels them with the unquantized model",
        ):
            gold = GoldenSet.of(reference, prompt, candidates)
        gold.write(folder)

    return artifacts.make(work.workspace, work.record, build, work.options)


def make_variant(work: _Work, gold: Artifact | None, report: Report = unreported) -> Artifact:
    """Make one variant, unless it exists, with the golden set."""

    def build(folder: Path) -> dict:
        from intent.quantize import gguf, gptq
        from intent.train.merge import copy_calibration, copy_tokenizer

        report(0, 0, "", "loads the checkpoint")
        checkpoint = artifacts.fetch(work.checkpoint, work.options)
        spec = work.spec
        sequences = _calibration(work, checkpoint, work.options) if work.data else []
        metrics: dict = {}
        if spec.engine == "gptq":
            gptq.quantize(checkpoint, folder, spec.bits, spec.group_size, sequences, gptq.best_device(), spec.act_order, report)
        else:
            metrics = gguf.make(checkpoint, folder / "model.gguf", spec, work.cpus, sequences, report)
        copy_tokenizer(checkpoint, folder)
        copy_calibration(checkpoint, folder)
        if gold:
            shutil.copy(artifacts.fetch(gold, work.options) / golden_set.FILE, folder / golden_set.FILE)
        context = config_tokens((checkpoint / CONFIG).read_bytes())
        return metrics | {CONTEXT: context, TRAINED_ON: work.checkpoint.record.metrics.get(TRAINED_ON)}

    return artifacts.make(work.workspace, work.record, build, work.options)


def _calibration(work: _Work, checkpoint: Path, options: StorageOptions) -> list[list[int]]:
    """Return the tokens of training prompts with their answers. A few messages share each prefix, as in labelling."""
    from intent.train.batches import calibration_sequences, encode

    assert work.data, "calibration reads training messages"
    files = Files(work.data, options)
    examples = dataset.read_split(files, "train")[: work.messages]
    groups = encode(examples, dataset.read_catalogs(files), work.schema, load_tokenizer(checkpoint), work.output_format)
    return calibration_sequences(groups)


def describe(name: str, variant: Artifact) -> str:
    """Describe a variant's address, its size, and a GGUF's tensor types."""
    size = sum(entry["bytes"] for entry in variant.record.files.values())
    types = contents.describe(variant.record.metrics)
    return f"{name}: {variant.uri} ({size / 1e6:,.0f} MB{f': {types}' if types else ''})"


@job("quantize")
def main(config: JobConfig) -> None:
    lineage = Lineage(config)
    lineage.check()
    with cluster(config.cluster):
        variants = quantize(lineage, config.quant.specs())
    for name, variant in variants.items():
        say(describe(name, variant))


if __name__ == "__main__":
    main()
