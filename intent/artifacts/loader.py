"""Describe a classifier so that an actor can load it. Workers receive this description instead of a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from intent.artifacts.cache import fetch
from intent.artifacts.lineage import Lineage, require_matching
from intent.artifacts.record import Artifact
from intent.engine import Engine
from intent.engine.config import Device
from intent.engine.load import EngineOptions, load_classifier
from intent.engine.shelved import PromptedClassifier, Shelved, route_for
from intent.retrieve.index import Index
from intent.retrieve.route import Asks
from intent.storage import StorageOptions
from intent.task.prompt import Prompt
from intent.task.schema import IntentSchema


@dataclass(frozen=True)
class ClassifierLoader:
    """Load the variant on a worker: fetch it, check every file's SHA-256, and load the engine.

    `index`: the shelves of a large catalog. The prompt's own catalog is then empty.
    """

    name: str
    variant: Artifact
    prompt: Prompt
    options: EngineOptions
    storage: StorageOptions
    index: Artifact | None = None

    def __call__(self) -> Engine:
        folder = fetch(self.variant, self.storage)
        if self.index is None:
            return load_classifier(folder, self.name, self.prompt, self.options)
        index = Index.read(fetch(self.index, self.storage))
        # The longest names make the engine reserve capacity for every shelf.
        prompt = replace(self.prompt, catalog=index.longest_names)
        classifier = load_classifier(folder, self.name, prompt, replace(self.options, abstain_below=0.0))
        return Shelved(cast(PromptedClassifier, classifier), index, prompt.schema, self.options.abstain_below)

    def with_catalog(self, names: Sequence[str]) -> "ClassifierLoader":
        """Return a loader with these names as the whole catalog."""
        return replace(self, prompt=replace(self.prompt, catalog=tuple(names)), index=None)


@dataclass(frozen=True)
class RouterLoader:
    """Load, on a worker, the function that chooses the shelves of each message, from a catalog's index."""

    index: Artifact
    schema: IntentSchema
    storage: StorageOptions

    def __call__(self) -> Callable[[Sequence[str]], Asks]:
        return partial(route_for, self.schema, Index.read(fetch(self.index, self.storage)))


def classifier_loader(
    lineage: Lineage,
    name: str,
    variant: Artifact,
    threads: int | None = None,
    batch: int | None = None,
    checked: bool = False,
    device: Device | None = None,
    abstains: bool = True,
    index: Artifact | None = None,
) -> ClassifierLoader:
    """Return the loader of a variant. Raises ConfigError if the variant was trained for another schema.

    `batch`, `device`: override the engine's settings. `checked`: check the engine against its gold set. `abstains`: if false,
    it labels even messages that it is unsure of. `index`: the shelves of the job's catalog, if it is split.
    """
    require_matching(variant, lineage)
    engine = lineage.config.engine
    options = EngineOptions(
        output_format=variant.record.output_format or lineage.config.output_format.value,
        device=device or engine.device,
        gguf_sequences=batch or engine.gguf_sequences,
        gptq_batch=batch or engine.gptq_batch,
        threads=threads,
        max_message_tokens=engine.max_message_tokens,
        abstain_below=engine.abstain_below if abstains else 0.0,
        cascade_below=engine.abstain_below,
        golden_messages=engine.golden_messages if checked else 0,
        golden_disagreement=engine.golden_disagreement,
    )
    return ClassifierLoader(name, variant, lineage.prompt, options, lineage.options, index)
