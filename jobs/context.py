"""Whether a job's catalog fits into the context of its model, looked at before the job does any work."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from intent.artifact import Artifact
from intent.config import CatalogSource, ModelConfig
from intent.engine.context import Context, config_tokens, surely_fits
from intent.errors import ConfigError
from intent.lineage import Lineage
from intent.storage import open_store

TOKENIZER, CONFIG = "tokenizer.json", "config.json"
CONTEXT = "context"


def require_fitting(lineage: Lineage, models: Iterable[Artifact]) -> None:
    """Raises ConfigError where a message about the catalog cannot be put to one of `models`: bases, checkpoints, variants."""
    if _is_short(lineage):
        return
    for model in models:
        if context := _context(lineage, model):
            codec = model.record.config.get("codec", lineage.config.codec.value)
            context.check(lineage.prompt, codec, lineage.config.engine.max_message_tokens)


def require_trainable(lineage: Lineage, base: Artifact | None) -> None:
    """As `require_fitting`, for a model that is to be trained on the catalog. None: its base is not made yet."""
    if lineage.config.data.catalogs is CatalogSource.sampled or lineage.config.data.uri:
        return
    if base:
        require_fitting(lineage, [base])
    elif not _is_short(lineage):
        import ray

        try:
            context = Context.parse(*ray.get(ray.remote(num_cpus=1)(_vocabulary).remote(lineage.config.model)))
        except ConfigError:
            # Data can be made where the model cannot be had; whoever trains on it is told.
            return
        context.check(lineage.prompt, lineage.config.codec.value, lineage.config.engine.max_message_tokens)


def _is_short(lineage: Lineage) -> bool:
    return not lineage.schema.uses_catalog or surely_fits(lineage.prompt, lineage.config.engine.max_message_tokens)


def _context(lineage: Lineage, model: Artifact) -> Context | None:
    """None for a model that reads no prompt."""
    if TOKENIZER not in model.record.files:
        return None
    store = open_store(model.uri, lineage.options)
    tokens = config_tokens(store.read(CONFIG)) if CONFIG in model.record.files else model.record.metrics.get(CONTEXT)
    return Context.parse(store.read(TOKENIZER), tokens)


def _vocabulary(model: ModelConfig) -> tuple[bytes, int | None]:
    from intent.train.base import write_vocabulary

    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(model, Path(folder))
        return (Path(folder) / TOKENIZER).read_bytes(), config_tokens((Path(folder) / CONFIG).read_bytes())
