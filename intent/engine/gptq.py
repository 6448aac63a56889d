"""A GPTQ checkpoint through GPTQModel, which picks the fastest kernel of the machine (Marlin on recent GPUs)."""

from pathlib import Path

from intent.variant import Precision


def load_gptq(folder: Path, device: str):
    """The transformers module with quantized linear layers, which compute in bfloat16 where the device has it, else float32."""
    from intent.engine.load import pick_precision
    from intent.quantize.gptq import quiet_gptqmodel

    with quiet_gptqmodel() as gptqmodel:
        return gptqmodel.GPTQModel.load(str(folder), device=device, dtype=pick_precision(Precision.auto, device)).model.eval()
