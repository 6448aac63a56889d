"""Make models without training for a job that finds none. The base model with its adapter serves any catalog.

Models in the workspace take precedence, and trained models are never replaced.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence

from intent import artifacts
from intent.artifacts import Artifact
from intent.artifacts.lineage import Lineage, matches
from intent.artifacts.record import RECORD
from intent.artifacts.registry import Models, find_models, read_models
from intent.artifacts.variant import VariantSpec
from intent.engine.config import Device
from intent.errors import ConfigError
from intent.storage import open_store
from intent.synth.corpus import require_cart
from jobs.context import require_fitting
from jobs.quantize import TRAINED_ON, make, publish_variants
from jobs.train import make_base, train


def find_or_make(lineage: Lineage, models: str, names: Sequence[str], some: bool = False) -> dict[str, Artifact]:
    """Return the variants of these names in the registry `models`. Makes missing ones if the registry has no trained model.

    `some`: skip the variants for GPUs if the job has no GPU. Raises as `find_models` if no models may be made.
    """
    here = read_models(models, lineage.options)
    fit = _fitting(lineage, _there(lineage, here, names))
    if set(names) <= set(fit):
        return {name: fit[name] for name in names}
    if _serves_any_catalog(lineage) and _is_untrained(lineage, here, there := _there(lineage, here, here.variants)):
        fit = _fitting(lineage, there)
        if some:
            names = [name for name in names if name in fit or _has_hardware(lineage, name)] or names
        if set(names) <= set(fit):
            return {name: fit[name] for name in names}
        mine = _is_mine(lineage, here)
        # Models for another schema stay the workspace's models.
        if mine or not fit:
            return _make(lineage, [VariantSpec.parse(name) for name in names], publish=mine)
    return find_models(models, names, lineage.options)


def _there(lineage: Lineage, here: Models, names: Iterable[str]) -> dict[str, Artifact]:
    """Return the existing variants among `names` in the registry."""
    where = {name: here.variants[name] for name in names if name in here.variants}
    return {name: variant for name, uri in where.items() if (variant := artifacts.find(uri, lineage.options))}


def _fitting(lineage: Lineage, variants: Mapping[str, Artifact]) -> dict[str, Artifact]:
    return {name: variant for name, variant in variants.items() if matches(variant, lineage)}


def _serves_any_catalog(lineage: Lineage) -> bool:
    """Return whether the configured model needs no training: it has an adapter, and the schema is for carts."""
    config = lineage.config
    if config.train.epochs or config.train.uri or not config.model.adapter or getattr(config, "models", None):
        return False
    try:
        require_cart(lineage.schema)
    except ConfigError:
        return False
    return True


def _is_untrained(lineage: Lineage, here: Models, there: Mapping[str, Artifact]) -> bool:
    """Return whether the registry has no trained model or, if it is empty, the workspace has no trained checkpoint."""
    if here.variants and not there:
        return _is_mine(lineage, here)
    return all(each.record.metrics.get(TRAINED_ON) == 0 for each in list(there.values()) or _checkpoints(lineage))


def _checkpoints(lineage: Lineage) -> list[Artifact]:
    """Return the finished checkpoints of the workspace."""
    workspace = lineage.config.workspace
    keys = [blob.key for blob in open_store(workspace, lineage.options).list("checkpoint-")]
    folders = [folder for folder, _, name in (key.rpartition("/") for key in keys) if name == RECORD]
    return [checkpoint for folder in folders if (checkpoint := artifacts.find(f"{workspace}/{folder}", lineage.options))]


def _is_mine(lineage: Lineage, here: Models) -> bool:
    """Return whether the registry is empty, or has the models of the configured checkpoint."""
    if not here.variants:
        return True
    own = artifacts.find(artifacts.artifact_uri(lineage.config.workspace, lineage.checkpoint_record()), lineage.options)
    return own is not None and own.fingerprint == here.checkpoint


def _has_hardware(lineage: Lineage, name: str) -> bool:
    import ray

    config = lineage.config
    gpu_requested = config.engine.device is Device.cuda or config.fleet.gptq_actors
    return bool(VariantSpec.parse(name).only_cpus or gpu_requested or ray.cluster_resources().get("GPU", 0))


def _make(lineage: Lineage, specs: list[VariantSpec], publish: bool) -> dict[str, Artifact]:
    """Make the models as jobs.train and jobs.quantize do. `publish`: register them as the workspace's models."""
    model, workspace = lineage.config.model, lineage.config.workspace
    names = ", ".join(spec.name for spec in specs)
    if artifacts.find(artifacts.artifact_uri(workspace, lineage.checkpoint_record()), lineage.options) is None:
        note = f"makes {names} of {model.name} with the adapter {model.adapter}, without training"
        print(f"{workspace} has no models yet: {note}; they serve every catalog", file=sys.stderr, flush=True)
    # Refuse a catalog that is too long before the other models are made.
    require_fitting(lineage, [make_base(lineage)])
    train(lineage)
    variants = make(lineage, specs)
    if publish:
        publish_variants(lineage, variants)
    return {spec.name: variants[spec.name] for spec in specs}
