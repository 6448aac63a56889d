"""Plan the rows of a benchmark, measure one row, and compare the results.

Each row is measured by a `Bench` in its own process. This module knows neither Ray nor where that process runs.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from intent import artifacts
from intent.artifacts import Artifact
from intent.artifacts.variant import Precision, VariantSpec
from intent.benchmark import meters, peers
from intent.benchmark.config import RowKind
from intent.benchmark.meters import Meter, Reading, Workload
from intent.engine.automaton import Automaton
from intent.engine.config import Device
from intent.engine.load import EngineOptions, load_classifier, pick_device, set_threads
from intent.evaluate.machine import machine
from intent.evaluate.speed import gpu_peak_bytes, peak_bytes
from intent.storage import StorageOptions
from intent.task.prompt import load_tokenizer

GPU_BATCHES = (512, 128, 1024)
# The parallel requests to a server.
SLOTS = 16


@dataclass(frozen=True)
class Row:
    """The settings of one row.

    `device`: cpu or cuda. `threads`: per actor. `batch`: the messages or sequences that the model computes together, or a
    server's parallel requests. `actors`: the processes that measure at the same time, each with its own part of the messages.
    """

    kind: RowKind
    variant: str
    device: str
    threads: int
    output_format: str = "compact"
    batch: int = 1
    actors: int = 1

    @property
    def weights(self) -> tuple[str, str]:
        """Return the key by which rows share a limit: the variant and the device."""
        return self.variant, self.device

    @property
    def name(self) -> str:
        """Return the row's name in reports."""
        kind = {
            RowKind.engine: f"{self.output_format}, {self.batch} together",
            RowKind.create_completion: "create_completion loop",
            RowKind.generate: f"generate, batches of {self.batch}" if self.batch > 1 else "generate, one by one",
            RowKind.pipeline: f"transformers pipeline, batches of {self.batch}",
            RowKind.server: f"llama.cpp's server, {self.batch} requests at once",
            RowKind.vllm: "vLLM offline",
            RowKind.ray_data: f"Ray Data LLM, batches of {self.batch}",
            RowKind.encoder: "encoder classifier, heads not trained",
            RowKind.limit: f"limit: {self.batch} x 512 tokens",
        }[self.kind]
        actors = f", {self.actors} actors of {self.threads}" if self.actors > 1 else ""
        return f"{self.variant} {self.device}: {kind}{actors}"


@dataclass(frozen=True)
class Result:
    """A row's figures, or the `reason` why it has none.

    `messages`, `seconds`: how many messages were measured in which time. `tokens_per_second`, `tokens_per_message`: tokens that
    the model computed. `p50`, `p95`: latency per message in seconds. `load_seconds`: to load the model. `rss_bytes`,
    `vram_bytes`: the peak of one process; None: no GPU. `weight_bytes`: a torch model's parameters and buffers. `disk_bytes`:
    the variant's files. `share_of_limit`, `times_loop`: see `compared`.
    """

    row: Row
    reason: str = ""
    messages: int = 0
    seconds: float = 0.0
    messages_per_second: float | None = None
    tokens_per_second: float = 0.0
    tokens_per_message: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    load_seconds: float = 0.0
    rss_bytes: int = 0
    vram_bytes: int | None = None
    weight_bytes: int | None = None
    disk_bytes: int = 0
    share_of_limit: float | None = None
    times_loop: float | None = None

    def as_dict(self) -> dict:
        """Return the fields and the row's name as plain values."""
        return {"name": self.row.name} | asdict(self)


