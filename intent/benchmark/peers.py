"""Define the meters of alternatives: a transformers pipeline, llama.cpp's server, vLLM, Ray Data, an encoder with heads.

Each text generator generates OUTPUT_TOKENS tokens per message, or at most that many. `lacks` returns why an alternative cannot
be measured, such as a missing package.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import cast
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np

from intent.artifacts.variant import VariantSpec
from intent.benchmark.config import RowKind
from intent.benchmark.meters import OUTPUT_TOKENS, Workload
from intent.engine.embedding import Encoder, load_features
from intent.errors import ConfigError, IntentError
from intent.task.schema import Count
from intent.train.linear import copy_source

ENCODER = "embedding-minilm"
SERVER = "llama-server"
START_SECONDS = 300
# The most tokens of a message with its answer, behind the shared prompt.
ROOM = 512


def lacks(kind: RowKind) -> str:
    """Return why a row of this kind cannot be measured here, or "" if it can."""
    if kind is RowKind.server and not shutil.which(SERVER) and not (find_spec("llama_cpp") and find_spec("uvicorn")):
        return f"{SERVER} is not on the PATH, and llama-cpp-python[server] is not installed"
    if kind in (RowKind.vllm, RowKind.ray_data) and find_spec("vllm") is None:
        return "the Python package vllm is not installed"
    if kind is RowKind.encoder:
        with tempfile.TemporaryDirectory() as folder:
            try:
                copy_source(VariantSpec.parse(ENCODER), Path(folder))
            except ConfigError as error:
                return error.remedy
    return ""


class _Texts:
    """A meter that processes whole prompts. A message's latency is that of its whole step."""

    def __init__(self, workload: Workload, step: int | None):
        self.work, self.total, self.step = workload, len(workload.messages), step
        self.tokens = 0
        self.latencies: list[float] = []

    def run(self, rows: Sequence[int]) -> None:
        start = time.perf_counter()
        self.tokens += self.generate([self.work.text(row) for row in rows])
        self.latencies += [time.perf_counter() - start] * len(rows)

    def generate(self, texts: Sequence[str]) -> int:
        """Generate answers and return how many tokens the model computed."""
        raise NotImplementedError


class PipelineMeter(_Texts):
    """transformers' text-generation pipeline, with batches of `batch` messages."""

    def __init__(self, folder: Path, workload: Workload, dtype: str, device: str, batch: int):
        import torch
        from transformers import AutoTokenizer, pipeline

        super().__init__(workload, batch)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(0)
        options = {"dtype": getattr(torch, dtype), "device": device, "batch_size": batch}
        self.pipeline = pipeline("text-generation", str(folder), tokenizer=self.tokenizer, **options)
        self.model = self.pipeline.model

    def generate(self, texts: Sequence[str]) -> int:
        self.pipeline(list(texts), max_new_tokens=OUTPUT_TOKENS, do_sample=False, return_full_text=False)
        return sum(map(len, self.tokenizer(list(texts))["input_ids"])) + OUTPUT_TOKENS * len(texts)


