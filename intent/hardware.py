"""Describe the hardware that determines a machine's speed, and measure its energy and the load by other processes.

This module knows nothing of models.
"""

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CPU, GPU = "cpu", "gpu"
POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Hardware:
    """Identify a class of hardware. `kind`: CPU or GPU. `count`: how many processors, or the share of a shared one."""

    kind: str
    model: str
    count: float


def price(prices: Mapping[str, float | None], hardware: Hardware) -> float | None:
    """Return USD per hour of one processor, or None if it has no price.

    A price under the model's name takes precedence over one under the kind.
    """
    model_price = prices.get(hardware.model)
    return prices.get(hardware.kind) if model_price is None else model_price


def cpu(count: float) -> Hardware:
    """Return this machine's CPU, with `count` CPUs in use."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return Hardware(CPU, value.strip(), count)
    return Hardware(CPU, platform.processor() or platform.machine(), count)


def gpu(count: float = 1) -> Hardware | None:
    """Return the first GPU that NVML lists, or None if there is no GPU. A measurement uses one GPU."""
    with _nvml() as nvml:
        if nvml is None or nvml.nvmlDeviceGetCount() == 0:
            return None
        return Hardware(GPU, nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0)), count)


class EnergyMeter:
    """Measure the energy of a block of code: of this process's GPU (NVML) or of all CPU packages (RAPL).

    `joules` is None if the machine has no such counter. The counters include everything else that the processor does meanwhile.
    """

    joules: float | None = None

    def __init__(self, on_gpu: bool, powercap: Path = POWERCAP):
        self.on_gpu, self.powercap = on_gpu, powercap

    def __enter__(self) -> "EnergyMeter":
        self.before = self._read()
        return self

    def __exit__(self, *error) -> None:
        after = self._read()
        if self.before.keys() == after.keys() and after:
            # A RAPL counter wraps around to 0 at the end of its range.
            spent = [(after[zone][0] - self.before[zone][0]) % after[zone][1] for zone in after]
            self.joules = sum(spent) / 1e6

    def _read(self) -> dict[str, tuple[int, int]]:
        """Return (microjoules so far, range of the counter) by zone."""
        return _gpu_energy() if self.on_gpu else _rapl(self.powercap)


class CrowdMeter:
    """Measure the share of the machine's CPU time that other processes and other guests used during a block of code.

    In a clean measurement, `share` is almost 0. /proc counts in ticks of 10 ms.
    """

    share: float = 0.0

    def __enter__(self) -> "CrowdMeter":
        self.before = _cpu_seconds()
        return self

    def __exit__(self, *error) -> None:
        total, idle, own = (after - before for after, before in zip(_cpu_seconds(), self.before, strict=True))
        self.share = max(0.0, (total - idle - own) / total) if total > 0 else 0.0


def _cpu_seconds() -> tuple[float, float, float]:
    """Return CPU seconds since the boot: (of all CPUs, idle, of this process)."""
    import psutil

    cpu, own = psutil.cpu_times(), psutil.Process().cpu_times()
    # The guests' time is left out, because the user time already includes it.
    total = sum(getattr(cpu, name, 0.0) for name in ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"))
    return total, cpu.idle + getattr(cpu, "iowait", 0.0), own.user + own.system


def _rapl(powercap: Path) -> dict[str, tuple[int, int]]:
    """Read the packages' zones, each once: "psys" would count all of them again, and "intel-rapl-mmio" repeats "intel-rapl"."""
    zones = {}
    for folder in sorted(powercap.glob("*-rapl*:*")):
        with suppress(OSError, ValueError):
            name = (folder / "name").read_text().strip()
            if name.startswith("package"):
                spent, most = (int((folder / file).read_text()) for file in ("energy_uj", "max_energy_range_uj"))
                zones[name] = (spent, most + 1)
    return zones


def _gpu_energy() -> dict[str, tuple[int, int]]:
    import torch

    with _nvml() as nvml:
        if nvml is None or not torch.cuda.is_available():
            return {}
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        with suppress(nvml.NVMLError):
            millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByUUID(uuid))
            return {uuid: (millijoules * 1000, 2**63)}
    return {}


class _nvml:
    """Open NVML for a block of code. It is None if there is no driver."""

    def __enter__(self):
        import pynvml

        self.api = None
        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self.api = pynvml
        return self.api

    def __exit__(self, *error) -> None:
        if self.api:
            self.api.nvmlShutdown()
