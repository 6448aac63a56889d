"""The forward pass of any Hugging Face causal LM behind a shared prefix, on CPU or CUDA.

The prefix is in a cache of its own, read by every row (`attention.py`); a row's cache holds its own tokens only. Feeds are
padded on the left, so that the last token of every row is in the last column; what is padding is masked and the positions
are those of the row alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intent.engine import attention
from intent.engine.attention import Behind
from intent.engine.batch import Feed
from intent.engine.decode import Take
from intent.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache


class CausalForward:
    """`model` with `prefix` in its cache, decoding up to `places` sequences together, all started at once.

    `places` None: on a GPU as many as its free memory holds, on a CPU, where more gain nothing, 32.
    """

    continuous = shares = False

    def __init__(self, model, prefix: Sequence[int], room: int, places: int | None = None):
        attention.install(model)
        self.model, self.room, self.computed = model, room, 0
        self.device = next(model.parameters()).device
        self.begin(prefix)
        self.places = places or (fitting(_free_bytes(), model.config, room, len(prefix)) if self.device.type == "cuda" else 32)
        self.max_tokens = self.capacity = self.places * room

    def begin(self, prefix: Sequence[int]) -> None:
        """Raises ConfigError where the prompt and a message's room are longer than what the model was trained on."""
        trained = getattr(self.model.config, "max_position_embeddings", None)
        if trained and len(prefix) + self.room > trained:
            remedy = f"the model's context holds {trained}; use fewer products or another model"
            raise ConfigError("catalog", f"{len(prefix)} tokens", remedy)
        self._prefix_length = len(prefix)
        self._prefix = prefix_cache(self.model, prefix, self.device)
        self._row_of: dict[int, int] = {}

    def extend(self, feeds: Sequence[Feed]) -> Take:
        import torch

        try:
            return self._extend(feeds)
        except torch.OutOfMemoryError as error:
            self._cache = None
            raise MemoryError(str(error)) from None

    def _extend(self, feeds: Sequence[Feed]) -> Take:
        import torch

        with torch.inference_mode():
            self._arrange([place for place, _ in feeds])
            ids, mask = pad([tokens for _, tokens in feeds], self.device)
            self.computed += sum(len(tokens) for _, tokens in feeds)
            queries = self._lengths[:, None] + mask.cumsum(1) - 1
            self._mask = torch.cat([self._mask, mask.bool()], 1)
            self._positions = torch.cat([self._positions, queries], 1)
            self._lengths = self._lengths + mask.sum(1)
            seen = _causal(self._mask, ids.shape[1])
            logits = self.model(
                input_ids=ids,
                attention_mask=seen,
                position_ids=self._prefix_length + queries.clamp(min=0),
                past_key_values=self._cache,
                behind=Behind(self._prefix, self._prefix_length, queries, self._positions, ~seen),
                use_cache=True,
                logits_to_keep=last(ids, 1),
            ).logits[:, -1]

        def take(rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
            chosen = logits[torch.from_numpy(rows).to(self.device)][:, torch.from_numpy(tokens).to(self.device)]
            return chosen.float().cpu().numpy()

        return take

    def release(self, place: int) -> None:
        """The row itself is dropped when the next call no longer names it."""
        self._row_of.pop(place, None)

    def close(self) -> None:
        """Nothing is held outside of Python."""

    def _arrange(self, places: list[int]) -> None:
        """Rows of the cache for `places`: new ones when all are new, else those that are still under way."""
        import torch
        from transformers import DynamicCache

        if not self._row_of:
            # Without the model's configuration, windowed layers keep a row's whole own part, as the others do.
            self._cache = DynamicCache()
            self._mask = torch.ones(len(places), 0, dtype=torch.bool, device=self.device)
            self._positions = torch.zeros(len(places), 0, dtype=torch.int64, device=self.device)
            self._lengths = torch.zeros(len(places), dtype=torch.int64, device=self.device)
        elif (kept := [self._row_of[place] for place in places]) != list(range(len(self._lengths))):
            keep = torch.tensor(kept, device=self.device)
            self._cache.batch_select_indices(keep)
            self._mask, self._positions, self._lengths = self._mask[keep], self._positions[keep], self._lengths[keep]
        self._row_of = {place: row for row, place in enumerate(places)}


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
    return max(1, min(1024, int(0.75 * free / (cache + scores + layer + 4 * config.vocab_size))))


def _causal(mask: "torch.Tensor", width: int) -> "torch.Tensor":
    """[rows, 1, width, own]: what the last `width` tokens attend to of their row's, where `mask` [rows, own] is no padding.

    Padding attends to itself: to nothing would give no number.
    """
    import torch

    own = mask.shape[1]
    earlier = torch.ones(width, own, dtype=torch.bool, device=mask.device).tril(own - width)
    itself = earlier.triu(own - width)
    return (mask[:, None, :] & earlier | itself)[:, None]


def prefix_cache(model, prefix: Sequence[int], device) -> "DynamicCache":
    """Return the keys and values of a prefix, one row. A windowed layer's are those of the prefix's last tokens."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    ids = torch.tensor([list(prefix)], device=device)
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=last(ids, 1))
    return cache


def pad(sequences: Sequence[Sequence[int]], device) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return (ids, mask) of shape [rows, longest], padded with 0 on the left."""
    import torch

    width = max(len(sequence) for sequence in sequences)
    ids = np.zeros((len(sequences), width), np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = sequence
        mask[row, width - len(sequence) :] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def last(ids: "torch.Tensor", columns: int) -> "torch.Tensor":
    """The last columns' indexes, for `logits_to_keep`.

    Given a number, transformers slices; torch then multiplies the slice by a copy of the output layer for every row.
    """
    import torch

    return torch.arange(ids.shape[1] - columns, ids.shape[1], device=ids.device)
