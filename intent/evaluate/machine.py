"""Describe the parts of a machine that determine how fast a model runs."""

import os
import platform
from pathlib import Path

from intent import hardware

# llama.cpp and PyTorch choose their kernels by these instruction sets.
FLAGS = ("avx2", "f16c", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "i8mm")


def machine() -> dict:
    """Return the CPU, its flags among FLAGS, the logical CPUs of this process, memory in GiB, GPU or None, and system."""
    cpus, gpu = len(os.sched_getaffinity(0)), hardware.gpu()
    return {
        "cpu": hardware.cpu(cpus).model,
        "flags": flags(),
        "cpus": cpus,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpu": gpu.model if gpu else None,
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }


def flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return the CPU's flags among FLAGS."""
    names: set[str] = set()
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            names.update(value.split())
    return [flag for flag in FLAGS if flag in names]