class ServerMeter(_Texts):
    """llama.cpp's own server with `slots` parallel slots if it is on the PATH, else llama_cpp.server.

    llama_cpp.server answers one request at a time. `pid`: the server's process, which ends with this one. Raises IntentError if
    the server does not start.
    """

    def __init__(self, path: Path, workload: Workload, threads: int, slots: int):
        super().__init__(workload, None)
        port = _free_port()
        self.url, self.slots = f"http://127.0.0.1:{port}", slots
        context = _tokens(path, workload.prompt.prefix) + ROOM
        binary = shutil.which(SERVER)
        if binary:
            command = [binary, "-m", str(path), "-c", str(slots * context), "-np", str(slots), "-t", str(threads)]
        else:
            command = [sys.executable, "-m", "llama_cpp.server", "--model", str(path), "--n_ctx", str(context)]
            command += ["--n_threads", str(threads), "--n_threads_batch", str(threads), "--cache", "false"]
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        command += ["--host", "127.0.0.1", "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, preexec_fn=_end_with_parent)
        self.pid, self.pool = self.process.pid, ThreadPoolExecutor(slots)
        self._wait()

    def run(self, rows: Sequence[int]) -> None:
        for tokens, seconds in self.pool.map(self._ask, (self.work.text(row) for row in rows)):
            self.tokens += tokens
            self.latencies.append(seconds)

    def close(self) -> None:
        """Stop the server."""
        self.pool.shutdown()
        self.process.kill()
        self.process.wait()

    def _ask(self, text: str) -> tuple[int, float]:
        body = {"prompt": text, "max_tokens": OUTPUT_TOKENS, "temperature": 0.0, "cache_prompt": True}
        start = time.perf_counter()
        request = Request(f"{self.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=START_SECONDS) as reply:
            usage = json.load(reply)["usage"]
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        return usage["total_tokens"] - cached, time.perf_counter() - start

    def _wait(self) -> None:
        """Wait until the server answers. Raises IntentError if it ends or does not answer within START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(URLError, OSError), urlopen(f"{self.url}/v1/models", timeout=5):
                return
            time.sleep(0.2)
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()[-3:]
        self.close()
        raise IntentError(f"the server has not started; its last lines: {'; '.join(lines)}")


class VllmMeter(_Texts):
    """vLLM offline, with all messages of a step at once, structured outputs, and prefix caching."""

    def __init__(self, folder: Path, workload: Workload, dtype: str):
        from vllm import LLM, SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        super().__init__(workload, None)
        self.llm = LLM(str(folder), dtype=dtype, enable_prefix_caching=True)
        schema = workload.prompt.schema.json_schema(workload.prompt.catalog)
        self.params = SamplingParams(
            temperature=0.0, max_tokens=OUTPUT_TOKENS, structured_outputs=StructuredOutputsParams(json=schema)
        )

    def generate(self, texts: Sequence[str]) -> int:
        replies = self.llm.generate(list(texts), self.params, use_tqdm=False)
        return sum(len(r.prompt_token_ids) - (r.num_cached_tokens or 0) + len(r.outputs[0].token_ids) for r in replies)


class RayDataMeter(_Texts):
    """Ray Data's batch inference with vLLM on the running cluster, with structured outputs."""

    def __init__(self, folder: Path, workload: Workload, dtype: str, batch: int):
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        super().__init__(workload, None)
        config = vLLMEngineProcessorConfig(
            model_source=str(folder),
            engine_kwargs={"dtype": dtype, "enable_prefix_caching": True},
            batch_size=batch,
            concurrency=1,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
        )
        schema = workload.prompt.schema.json_schema(workload.prompt.catalog)
        sampling = {"temperature": 0.0, "max_tokens": OUTPUT_TOKENS, "structured_outputs": {"json": json.dumps(schema)}}
        self.processor = build_processor(
            config,
            preprocess=lambda row: {"prompt": row["text"], "sampling_params": sampling},
            postprocess=lambda row: {"tokens": row["num_input_tokens"] + row["num_generated_tokens"]},
        )

    def generate(self, texts: Sequence[str]) -> int:
        import ray

        rows = self.processor(ray.data.from_items([{"text": text} for text in texts])).take_all()
        return sum(row["tokens"] for row in rows)


class EncoderMeter(_Texts):
    """A sentence encoder with one random linear head per slot. It measures the speed of such a classifier, not its accuracy."""

    def __init__(self, workload: Workload):
        super().__init__(workload, None)
        with tempfile.TemporaryDirectory() as folder:
            copy_source(VariantSpec.parse(ENCODER), Path(folder))
            self.features = cast(Encoder, load_features(Path(folder)))
        self.model = self.features.model
        prompt, draw = workload.prompt, np.random.default_rng(0)
        sizes = [99 if isinstance(slot, Count) else len(slot.domain(prompt.catalog)) for slot in prompt.schema.slots]
        self.heads = [draw.normal(size=(self.model.config.hidden_size, size)).astype(np.float32) for size in sizes]

    def run(self, rows: Sequence[int]) -> None:
        start = time.perf_counter()
        messages = [self.work.messages[row] for row in rows]
        vectors = self.features(messages)
        for head in self.heads:
            (vectors @ head).argmax(axis=1)
        self.tokens += sum(len(encoded.ids) for encoded in self.features.tokenizer.encode_batch(messages))
        self.latencies += [time.perf_counter() - start] * len(rows)


def _tokens(path: Path, text: str) -> int:
    import llama_cpp

    reader = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    try:
        return len(reader.tokenize(text.encode()))
    finally:
        reader.close()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_with_parent() -> None:
    """Make a child process on Linux end when its parent does, even if the parent is killed."""
    import ctypes

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, 9)
