"""Define the meters of our engines, of the code that a user would write first, and of the hardware's limit.

A meter loads its model when it is created. `run(rows)` processes the messages with these numbers, and adds to the meter's
tokens and latencies. Each meter runs in its own process.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from intent.engine.decode import Take
from intent.engine.forced import ForcedWalk
from intent.task.catalog import normalize
from intent.task.prompt import SEPARATOR, Prompt
from intent.task.schema import Intent, same

OUTPUT_TOKENS = 20
PREFILL_TOKENS = 512


@dataclass(frozen=True)
class Workload:
    """Messages with their gold intents, behind one prompt."""

    prompt: Prompt
    messages: Sequence[str]
    intents: Sequence[Intent]

    def part(self, number: int, of: int) -> "Workload":
        """Return part `number` out of `of` parts."""
        return Workload(self.prompt, self.messages[number::of], self.intents[number::of])

    def text(self, row: int) -> str:
        """Return the whole prompt for a message, as an engine reads it."""
        return f"{self.prompt.prefix}{normalize(self.messages[row])}{SEPARATOR}"


@dataclass(frozen=True)
class Reading:
    """The figures of a warm meter: `messages` in `seconds`. `tokens`: computed by the model. `latencies`: each in seconds."""

    messages: int
    seconds: float
    tokens: int
    latencies: list[float]


class Meter(Protocol):
    """A meter. `step`: messages per `run`; None: as many as there is time for. `total`: the number of messages."""

    tokens: int
    latencies: list[float]

    @property
    def step(self) -> int | None: ...

    @property
    def total(self) -> int: ...

    def run(self, rows: Sequence[int]) -> None:
        """Process the messages with these numbers, and add to `tokens` and `latencies`."""


def measure(meter: Meter, seconds: float, first: int) -> Reading:
    """Measure for about `seconds`, and each message at most once.

    Before that, `first` messages warm the meter up, because the first pass compiles kernels and repacks weights.
    """
    warm = _timed(meter, range(min(first, meter.total)))
    meter.tokens, meter.latencies = 0, []
    # A step must fill the row's batch.
    step = meter.step or min(meter.total, max(first, round(seconds * min(first, meter.total) / warm)))
    done, spent = 0, 0.0
    while done < meter.total and spent < seconds:
        rows = [(first + done + i) % meter.total for i in range(min(step, meter.total - done))]
        spent += _timed(meter, rows)
        done += len(rows)
    return Reading(done, spent, meter.tokens, meter.latencies)


def _timed(meter: Meter, rows: Sequence[int]) -> float:
    start = time.perf_counter()
    meter.run(rows)
    return time.perf_counter() - start


@dataclass
class GoldWalk(ForcedWalk):
    """A walk to the gold answers that measures latencies.

    Every engine and output format makes as many decisions as a model that is always right, even with random weights. A
    message's latency is the time from the start of its first forward pass to its last decision. `latencies`: in seconds.
    """

    latencies: list[float] = field(default_factory=list)

    def __post_init__(self):
        super().__post_init__()
        self._entered = [0.0] * self.n

    def allowed(self, rows: Sequence[int]) -> np.ndarray:
        now = time.perf_counter()
        for row in rows:
            if self.decided[row] == 0:
                self._entered[row] = now
        return super().allowed(rows)

    def advance(self, rows: np.ndarray, take: Take) -> list[tuple[int, ...]]:
        feeds = super().advance(rows, take)
        now = time.perf_counter()
        for row, feed in zip(rows.tolist(), feeds, strict=True):
            if not feed:
                self.latencies.append(now - self._entered[row])
        return feeds


class EngineMeter:
    """One of our engines, with a walk to the gold answers."""

    step = None

    def __init__(self, load: Callable, workload: Workload):
        self.classifier, self.work, self.total = load(), workload, len(workload.messages)
        self.targets = [self.classifier.automaton.target(intent) for intent in workload.intents]
        self.tokens, self.latencies = 0, []

    def run(self, rows: Sequence[int]) -> None:
        before = self.classifier.tokens_computed
        self.classifier.walk = lambda automaton, numbers: GoldWalk(
            automaton, len(numbers), targets=[self.targets[rows[number]] for number in numbers], latencies=self.latencies
        )
        predictions = self.classifier.classify([self.work.messages[row] for row in rows])
        self.tokens += self.classifier.tokens_computed - before
        for prediction, row in zip(predictions, rows, strict=True):
            if not same(prediction.intent, self.work.intents[row]):
                why = prediction.reason or "the engine did not give the gold answer, although every choice was forced"
                raise RuntimeError(f"message {self.work.messages[row]!r}: {why}")


class CompletionMeter:
    """`Llama.create_completion`, one message after another. llama.cpp reuses the prefix that a prompt shares with the last."""

    step = 1

    def __init__(self, path: Path, workload: Workload, threads: int):
        import llama_cpp

        self.work, self.total = workload, len(workload.messages)
        prefix = workload.prompt.prefix.encode()
        beyond = 1024
        reader = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        self.prefix = len(reader.tokenize(prefix))
        reader.close()
        self.llama = llama_cpp.Llama(
            str(path), n_ctx=self.prefix + beyond, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.tokens, self.latencies = 0, []

    def run(self, rows: Sequence[int]) -> None:
        for row in rows:
            start = time.perf_counter()
            done = self.llama.create_completion(self.work.text(row), max_tokens=OUTPUT_TOKENS, temperature=0.0)
            self.latencies.append(time.perf_counter() - start)
            self.tokens += done["usage"]["total_tokens"] - self.prefix


class GenerateMeter:
    """transformers' `generate` on batches of whole prompts."""

    def __init__(self, folder: Path, workload: Workload, dtype: str, device: str, batch: int):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.work, self.total, self.step, self.device = workload, len(workload.messages), batch, device
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(0)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
        self.model = model.to(device).eval()
        self.tokens, self.latencies = 0, []

    def run(self, rows: Sequence[int]) -> None:
        start = time.perf_counter()
        inputs = self.tokenizer([self.work.text(row) for row in rows], return_tensors="pt", padding=True).to(self.device)
        inputs.pop("token_type_ids", None)
        ids = self.model.generate(
            **inputs,
            max_new_tokens=OUTPUT_TOKENS,
            min_new_tokens=OUTPUT_TOKENS,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :])
        self.tokens += int(inputs["attention_mask"].sum()) + OUTPUT_TOKENS * len(rows)
        self.latencies += [time.perf_counter() - start] * len(rows)


