"""Run GPTQ linear layers on a GPU: unpack the weights for each pass and multiply them as dense weights.

A pass has thousands of tokens, so unpacking costs little. One kernel reads the packed weights and writes them in bfloat16.
NVRTC, NVIDIA's run-time compiler, is installed with PyTorch and compiles the kernel in a fraction of a second. So an actor's
start needs no other compiler and no network. A byte holds two weights of 4 bits: one of the first half of the inputs and one of
the second half.
"""

import ctypes
import logging
from functools import cache, partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
BITS = (4, 8)
# A thread unpacks this many neighboring outputs of this many inputs. A group of inputs that share a scale must not be split.
OUTPUTS, INPUTS = 8, 8
THREADS = 128
SOURCE = r"""
__device__ unsigned bfloat16(float x) {
    unsigned bits = __float_as_uint(x);
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // round to nearest, ties to even
}

__device__ uint4 multiply(unsigned low, unsigned high, const float* scales) {
    unsigned words[4];
    for (int i = 0; i < 4; i++) {
        unsigned bytes = (i < 2 ? low : high) >> (i & 1 ? 16 : 0);
        float first = (float)(signed char)(bytes & 255), second = (float)(signed char)(bytes >> 8 & 255);
        words[i] = bfloat16(first * scales[2 * i]) | bfloat16(second * scales[2 * i + 1]) << 16;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ void load(float* to, const uint4* from, float factor) {
    uint4 four = *from;
    unsigned words[4] = {four.x, four.y, four.z, four.w};
    for (int i = 0; i < 4; i++) {
        to[2 * i] = __uint_as_float(words[i] << 16) * factor;
        to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000) * factor;
    }
}

// `rows` of `columns` times eight weights. With 4 bits, a row holds the weights of two inputs.
extern "C" __global__ void unpack(const uint2* packed, const uint4* scales, uint4* weights, int rows, int columns, int group) {
    int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * INPUTS;
    if (column >= columns) return;
    float first[8], second[8];
    // A weight of 4 bits stays in the upper half of its byte, so it counts 16 times.
    load(first, scales + row / group * columns + column, BITS == 4 ? 0.0625f : 1.0f);
    if (BITS == 4) load(second, scales + (row + rows) / group * columns + column, 0.0625f);
    for (int end = row + INPUTS; row < end; row++) {
        uint2 bytes = packed[row * columns + column];
        uint4* to = weights + (long long)row * columns + column;
        if (BITS == 8) {
            *to = multiply(bytes.x, bytes.y, first);
        } else {
            *to = multiply(bytes.x << 4 & 0xf0f0f0f0, bytes.y << 4 & 0xf0f0f0f0, first);
            to[(long long)rows * columns] = multiply(bytes.x & 0xf0f0f0f0, bytes.y & 0xf0f0f0f0, second);
        }
    }
}
"""


@cache
def _kernel(bits: int, device: int):
    """Compile the kernel for a GPU, by its index."""
    import torch

    with torch.cuda.device(device):
        return torch.cuda._compile_kernel(f"#define BITS {bits}\n#define INPUTS {INPUTS}\n{SOURCE}", "unpack")


@cache
def _warn(reason: str) -> None:
    """Log each reason once, because a model has a hundred layers."""
    log.warning("GPTQ unpacks its weights with slower operations, because its kernel cannot be used: %s", reason)


class Launch:
    """A prepared launch of the kernel for one layer. Calling it returns the dense weights.

    Only the address of the result changes between two calls, so a call takes Python a few microseconds. `packed` and `scales`
    must stay where they are: a layer with a launch cannot be moved, copied or pickled.
    """

    def __init__(self, kernel, packed: "torch.Tensor", scales: "torch.Tensor", bits: int):
        from torch.cuda._utils import _check_cuda, _get_gpu_runtime_library

        rows, outputs = packed.shape
        self.shape, columns = (rows * 8 // bits, outputs), outputs // OUTPUTS
        self.scales, self.check = scales, _check_cuda
        self.weights = ctypes.c_void_p()
        tensors = (ctypes.c_void_p(packed.data_ptr()), ctypes.c_void_p(scales.data_ptr()), self.weights)
        self.values = (*tensors, *map(ctypes.c_int, (rows, columns, self.shape[0] // len(scales))))
        self.arguments = (ctypes.c_void_p * len(self.values))(*map(ctypes.addressof, self.values))
        grid = (-(-columns // THREADS), rows // INPUTS, 1)
        self.launch = partial(_get_gpu_runtime_library().cuLaunchKernel, kernel.func, *grid, THREADS, 1, 1, 0)

    def __call__(self) -> "torch.Tensor":
        import torch

        weights = self.scales.new_empty(self.shape)
        self.weights.value = weights.data_ptr()
        self.check(self.launch(torch.cuda.current_stream()._as_parameter_, self.arguments, None))
        return weights


def prepare(packed: "torch.Tensor", scales: "torch.Tensor", bits: int) -> Launch | None:
    """Return the kernel's launch for these weights. None if they suit no kernel: no GPU, another type or an odd shape."""
    import torch

    rows, outputs = packed.shape
    group = rows * 8 // bits // len(scales)
    if not packed.is_cuda or scales.dtype != torch.bfloat16 or outputs % OUTPUTS or rows % INPUTS or group % INPUTS:
        return None
    try:
        return Launch(_kernel(bits, packed.device.index), packed, scales, bits)
    except (RuntimeError, OSError, ImportError, AttributeError) as error:  # PyTorch has no public way to launch a kernel.
        _warn(str(error))
        return None


def unpack(packed: "torch.Tensor", scales: "torch.Tensor", bits: int) -> "torch.Tensor":
    """Return the dense weights [inputs, outputs], in the type of the scales, by plain operations."""
    import torch

    # A right shift of a signed integer keeps the sign.
    levels = packed if bits == 8 else torch.cat([(packed << 4) >> 4, packed >> 4])
    groups, outputs = scales.shape
    return (levels.view(groups, -1, outputs) * scales[:, None]).view(-1, outputs)


@cache
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
            self.launch = prepare(self.packed, self.scales, bits)

        def weight(self) -> torch.Tensor:
            """Return the dense weights [inputs, outputs], in the type of the scales."""
            # The compiler fuses the plain operations into a kernel of its own.
            if self.launch is None or torch.compiler.is_compiling():
                return unpack(self.packed, self.scales, self.bits)
            return self.launch()

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
