"""A GPTQ checkpoint through GPTQModel, which picks the fastest kernel of the machine (Marlin on recent GPUs)."""

from pathlib import Path


def load_gptq(folder: Path, device: str):
    """The transformers module with quantized linear layers; bfloat16 on every device."""
    import torch

    from intent.quantize.gptq import quiet_gptqmodel

    with quiet_gptqmodel() as gptqmodel:
        return gptqmodel.GPTQModel.load(str(folder), device=device, dtype=torch.bfloat16).model.eval()
