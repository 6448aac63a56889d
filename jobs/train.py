"""Fine-tune the base model with QLoRA on the data set and merge it into a 16-bit checkpoint."""

import tempfile
from dataclasses import replace
from pathlib import Path

from intent import artifact
from intent.config import ClusterMode, Device, JobConfig, require
from intent.lineage import Lineage
from jobs.app import Steps, cluster, job, say
from jobs.nodes import room


def train(lineage: Lineage) -> artifact.Artifact:
    """The checkpoint that `lineage` names, made where it is not there yet."""
    config, record = lineage.config, lineage.checkpoint_record()
    if made := artifact.find(artifact.artifact_uri(config.workspace, record), lineage.options):
        return made
    _require_room(config)
    data, base = lineage.data(), make_base(lineage)
    return artifact.make(config.workspace, record, lambda folder: _build(lineage, base, data, folder), lineage.options)


def _require_room(config: JobConfig) -> None:
    """Raises ConfigError where training asks a local cluster, which no node will join, for what it has not."""
    import ray

    if config.cluster.mode is ClusterMode.attach:
        return
    has, asked = ray.cluster_resources(), config.train
    require(asked.device is not Device.cuda or has.get("GPU", 0) > 0, "train.device", "cuda", "there is no GPU; use auto")
    each, cpus = room(config.cluster, asked.cpus), int(has.get("CPU", 0))
    require(asked.workers * each <= cpus, "train.workers", asked.workers, f"of {each} CPUs each are too many for {cpus} CPUs")


def make_base(lineage: Lineage) -> artifact.Artifact:
    """The base model as 16-bit safetensors."""

    def build(folder: Path) -> None:
        import ray

        from intent.train.base import write_base

        ray.get(ray.remote(num_cpus=1)(write_base).remote(lineage.config.model, folder))

    return artifact.make(lineage.config.workspace, lineage.base_record(), build, lineage.options)


def _build(lineage: Lineage, base: artifact.Artifact, data: artifact.Artifact, folder: Path) -> dict:
    import ray

    from intent.train.merge import merge
    from intent.train.runner import TrainRequest, fit

    config = lineage.config
    settings = replace(config.train, cpus=room(config.cluster, config.train.cpus))
    request = TrainRequest(base, data, lineage.options, lineage.schema, config.codec.value, settings)
    name = lineage.checkpoint_record().fingerprint
    with tempfile.TemporaryDirectory() as adapter, Steps("train") as steps:
        metrics = fit(request, name, f"{config.workspace}/runs", steps.update, Path(adapter))
        fetched = artifact.fetch(base, lineage.options)
        ray.get(ray.remote(num_cpus=1)(merge).remote(fetched, Path(adapter), folder))
    return metrics


@job("train")
def main(config: JobConfig) -> None:
    lineage = Lineage(config)
    lineage.check()
    with cluster(config.cluster):
        made = train(lineage)
    metrics = made.record.metrics
    say(f"checkpoint: {made.uri}\nheld-out exact match {metrics['exact']:.3f} after {metrics['messages']:,} messages")


if __name__ == "__main__":
    main()
