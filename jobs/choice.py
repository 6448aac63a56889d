"""Choose the variants that classify: those configured, or those that a sweep selected for the cluster's hardware."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from intent.artifacts import Artifact, selection
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import MODELS, checkpoint_at, find_models
from intent.artifacts.selection import Selected
from intent.config import ClassifyConfig
from intent.errors import ConfigError
from intent.run.ledger import PLAN
from intent.storage import Store, open_store, split_uri
from jobs.context import require_fitting
from jobs.nodes import distinct_nodes
from jobs.shelving import make_shelves
from jobs.untrained import find_or_make

Serving = tuple[dict[str, Artifact], dict[str, int]]


def serving(lineage: Lineage, models: str | None, begun: Sequence[Store] = ()) -> Serving:
    """Return the variants by name, from the file `models` (None: the workspace's), and the batch size selected for each.

    A run that was planned with some variants, in the output or in one of `begun`, keeps them. Makes missing variants that need
    no training. Raises ConfigError if the variants differ from the selected ones, or if the catalog is too long for one.
    """
    variants, batches = _chosen(lineage, models, begun)
    require_fitting(lineage, variants.values())
    make_shelves(lineage)
    return variants, batches


def _chosen(lineage: Lineage, models: str | None, begun: Sequence[Store]) -> Serving:
    config, options = lineage.config, lineage.options
    models = models or f"{config.workspace}/{MODELS}"
    if config.engine.variants:
        return find_or_make(lineage, models, config.engine.variants), {}
    everything = selection.choose(split_uri(models)[0], [], options)
    output = [open_store(config.output, options)] if isinstance(config, ClassifyConfig) else []
    for store in (*output, *begun):
        # If a planned variant no longer exists, the ledger refuses the run later and names the difference.
        with suppress(ConfigError):
            planned = _planned(store)
            variants = find_or_make(lineage, models, list(planned)) if planned else {}
            if planned and (store in output or planned == {name: variant.fingerprint for name, variant in variants.items()}):
                return variants, _batches(variants, everything)
    return _selected(lineage, models)


def _selected(lineage: Lineage, models: str) -> Serving:
    """Return the variants selected for the running nodes or, if none runs, for all hardware. Without a selection, returns
    `engine.otherwise`.
    """
    options, workspace = lineage.options, split_uri(models)[0]
    hardware_here = [node.hardware.model for node in distinct_nodes()]
    chosen = selection.choose(workspace, hardware_here, options)
    if lacking := [model for model in hardware_here if model not in chosen]:
        print(f"nothing is selected for {', '.join(lacking)} (jobs.sweep does that)", file=sys.stderr)
    if not chosen:
        variants = find_or_make(lineage, models, _otherwise(lineage), some=True)
        print(f"using {', '.join(variants)}", file=sys.stderr)
        return variants, {}
    selection.require_checkpoint(workspace, models, checkpoint_at(models, options), options)
    variants = find_models(models, list(dict.fromkeys(selected.variant for selected in chosen.values())), options)
    for selected in chosen.values():
        selection.require_same(models, selected, variants[selected.variant].fingerprint)
    return variants, _batches(variants, chosen)


def _otherwise(lineage: Lineage) -> list[str]:
    names = lineage.config.engine.otherwise
    if not names:
        raise ConfigError(
            "engine.otherwise", names, "no sweep has selected variants, and none is configured; set engine.variants"
        )
    return names


def _batches(variants: Mapping[str, Artifact], chosen: Mapping[str, Selected]) -> dict[str, int]:
    same = [s for s in chosen.values() if s.variant in variants and variants[s.variant].fingerprint == s.fingerprint]
    return {selected.variant: selected.batch for selected in same if selected.batch is not None}


def _planned(store: Store) -> dict[str, str]:
    """Return the variants of the plan in `store`, with their fingerprints; none without a plan.

    A resumed run keeps them, even if other nodes are running now.
    """
    try:
        return json.loads(store.read(PLAN))["run"]["models"]
    except FileNotFoundError:
        return {}
