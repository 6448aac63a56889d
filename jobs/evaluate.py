"""Score every variant and the unquantized checkpoint on held-out messages, each alone on its hardware."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord, Files
from intent.artifacts.lineage import Lineage
from intent.artifacts.loader import classifier_loader
from intent.artifacts.selection import select
from intent.artifacts.variant import VariantSpec
from intent.config import JobConfig
from intent.dataset import dataset
from intent.engine.config import Device
from intent.errors import IntentError, require
from intent.evaluate import hosted, measurement, scope
from intent.evaluate.measurement import Trial
from intent.evaluate.report import REPORT, render_text, write_report
from intent.evaluate.results import AccuracyTarget, Measured, Sources, hosted_result, reference_of, results_of
from intent.hardware import CPU, GPU, price
from intent.openai import require_key
from intent.storage import StorageOptions
from jobs.app import Steps, cluster, command, job, reason_of, say
from jobs.nodes import Node, alone, distinct_nodes, fitting
from jobs.reports import Reports

REFERENCE = VariantSpec.parse("reference")
RESULTS = "results.json"


@dataclass(frozen=True)
class Plan:
    """A trial, with the name of its row and the node that it runs on."""

    name: str
    trial: Trial
    node: Node


def evaluate(lineage: Lineage, specs: list[VariantSpec], failed: dict[str, str] | None = None) -> Artifact:
    """Return the evaluation of the reference and `specs`, made if it does not exist. `failed`: rows of a sweep without figures.

    A variant that cannot be measured is added to `failed` or, without `failed`, raises its error. Variants without a language
    model need no reference, so they can be evaluated before any language model is trained.
    """
    if any(not spec.linear for spec in specs) or not specs:
        specs = [REFERENCE, *(spec for spec in specs if spec != REFERENCE)]
    require_key(lineage.config.baseline)
    planned, unplanned = plans(lineage, specs)
    if unplanned and failed is None:
        raise next(iter(unplanned.values()))
    measured, unmeasured = measure(lineage, planned)
    baseline, unanswered = ask_baseline(lineage)
    reasons = {name: reason_of(error) for name, error in unplanned.items()} | unmeasured | (failed or {}) | unanswered
    inputs = {plan.name: artifact.fingerprint for plan, artifact in measured} | {"data": lineage.held_out().fingerprint}
    inputs |= {"baseline": baseline.fingerprint} if baseline else {}
    config = lineage.config
    settings = {"prices": config.cluster.prices, "allowed_loss": config.quant.allowed_loss, "failed": reasons, "version": 5}
    settings |= {"in_scope_accuracy": config.quant.in_scope_accuracy} if scope.has_outside(lineage.schema) else {}
    record = ArtifactRecord("evaluation", settings, inputs)
    rows = {plan.name: _read(lineage, plan, artifact) for plan, artifact in measured}
    return artifacts.make(
        config.workspace, record, lambda folder: _build(lineage, rows, baseline, reasons, folder), lineage.options
    )


def ask_baseline(lineage: Lineage) -> tuple[Artifact | None, dict[str, str]]:
    """Measure the configured hosted model, if there is one. Returns the measurement, or the reason why there is none."""
    baseline = lineage.config.baseline
    if not baseline.model:
        return None, {}
    try:
        with Steps(baseline.model) as steps:
            data, where = lineage.held_out(), lineage.config.workspace
            return hosted.measure(baseline, lineage.schema, data, where, lineage.options, steps.report), {}
    except IntentError as error:
        return None, {baseline.model: reason_of(error)}


def plans(lineage: Lineage, specs: list[VariantSpec]) -> tuple[list[Plan], dict[str, IntentError]]:
    """Plan each variant with each batch size on each model of processor that suits it. Returns the plans and, by name, the
    errors of variants without one.
    """
    nodes, device = distinct_nodes(), lineage.config.engine.device
    planned, failed = [], {}
    for spec in specs:
        try:
            suitable = fitting(nodes, spec, device)
            require(bool(suitable), "engine.device", device.value, f"no node of this cluster suits {spec.name}")
            planned += _plans(lineage, spec, suitable)
        except IntentError as error:
            failed[spec.name] = error
    return planned, failed


def _plans(lineage: Lineage, spec: VariantSpec, nodes: list[Node]) -> Iterator[Plan]:
    data, variant, sizes = lineage.held_out(), lineage.variant(spec), lineage.config.quant.batches
    for node in nodes:
        # A measurement on the CPUs of a node with GPUs must not use the GPUs.
        device = Device.cpu if node.hardware.kind == CPU and len(nodes) > 1 else None
        # A linear variant decodes nothing.
        batches: Sequence[int | None] = [1] if spec.linear else sizes or [_batch(lineage, spec)]
        for batch in batches:
            loader = classifier_loader(lineage, spec.name, variant, node.cpus, batch, device=device)
            name = spec.name + (f" x{batch}" if len(sizes) > 1 and not spec.linear else "")
            name += f" on {node.hardware.model}" if len(nodes) > 1 else ""
            yield Plan(name, Trial(loader, data, node.hardware, batch), node)


def _batch(lineage: Lineage, spec: VariantSpec) -> int | None:
    engine = lineage.config.engine
    return engine.gguf_sequences if spec.runs == "gguf" else engine.gptq_batch


def measure(lineage: Lineage, planned: list[Plan]) -> tuple[list[tuple[Plan, Artifact]], dict[str, str]]:
    """Return the measurements and, by row, the reasons of missing ones. Runs missing measurements, one at a time per node."""
    workspace, options = lineage.config.workspace, lineage.options
    measurements = {p.name: artifacts.find(artifacts.artifact_uri(workspace, p.trial.record), options) for p in planned}
    missing = [plan for plan in planned if measurements[plan.name] is None]
    new, failed = _measure_now(missing, workspace, options) if missing else ({}, {})
    measurements |= new
    names = [plan.name for plan in planned]
    measured = [(plan, result) for plan in planned if (result := measurements[plan.name])]
    return measured, {name: failed[name] for name in names if name in failed}


def _measure_now(plans: list[Plan], workspace: str, options: StorageOptions) -> tuple[dict[str, Artifact], dict[str, str]]:
    import ray

    measurements, failed = {}, {}
    with Steps("measure", "variant") as steps, Reports(steps) as reports:
        waiting = {}
        for plan in plans:
            remote = alone(plan.node, plan.trial.record.fingerprint, measurement.measure)
            waiting[remote.remote(plan.trial, workspace, options, reports.of(plan.name))] = plan.name
        while waiting:
            steps.update(len(plans) - len(waiting), len(plans))
            (ref,), _ = ray.wait(list(waiting), num_returns=1)
            name = waiting.pop(ref)
            try:
                measurements[name] = ray.get(ref)
            except ray.exceptions.RayError as error:
                failed[name] = reason_of(error)
            reports.end(name, "failed" if name in failed else "done")
        steps.update(len(plans), len(plans))
    return measurements, failed


def _read(lineage: Lineage, plan: Plan, artifact: Artifact) -> Measured:
    predictions, speed = measurement.read(artifact, lineage.options)
    units = plan.trial.hardware.count if plan.trial.hardware.kind == GPU else plan.node.cpus
    price, validation = _price(lineage, plan.trial.hardware, units), measurement.read_validation(artifact, lineage.options)
    decisions = partial(measurement.read_decisions, artifact, lineage.options)
    return Measured(plan.trial, predictions, speed, price, validation, decisions)


def _build(
    lineage: Lineage, rows: dict[str, Measured], baseline: Artifact | None, failed: dict[str, str], folder: Path
) -> dict:
    sources = Sources.read(
        lineage, command(), trained=any(not VariantSpec.parse(row.trial.loader.name).linear for row in rows.values())
    )
    results = results_of(lineage.schema, sources.examples, rows, _accuracy_target(lineage))
    if baseline:
        row = hosted_result(lineage.schema, sources.examples, baseline, lineage.options, reference_of(rows))
        results[row["variant"]] = row
    results |= {name: {"reason": why} for name, why in failed.items()}
    (folder / RESULTS).write_text(json.dumps(results, indent=1, ensure_ascii=False))
    selected = select(results, lineage.config.quant.allowed_loss)
    write_report(folder, results, {model: asdict(choice) for model, choice in selected.items()}, sources)
    return {name: {"exact": result["score"]["exact"]} for name, result in results.items() if "score" in result}


def _accuracy_target(lineage: Lineage) -> AccuracyTarget | None:
    if not scope.has_outside(lineage.schema):
        return None
    validation = dataset.read_split(Files(lineage.held_out(), lineage.options), "validation")
    return AccuracyTarget(validation, lineage.config.quant.in_scope_accuracy)


def _price(lineage: Lineage, hardware, units: float) -> float | None:
    """Return the price in USD per hour of all processors that a measurement used."""
    each = price(lineage.config.cluster.prices, hardware)
    return None if each is None else each * units


def results_at(evaluation: Artifact, lineage: Lineage) -> dict:
    """Read the results of an evaluation, by row."""
    return json.loads(Files(evaluation, lineage.options).read(RESULTS))


@job("evaluate")
def main(config: JobConfig) -> None:
    lineage = Lineage(config)
    lineage.check()
    with cluster(config.cluster):
        evaluation = evaluate(lineage, config.quant.specs())
    say(f"{render_text(results_at(evaluation, lineage))}\nreport: {evaluation.files_uri}/{REPORT}")


if __name__ == "__main__":
    main()
