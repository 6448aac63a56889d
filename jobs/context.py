"""Check that a job's catalog fits into its model's context, before the job does any work."""

from collections.abc import Callable, Iterable

from intent.artifacts import Artifact, Files
from intent.artifacts.lineage import Lineage
from intent.engine.context import Context, config_tokens, surely_fits
from intent.errors import ConfigError
from intent.synth.config import CatalogSource

TOKENIZER, CONFIG = "tokenizer.json", "config.json"
CONTEXT = "context"


def require_fitting(lineage: Lineage, models: Iterable[Artifact]) -> None:
    """Raise ConfigError if the catalog does not fit into the context of one of `models` (bases, checkpoints, variants)."""
    if _is_short(lineage):
        return
    for model in models:
        if context := _context(lineage, model):
            output_format = model.record.output_format or lineage.config.output_format.value
            context.check(lineage.prompt, output_format, lineage.config.engine.max_message_tokens)


def require_trainable(lineage: Lineage, model: Callable[[], Artifact | None]) -> None:
    """Raise ConfigError if the catalog does not fit a model that is, or will be, trained on it.

    `model`: returns the model. It is called only if the model must be inspected.
    """
    data, epochs = lineage.config.data, lineage.config.train.epochs
    elsewhere = data.catalogs is CatalogSource.sampled or data.uri or not epochs
    if lineage.has_shelves and not elsewhere:
        size = (
            f"the catalog has {len(lineage.catalog.names):,} products, more than shelves_above={lineage.config.shelves_above}"
        )
        raise ConfigError("data.catalogs", "given", f"{size}; train on sampled catalogs: data.catalogs=sampled, in every job")
    if not (elsewhere or _is_short(lineage)) and (trained := model()):
        require_fitting(lineage, [trained])


def _is_short(lineage: Lineage) -> bool:
    # A catalog that is split into shelves is never in one prompt.
    return (
        not lineage.schema.uses_catalog
        or lineage.has_shelves
        or surely_fits(lineage.prompt, lineage.config.engine.max_message_tokens)
    )


def _context(lineage: Lineage, model: Artifact) -> Context | None:
    """Return the model's context, or None for a model that reads no prompt."""
    if TOKENIZER not in model.record.files:
        return None
    files = Files(model, lineage.options)
    tokens = config_tokens(files.read(CONFIG)) if CONFIG in model.record.files else model.record.metrics.get(CONTEXT)
    return Context.parse(files.read(TOKENIZER), tokens)
