"""Run the forward pass of any Hugging Face causal LM behind a shared prefix, on CPU or CUDA.

The keys and values of the prefix are stored once and read by every row (`attention.py`). Each slot holds the keys and
values of a row's own tokens. A pass takes the fed tokens of all rows concatenated, so that nothing is padded. Logits are
computed only for tokens that may be requested (`output.py`).

A GPU has two lanes of rows. While the GPU computes one, the CPU reads the answers of the other. A pass is queued without
waiting, followed by a copy of its result to pinned memory.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from intent.engine import attention, output
from intent.engine.attention import Behind, Pool
from intent.engine.batch import Feed
from intent.engine.context import require_fit
from intent.engine.decode import Take

if TYPE_CHECKING:
    import torch

    from intent.engine.attention import KeysValues

# The token limit of nearly all messages with their answers.
USUAL = 64
MOST_SEQS, CPU_MAX_NUM_SEQS = 4096, 64
# The tokens of a pass. They keep a GPU busy while the CPU prepares the next pass.
GPU_TOKENS, CPU_TOKENS = 16_384, 1024
# Compiling the layers takes about a minute, which pays off in runs that reach this many tokens.
COMPILED_FROM = 2_000_000


class CausalForward:
    """`model` with `prefix` in its cache, decoding up to `max_num_seqs` sequences together in each lane.

    `max_num_seqs` None: on a GPU, as many as its free memory holds; on a CPU, 64, because more gain nothing. `beyond`: the
    extra tokens of an answer with several items, compared with one item.
    """

    shares = False

    def __init__(self, model, prefix: Sequence[int], max_seq_len: int, max_num_seqs: int | None = None, beyond: int = 0):
        attention.install(model)
        self.model, self.max_seq_len, self.usual, self.computed = model, max_seq_len, min(max_seq_len, USUAL + beyond), 0
        self.device = next(model.parameters()).device
        self.on_gpu = self.device.type == "cuda"
        self.lanes = 2 if self.on_gpu else 1
        self.max_tokens = max(max_seq_len, GPU_TOKENS if self.on_gpu else CPU_TOKENS)
        self._join: Callable | None = None
        self._prefix_length, self._prefix = 0, []
        self._load_prefix(prefix)
        if max_num_seqs is None:
            max_num_seqs = CPU_MAX_NUM_SEQS
            if self.on_gpu:
                max_num_seqs = fitting(_free_bytes() // self.lanes, model.config, self.usual, len(prefix))
        self._pooled = max_num_seqs * self.usual
        self.resize(self.usual)

    def begin(self, prefix: Sequence[int]) -> None:
        """Replace the prefix. Raises ConfigError if prompt and message exceed the context that the model was trained on."""
        self._load_prefix(prefix)
        self.resize(self.usual)

    def _load_prefix(self, prefix: Sequence[int]) -> None:
        require_fit(len(prefix), self.max_seq_len, getattr(self.model.config, "max_position_embeddings", None))
        self._prefix_length = len(prefix)
        self._prefix = prefix_cache(self.model, prefix, self.device)

    def resize(self, max_seq_len: int) -> None:
        self._each, self.max_num_seqs = max_seq_len, max(1, self._pooled // max_seq_len)
        self.capacity = self.max_num_seqs * max_seq_len
        self._pools = [Pool(self.max_num_seqs, max_seq_len, {}) for _ in range(self.lanes)]
        self._lengths = np.zeros((self.lanes, self.max_num_seqs), np.int64)

    def halve(self) -> None:
        self._pooled, self.max_tokens = self.max_num_seqs // 2 * self._each, max(self.max_seq_len, self.max_tokens // 2)
        self.resize(self._each)

    def extend(self, feeds: Sequence[Feed], tokens: np.ndarray, lane: int = 0) -> Take:
        import torch

        if self.on_gpu and self._join is None and self.computed > COMPILED_FROM:
            self.compile()
        try:
            return self._extend(feeds, tokens, lane)
        except torch.OutOfMemoryError as error:
            self._pools = []
            raise MemoryError(str(error)) from None

    def _extend(self, feeds: Sequence[Feed], tokens: np.ndarray, lane: int) -> Take:
        import torch

        occupied, fed = zip(*feeds, strict=True)
        rows, counts = np.asarray(occupied, np.int64), np.asarray([len(row) for row in fed], np.int64)
        ids = np.fromiter((token for row in fed for token in row), np.int64, counts.sum())
        starts = np.concatenate([[0], counts.cumsum()])
        positions = np.arange(len(ids)) + np.repeat(self._lengths[lane, rows] - starts[:-1], counts)
        first = np.append(rows, rows[-1] + 1) * self._each
        used = self._lengths[lane, rows] = self._lengths[lane, rows] + counts
        self.computed += len(ids)
        with torch.inference_mode():
            sent = (ids, positions, positions + np.repeat(first[:-1], counts), starts, first, used, tokens)
            ids, positions, slots, starts, first, used, allowed = self._sent(sent)
            behind = Behind(
                self._prefix,
                self._prefix_length,
                self._pools[lane],
                positions,
                slots,
                starts.int(),
                first.int(),
                used.int(),
                int(counts.max()),
                int(self._lengths[lane, rows].max()),
                self._join or attention.join,
            )
            hidden = self.model.get_decoder()(
                input_ids=ids[None],
                # A full mask keeps transformers from building one. `behind` decides what each token sees.
                attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device),
                position_ids=self._prefix_length + positions[None],
                behind=behind,
                use_cache=False,
            ).last_hidden_state[0]
            logits, done = self._fetched(output.logits(self.model, hidden[starts[1:] - 1], allowed))

        def take(among: np.ndarray, chosen: np.ndarray) -> np.ndarray:
            if done is not None:
                done.synchronize()
            return logits.numpy()[np.ix_(among, np.searchsorted(tokens, chosen))]

        return take

    def compile(self) -> None:
        """Compile each layer, to fuse the operations between its products. A layer that fails to compile runs uncompiled."""
        import torch

        torch._dynamo.config.suppress_errors = True
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 256
        self._join = torch.compile(attention.join, dynamic=True)
        for layer in self.model.get_decoder().layers:
            layer.compile(dynamic=True)

    def release(self, slot: int, lane: int = 0) -> None:
        self._lengths[lane, slot] = 0

    def close(self) -> None:
        """Do nothing: no memory is held outside Python."""

    def _sent(self, arrays: Sequence[np.ndarray]) -> Sequence["torch.Tensor"]:
        """Copy int64 `arrays` to the device in one transfer, without waiting for a GPU's computation."""
        import torch

        whole = torch.from_numpy(np.concatenate(arrays).astype(np.int64, copy=False))
        whole = whole.pin_memory().to(self.device, non_blocking=True) if self.on_gpu else whole
        return whole.split([len(array) for array in arrays])

    def _fetched(self, logits: "torch.Tensor") -> tuple["torch.Tensor", "torch.cuda.Event | None"]:
        """Copy logits to the CPU's memory. Returns the copy, and the event to wait for before reading it."""
        import torch

        if not self.on_gpu:
            return logits.cpu(), None
        here = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True).copy_(logits, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return here, done


def _free_bytes() -> int:
    import torch

    return torch.cuda.mem_get_info()[0]


def fitting(free: int, config, usual: int, prefix: int) -> int:
    """Return how many sequences of `usual` tokens behind a prefix fit into `free` bytes: 1 to 4,096.

    Assumes 16 bits and a pass of GPU_TOKENS. Keeps a quarter of the memory for kernels and fragmentation. If memory runs out
    anyway, the scheduler halves the batch.
    """
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    cache = usual * config.num_hidden_layers * (config.num_key_value_heads or heads) * size * 2 * 2
    activations = GPU_TOKENS * (8 * config.hidden_size + 3 * config.intermediate_size + 8 * heads * size) * 2
    scores = GPU_TOKENS * heads * min(prefix, 512) * (4 + 2)
    return max(1, min(MOST_SEQS, int((0.75 * free - activations - scores) / cache)))


def prefix_cache(model, prefix: Sequence[int], device) -> list["KeysValues"]:
    """Return, by layer, the keys and values of a prefix, [1, kv heads, kept, size]. A windowed layer
    keeps only its last tokens.
    """
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    ids = torch.tensor([list(prefix)], device=device)
    with torch.inference_mode():
        model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]
