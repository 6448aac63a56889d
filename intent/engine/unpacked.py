"""Run GPTQ linear layers on a GPU: unpack the weights for each pass and multiply them as dense weights.

A pass has thousands of tokens, so unpacking costs little. It uses plain PyTorch operations, so an actor's start compiles and
downloads nothing, and a compiled layer fuses them into one kernel. A byte holds two weights of 4 bits: one of the first half of
the inputs and one of the second half.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BITS = (4, 8)


def unpacked_class() -> type:
    """Create the module class, which needs torch."""
    import torch

    class Unpacked(torch.nn.Module):
        """A linear layer with weights as int8 [inputs / (8 / bits), outputs] and scales [groups, outputs]."""

        def __init__(self, weights: torch.Tensor, scales: torch.Tensor, bits: int, bias: torch.Tensor | None):
            super().__init__()
            half = len(weights) // 2
            packed = weights if bits == 8 else (weights[:half] & 15) | (weights[half:] << 4)
            self.bits = bits
            self.register_buffer("packed", packed.contiguous())
            self.register_buffer("scales", scales.contiguous())
            self.register_buffer("bias", bias)

        def weight(self) -> torch.Tensor:
            """Return the dense weights [inputs, outputs], in the type of the scales."""
            levels = self.packed
            if self.bits == 4:
                # A right shift of a signed integer keeps the sign.
                levels = torch.cat([(levels << 4) >> 4, levels >> 4])
            groups, outputs = self.scales.shape
            return (levels.view(groups, -1, outputs) * self.scales[:, None]).view(-1, outputs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            product = x @ self.weight()
            return product if self.bias is None else product + self.bias

    return Unpacked


def replace_linears(model, bits: int, dtype: "torch.dtype") -> None:
    """Replace a model's GPTQ layers, which must be symmetric and without act-order, by `Unpacked` layers.

    A GPTQ layer has `qweight` int32 [inputs * bits / 32, outputs] and `scales` [groups, outputs].
    """
    import torch

    unpacked = unpacked_class()
    for name, module in list(model.named_modules()):
        if hasattr(module, "qweight"):
            weights = levels(module.qweight, bits)
            bias = getattr(module, "bias", None)
            layer = unpacked(weights, module.scales.to(dtype), bits, None if bias is None else bias.to(dtype))
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], layer)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def levels(qweight: "torch.Tensor", bits: int) -> "torch.Tensor":
    """Unpack symmetric weights into signed levels, int8 [inputs, outputs]. `qweight` packs inputs from the low bits up."""
    import torch

    shifts = torch.arange(0, 32, bits, device=qweight.device, dtype=torch.int32)
    raw = (qweight[:, None, :] >> shifts[None, :, None]) & (2**bits - 1)
    return (raw.flatten(0, 1) - 2 ** (bits - 1)).to(torch.int8)
