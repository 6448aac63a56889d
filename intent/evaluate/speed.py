"""Measure a classifier's speed and resources in the calling process, which should do nothing else.

Knows a classifier by its interface only. For clean figures, give it a fresh process and its own CPUs.
"""

import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intent.dataset.example import Example
from intent.engine import Classifier, Prediction
from intent.hardware import CrowdMeter, EnergyMeter
from intent.progress import Report, polled, unreported

WARM_UP, ALONE = 32, 64

Load = Callable[[Sequence[str]], Classifier]


@dataclass(frozen=True)
class Speed:
    """Rates of all messages together; latency in seconds of a message alone; peaks in bytes.

    `load_seconds`: of the model, once. `gpu_peak_bytes`: reserved by PyTorch (None: no GPU). `joules_per_message`: None if the
    machine does not count them. `others`: the share of the machine's CPU time that others used meanwhile.
    """

    messages_per_second: float
    tokens_per_second: float
    latency_p50: float
    latency_p95: float
    load_seconds: float
    peak_bytes: int
    gpu_peak_bytes: int | None = None
    joules_per_message: float | None = None
    others: float | None = None


def measure(
    load: Load,
    examples: Sequence[Example],
    catalogs: Mapping[str, Sequence[str]],
    on_gpu: bool = False,
    report: Report = unreported,
) -> tuple[list[Prediction], Speed]:
    """Return a prediction of each example, in order, and the speed. `load` returns a classifier for a catalog's names."""
    predictions: dict[int, Prediction] = {}
    loading: list[float] = []
    spent, tokens, crowd, joules = 0.0, 0, 0.0, []
    alone: list[float] = []
    for key in dict.fromkeys(example.catalog for example in examples):
        rows = [i for i, example in enumerate(examples) if example.catalog == key]
        messages = [examples[i].message for i in rows]
        report(0, 0, "", "loads the model")
        start = time.perf_counter()
        # An engine, which counts tokens and can be closed.
        classifier: Any = load(catalogs[key])
        loading.append(time.perf_counter() - start)
        # The first pass of a kernel may compile or repack.
        classifier.classify(messages[:WARM_UP])
        computed, start = classifier.tokens_computed, time.perf_counter()
        with EnergyMeter(on_gpu) as meter, CrowdMeter() as others:
            with polled(_counter(classifier, len(predictions)), len(examples), report, "message"):
                found = classifier.classify(messages)
            seconds = time.perf_counter() - start
        spent, crowd = spent + seconds, crowd + others.share * seconds
        tokens += classifier.tokens_computed - computed
        joules.append(meter.joules)
        predictions |= dict(zip(rows, found, strict=True))
        if more := messages[: ALONE - len(alone)]:
            report(0, 0, "", "asks messages one by one")
            alone += _latencies(classifier, more)
        classifier.close()
        # Before the next one loads: each peak is of one model alone.
        del classifier
        gc.collect()
    speed = Speed(
        messages_per_second=len(examples) / spent,
        tokens_per_second=tokens / spent,
        latency_p50=float(np.percentile(alone, 50)),
        latency_p95=float(np.percentile(alone, 95)),
        load_seconds=loading[0],
        peak_bytes=peak_bytes(),
        gpu_peak_bytes=gpu_peak_bytes() if on_gpu else None,
        joules_per_message=None if None in joules else sum(filter(None, joules)) / len(examples),
        others=crowd / spent,
    )
    return [predictions[i] for i in range(len(examples))], speed


def _counter(classifier: Classifier, before: int) -> Callable[[], int]:
    """Return a counter of answered messages, starting at `before`. It stays there if the classifier does not count."""
    start = getattr(classifier, "answered", 0)
    return lambda: before + getattr(classifier, "answered", 0) - start


def _latencies(classifier: Classifier, messages: Sequence[str]) -> list[float]:
    seconds = []
    for message in messages:
        start = time.perf_counter()
        classifier.classify([message])
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_bytes(pid: int | str = "self") -> int:
    """Return this process's peak resident memory. getrusage's also includes the process that it was forked from."""
    return _status("VmHWM", pid)


def resident_bytes() -> int:
    """Return this process's resident memory now, including mapped pages."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Reset `peak_bytes`. If the system allows no reset, it stays an upper bound."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(name: str, pid: int | str = "self") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status names no {name}")


def gpu_peak_bytes() -> int | None:
    """Return the most GPU memory that this process's PyTorch has reserved."""
    # An engine that uses the GPU through PyTorch has imported it by now.
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_reserved() if torch and torch.cuda.is_available() else None
