"""Train the retriever that finds a large catalog's shelves, from generated messages, and measure it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord, Files
from intent.artifacts.lineage import Lineage
from intent.artifacts.record import RECORD
from intent.config import RetrieverConfig
from intent.dataset import dataset
from intent.retrieve.training import Recipe
from intent.storage import StorageOptions
from intent.task.schema import items_of
from jobs.app import cluster, job, say
from jobs.generate import generate
from jobs.nodes import task_cpus

# Raise the version when the same data and recipe give different vectors.
VERSION = 1
PRODUCTS, MESSAGES = 10_000, 4_000


def train(lineage: Lineage) -> Artifact:
    """Return the retriever of the configured data set. Trains it if it does not exist."""
    import ray

    config, recipe = lineage.config, Recipe()
    data = generate(lineage, config.data)
    record = ArtifactRecord("retriever", asdict(recipe) | {"version": VERSION}, {"data": data.fingerprint})
    if artifact := artifacts.find(artifacts.artifact_uri(config.workspace, record), lineage.options):
        return artifact
    cpus = task_cpus(config.cluster, config.train.cpus)
    task = ray.remote(num_cpus=cpus, runtime_env={"env_vars": {"OMP_NUM_THREADS": str(cpus)}})(_train)
    return ray.get(task.remote(config.workspace, record, recipe, data, lineage, lineage.options))


def _train(
    workspace: str, record: ArtifactRecord, recipe: Recipe, data: Artifact, lineage: Lineage, options: StorageOptions
) -> Artifact:
    from intent.retrieve.training import learn

    examples = dataset.read_split(Files(data, options), "train")
    entity = lineage.schema.entity or ""
    pairs = [(e.message, str(item[entity])) for e in examples for item in items_of(e.intent) if item[entity]]

    def build(folder: Path) -> dict:
        retriever = learn(pairs, recipe)
        retriever.write(folder)
        return {"pairs": len(pairs), "measured": measure(retriever, lineage)}

    return artifacts.make(workspace, record, build, options)


def measure(retriever, lineage: Lineage) -> dict:
    """Measure the retriever on a synthetic catalog: the share of messages whose product is on an asked shelf, and the number
    of asked shelves.
    """
    from intent.benchmark.large_catalog import LargeCorpus, products, routing_figures
    from intent.retrieve.index import Index

    stock = products(PRODUCTS)
    languages: Sequence[str] = lineage.config.data.languages
    corpus = LargeCorpus(lineage.schema, languages, lineage.config.data.seed + 1, stock, "test")
    index = Index.build([product.name for product in stock], retriever)
    return {"products": PRODUCTS, "messages": MESSAGES, **routing_figures(index, corpus.examples(0, MESSAGES))}


@job("retriever", RetrieverConfig)
def main(config: RetrieverConfig) -> None:
    lineage = Lineage(config)
    with cluster(config.cluster):
        artifact = train(lineage)
        if config.output:
            folder = artifacts.fetch(artifact, lineage.options)
            for name in artifact.record.files:
                shutil.copyfile(folder / name, Path(config.output) / name)
            (Path(config.output) / RECORD).write_text(json.dumps(asdict(artifact.record), indent=1))
    say(f"retriever: {artifact.uri}\n{json.dumps(artifact.record.metrics)}")


if __name__ == "__main__":
    main()
