"""Quantize a 16-bit checkpoint to GPTQ (Frantar et al., arXiv 2210.17323) with GPTQModel, calibrated on the task's prompts."""

import json
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from intent.artifacts.variant import Precision
from intent.engine.gptq import import_gptqmodel
from intent.errors import ConfigError
from intent.progress import Report, unreported

GROUP_SIZES = (16, 32, 64, 128, 256)


def best_device() -> str:
    """Return "cuda" if a GPU can be used, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_group_size(checkpoint: Path, group_size: int) -> None:
    """Raise ConfigError, which names the sizes that fit, unless `group_size` divides the input width of every linear layer."""
    config = json.loads((checkpoint / "config.json").read_text())
    heads = config["num_attention_heads"]
    attention = heads * (config.get("head_dim") or config["hidden_size"] // heads)
    widths = sorted({config["hidden_size"], config["intermediate_size"], attention})
    if any(width % group_size for width in widths):
        fitting = [size for size in GROUP_SIZES if all(width % size == 0 for width in widths)]
        raise ConfigError(
            "quant.variants", f"group size {group_size}", f"must divide the model's widths {widths}; use one of {fitting}"
        )


def quantize(
    checkpoint: Path,
    target: Path,
    bits: int,
    group_size: int,
    sequences: Sequence[Sequence[int]],
    device: str,
    act_order: bool = False,
    report: Report = unreported,
) -> None:
    """Quantize `checkpoint` to the folder `target`.

    `sequences`: token ids to calibrate on. `act_order`: quantize columns by decreasing activation, with a group index per
    column (desc_act), instead of in a group-aware order. Raises ConfigError if `group_size` does not fit the model.
    """
    from intent.engine.device import pick_precision

    check_group_size(checkpoint, group_size)
    calibration = [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in sequences]
    gptqmodel = import_gptqmodel()
    # GPTQModel writes log files to the working folder, and layers to a temporary folder that Ray's workers leave behind.
    with TemporaryDirectory() as scratch:
        # The default way to pack compiles an extension first, which takes half a minute and a C++ compiler. The result is the
        # same.
        config = gptqmodel.QuantizeConfig(
            bits=bits,
            group_size=group_size,
            desc_act=act_order,
            act_group_aware=not act_order,
            pack_impl="original",
            offload_to_disk_path=scratch,
        )
        precision = pick_precision(Precision.auto, device)
        model = gptqmodel.GPTQModel.load(str(checkpoint.resolve()), config, device=device, dtype=precision)
        layers = json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"]
        model.layer_callback = _Layers(layers, report)
        with chdir(scratch):
            model.quantize(calibration, batch_size=4)
        report(0, 0, "", "saves")
        model.save(str(target))


class _Layers:
    """Report layers as GPTQModel's layer callback. It is called twice per layer, the second time when the layer is packed."""

    def __init__(self, total: int, report: Report):
        self.done, self.total, self.report = set(), total, report
        report(0, total, "layer", "")

    def layer_complete(self, layer_idx: int, submodule_finalized: bool) -> None:
        self.done.add(layer_idx)
        self.report(len(self.done), self.total, "layer", "")
