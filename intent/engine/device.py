"""Pick the torch device, the precision and the threads of an engine or a training run."""

import os

from intent.artifacts.variant import Precision
from intent.engine.config import Device
from intent.errors import ConfigError


def pick_device(device: Device, field: str = "engine.device") -> str:
    """Return "cuda" or "cpu". Raises ConfigError, naming the setting `field`, if CUDA is requested and absent."""
    import torch

    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError(field, "cuda", f"this machine has no CUDA device; use {field}=auto or {field}=cpu")
    return "cuda" if device is not Device.cpu and torch.cuda.is_available() else "cpu"


def pick_precision(precision: Precision, device: str):
    """Return the torch dtype: bfloat16 if the device has instructions for it, else float32."""
    import torch

    if precision is not Precision.auto:
        return getattr(torch, precision.value)
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else torch.cpu._is_avx512_bf16_supported()
    )
    return torch.bfloat16 if fast else torch.float32


def set_threads(threads: int | None) -> None:
    """Set torch's number of threads. None: one for each CPU of this process."""
    import torch

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
