"""Describe a machine's speed-relevant hardware, and measure its energy and its load by others. Knows nothing of models."""

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CPU, GPU = "cpu", "gpu"
POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Hardware:
    """A hardware class: a processor's model, and how many of it there are; for a shared one, the share."""

    kind: str
    model: str
    count: float


def price(prices: Mapping[str, float | None], hardware: Hardware) -> float | None:
    """Return USD per hour of one such processor: the price of its model's name, else of its kind; None if neither
    has a price.
    """
    named = prices.get(hardware.model)
    return prices.get(hardware.kind) if named is None else named


def cpu(count: float) -> Hardware:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return Hardware(CPU, value.strip(), count)
    return Hardware(CPU, platform.processor() or platform.machine(), count)


def gpu(count: float = 1) -> Hardware | None:
    """Return the first GPU that NVML lists, or None. A measurement uses one GPU."""
    with _nvml() as nvml:
        if nvml is None or nvml.nvmlDeviceGetCount() == 0:
            return None
        return Hardware(GPU, nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0)), count)


class EnergyMeter:
    """Measure the joules of a block of code: of this process's GPU (NVML), else of all CPU packages (RAPL), else None.

    Both count everything that the processor does meanwhile.
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
            # A RAPL counter starts again from 0 at the end of its range.
            spent = [(after[zone][0] - self.before[zone][0]) % after[zone][1] for zone in after]
            self.joules = sum(spent) / 1e6

    def _read(self) -> dict[str, tuple[int, int]]:
        """Return zone -> (microjoules so far, the range of the counter)."""
        return _gpu_energy() if self.on_gpu else _rapl(self.powercap)


class CrowdMeter:
    """Measure the share of the machine's CPU time that others used during a block of code: other processes and other guests.

    /proc counts it in ticks of a hundredth of a second. In a clean measurement it is almost zero.
    """

    share: float = 0.0

    def __enter__(self) -> "CrowdMeter":
        self.before = _cpu_seconds()
        return self

    def __exit__(self, *error) -> None:
        total, idle, own = (after - before for after, before in zip(_cpu_seconds(), self.before, strict=True))
        self.share = max(0.0, (total - idle - own) / total) if total > 0 else 0.0


def _cpu_seconds() -> tuple[float, float, float]:
    """Return the CPU seconds since the start, of all CPUs: total, idle, and of this process."""
    import psutil

    cpu, own = psutil.cpu_times(), psutil.Process().cpu_times()
    # The user time includes the guests' time.
    total = sum(getattr(cpu, name, 0.0) for name in ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"))
    return total, cpu.idle + getattr(cpu, "iowait", 0.0), own.user + own.system


def _rapl(powercap: Path) -> dict[str, tuple[int, int]]:
    """Return the packages' zones. "psys" covers all of them, and "intel-rapl-mmio" lists the packages of "intel-rapl" again."""
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
    """Return NVML if there is a driver, else None."""

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
