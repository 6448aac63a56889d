"""Classify a query log: Parquet in, labeled Parquet, rejected rows and a manifest out, each row exactly once."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date

from intent import observe
from intent.artifacts import Artifact, fingerprint
from intent.artifacts.lineage import Lineage
from intent.artifacts.loader import RouterLoader, classifier_loader
from intent.artifacts.variant import EMBEDDING, LINEAR, SVM, VariantSpec
from intent.config import ClassifyConfig
from intent.engine.config import Device
from intent.errors import require
from intent.lake import DELTA, ICEBERG, open_target
from intent.run import progress
from intent.run.actor_pool import EngineSpec
from intent.run.columns import Columns
from intent.run.config import ClusterMode
from intent.run.driver import classify_log, require_apart
from intent.run.events import Listener, unheard
from intent.run.ledger import MANIFEST, RunIdentity
from intent.run.progress import Summary
from intent.run.publish import Publication
from intent.storage import open_store
from intent.task import prompt
from jobs.app import cluster, job, say, watcher
from jobs.caching import label_cache, tending
from jobs.choice import serving
from jobs.nodes import task_cpus

# Low estimates of the messages per second of a CPU and a GPU with a language model (docs/benchmarks.md, "Sizing"), and of a CPU
# with a linear classifier (docs/labels.md). They only decide the size of shards.
CPU_RATE, GPU_RATE = 8.0, 500.0
LINEAR_RATE = {SVM: 1_000.0, EMBEDDING: 100.0}


def classify(config: ClassifyConfig) -> Summary:
    """Run the job on the running cluster."""
    lineage = Lineage(config)
    published = publication(lineage, [config.input])
    variants, batches = serving(lineage, config.models)
    observed_run = subject(lineage, f"classify {config.output}", [config.input], config.output)
    with observe.run(observed_run, teller(config)) as observed:
        with tending(lineage, variants) as learn:
            observed.summary = label(
                lineage, [config.input], config.output, variants, batches, publication=published, listener=observed.hear
            )
            learn(config.output)
        if published:
            say(f"published: {published.commit(open_store(config.output, lineage.options))}")
    return observed.summary


def publication(lineage: Lineage, inputs: Sequence[str], name: str = "") -> Publication | None:
    """Return the second target of the labels, or None. `name`: a name for people. Raises ConfigError if it is unfit."""
    config, options = lineage.config, lineage.options
    if config.publish is None:
        return None
    if not config.publish.startswith(ICEBERG):
        store = open_store(config.publish.removeprefix(DELTA), options)
        require_apart(store, inputs, options, "publish")
        require_apart(store, config.output, options, "publish", "the output")
        require_apart(open_store(config.output, options), config.publish, options, "output", "what is published")
    source = " .. ".join(dict.fromkeys(uri.removeprefix(DELTA).rstrip("/") for uri in (inputs[0], inputs[-1])))
    target = open_target(config.publish, config.partition_by, options)
    return Publication(target, lineage.schema, columns(config), source, name)


def label(
    lineage: Lineage,
    inputs: Sequence[str],
    output: str,
    variants: dict[str, Artifact],
    batches: Mapping[str, int],
    version: int | None = None,
    publication: Publication | None = None,
    listener: Listener = unheard,
) -> Summary:
    """Label the log below `inputs` with these variants, by the settings of the lineage. `version`: of the input's table."""
    config = lineage.config
    return classify_log(
        inputs,
        output,
        lineage.options,
        identity(lineage, variants),
        lineage.schema,
        engines(lineage, variants, batches),
        config.fleet,
        columns(config),
        stream=watcher(config.cluster),
        pattern=config.input_pattern,
        version=config.input_version if version is None else version,
        publication=publication,
        listener=listener,
        router=RouterLoader(lineage.index, lineage.schema, lineage.options) if lineage.index else None,
    )


def subject(lineage: Lineage, name: str, inputs: Sequence[str], output: str, day: date | None = None) -> observe.Subject:
    """Return the description of a run for lineage and traces. `name`: of the job. `output`: the address that readers use."""
    fields = lineage.schema.label_fields(lineage.config.explode)
    return observe.Subject(name, inputs, output, columns(lineage.config), fields, day, lineage.config.publish)


def teller(config: ClassifyConfig) -> Callable[[str], None]:
    """Return a function that shows the operator a line."""
    return lambda line: progress.say(line, watcher(config.cluster))


def columns(config: ClassifyConfig) -> Columns:
    """Return the columns of the input."""
    return Columns(config.id_column, config.message_column, tuple(config.keep_columns), config.explode)


