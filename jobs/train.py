"""Fine-tune the base model with QLoRA on the data set and merge it into a 16-bit checkpoint."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.source import source_content
from intent.config import JobConfig
from intent.engine import calibration
from intent.engine.config import Device
from intent.errors import require
from intent.run.config import ClusterMode
from intent.storage import StorageOptions
from intent.train.config import ModelConfig
from intent.train.merge import ADAPTER_FILES
from jobs.app import Steps, cluster, job, say
from jobs.context import require_trainable
from jobs.nodes import task_cpus


def train(lineage: Lineage) -> artifacts.Artifact:
    """Return the configured checkpoint. Trains it if it does not exist."""
    config, record = lineage.config, lineage.checkpoint_record()
    if artifact := artifacts.find(artifacts.artifact_uri(config.workspace, record), lineage.options):
        return artifact
    if not config.train.epochs:
        return _keep(lineage, make_base(lineage))
    _require_resources(config)
    data, base = lineage.data(), make_base(lineage)
    same = data.record.inputs.get("schema") == lineage.schema_fingerprint
    require(same, "data.uri", data.uri, f"has answers of another schema than {lineage.schema.name}; use that one: schema=...")
    require_trainable(lineage, lambda: base)
    return _fit(lineage, base, data)


def _require_resources(config: JobConfig) -> None:
    """Raise ConfigError if training needs more than a local cluster has, because no node will join it."""
    import ray

    if config.cluster.mode is ClusterMode.attach:
        return
    has, settings = ray.cluster_resources(), config.train
    require(settings.device is not Device.cuda or has.get("GPU", 0) > 0, "train.device", "cuda", "there is no GPU; use auto")
    each, cpus = task_cpus(config.cluster, settings.cpus), int(has.get("CPU", 0))
    require(
        settings.workers * each <= cpus,
        "train.workers",
        settings.workers,
        f"need {each} CPUs each, and the cluster has {cpus}; use fewer",
    )


def make_base(lineage: Lineage) -> artifacts.Artifact:
    """Return the base model as 16-bit safetensors. A task makes it, because the driver may lack the memory for a model."""
    import ray

    record, where = lineage.base_record(), lineage.config.workspace
    if artifact := artifacts.find(artifacts.artifact_uri(where, record), lineage.options):
        return artifact
    with Steps("base model") as steps:
        steps.update(0, 0, f"reads {lineage.config.model.name}")
        artifact = ray.get(ray.remote(num_cpus=1)(_make_base).remote(where, record, lineage.model, lineage.options))
        steps.end()
    return artifact


def _make_base(workspace: str, record: ArtifactRecord, model: ModelConfig, options: StorageOptions) -> artifacts.Artifact:
    from intent.train.base import write_base

    def build(folder: Path) -> dict:
        same = source_content(model) == record.inputs["source"]
        require(same, "model.source", model.source, "holds other files on this node than where the job started; use one folder")
        write_base(model, folder)
        return {"source": model.source, "revision": model.revision}

    return artifacts.make(workspace, record, build, options)


def _keep(lineage: Lineage, base: artifacts.Artifact) -> artifacts.Artifact:
    """Return the base model as a checkpoint. With a shipped adapter, it serves any catalog."""
    import ray

    task = ray.remote(num_cpus=1)(_copy)
    return ray.get(task.remote(lineage.config.workspace, lineage.checkpoint_record(), base, lineage.options))


def _copy(workspace: str, record: ArtifactRecord, base: artifacts.Artifact, options: StorageOptions) -> artifacts.Artifact:
    def build(folder: Path) -> dict:
        here = artifacts.fetch(base, options)
        for name in base.record.files:
            shutil.copy(here / name, folder / name)
        return {"messages": 0}

    return artifacts.make(workspace, record, build, options)


def _fit(lineage: Lineage, base: artifacts.Artifact, data: artifacts.Artifact) -> artifacts.Artifact:
    import ray

    from intent.train.runner import TrainRequest, fit

    config, record = lineage.config, lineage.checkpoint_record()
    settings = replace(config.train, cpus=task_cpus(config.cluster, config.train.cpus))
    request = TrainRequest(base, (data, *lineage.also()), lineage.options, config.output_format.value, settings)
    with tempfile.TemporaryDirectory() as folder, Steps("train", "step", warms_up=True) as steps:
        steps.update(0, 0, "starts")
        metrics = fit(request, record.fingerprint, f"{config.workspace}/runs", steps.update, Path(folder))
        adapter = {name: (Path(folder) / name).read_bytes() for name in (*ADAPTER_FILES, calibration.FILE)}
    task = ray.remote(num_cpus=1)(_merge)
    with Steps("merge") as steps:
        steps.update(0, 0, "adds the adapter to the base model")
        artifact = ray.get(task.remote(config.workspace, record, base, adapter, metrics, lineage.options))
        steps.end()
    return artifact


def _merge(
    workspace: str,
    record: ArtifactRecord,
    base: artifacts.Artifact,
    adapter: dict[str, bytes],
    metrics: dict,
    options: StorageOptions,
) -> artifacts.Artifact:
    from intent.train.merge import merge

    def build(folder: Path) -> dict:
        with tempfile.TemporaryDirectory() as trained:
            for name, data in adapter.items():
                (Path(trained) / name).write_bytes(data)
            merge(artifacts.fetch(base, options), Path(trained), folder)
        return metrics

    return artifacts.make(workspace, record, build, options)


def describe(metrics: Mapping) -> str:
    """Describe a checkpoint by its metrics."""
    if "exact" not in metrics:
        return "the base model as it is, without training"
    return f"held-out exact match {metrics['exact']:.3f} after {metrics['messages']:,} messages"


@job("train")
def main(config: JobConfig) -> None:
    lineage = Lineage(config)
    lineage.check()
    with cluster(config.cluster):
        artifact = train(lineage)
    say(f"checkpoint: {artifact.uri}\n{describe(artifact.record.metrics)}")


if __name__ == "__main__":
    main()
