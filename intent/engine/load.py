"""Load a classifier from a variant's folder. Only this module maps a variant's name to an engine."""

import ctypes
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from intent.artifacts.variant import EMBEDDING, SVM, VariantSpec
from intent.engine import Engine, calibration
from intent.engine.automaton import Automaton
from intent.engine.batch import BatchClassifier, Forward
from intent.engine.cascade import Cascade, Threshold
from intent.engine.config import Device
from intent.engine.context import answer_tokens
from intent.engine.decode import Walk
from intent.engine.device import pick_device, set_threads
from intent.engine.embedding import load_embedding
from intent.engine.golden_set import GoldenSet
from intent.engine.svm import load_svm
from intent.task.prompt import Prompt, load_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """An engine's batch sizes, CPU threads, device and checks.

    `gptq_batch` None: as many as the GPU has memory for; 64 on a CPU. `cascade_below`: a cascade's
    threshold is at least this confidence. `golden_messages`: how many labels of the golden set are compared with the
    reference's before the engine is returned; 0: none. `golden_disagreement`: the share of these labels that may differ.
    """

    output_format: str
    device: Device = Device.auto
    gguf_sequences: int = 32
    gptq_batch: int | None = None
    threads: int | None = None
    max_message_tokens: int = 256
    abstain_below: float = 0.0
    cascade_below: float = 0.0
    golden_messages: int = 0
    golden_disagreement: float = 0.1


def load_classifier(folder: Path, variant: str, prompt: Prompt, options: EngineOptions) -> Engine:
    """Load the classifier from `folder`, whose files must have been checked against their record.

    Raises Disagreement if the model does not label its golden set like the reference.
    """
    spec = VariantSpec.parse(variant, "engine.variants")
    if spec.engine == SVM:
        return load_svm(folder, prompt.schema, options.abstain_below)
    if spec.engine == EMBEDDING:
        set_threads(options.threads)
        return load_embedding(folder, variant, prompt.schema, options.abstain_below)
    if spec.model:
        # A cascade's folder holds the files of both models.
        threshold = max(Threshold.read(folder).confidence, options.abstain_below, options.cascade_below)
        other = load_classifier(folder, spec.model.name, prompt, options)
        return Cascade(variant, load_svm(folder, prompt.schema), other, threshold)
    if not options.golden_messages or spec.engine == "reference":
        return _load(spec, folder, prompt, options)
    gold = GoldenSet.read(folder)
    if gold is None:
        logger.warning("%s was made without a golden set, so its labels are not checked against the reference's", variant)
        return _load(spec, folder, prompt, options)
    # An abstention would count as a disagreement, so the threshold applies only after the check.
    classifier = _load(spec, folder, gold.prompt(prompt.schema), replace(options, abstain_below=0.0), prompt)
    gold.check(classifier, options.golden_messages, options.golden_disagreement)
    classifier.ask(prompt)
    classifier.abstain_below = options.abstain_below
    return classifier


def _load(
    spec: VariantSpec, folder: Path, prompt: Prompt, options: EngineOptions, later: Prompt | None = None
) -> BatchClassifier:
    """Load a classifier for `prompt`, with capacity for the answers of the prompt `later` too."""
    tokenizer = load_tokenizer(folder)
    _release_memory()
    automata = [Automaton(each.schema, each.catalog, tokenizer, options.output_format) for each in (prompt, later) if each]
    max_seq_len = options.max_message_tokens + answer_tokens(automata)
    beyond = max(automaton.beyond for automaton in automata)
    forward = _forward(spec, folder, prompt.prefix_ids(tokenizer), max_seq_len, beyond, options)
    fitted = calibration.read(folder, prompt.schema.names)
    limits = (options.max_message_tokens, options.abstain_below)
    walk = lambda automaton, numbers: Walk(automaton, len(numbers), *fitted)  # noqa: E731
    return BatchClassifier(spec.name, forward, tokenizer, prompt, automata[0], *limits, walk=walk)


def _release_memory() -> None:
    """Return free memory to the system. The C library keeps what reading a tokenizer took, 58 MB for 66,545 tokens."""
    with suppress(OSError, AttributeError):  # The C library is not glibc.
        ctypes.CDLL(None).malloc_trim(0)


def _forward(
    spec: VariantSpec, folder: Path, prefix: Sequence[int], max_seq_len: int, beyond: int, options: EngineOptions
) -> Forward:
    if spec.engine == "gguf":
        from intent.engine.gguf import GgufForward

        return GgufForward(folder / "model.gguf", prefix, options.gguf_sequences, max_seq_len, options.threads, beyond)
    from intent.engine.causal import CausalForward

    device = pick_device(options.device)
    set_threads(options.threads)
    if spec.engine == "gptq":
        from intent.engine.gptq import load_gptq

        return CausalForward(load_gptq(folder, spec, device), prefix, max_seq_len, options.gptq_batch, beyond)
    from intent.engine.reference import load_reference

    return CausalForward(load_reference(folder, device, spec.precision), prefix, max_seq_len, options.gptq_batch, beyond)
