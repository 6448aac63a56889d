"""Run the unquantized checkpoint: the baseline of every comparison and the reference of the golden-set check."""

import json
from pathlib import Path

from intent.artifacts.variant import Precision
from intent.errors import ConfigError

# Models whose activations overflow in float16, by model_type. Their weights may be stored in it.
OVERFLOWING = ("gemma3_text",)


def load_reference(folder: Path, device: str, precision: Precision = Precision.auto):
    """Load the checkpoint, by default in bfloat16 on CUDA and float32 on CPU. Raises ConfigError as `check_precision` does."""
    import torch
    from transformers import AutoModelForCausalLM

    chosen = {"cuda": Precision.bfloat16}.get(device, Precision.float32) if precision is Precision.auto else precision
    check_precision(folder, chosen)
    dtype = getattr(torch, chosen.value)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True).to(device).eval()


def check_precision(checkpoint: Path, precision: Precision, field: str = "engine.variants", prefix: str = "reference-") -> None:
    """Raise ConfigError if the model overflows in `precision`.

    The error names the setting `field`, in which `prefix` precedes the precision.
    """
    if precision is not Precision.float16:
        return
    kind = json.loads((checkpoint / "config.json").read_text())["model_type"]
    if kind in OVERFLOWING:
        remedy = f"use {prefix}float32, or {prefix}bfloat16 on a GPU since Ampere"
        raise ConfigError(field, f"{prefix}{precision.value}", f"activations of {kind} overflow in float16; {remedy}")
