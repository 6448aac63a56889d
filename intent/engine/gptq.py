"""A GPTQ checkpoint through GPTQModel and its kernels."""

from pathlib import Path

from intent.artifacts.variant import Precision, VariantSpec


def load_gptq(folder: Path, spec: VariantSpec, device: str):
    """The transformers module with quantized linear layers, which compute in bfloat16, or where that is faster in float32."""
    import torch

    from intent.engine.load import pick_precision
    from intent.quantize.gptq import quiet_gptqmodel

    # The only float32 kernel, of CPUs, has 4 bits and groups of up to 128.
    fused = device == "cpu" and spec.bits == 4 and spec.group_size <= 128
    dtype = pick_precision(Precision.auto, device) if fused else torch.bfloat16
    with quiet_gptqmodel() as gptqmodel:
        # A batch here is hundreds of messages: weights are best unpacked once for all of them, and multiplied as dense ones.
        # Other kernels are compiled, one with sources from the network, when an actor first starts.
        unpacked = device == "cuda" and spec.bits in (2, 4, 8)
        backend = gptqmodel.BACKEND.GPTQ_TRITON if unpacked else gptqmodel.BACKEND.AUTO
        return gptqmodel.GPTQModel.load(str(folder), device=device, dtype=dtype, backend=backend).model.eval()
