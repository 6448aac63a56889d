"""Measure our engines, a user's first attempt and the hardware's limit on the same messages, or the fan-out of a run."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord, Files, file_sha256, libraries
from intent.artifacts.lineage import Lineage
from intent.benchmark import peers
from intent.benchmark.config import RowKind, Shape
from intent.benchmark.engines import Bench, Result, Row, compared, plan, result, tokens_needed
from intent.benchmark.meters import Workload
from intent.benchmark.report import render_json, render_markdown, render_text
from intent.config import BenchmarkConfig
from intent.dataset import dataset
from intent.errors import ConfigError
from intent.evaluate.machine import machine
from intent.storage import StorageOptions, open_store
from jobs.app import Steps, cluster, job, say
from jobs.catalogs import measure_catalogs
from jobs.fan_out import measure_cached_runs, measure_runs
from jobs.generate import generate
from jobs.quantize import attempt, refusals
from jobs.train import make_base

WEIGHTS = (".safetensors", ".gguf")


def prepare(lineage: Lineage) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Make the missing variants of the model shape. Returns the variants, and the reasons why others could not be made."""
    lineage.config.train.uri = _shape(lineage).uri
    specs = lineage.config.quant.specs()
    refused = refusals(lineage, specs)
    variants, failed = attempt(lineage, [spec for spec in specs if spec.name not in refused], with_gold=False)
    return variants, {name: str(error) for name, error in (refused | failed).items()}


def _shape(lineage: Lineage[BenchmarkConfig]) -> Artifact:
    import ray

    config = lineage.config
    vocabulary = Path(config.vocabulary) if config.vocabulary else None
    if vocabulary and not vocabulary.is_file():
        raise ConfigError("vocabulary", config.vocabulary, "no such file; give a Llama 3 vocabulary in GGUF form, or null")
    settings = {"shape": config.shape.value, "output_format": config.output_format.value, "version": 1}
    inputs = {"schema": lineage.schema_fingerprint, "base": lineage.base_record().fingerprint}
    if vocabulary:
        inputs["vocabulary"] = file_sha256(vocabulary)

    record = ArtifactRecord("shape", settings, inputs)
    if artifact := artifacts.find(artifacts.artifact_uri(config.workspace, record), lineage.options):
        return artifact
    tokenizer = vocabulary or (None if config.shape is Shape.embedded else make_base(lineage))
    return ray.get(ray.remote(_make_shape).remote(replace(config, model=lineage.model), record, tokenizer, lineage.options))


def _make_shape(
    config: BenchmarkConfig, record: ArtifactRecord, tokenizer: Path | Artifact | None, options: StorageOptions
) -> Artifact:
    from intent.benchmark.shapes import write_shape
    from intent.train.base import write_base

    def build(folder: Path) -> None:
        if config.shape is Shape.embedded:
            return write_base(config.model, folder)
        assert tokenizer is not None, "only the embedded shape has no tokenizer of its own"
        where = artifacts.fetch(tokenizer, options) if isinstance(tokenizer, Artifact) else tokenizer
        return write_shape(config.shape.value, where, folder)

    return artifacts.make(config.workspace, record, build, options)


def workload(lineage: Lineage) -> Workload:
    """Generate the messages to measure on, with their intents."""
    generate(lineage, lineage.config.data)
    examples = dataset.read_split(Files(lineage.data(), lineage.options), "test")
    return Workload(lineage.prompt, [e.message for e in examples], [e.intent for e in examples])


def measure(
    row: Row,
    variant: Artifact | None,
    work: Workload,
    lineage: Lineage[BenchmarkConfig],
    tell: Callable[[str], None] = lambda note: None,
) -> tuple[Result, dict]:
    """Return the row's result and the machine that it ran on. The actors of a row share the messages and run side by side.

    `tell`: called with a note on the progress.
    """
    import ray

    from intent.run.actor_pool import reason_of

    environment = {"env_vars": {"OMP_NUM_THREADS": str(row.threads)}}
    # Ray Data starts its own actors, which take the processors.
    takes = {} if row.kind is RowKind.ray_data else {"num_cpus": row.threads, "num_gpus": int(row.device == "cuda")}
    remote = ray.remote(Bench).options(**{"num_cpus": 0} | takes, runtime_env=environment)
    actors = [remote.remote() for _ in range(row.actors)]
    parts = [work.part(i, row.actors) for i in range(row.actors)]
    try:
        loads = [actor.load.remote(row, variant, lineage.options, part) for actor, part in zip(actors, parts, strict=True)]
        tell("loads")
        where = ray.get(loads)[0]
        tell(f"is measured for about {lineage.config.seconds:g} s, after a first pass")
        readings = ray.get([actor.run.remote(lineage.config.seconds) for actor in actors])
        return result(row, readings, _disk_bytes(variant, row)), where
    except ray.exceptions.RayError as error:
        return Result(row, reason_of(error)), {}
    finally:
        for actor in actors:
            ray.kill(actor)


