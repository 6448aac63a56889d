"""Describe a classifier so that an actor can load it. This travels to a worker instead of a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from intent.artifacts.cache import fetch
from intent.artifacts.lineage import Lineage, require_matching
from intent.artifacts.record import Artifact
from intent.config import Device
from intent.engine import Classifier
from intent.engine.load import EngineOptions, load_classifier
from intent.prompt import Prompt
from intent.storage import StorageOptions


@dataclass(frozen=True)
class ClassifierLoader:
    """Call it on a worker: it fetches the variant, checks every file's SHA-256, and loads the engine."""

    name: str
    variant: Artifact
    prompt: Prompt
    options: EngineOptions
    storage: StorageOptions

    def __call__(self) -> Classifier:
        return load_classifier(fetch(self.variant, self.storage), self.name, self.prompt, self.options)

    def with_catalog(self, names: Sequence[str]) -> "ClassifierLoader":
        return replace(self, prompt=replace(self.prompt, catalog=tuple(names)))


def classifier_loader(
    lineage: Lineage,
    name: str,
    variant: Artifact,
    threads: int | None = None,
    batch: int | None = None,
    checked: bool = False,
    device: Device | None = None,
    abstains: bool = True,
) -> ClassifierLoader:
    """Return the loader of a variant. Raises ConfigError if the variant was trained for another schema.

    `batch`, `device`: override the engine's settings. `checked`: check it against its gold set. `abstains`: if false, it also
    labels what it is unsure of.
    """
    require_matching(variant, lineage)
    engine = lineage.config.engine
    options = EngineOptions(
        codec=variant.record.config.get("codec", lineage.config.codec.value),
        device=device or engine.device,
        gguf_sequences=batch or engine.gguf_sequences,
        gptq_batch=batch or engine.gptq_batch,
        threads=threads,
        max_message_tokens=engine.max_message_tokens,
        abstain_below=engine.abstain_below if abstains else 0.0,
        cascade_below=engine.abstain_below,
        parity_messages=engine.parity_messages if checked else 0,
        parity_disagreement=engine.parity_disagreement,
    )
    return ClassifierLoader(name, variant, lineage.prompt, options, lineage.options)
