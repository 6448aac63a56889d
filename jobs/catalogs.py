"""Measure the cost of a catalog's size (`jobs.benchmark products=...`) with the workspace's own engines."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

from intent.artifacts.lineage import Lineage
from intent.artifacts.loader import ClassifierLoader, classifier_loader
from intent.benchmark import catalog_sizes
from intent.benchmark.catalog_sizes import Result
from intent.config import BenchmarkConfig
from intent.engine.shelved import PromptedClassifier
from intent.storage import open_store
from intent.task.schema import IntentSchema
from jobs.app import Steps
from jobs.choice import serving


def measure_catalogs(lineage: Lineage, head: dict) -> str:
    """Measure, store the results in the workspace, and return the table. `head`: the conditions of the measurement."""
    import ray

    config: BenchmarkConfig = lineage.config
    cpus = int(ray.cluster_resources()["CPU"])
    variants, batches = serving(lineage, None)
    by_variant: dict[str, list[Result]] = {name: [] for name in variants}
    runs = [(name, size) for name in variants for size in config.products]
    with Steps("catalogs", "catalog") as steps:
        for done, (name, size) in enumerate(runs):
            steps.update(done, len(runs), f"{name}: {size:,} products")
            loader = classifier_loader(lineage, name, variants[name], threads=cpus, batch=batches.get(name))
            remote = ray.remote(num_cpus=cpus, max_calls=1, runtime_env={"env_vars": {"OMP_NUM_THREADS": str(cpus)}})(_measure)
            task = remote.remote(size, loader, lineage.schema, config.data.languages, config.messages, config.shelves_above)
            by_variant[name].append(ray.get(task))
            steps.say(catalog_sizes.render(by_variant[name]))
        steps.update(len(runs), len(runs))
    store = open_store(config.workspace, lineage.options)
    key = f"catalogs-{head['date'].replace(':', '')}.json"
    results = head | {name: [asdict(result) for result in rows] for name, rows in by_variant.items()}
    store.put(key, json.dumps(results, indent=1).encode())
    tables = "\n\n".join(f"{name}:\n\n{catalog_sizes.render(rows)}" for name, rows in by_variant.items())
    return f"{tables}\n\n{store.uri}/{key}"


def _measure(
    size: int,
    loader: ClassifierLoader,
    schema: IntentSchema,
    languages: Sequence[str],
    messages: int,
    shelves_above: int,
) -> Result:
    def load(names: Sequence[str]) -> PromptedClassifier:
        return cast(PromptedClassifier, loader.with_catalog(names)())

    return catalog_sizes.measure(size, load, schema, languages, messages, shelves_above)