class PrefillMeter:
    """llama.cpp's rate for a batch of 512 tokens, like pp512 of `llama-bench`. A message here is one such batch."""

    step, total = 1, 1000

    def __init__(self, path: Path, threads: int):
        from intent.engine.gguf import GgufForward

        self.forward = GgufForward(path, [], 1, PREFILL_TOKENS, threads)
        self.tokens, self.latencies = 0, []

    def run(self, rows: Sequence[int]) -> None:
        for row in rows:
            start = time.perf_counter()
            self.forward.extend([(0, _arbitrary(row, 1)[0])], np.zeros(1, np.int32))
            self.forward.release(0)
            self.latencies.append(time.perf_counter() - start)
            self.tokens += PREFILL_TOKENS


class ForwardMeter:
    """A plain forward pass over `batch` times 512 tokens. A message here is one such pass.

    `load`: returns a classifier whose forward pass is a transformers model.
    """

    step, total = 1, 1000

    def __init__(self, load: Callable, batch: int):
        self.model, self.batch = load().forward.model, batch
        self.tokens, self.latencies = 0, []

    def run(self, rows: Sequence[int]) -> None:
        import torch

        for row in rows:
            start = time.perf_counter()
            ids = torch.tensor(_arbitrary(row, self.batch), device=next(self.model.parameters()).device)
            with torch.inference_mode():
                self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits.float().sum().item()
            self.latencies.append(time.perf_counter() - start)
            self.tokens += PREFILL_TOKENS * self.batch


def _arbitrary(seed: int, rows: int) -> list[list[int]]:
    """Return random token ids [rows, PREFILL_TOKENS] that every vocabulary has."""
    return np.random.default_rng(seed).integers(3, 250, (rows, PREFILL_TOKENS)).tolist()
