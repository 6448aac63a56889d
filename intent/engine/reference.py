"""The unquantized checkpoint: the baseline of every comparison and the judge of parity."""

from pathlib import Path

from intent.artifacts.variant import Precision


def load_reference(folder: Path, device: str, precision: Precision = Precision.auto):
    """By default bfloat16 on CUDA, float32 on CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    chosen = {"cuda": Precision.bfloat16}.get(device, Precision.float32) if precision is Precision.auto else precision
    dtype = getattr(torch, chosen.value)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True).to(device).eval()
