"""From a variant's folder to a classifier: the one place that knows which engine a variant's name asks for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from intent import calibration
from intent.config import CASCADE, SVM, Device, Precision, VariantSpec
from intent.engine import Classifier
from intent.engine.batch import BatchClassifier, Forward
from intent.engine.cascade import Cascade, Threshold
from intent.engine.decode import Automaton, Walk
from intent.engine.svm import load_svm
from intent.errors import ConfigError
from intent.prompt import Prompt, load_tokenizer

ANSWER_ROOM = 96


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs: sequences together per kind, threads of its CPU kernels, where, and what it refuses."""

    codec: str
    device: Device = Device.auto
    gguf_sequences: int = 32
    gptq_batch: int = 32
    threads: int | None = None
    max_message_tokens: int = 256
    abstain_below: float = 0.0


def load_classifier(folder: Path, variant: str, prompt: Prompt, options: EngineOptions) -> Classifier:
    """The classifier of the files in `folder`, which must have been checked against their record."""
    spec = VariantSpec.parse(variant, "engine.variants")
    if spec.engine == SVM:
        return load_svm(folder, prompt.schema, options.abstain_below)
    if spec.engine == CASCADE:
        # A cascade's folder holds the files of both.
        threshold = max(Threshold.read(folder).confidence, options.abstain_below)
        other = load_classifier(folder, spec.model.name, prompt, options)
        return Cascade(variant, load_svm(folder, prompt.schema), other, threshold)
    tokenizer = load_tokenizer(folder)
    forward = _forward(spec, folder, prompt.prefix_ids(tokenizer), options)
    automaton = Automaton(prompt.schema, prompt.catalog, tokenizer, options.codec)
    walk = partial(Walk, temperatures=calibration.read(folder, prompt.schema.names))
    limits = (options.max_message_tokens, options.abstain_below)
    return BatchClassifier(variant, forward, tokenizer, prompt, automaton, *limits, walk=walk)


def _forward(spec: VariantSpec, folder: Path, prefix: Sequence[int], options: EngineOptions) -> Forward:
    room = options.max_message_tokens + ANSWER_ROOM
    if spec.engine == "gguf":
        from intent.engine.gguf import GgufForward

        return GgufForward(folder / "model.gguf", prefix, options.gguf_sequences, room, options.threads)
    from intent.engine.causal import CausalForward

    device = pick_device(options.device)
    set_threads(options.threads)
    if spec.engine == "gptq":
        from intent.engine.gptq import load_gptq

        return CausalForward(load_gptq(folder, device), prefix, options.gptq_batch, room)
    from intent.engine.reference import load_reference

    return CausalForward(load_reference(folder, device, spec.precision), prefix, options.gptq_batch, room)


def pick_device(device: Device) -> str:
    """ "cuda" or "cpu". Raises ConfigError where CUDA is asked for and absent."""
    import torch

    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError("device", "cuda", "this machine has no CUDA device; use device=auto or device=cpu")
    return "cuda" if device is not Device.cpu and torch.cuda.is_available() else "cpu"


def pick_precision(precision: Precision, device: str):
    """The torch dtype: bfloat16 where the device has instructions for it, else float32."""
    import torch

    if precision is not Precision.auto:
        return getattr(torch, precision.value)
    fast = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def set_threads(threads: int | None) -> None:
    import torch

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
