"""Measure a classifier's speed and resources in the calling process.

The figures are valid only in a fresh process that does nothing else and has its own CPUs. This module knows a classifier only
by its interface.
"""

import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from intent.dataset.example import Example
from intent.engine import Classifier, Engine, Prediction
from intent.hardware import CrowdMeter, EnergyMeter
from intent.progress import Report, polled, unreported

# The number of messages to warm up with, and of messages that are classified one by one for latency.
WARM_UP, ALONE = 32, 40

Load = Callable[[Sequence[str]], Engine]


@dataclass(frozen=True)
class Speed:
    """Rates for all messages together, latencies in seconds for a message alone, and peaks of memory in bytes.

    `tokens_per_second`: tokens that the model computed. `load_seconds`: of the first load. `gpu_peak_bytes`: reserved by
    PyTorch; None: no GPU. `joules_per_message`: None if the machine does not measure energy. `others`: the share of the
    machine's CPU time that other processes used during the measurement.
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


@dataclass(frozen=True)
class _Pass:
    """The answers to the messages about one catalog, and the figures of the classifier that gave them.

    `seconds`: to classify all messages together. `others`: as in `Speed`. `latencies`: in seconds, of messages alone.
    """

    answers: Sequence[Prediction]
    load_seconds: float
    seconds: float
    tokens: int
    others: float
    joules: float | None
    latencies: Sequence[float]


def measure(
    load: Load,
    examples: Sequence[Example],
    catalogs: Mapping[str, Sequence[str]],
    on_gpu: bool = False,
    report: Report = unreported,
) -> tuple[list[Prediction], Speed]:
    """Return a prediction for each example, in order, and the speed.

    `load`: returns a classifier for a catalog's names. `catalogs`: product names by catalog id.
    """
    predictions: dict[int, Prediction] = {}
    passes: list[_Pass] = []
    for key in dict.fromkeys(example.catalog for example in examples):
        rows = [i for i, example in enumerate(examples) if example.catalog == key]
        messages = [examples[i].message for i in rows]
        alone = messages[: ALONE - sum(len(each.latencies) for each in passes)]
        counts = len(predictions), len(examples)
        passes.append(_measure_pass(partial(load, catalogs[key]), messages, alone, on_gpu, report, *counts))
        predictions |= dict(zip(rows, passes[-1].answers, strict=True))
        # Free the classifier before the next one loads, so that the peak is of one model.
        gc.collect()
    seconds = sum(each.seconds for each in passes)
    latencies = [latency for each in passes for latency in each.latencies]
    joules = [each.joules for each in passes]
    speed = Speed(
        messages_per_second=len(examples) / seconds,
        tokens_per_second=sum(each.tokens for each in passes) / seconds,
        latency_p50=float(np.percentile(latencies, 50)),
        latency_p95=float(np.percentile(latencies, 95)),
        load_seconds=passes[0].load_seconds,
        peak_bytes=peak_bytes(),
        gpu_peak_bytes=gpu_peak_bytes() if on_gpu else None,
        joules_per_message=None if None in joules else sum(filter(None, joules)) / len(examples),
        others=sum(each.others * each.seconds for each in passes) / seconds,
    )
    return [predictions[i] for i in range(len(examples))], speed


def _measure_pass(
    load: Callable[[], Engine],
    messages: Sequence[str],
    alone: Sequence[str],
    on_gpu: bool,
    report: Report,
    before: int,
    total: int,
) -> _Pass:
    """Load a classifier and measure it on messages about one catalog. `alone`: those to classify one by one, too.

    `before`, `total`: for the report, the messages of earlier passes and of all passes.
    """
    report(0, 0, "", "loads the model")
    start = time.perf_counter()
    classifier = load()
    load_seconds = time.perf_counter() - start
    # The first pass may compile kernels or repack weights.
    classifier.classify(messages[:WARM_UP])
    computed, start = classifier.tokens_computed, time.perf_counter()
    with EnergyMeter(on_gpu) as meter, CrowdMeter() as others:
        with polled(_counter(classifier, before), total, report, "message"):
            answers = classifier.classify(messages)
        seconds = time.perf_counter() - start
    tokens = classifier.tokens_computed - computed
    latencies: list[float] = []
    if alone:
        report(0, 0, "", "asks messages one by one")
        latencies = _latencies(classifier, alone)
    classifier.close()
    return _Pass(answers, load_seconds, seconds, tokens, others.share, meter.joules, latencies)


def _counter(classifier: Engine, before: int) -> Callable[[], int]:
    """Return a function that returns the number of answered messages so far, on top of `before`."""
    start = classifier.answered
    return lambda: before + classifier.answered - start


def _latencies(classifier: Classifier, messages: Sequence[str]) -> list[float]:
    seconds = []
    for message in messages:
        start = time.perf_counter()
        classifier.classify([message])
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_bytes(pid: int | str = "self") -> int:
    """Return the peak resident memory of a process in bytes. getrusage would include that of the process that forked it."""
    return _status("VmHWM", pid)


def resident_bytes() -> int:
    """Return this process's current resident memory in bytes, including mapped pages."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Reset `peak_bytes` of this process. If the system does not allow that, the peak stays an upper bound."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(name: str, pid: int | str = "self") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status names no {name}")


def gpu_peak_bytes() -> int | None:
    """Return the most GPU memory in bytes that PyTorch has reserved in this process; None without PyTorch or CUDA."""
    # Do not import PyTorch here: an engine that uses it has imported it already.
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_reserved() if torch and torch.cuda.is_available() else None