def identity(lineage: Lineage, variants: dict[str, Artifact]) -> RunIdentity:
    """Return the fingerprints of everything that determines the labels, except for the input."""
    engine = lineage.config.engine
    return RunIdentity(
        models={name: variant.fingerprint for name, variant in variants.items()},
        prompt=fingerprint([*_prompt_facts(lineage), engine.abstain_below, engine.max_message_tokens]),
        schema=lineage.schema_fingerprint,
        catalog=fingerprint(lineage.catalog.names),
    )


def _prompt_facts(lineage: Lineage) -> list:
    shelves = [lineage.index.fingerprint] if lineage.index else []
    return [prompt.VERSION, lineage.prompt.prefix, *shelves]


def engines(lineage: Lineage, variants: dict[str, Artifact], batches: Mapping[str, int] = {}) -> list[EngineSpec]:
    """Return one kind of actor per variant, sized by the configuration or the cluster. `batches`: override the batch sizes.

    A cluster that grows on demand may have no nodes yet, so its configuration should give `fleet.*_actors`, and
    engine.device=cuda for GPUs. On a local cluster, raises ConfigError if engine.device=cuda and it has no GPU.
    """
    import ray

    config, resources = lineage.config, ray.cluster_resources()
    fleet, local = config.fleet, config.cluster.mode is ClusterMode.local
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    specs = []
    for name, variant in variants.items():
        spec = VariantSpec.parse(name)
        device = config.engine.device
        on_gpu = not spec.only_cpus and (device is Device.cuda or (gpus > 0 and device is Device.auto))
        require(gpus > 0 or not (on_gpu and local), "engine.device", "cuda", "there is no GPU; use auto")
        each = task_cpus(config.cluster, fleet.gguf_cpus if spec.only_cpus else fleet.gptq_cpus)
        configured = fleet.gguf_actors if spec.only_cpus else fleet.gptq_actors
        actors = configured or (max(1, gpus) if on_gpu else max(1, cpus // len(variants) // each))
        loader = classifier_loader(
            lineage, name, variant, threads=each, batch=batches.get(name), checked=True, abstains=False, index=lineage.index
        )
        engine = EngineSpec(
            name,
            spec.engine,
            loader,
            actors,
            cpus=each,
            gpus=int(on_gpu),
            prices=config.cluster.prices,
            abstain_below=config.engine.abstain_below,
            cache=label_cache(lineage, name, variant),
            rate=GPU_RATE if on_gpu else each * (LINEAR_RATE[spec.runs] if spec.runs in LINEAR else CPU_RATE),
            env_vars=_threads(each),
            grows=not configured,
        )
        specs.append(engine)
    return specs


def _threads(cpus: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(cpus)}


def describe(summary: Summary) -> str:
    """Describe the summary for the operator."""
    if summary.already_done:
        return f"already done: {summary.rows:,} rows are labelled at {summary.output}; nothing to do"
    rates = "\n".join(
        f"  {name}: {int(v['rows']):,} rows, {v['rows_per_second']:,.0f} rows/s" for name, v in summary.variants.items()
    )
    parts = f"{summary.labelled:,} labelled + {summary.abstained:,} abstained + {summary.rejected:,} rejected"
    saw = f"in {summary.seconds:.1f} s; the models saw {summary.classified:,} messages"
    if summary.cached:
        saw += f"\n  {summary.cached:,} rows from the label cache, {summary.duplicates_saved:,} saved as duplicates"
    if summary.agreement is not None:
        saw += f"; {summary.agreement:.1%} of {summary.asked_again:,} cached labels that were asked again agree"
    left_out = f"{_left_out(summary)}\n" if summary.objects_left_out else ""
    return f"{summary.rows:,} rows = {parts} {saw}\n{rates}\n{left_out}output: {summary.output}"


def _left_out(summary: Summary) -> str:
    more = summary.objects_left_out - len(summary.left_out)
    lines = [f"  {key!r}: {why}" for key, why in summary.left_out.items()] + ([f"  and {more:,} more"] if more else [])
    head = f"left out: {summary.objects_left_out:,} objects of the input, all named in {MANIFEST}"
    return "\n".join([head, *lines])


@job("classify", ClassifyConfig)
def main(config: ClassifyConfig) -> None:
    Lineage(config).check()
    with cluster(config.cluster):
        summary = classify(config)
    say(describe(summary))
    say(json.dumps(summary.as_dict()))


if __name__ == "__main__":
    main()
