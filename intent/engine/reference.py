"""The unquantized checkpoint: the baseline of every comparison and the judge of parity."""

from pathlib import Path


def load_reference(folder: Path, device: str):
    """bfloat16 on CUDA, float32 on CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True).to(device).eval()
