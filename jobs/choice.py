"""Which variants classify: the ones that are named, or what a sweep selected for the hardware of the cluster."""

import sys

from intent import selection
from intent.artifact import Artifact
from intent.lineage import Lineage
from intent.models import MODELS, find_models
from jobs.nodes import places


def serving(lineage: Lineage, models: str | None) -> tuple[dict[str, Artifact], dict[str, int]]:
    """The variants by name, from the file `models` (None: the workspace's), and the batch size that each was selected with.

    Raises ConfigError where the workspace's variants are no longer those that were selected.
    """
    config, options = lineage.config, lineage.options
    models = models or f"{config.workspace}/{MODELS}"
    if config.engine.variants:
        return find_models(models, config.engine.variants, options), {}
    found = [place.hardware.model for place in places()]
    chosen = selection.choose(config.workspace, found, options)
    if not chosen:
        names, where = config.engine.otherwise, ", ".join(found) or "this cluster"
        print(f"nothing is selected for {where} (jobs.sweep does that); using {', '.join(names)}", file=sys.stderr)
        return find_models(models, names, options), {}
    variants = find_models(models, list(chosen), options)
    for name, selected in chosen.items():
        selection.require_same(models, selected, variants[name].fingerprint)
    return variants, {name: selected.batch for name, selected in chosen.items()}
