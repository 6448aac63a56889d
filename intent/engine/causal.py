"""The forward pass of any Hugging Face causal LM behind a shared prefix, on CPU or CUDA.

The keys and values of the prefix are held once and read by every row (`attention.py`); each row has those of its own tokens.
Feeds are padded on the left, so that the last token of every row is in the last column. What is padding is masked, and the
positions are those of the row alone. Logits are computed of the tokens that may be asked for, and no others (`output.py`).

A GPU has two lanes of rows: while it computes one, the CPU reads the answers of the other. A pass is queued and not waited
for; what it gives is copied to pinned memory behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from intent.engine import attention, output
from intent.engine.attention import Behind
from intent.engine.batch import Feed
from intent.engine.decode import Take
from intent.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from intent.engine.attention import KeysValues

MOST_PLACES = 1024
# Tokens after which a run is long enough for its layers to be compiled, which takes about 20 seconds.
COMPILED_FROM = 1_000_000


@dataclass
class _Lane:
    """The rows under way in one lane. `of_place`: which row a place has."""

    of_place: dict[int, int] = field(default_factory=dict)
    own: dict[int, "KeysValues"] = field(default_factory=dict)
    mask: "torch.Tensor | None" = None
    positions: "torch.Tensor | None" = None
    lengths: "torch.Tensor | None" = None

    def start(self, places: Sequence[int], device: "torch.device") -> None:
        import torch

        rows = len(places)
        self.own = {}
        self.mask = torch.ones(rows, 0, dtype=torch.bool, device=device)
        self.positions = torch.zeros(rows, 0, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)

    def keep(self, rows: "torch.Tensor") -> None:
        self.own = {layer: (key[rows], value[rows]) for layer, (key, value) in self.own.items()}
        self.mask, self.positions, self.lengths = self.mask[rows], self.positions[rows], self.lengths[rows]


class CausalForward:
    """`model` with `prefix` in its cache, decoding up to `places` sequences together in each lane, all started at once.

    `places` None: on a GPU as many as its free memory holds, on a CPU, where more gain nothing, 32.
    """

    continuous = shares = False

    def __init__(self, model, prefix: Sequence[int], room: int, places: int | None = None):
        attention.install(model)
        self.model, self.room, self.computed = model, room, 0
        self.device = next(model.parameters()).device
        self.on_gpu = self.device.type == "cuda"
        self.lanes = 2 if self.on_gpu else 1
        self._core: Callable | None = None
        self.begin(prefix)
        free = _free_bytes() // self.lanes if self.on_gpu else 0
        self.places = places or (fitting(free, model.config, room, len(prefix)) if self.on_gpu else 32)
        self.max_tokens = self.capacity = self.places * room

    def begin(self, prefix: Sequence[int]) -> None:
        """Raises ConfigError where the prompt and a message's room are longer than what the model was trained on."""
        trained = getattr(self.model.config, "max_position_embeddings", None)
        if trained and len(prefix) + self.room > trained:
            remedy = f"the model's context holds {trained}; use fewer products or another model"
            raise ConfigError("catalog", f"{len(prefix)} tokens", remedy)
        self._prefix_length = len(prefix)
        self._prefix = prefix_cache(self.model, prefix, self.device)
        self._rows = [_Lane() for _ in range(self.lanes)]

    def extend(self, feeds: Sequence[Feed], tokens: np.ndarray, lane: int = 0) -> Take:
        import torch

        try:
            return self._extend(feeds, tokens, self._rows[lane])
        except torch.OutOfMemoryError as error:
            self._rows = [_Lane() for _ in range(self.lanes)]
            raise MemoryError(str(error)) from None

    def _extend(self, feeds: Sequence[Feed], tokens: np.ndarray, rows: _Lane) -> Take:
        import torch

        self.computed += sum(len(fed) for _, fed in feeds)
        if self.on_gpu and self._core is None and self.computed > COMPILED_FROM:
            self.compile()
        with torch.inference_mode():
            self._arrange([place for place, _ in feeds], rows)
            ids, mask, wanted = map(self._sent, (*pad([fed for _, fed in feeds]), tokens.astype(np.int64)))
            queries = rows.lengths[:, None] + mask.cumsum(1) - 1
            rows.mask = torch.cat([rows.mask, mask.bool()], 1)
            rows.positions = torch.cat([rows.positions, queries], 1)
            rows.lengths = rows.lengths + mask.sum(1)
            seen = _causal(rows.mask, ids.shape[1])
            hidden = self.model.get_decoder()(
                input_ids=ids,
                attention_mask=seen,
                position_ids=self._prefix_length + queries.clamp(min=0),
                behind=Behind(
                    self._prefix, self._prefix_length, rows.own, queries, rows.positions, ~seen, self._core or attention.joined
                ),
                use_cache=False,
            ).last_hidden_state
            logits, done = self._fetched(output.logits(self.model, hidden[:, -1], wanted))

        def take(among: np.ndarray, chosen: np.ndarray) -> np.ndarray:
            if done is not None:
                done.synchronize()
            return logits.numpy()[np.ix_(among, np.searchsorted(tokens, chosen))]

        return take

    def compile(self) -> None:
        """Fuse what each layer does between its products, where there is a compiler. A layer that fails runs as it is."""
        import torch

        torch._dynamo.config.suppress_errors = True
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 256
        self._core = torch.compile(attention.joined, dynamic=True)
        for layer in self.model.get_decoder().layers:
            layer.compile(dynamic=True)

    def release(self, place: int, lane: int = 0) -> None:
        """The row itself is dropped when the next call no longer names it."""
        self._rows[lane].of_place.pop(place, None)

    def close(self) -> None:
        """Nothing is held outside of Python."""

    def _arrange(self, places: Sequence[int], rows: _Lane) -> None:
        """Rows for `places`: new ones when all are new, else those that are still under way."""
        if not rows.of_place:
            rows.start(places, self.device)
        elif (kept := [rows.of_place[place] for place in places]) != list(range(len(rows.lengths))):
            rows.keep(self._sent(np.asarray(kept, np.int64)))
        rows.of_place = {place: row for row, place in enumerate(places)}

    def _sent(self, array: np.ndarray) -> "torch.Tensor":
        """`array` on the device; on a GPU without waiting for what it computes."""
        import torch

        found = torch.from_numpy(array)
        return found.pin_memory().to(self.device, non_blocking=True) if self.on_gpu else found.to(self.device)

    def _fetched(self, found: "torch.Tensor") -> tuple["torch.Tensor", "torch.cuda.Event | None"]:
        """`found` in the CPU's memory, and what to wait for before it is read."""
        import torch

        if not self.on_gpu:
            return found.cpu(), None
        here = torch.empty(found.shape, dtype=found.dtype, pin_memory=True).copy_(found, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return here, done


def _free_bytes() -> int:
    import torch

    return torch.cuda.mem_get_info()[0]


def fitting(free: int, config, room: int, prefix: int) -> int:
    """How many sequences of `room` tokens behind a prefix a model of `config` has memory for, of `free` bytes: 1 to 1,024.

    Reckoned in 16 bits with messages of half the room; one is left out of four, for what kernels take and the allocator
    splits. Should it be too many after all, the batch is halved.
    """
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    cache = room * config.num_hidden_layers * (config.num_key_value_heads or heads) * size * 2 * 2
    scores = room // 2 * heads * (prefix + room) * (2 + 4 + 2)
    layer = room // 2 * (4 * config.hidden_size + 3 * config.intermediate_size) * 2
    return max(1, min(MOST_PLACES, int(0.75 * free / (cache + scores + layer))))


def _causal(mask: "torch.Tensor", width: int) -> "torch.Tensor":
    """[rows, 1, width, own]: what the last `width` tokens attend to of their row's, where `mask` [rows, own] is no padding.

    Padding attends to itself: to nothing would give no number.
    """
    import torch

    own = mask.shape[1]
    earlier = torch.ones(width, own, dtype=torch.bool, device=mask.device).tril(own - width)
    itself = earlier.triu(own - width)
    return (mask[:, None, :] & earlier | itself)[:, None]


def prefix_cache(model, prefix: Sequence[int], device) -> list["KeysValues"]:
    """Return by layer the keys and values of a prefix, [1, kv heads, kept, size]; a windowed layer keeps its last tokens."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    ids = torch.tensor([list(prefix)], device=device)
    with torch.inference_mode():
        model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def pad(sequences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids, mask), int64 of shape [rows, longest], padded with 0 on the left."""
    width = max(len(sequence) for sequence in sequences)
    ids = np.zeros((len(sequences), width), np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = sequence
        mask[row, width - len(sequence) :] = 1
    return ids, mask