def _disk_bytes(variant: Artifact | None, row: Row) -> int:
    files = variant.record.files.items() if variant else ()
    return sum(entry["bytes"] for key, entry in files if key.endswith(WEIGHTS) and "/" not in key)


def measure_all(lineage: Lineage[BenchmarkConfig]) -> tuple[dict, list[Result]]:
    """Measure all rows. Returns the conditions of the results, and the results."""
    rows, results, where = _rows(lineage.config), [], {}
    work = workload(lineage)
    variants, reasons = prepare(lineage)
    with Steps("benchmark", "row") as steps:
        for row in rows:
            tell = lambda note: steps.update(len(results), len(rows), f"{row.name} {note}")  # noqa: B023, E731
            reason = reasons.get(row.variant) or peers.lacks(row.kind)
            reason = reason or ("" if row.device == "cpu" or _gpus() else "the cluster has no GPU")
            done, here = (Result(row, reason), {}) if reason else measure(row, variants.get(row.variant), work, lineage, tell)
            results.append(done)
            say(f"{row.name}: {done.reason or f'{done.tokens_per_second:,.0f} tokens/s'}")
            where |= here
        steps.update(len(results), len(rows))
    length, needed = tokens_needed(artifacts.fetch(lineage.checkpoint(), lineage.options), work)
    messages = f"{len(work.messages)} generated, {length:.1f} tokens each, {needed:.1f} to be computed (output format compact)"
    return _head(lineage, where, messages), compared(results, needed)


def _rows(config: BenchmarkConfig) -> list[Row]:
    import ray

    cpus = int(ray.cluster_resources()["CPU"])
    if any(n > cpus for n in config.threads):
        raise ConfigError("threads", list(config.threads), f"the cluster has {cpus} CPUs")
    output_formats, threads = [each.value for each in config.output_formats], config.threads or [cpus]
    sizes = (config.sequences, threads, cpus)
    rows = list(plan(config.quant.specs(), config.rows, output_formats, *sizes, _gpus() > 0, config.engine.device))
    # A batch cannot be larger than the number of messages.
    there = [replace(row, batch=min(row.batch, config.messages)) if row.kind is RowKind.engine else row for row in rows]
    rows = list(dict.fromkeys(there))
    if not rows:
        device = config.engine.device.value
        raise ConfigError(
            "engine.device", device, f"none of {config.quant.variants} has a row on it; use auto, or other variants"
        )
    return rows


def _gpus() -> int:
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def _head(lineage: Lineage[BenchmarkConfig], where: dict, messages: str) -> dict:
    config = lineage.config
    return {
        "shape": f"{config.shape.value} ({'random weights' if config.shape is Shape.llama32_1b else config.model.name})",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m jobs.benchmark", *sys.argv[1:]]),
        "machine": where,
        "libraries": libraries(),
        "messages": messages,
        "products": len(lineage.catalog.names),
    }


def publish(lineage: Lineage, name: str, head: dict, results: Sequence[Result]) -> str:
    """Write the results into the workspace. Returns their address."""
    store = open_store(lineage.config.workspace, lineage.options)
    store.put(f"{name}.json", render_json(head, results).encode())
    store.put(f"{name}.md", render_markdown(head, results).encode())
    return f"{store.uri}/{name}.json, .md"


@job("benchmark", BenchmarkConfig)
def main(config: BenchmarkConfig) -> None:
    if config.run_rows or config.runs or config.products:
        measure_ = measure_runs if config.run_rows else measure_cached_runs if config.runs else measure_catalogs
        with cluster(config.cluster):
            return say(measure_(Lineage(config), _head(Lineage(config), machine(), "made up")))
    # A separate folder, because a benchmark must not replace the workspace's models.
    config.workspace += "/benchmark"
    lineage = Lineage(config)
    with cluster(config.cluster):
        head, results = measure_all(lineage)
    say(render_text(head, results))
    say(publish(lineage, f"results-{config.shape.value}-{head['date'].replace(':', '')}", head, results))


if __name__ == "__main__":
    main()