def plan(
    specs: Sequence[VariantSpec],
    kinds: Sequence[RowKind],
    output_formats: Sequence[str],
    batches: Sequence[int],
    threads: Sequence[int],
    cpus: int,
    cuda: bool,
    device: Device = Device.auto,
) -> Iterator[Row]:
    """Yield the rows of every variant: with the first output format, batch and threads, then with one of these changed.

    On a CPU, only the first GGUF variant has rows with other batches and threads. A row with fewer threads than CPUs has as
    many actors as fill the CPUs. Without CUDA, a variant or peer that needs it has one row, which is then reported as not
    measured. The last row is a sentence encoder, which belongs to no variant.

    `kinds`: the kinds of rows to plan. `cpus`: those of the machine. `cuda`: whether it has a GPU. `device`: plan only rows on
    this device.
    """
    swept = next((spec.name for spec in specs if spec.engine == "gguf"), None)
    pairs = [(spec, where) for spec in specs for where in _devices(spec) if device.value in ("auto", where)]
    for spec, where in pairs:
        on_gpu = where == "cuda"
        actors = 1 if on_gpu else max(1, cpus // threads[0])
        base = Row(
            RowKind.engine, spec.name, where, threads[0], output_formats[0], GPU_BATCHES[0] if on_gpu else batches[0], actors
        )
        if on_gpu and not cuda:
            yield base
            yield from (row for row in _on_gpu_alone(spec, base) if row.kind in kinds)
            continue
        changed = [base, *(replace(base, output_format=output_format) for output_format in output_formats[1:])]
        if on_gpu:
            changed += [replace(base, batch=batch) for batch in GPU_BATCHES[1:]]
        if spec.name == swept:
            changed += [replace(base, batch=batch) for batch in batches[1:]]
            changed += [replace(base, threads=n, actors=max(1, cpus // n)) for n in threads[1:]]
        rows = changed + list(_compared_with(spec, replace(base, batch=1, actors=1, threads=cpus), on_gpu))
        yield from (row for row in rows if row.kind in kinds)
    if RowKind.encoder in kinds and device is not Device.cuda:
        yield Row(RowKind.encoder, peers.ENCODER, "cpu", cpus)


def _devices(spec: VariantSpec) -> tuple[str, ...]:
    if spec.engine == "gguf" or spec.precision is Precision.float32:
        return ("cpu",)
    return ("cuda",) if spec.precision is Precision.float16 else ("cpu", "cuda")


def _compared_with(spec: VariantSpec, alone: Row, on_gpu: bool) -> Iterator[Row]:
    if spec.engine == "gguf":
        yield replace(alone, kind=RowKind.create_completion)
        yield replace(alone, kind=RowKind.server, batch=SLOTS)
    if spec.engine == "reference":
        yield from (replace(alone, kind=RowKind.generate, batch=n) for n in ((1, 64) if on_gpu else (1, 8)))
        yield replace(alone, kind=RowKind.pipeline, batch=64 if on_gpu else 8)
        yield from _on_gpu_alone(spec, alone)
    yield from (replace(alone, kind=RowKind.limit, batch=n) for n in ((1, 32) if on_gpu else (1,)))


def _on_gpu_alone(spec: VariantSpec, row: Row) -> Iterator[Row]:
    if spec.engine == "reference" and row.device == "cuda":
        yield from (replace(row, kind=kind, batch=GPU_BATCHES[0]) for kind in (RowKind.vllm, RowKind.ray_data))


class Usage(TypedDict):
    """A process's load time and peak memory, by the name of the field of `Result`."""

    load_seconds: float
    rss_bytes: int
    vram_bytes: int | None
    weight_bytes: int | None


class Bench:
    """Measures one row in its own process. Call `load` before `run`."""

    def load(self, row: Row, variant: Artifact | None, storage: StorageOptions, workload: Workload) -> dict:
        """Load the row's model and return a description of the machine. `variant`: None for the row of an encoder."""
        self.row = row
        start = time.perf_counter()
        self.meter = _meter(row, artifacts.fetch(variant, storage) if variant else None, workload)
        self.load_seconds = time.perf_counter() - start
        return machine()

    def run(self, seconds: float) -> tuple[Reading, Usage]:
        """Measure for about `seconds`. Returns the reading and the process's usage so far."""
        reading = meters.measure(self.meter, seconds, first=1 if self.row.kind is RowKind.limit else self.row.batch)
        rss_bytes = peak_bytes(getattr(self.meter, "pid", "self"))
        if hasattr(self.meter, "close"):
            self.meter.close()
        return reading, {
            "load_seconds": self.load_seconds,
            "rss_bytes": rss_bytes,
            "vram_bytes": gpu_peak_bytes() if self.row.device == "cuda" else None,
            "weight_bytes": _weight_bytes(self.meter),
        }


def _meter(row: Row, folder: Path | None, workload: Workload) -> Meter:
    if folder is None:
        # The only row without a variant. Its model comes from a package.
        set_threads(row.threads)
        return peers.EncoderMeter(workload)
    spec = VariantSpec.parse(row.variant)
    if spec.engine != "gguf":
        set_threads(row.threads)
        pick_device(Device(row.device))
    load = lambda: load_classifier(folder, row.variant, workload.prompt, _options(row))  # noqa: E731
    if row.kind is RowKind.engine:
        return meters.EngineMeter(load, workload)
    if row.kind is RowKind.create_completion:
        return meters.CompletionMeter(folder / "model.gguf", workload, row.threads)
    if row.kind is RowKind.generate:
        return meters.GenerateMeter(folder, workload, precision(spec, row.device), row.device, row.batch)
    if row.kind is RowKind.pipeline:
        return peers.PipelineMeter(folder, workload, precision(spec, row.device), row.device, row.batch)
    if row.kind is RowKind.server:
        return peers.ServerMeter(folder / "model.gguf", workload, row.threads, row.batch)
    if row.kind is RowKind.vllm:
        return peers.VllmMeter(folder, workload, precision(spec, row.device))
    if row.kind is RowKind.ray_data:
        return peers.RayDataMeter(folder, workload, precision(spec, row.device), row.batch)
    if spec.engine == "gguf":
        return meters.PrefillMeter(folder / "model.gguf", row.threads)
    return meters.ForwardMeter(load, row.batch)


def _options(row: Row) -> EngineOptions:
    return EngineOptions(
        row.output_format, Device(row.device), gguf_sequences=row.batch, gptq_batch=row.batch, threads=row.threads
    )


def precision(spec: VariantSpec, device: str) -> str:
    """Return the name of the torch dtype that the reference engine uses for this variant."""
    if spec.precision.value != "auto":
        return spec.precision.value
    return "bfloat16" if device == "cuda" else "float32"


def result(row: Row, readings: Sequence[tuple[Reading, Usage]], disk_bytes: int) -> Result:
    """Return a row's result from the readings of its actors, which measured at the same time. `readings`: as of `Bench.run`."""
    parts, usages = [part for part, _ in readings], [usage for _, usage in readings]
    messages, seconds = sum(part.messages for part in parts), max(part.seconds for part in parts)
    latencies = np.concatenate([part.latencies for part in parts])
    tokens = sum(part.tokens for part in parts)
    return Result(
        row,
        messages=messages,
        seconds=seconds,
        messages_per_second=messages / seconds,
        tokens_per_second=tokens / seconds,
        tokens_per_message=tokens / messages,
        p50=float(np.percentile(latencies, 50)),
        p95=float(np.percentile(latencies, 95)),
        load_seconds=max(usage["load_seconds"] for usage in usages),
        rss_bytes=max(usage["rss_bytes"] for usage in usages),
        vram_bytes=_largest(usage["vram_bytes"] for usage in usages),
        weight_bytes=_largest(usage["weight_bytes"] for usage in usages),
        disk_bytes=disk_bytes,
    )


def _largest(sizes: Iterable[int | None]) -> int | None:
    return max((size for size in sizes if size is not None), default=None)


def compared(results: Sequence[Result], tokens_per_message: float) -> list[Result]:
    """Return the results with each limit in messages/s, and each row's share of the limit and speed relative to the loop.

    The limit is the best one of the same weights on the same device. The loop is the create_completion row of the same weights,
    or the first one for other rows. `tokens_per_message`: the tokens that must be computed per message.
    """
    done = [_as_messages(r, tokens_per_message) if r.row.kind is RowKind.limit and not r.reason else r for r in results]
    loops = {
        r.row.weights: r.messages_per_second for r in reversed(done) if r.row.kind is RowKind.create_completion and not r.reason
    }
    first = next((r.messages_per_second for r in done if r.row.kind is RowKind.create_completion and not r.reason), None)
    limits: dict[tuple, float] = {}
    for r in done:
        if r.row.kind is RowKind.limit and r.messages_per_second is not None:
            limits[r.row.weights] = max(limits.get(r.row.weights, 0.0), r.messages_per_second)
    return [
        replace(
            r,
            share_of_limit=_ratio(r.messages_per_second, limits.get(r.row.weights)),
            times_loop=_ratio(r.messages_per_second, loops.get(r.row.weights, first)),
        )
        for r in done
    ]


def _as_messages(limit: Result, tokens_per_message: float) -> Result:
    rate = limit.tokens_per_second / tokens_per_message
    return replace(limit, messages_per_second=rate, tokens_per_message=tokens_per_message)


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def tokens_needed(folder: Path, workload: Workload, output_format: str = "compact") -> tuple[float, float]:
    """Return the mean tokens of a message with its separator, and the mean tokens that must be computed to get its answer."""
    tokenizer = load_tokenizer(folder)
    prompt = workload.prompt
    automaton = Automaton(prompt.schema, prompt.catalog, tokenizer, output_format)
    lengths = [len(ids) for ids in prompt.message_ids(tokenizer, workload.messages)]
    answers = [automaton.target(intent).decisions[-1] for intent in workload.intents]
    return float(np.mean(lengths)), float(np.mean(lengths) + np.mean(answers))


def _weight_bytes(meter: Meter) -> int | None:
    """Return the bytes of a torch model's parameters and buffers, with shared ones counted once; None without such a model."""
    model = getattr(meter, "model", None) or getattr(getattr(meter, "classifier", None), "forward", None)
    model = getattr(model, "model", model)
    if model is None or not hasattr(model, "parameters"):
        return None
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())
