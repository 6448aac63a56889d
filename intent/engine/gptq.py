"""Run a GPTQ checkpoint through GPTQModel: its kernels on CPUs, weights that are unpacked for each pass on GPUs."""

import json
from pathlib import Path

from intent.artifacts.variant import Precision, VariantSpec
from intent.engine import unpacked


def load_gptq(folder: Path, spec: VariantSpec, device: str):
    """Return the transformers module with quantized linear layers. They compute in bfloat16, or in float32 if that
    is faster.
    """
    import torch

    from intent.engine.device import pick_precision
    from intent.quantize.gptq import quiet_gptqmodel

    # The only float32 kernel is for CPUs, 4 bits and groups of up to 128.
    fused = device == "cpu" and spec.bits == 4 and spec.group_size <= 128
    dtype = pick_precision(Precision.auto, device) if fused else torch.bfloat16
    symmetric = json.loads((folder / "quantize_config.json").read_text()).get("sym", True)
    own = device == "cuda" and spec.bits in unpacked.BITS and symmetric and not spec.act_order
    with quiet_gptqmodel() as gptqmodel:
        # Other kernels are compiled when an actor first starts; one downloads its sources.
        backend = gptqmodel.BACKEND.GPTQ_TORCH if own else gptqmodel.BACKEND.AUTO
        model = gptqmodel.GPTQModel.load(str(folder), device=device, dtype=dtype, backend=backend).model.eval()
    if own:
        unpacked.replace_linears(model, spec.bits, dtype)
    return model
