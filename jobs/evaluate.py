"""Score every variant and the unquantized checkpoint on held-out messages, one after the other on a quiet cluster."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from intent import artifact
from intent.artifact import Artifact, ArtifactRecord
from intent.config import JobConfig, VariantSpec
from intent.engine import Prediction
from intent.evaluate.metrics import agreement, score
from intent.evaluate.report import REPORT, render_html, render_text
from intent.lineage import Lineage
from intent.models import classifier_loader
from intent.storage import open_store
from intent.synth import dataset
from intent.synth.example import Example
from jobs.app import Steps, cluster, job, say


@dataclass(frozen=True)
class Run:
    """One variant's labels of the held-out messages, and what they took."""

    predictions: list[Prediction]
    seconds: float
    load_seconds: float
    peak_bytes: int
    tokens: int


def evaluate(lineage: Lineage, specs: list[VariantSpec]) -> Artifact:
    """The evaluation that `lineage` names, made where it is not there yet."""
    variants = {"reference": lineage.checkpoint()} | {spec.name: lineage.variant(spec) for spec in specs}
    data = lineage.data()
    inputs = {name: variant.fingerprint for name, variant in variants.items()} | {"data": data.fingerprint}
    record = ArtifactRecord("evaluation", {"split": "test"}, inputs)
    return artifact.make(
        lineage.config.workspace, record, lambda folder: _build(lineage, variants, data, folder), lineage.options
    )


def _build(lineage: Lineage, variants: dict[str, Artifact], data: Artifact, folder: Path) -> dict:
    store = open_store(data.uri, lineage.options)
    examples = dataset.read_split(store, "test")
    catalogs = dataset.read_catalogs(store)
    runs: dict[str, Run] = {}
    with Steps("evaluate") as steps:
        for name, variant in variants.items():
            steps.update(len(runs), len(variants), name)
            runs[name] = _run(lineage, name, variant, examples, catalogs)
        steps.update(len(runs), len(variants))
    results = {name: _result(lineage, variants[name], examples, run, runs["reference"]) for name, run in runs.items()}
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False))
    (folder / REPORT).write_text(render_html(results))
    return {name: {"exact": result["score"]["exact"]} for name, result in results.items()}


def _run(lineage: Lineage, name: str, variant: Artifact, examples: list[Example], catalogs: dict) -> Run:
    """In a process of its own, with all CPUs of one node, so that peak memory and speed are this variant's alone."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0) > 0 and not name.startswith("gguf"))
    cpus = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_calls=1)(label)
    return ray.get(remote.remote(classifier_loader(lineage, name, variant, threads=int(cpus)), examples, catalogs))


def label(loader, examples: list[Example], catalogs: dict) -> Run:
    import resource

    predictions: dict[int, Prediction] = {}
    spent = loading = tokens = 0.0
    for key in dict.fromkeys(example.catalog for example in examples):
        rows = [i for i, example in enumerate(examples) if example.catalog == key]
        start = time.perf_counter()
        classifier = loader.with_catalog(catalogs[key])()
        loading += time.perf_counter() - start
        start = time.perf_counter()
        found = classifier.classify([examples[i].message for i in rows])
        spent += time.perf_counter() - start
        tokens += classifier.tokens_computed
        predictions |= dict(zip(rows, found, strict=True))
        classifier.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Run([predictions[i] for i in range(len(examples))], spent, loading, peak, int(tokens))


def _result(lineage: Lineage, variant: Artifact, examples: list[Example], run: Run, reference: Run) -> dict:
    weights = (".safetensors", ".gguf")
    size = sum(e["bytes"] for key, e in variant.record.files.items() if key.endswith(weights) and "/" not in key)
    return {
        "score": asdict(score(lineage.schema, examples, run.predictions)),
        "agreement": agreement(run.predictions, reference.predictions),
        "messages_per_second": len(examples) / run.seconds,
        "tokens_per_second": run.tokens / run.seconds,
        "load_seconds": run.load_seconds,
        "peak_bytes": run.peak_bytes,
        "file_bytes": size,
        "uri": variant.uri,
    }


@job("evaluate")
def main(config: JobConfig) -> None:
    lineage = Lineage(config)
    with cluster(config.cluster):
        made = evaluate(lineage, config.quant.specs())
    results = json.loads(open_store(made.uri, lineage.options).read("results.json"))
    say(f"{render_text(results)}\nreport: {made.uri}/{REPORT}")


if __name__ == "__main__":
    main()
