"""Make the shelves of a job's catalog, once in the workspace, if the catalog is too large for one prompt."""

from collections.abc import Sequence
from pathlib import Path

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.engine.shelved import require_one_intent
from intent.storage import StorageOptions
from jobs.app import Steps, watcher
from jobs.nodes import task_cpus

CPUS = 2


def make_shelves(lineage: Lineage) -> Artifact | None:
    """Return the index of the configured catalog, or None if one prompt holds it. Makes the index if it does not exist."""
    import ray

    if not lineage.has_shelves:
        return None
    names, record, workspace = lineage.catalog.names, lineage.index_record(), lineage.config.workspace
    require_one_intent(lineage.schema, len(names))
    if shelves := artifacts.find(artifacts.artifact_uri(workspace, record), lineage.options):
        return shelves
    cpus = task_cpus(lineage.config.cluster, CPUS)
    task = ray.remote(num_cpus=cpus, runtime_env={"env_vars": {"OMP_NUM_THREADS": str(cpus)}})(_make)
    with Steps("shelves", "product", stream=watcher(lineage.config.cluster)) as steps:
        steps.update(0, len(names), "are put on shelves")
        shelves = ray.get(task.remote(workspace, record, names, lineage.options))
        steps.update(len(names), len(names), f"{shelves.record.metrics['shelves']:,} shelves")
    return shelves


def _make(workspace: str, record: ArtifactRecord, names: Sequence[str], options: StorageOptions) -> Artifact:
    from intent.retrieve.index import Index
    from intent.retrieve.retriever import SHIPPED, Retriever

    def build(folder: Path) -> dict:
        index = Index.build(names, Retriever.read(SHIPPED))
        index.write(folder)
        return {"products": len(names), "shelves": len(index), "asked": int(index.edges[-1])}

    return artifacts.make(workspace, record, build, options)
