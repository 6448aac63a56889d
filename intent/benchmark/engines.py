"""The rows of a benchmark: which there are, how each is measured, and what they say side by side.

Knows neither Ray nor where a row runs: `measure_row` is called in a process of its own.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
# Of a server, each with a request.
SLOTS = 16


@dataclass(frozen=True)
class Row:
    """What one row measures. `batch`: messages together, of an engine, of `generate` or of a forward pass."""

    kind: RowKind
    variant: str
    device: str
    threads: int
    output_format: str = "compact"
    batch: int = 1
    actors: int = 1

    @property
    def weights(self) -> tuple[str, str]:
        """Rows of the same weights on the same device have one limit."""
        return self.variant, self.device

    @property
    def name(self) -> str:
        said = {
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
        return f"{self.variant} {self.device}: {said}{actors}"


@dataclass(frozen=True)
class Result:
    """A row's figures, or the reason why it has none. Bytes of memory are one process's peak; `vram_bytes` None: no GPU.

    `tokens_per_message` and `tokens_per_second` are what the model computed; `messages` how many were measured.
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
    """Rows of every variant at the first output format, batch and threads, then with one of these changed at a time.

    Last comes a sentence encoder, which is of no variant. On a CPU, batches and threads are changed for the first GGUF variant
    alone. A row with fewer threads than CPUs fills them with actors. Without CUDA a variant that could use it has one row that
    says so, and so have the peers that need it. `device`: no other has rows.
    """
    swept = next((spec.name for spec in specs if spec.engine == "gguf"), None)
    wanted = [(spec, where) for spec in specs for where in _devices(spec) if device.value in ("auto", where)]
    for spec, where in wanted:
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


class Bench:
    """One row, in a process of its own; `load` before `run`."""

    def load(self, row: Row, variant: Artifact | None, storage: StorageOptions, workload: Workload) -> dict:
        """Returns what machine this is. `variant` None: the row needs none."""
        self.row = row
        start = time.perf_counter()
        self.meter = _meter(row, artifacts.fetch(variant, storage) if variant else None, workload)
        self.load_seconds = time.perf_counter() - start
        return machine()

    def run(self, seconds: float) -> tuple[Reading, dict]:
        """The reading, and what the process took so far."""
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
    if row.kind is RowKind.encoder:
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
    return meters.ForwardMeter(lambda: load().forward.model, row.batch)


def _options(row: Row) -> EngineOptions:
    return EngineOptions(
        row.output_format, Device(row.device), gguf_sequences=row.batch, gptq_batch=row.batch, threads=row.threads
    )


def precision(spec: VariantSpec, device: str) -> str:
    """The torch dtype's name that the reference engine takes for this variant."""
    if spec.precision.value != "auto":
        return spec.precision.value
    return "bfloat16" if device == "cuda" else "float32"


def result(row: Row, readings: Sequence[tuple[Reading, dict]], disk_bytes: int) -> Result:
    """One row of what its actors read side by side."""
    parts, sizes = zip(*readings, strict=True)
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
        disk_bytes=disk_bytes,
        **{name: max((size[name] for size in sizes if size[name] is not None), default=None) for name in sizes[0]},
    )


def compared(results: Sequence[Result], tokens_per_message: float) -> list[Result]:
    """`results` with each limit as messages/s, everyone's share of the best limit of its weights, and times the loop.

    The loop is the one of the same file; for what is no GGUF, the first one.
    """
    done = [_as_messages(r, tokens_per_message) if r.row.kind is RowKind.limit and not r.reason else r for r in results]
    loops = {
        r.row.weights: r.messages_per_second for r in reversed(done) if r.row.kind is RowKind.create_completion and not r.reason
    }
    first = next((r.messages_per_second for r in done if r.row.kind is RowKind.create_completion and not r.reason), None)
    limits: dict[tuple, float] = {}
    for r in done:
        if r.row.kind is RowKind.limit and not r.reason:
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
    """Mean tokens of a message with its separator, and those that must be computed to arrive at its answer."""
    tokenizer = load_tokenizer(folder)
    prompt = workload.prompt
    automaton = Automaton(prompt.schema, prompt.catalog, tokenizer, output_format)
    lengths = [len(ids) for ids in prompt.message_ids(tokenizer, workload.messages)]
    answers = [automaton.target(intent).decisions[-1] for intent in workload.intents]
    return float(np.mean(lengths)), float(np.mean(lengths) + np.mean(answers))


def _weight_bytes(meter: Meter) -> int | None:
    """Of a torch model's parameters and buffers, each once."""
    model = getattr(meter, "model", None) or getattr(getattr(meter, "classifier", None), "forward", None)
    model = getattr(model, "model", model)
    if not hasattr(model, "parameters"):
        return None
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())
