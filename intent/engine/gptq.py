"""Run a GPTQ checkpoint: by the kernels of GPTQModel on CPUs, by `unpacked.py` on GPUs."""

import json
import logging
import os
from pathlib import Path
from types import ModuleType

from intent.artifacts.variant import Precision, VariantSpec
from intent.engine import unpacked


def import_gptqmodel() -> ModuleType:
    """Import gptqmodel with a worker pool that fits this machine and with its log reduced to warnings."""
    # With fewer workers than its loader requests, gptqmodel refuses to start on one or two cores.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, os.cpu_count() or 1)))
    logging.getLogger("gptqmodel").setLevel(logging.WARNING)
    import gptqmodel

    return gptqmodel


def load_gptq(folder: Path, spec: VariantSpec, device: str):
    """Load the transformers module with quantized linear layers. They compute in bfloat16, or in float32
    where that is faster.
    """
    import torch

    from intent.engine.device import pick_precision

    # The only float32 kernel is for CPUs, 4 bits and groups of up to 128.
    fused = device == "cpu" and spec.bits == 4 and spec.group_size <= 128
    dtype = pick_precision(Precision.auto, device) if fused else torch.bfloat16
    symmetric = json.loads((folder / "quantize_config.json").read_text()).get("sym", True)
    own = device == "cuda" and spec.bits in unpacked.BITS and symmetric and not spec.act_order
    gptqmodel = import_gptqmodel()
    # GPTQModel compiles its GPU kernels at an actor's first start, and downloads the sources of one.
    backend = gptqmodel.BACKEND.GPTQ_TORCH if own else gptqmodel.BACKEND.AUTO
    model = gptqmodel.GPTQModel.load(str(folder), device=device, dtype=dtype, backend=backend).model.eval()
    if own:
        unpacked.replace_linears(model, spec.bits, dtype)
    return model
