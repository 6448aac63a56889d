"""Run GGUF files on CPUs with llama.cpp, through the low-level API of llama-cpp-python.

The prefix is decoded once as sequence 0. Every other sequence shares it through the unified KV cache. New messages of one batch
share their common beginnings in the same way. A batch mixes new messages with answers in progress. Logits are computed only
where a decision is made. Weights are memory-mapped, so the actors of a node share them. With AMX, each actor reads the file
instead, because llama.cpp rearranges the weights in the actor's own memory.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from intent.engine.automaton import common_prefix
from intent.engine.batch import Feed
from intent.engine.context import require_fit
from intent.engine.decode import Take
from intent.errors import ConfigError, CorruptData

PREFIX = 0
# The tokens that a usual message and its longest answer need. The cache holds no more, because llama.cpp writes all of it at
# the start.
USUAL_SEQ_LEN = 32


class GgufForward:
    """A GGUF file with `prefix` in its cache and up to `max_num_seqs` sequences of `max_seq_len` tokens.

    `beyond`: the extra tokens of an answer with several items, compared with one item. Raises CorruptData if llama.cpp cannot
    load the file, ConfigError if the prompt does not fit its context.
    """

    shares = True
    lanes = 1

    def __init__(
        self,
        path: Path,
        prefix: Sequence[int],
        max_num_seqs: int,
        max_seq_len: int,
        threads: int | None = None,
        beyond: int = 0,
    ):
        import llama_cpp

        self._api = llama_cpp
        # One sequence is the prefix.
        if max_num_seqs >= (most := llama_cpp.llama_max_parallel_sequences()):
            raise ConfigError("engine.gguf_sequences", max_num_seqs, f"llama.cpp decodes at most {most - 1} messages together")
        _silence()
        _load_kernels()
        llama_cpp.llama_backend_init()
        self.max_num_seqs, self.max_seq_len, self.max_tokens, self.computed = (
            max_num_seqs,
            max_seq_len,
            max(512, max_seq_len),
            0,
        )
        # All sequences share one cache, and each takes what it needs.
        self.usual = max_seq_len
        self.capacity = max(max_seq_len, max_num_seqs * min(max_seq_len, USUAL_SEQ_LEN + beyond))
        self._threads = threads or len(os.sched_getaffinity(0))
        self._model = self._load(path)
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(self.max_tokens, 0, max_num_seqs)
        self._context = None
        self.begin(prefix)

    def begin(self, prefix: Sequence[int]) -> None:
        """Replace the prefix. Creates a new context, whose cache is as long as the prefix and its sequences need."""
        self._prefix = list(prefix)
        self._api.llama_free(self._context)
        self._context = self._new_context(self._threads)
        self._memory = self._api.llama_get_memory(self._context)
        self._lengths = [0] * (self.max_num_seqs + 1)
        self._decode_prefix()

    def extend(self, feeds: Sequence[Feed], allowed: np.ndarray, lane: int = 0) -> Take:
        """Extend the sequences. New sequences that begin alike and are neighbors in `feeds` compute their beginning once."""
        batch, last, path = self._batch, (), []
        batch.n_tokens = 0
        for slot, tokens in feeds:
            sequence, start = slot + 1, self._lengths[slot + 1]
            new = not start
            shared = min(common_prefix(last, tokens), len(tokens) - 1) if new else 0
            for at in path[:shared]:
                self._join(at, sequence)
            start = start or self._start(sequence)
            added = [self._put(tokens[i], start + i, sequence, i == len(tokens) - 1) for i in range(shared, len(tokens))]
            if new:
                last, path = tokens, path[:shared] + added
            self._lengths[sequence] = start + len(tokens)
        self._run()
        self.computed += batch.n_tokens
        rows = len(feeds)
        logits = np.ctypeslib.as_array(self._api.llama_get_logits(self._context), shape=(rows, self._vocab))
        return lambda among, tokens: logits[np.ix_(among, tokens)]

    def resize(self, max_seq_len: int) -> None:
        """Do nothing, because all sequences share one cache."""

    def halve(self) -> None:
        self.max_num_seqs = self.max_num_seqs // 2

    def release(self, slot: int, lane: int = 0) -> None:
        self._api.llama_memory_seq_rm(self._memory, slot + 1, -1, -1)
        self._lengths[slot + 1] = 0

    def close(self) -> None:
        self._api.llama_batch_free(self._batch)
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def _load(self, path: Path):
        params = self._api.llama_model_default_params()
        # With AMX, llama.cpp keeps a reordered copy of the weights. The mapped file would stay in memory beside it.
        amx = b"AMX_INT8 = 1" in self._api.llama_print_system_info()
        params.load_mode = self._api.LLAMA_LOAD_MODE_NONE if amx else self._api.LLAMA_LOAD_MODE_MMAP
        model = self._api.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise CorruptData(f"{path}: llama.cpp cannot load it; make the variant again with python -m jobs.quantize")
        return model

    def _new_context(self, threads: int):
        require_fit(len(self._prefix), self.max_seq_len, self._api.llama_model_n_ctx_train(self._model))
        params = self._api.llama_context_default_params()
        params.n_ctx = len(self._prefix) + self.capacity
        params.n_batch = params.n_ubatch = self.max_tokens
        params.n_seq_max = self.max_num_seqs + 1
        params.kv_unified = True
        if self._architecture() == "gemma3":
            # Plain attention scores every pair of tokens in the cache, also of different messages. With FlashAttention and a
            # cache in float16, Gemma's logits differ by up to 0.13 from transformers'.
            params.type_k = params.type_v = self._api.GGML_TYPE_F32
            params.flash_attn_type = self._api.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        context = self._api.llama_init_from_model(self._model, params)
        if not context:
            raise MemoryError(f"llama.cpp has no memory for {params.n_ctx} tokens of context; lower engine.gguf_sequences")
        return context

    def _architecture(self) -> str:
        buffer = ctypes.create_string_buffer(64)
        self._api.llama_model_meta_val_str(self._model, b"general.architecture", buffer, len(buffer))
        return buffer.value.decode()

    def _decode_prefix(self) -> None:
        for low in range(0, len(self._prefix), self.max_tokens):
            piece = self._prefix[low : low + self.max_tokens]
            self._batch.n_tokens = 0
            for offset, token in enumerate(piece):
                self._put(token, low + offset, PREFIX, logits=False)
            self._run()

    def _start(self, sequence: int) -> int:
        self._api.llama_memory_seq_cp(self._memory, PREFIX, sequence, -1, -1)
        return len(self._prefix)

    def _put(self, token: int, position: int, sequence: int, logits: bool) -> int:
        """Put a token into the batch. Returns its index."""
        batch, at = self._batch, self._batch.n_tokens
        batch.token[at], batch.pos[at], batch.logits[at] = token, position, logits
        batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
        batch.n_tokens = at + 1
        return at

    def _join(self, at: int, sequence: int) -> None:
        """Add the batch's token at this index to this sequence too."""
        batch, joined = self._batch, self._batch.n_seq_id[at]
        batch.seq_id[at][joined] = sequence
        batch.n_seq_id[at] = joined + 1

    def _run(self) -> None:
        code = self._api.llama_decode(self._context, self._batch)
        if code != 0:
            raise RuntimeError(f"llama_decode failed with code {code} on {self._batch.n_tokens} tokens")


@cache
def _silence() -> object:
    """Silence llama.cpp, which logs every tensor. Errors still come as return codes.

    Returns the callback, which the cache keeps alive as long as the process, as llama.cpp requires.
    """
    import llama_cpp

    callback = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    return callback


@cache
def _load_kernels() -> None:
    """Load the best kernels for this CPU. A llama.cpp built for any CPU (infra/Dockerfile) has them in separate libraries."""
    from llama_cpp._ggml import libggml, libggml_base_path

    if not libggml.ggml_backend_reg_count():
        libggml.ggml_backend_load_all_from_path(str(libggml_base_path).encode())
