"""Compute attention of many rows behind one shared prefix, and read the prefix's keys and values in place.

The fed tokens of all rows are concatenated, as if they were one row, so that nothing is padded. Their queries attend to the
prefix in one product, or in one call of FlashAttention on a GPU (the shared part of Hydragen, Juravsky et al., arXiv
2402.05099). Each row attends to its own tokens in a call of FlashAttention for rows of different lengths, or in one padded
product. The two parts are combined by the logsumexps of their scores. A layer with a sliding window keeps only the end of the
prefix, and each query sees the part of it that is in its window. Knows nothing of messages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from intent.errors import ConfigError

if TYPE_CHECKING:
    import torch

    KeysValues = tuple[torch.Tensor, torch.Tensor]

NAME = "behind_prefix"


@dataclass
class Pool:
    """Keys and values of the rows' own tokens, by layer [rows * max_seq_len, kv heads, size]."""

    rows: int
    max_seq_len: int
    layers: dict[int, "KeysValues"]

    def put(self, layer: int, slots: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "KeysValues":
        """Write key and value [tokens, kv heads, size] at `slots` [tokens]; return all of the layer's."""
        if layer not in self.layers:
            shape = (self.rows * self.max_seq_len, *key.shape[1:])
            self.layers[layer] = key.new_zeros(shape), value.new_zeros(shape)
        keys, values = self.layers[layer]
        keys.index_copy_(0, slots, key)
        values.index_copy_(0, slots, value)
        return keys, values


@dataclass(frozen=True)
class Behind:
    """The inputs of a forward pass of rows behind a prefix. Only the rows that are fed count as rows.

    prefix: by layer, keys and values of the prefix [1, kv heads, kept, size]. A windowed layer keeps the last tokens only.
    length: tokens of the whole prefix.
    own: the keys and values of own tokens.
    positions: int64 [tokens], of the fed tokens behind the prefix, from 0.
    slots: int64 [tokens], where in `own` each is written.
    starts: int32 [rows + 1], where each row's tokens begin among the fed ones.
    first: int32 [rows + 1], where each row's own tokens begin in `own`.
    used: int32 [rows], how many own tokens each row has, with the fed ones.
    widest, longest: the most fed and the most own tokens of a row.
    join: the function `join`, compiled or not.
    """

    prefix: Sequence["KeysValues"]
    length: int
    own: Pool
    positions: "torch.Tensor"
    slots: "torch.Tensor"
    starts: "torch.Tensor"
    first: "torch.Tensor"
    used: "torch.Tensor"
    widest: int
    longest: int
    join: Callable

    def hidden_prefix(self, window: int | None, length: int) -> "torch.Tensor | None":
        """Return, as bool [tokens, length], which of the prefix's last `length` tokens each token does not see.

        Returns None if each token sees all of them.
        """
        import torch

        if not window or self.length + self.longest <= window:
            return None
        return self.positions[:, None] + (length - torch.arange(length, device=self.positions.device)) >= window

    @cached_property
    def padded(self) -> "torch.Tensor":
        """Return the indices of each row's fed tokens, int64 [rows, widest]. Indices beyond a row's end are of other rows."""
        import torch

        columns = torch.arange(self.widest, device=self.starts.device)
        return (self.starts[:-1, None] + columns).clamp(max=len(self.positions) - 1).long()

    @cached_property
    def unpadded(self) -> "torch.Tensor":
        """Return the index of each fed token in the flattened `padded`, int64 [tokens]."""
        import torch

        counts = (self.starts[1:] - self.starts[:-1]).long()
        rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        return rows * self.widest + torch.arange(len(rows), device=rows.device) - self.starts[:-1].long()[rows]


def install(model) -> None:
    """Make a transformers model accept a `Behind` as `behind=` in its forward pass."""
    import torch
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    # It stays uncompiled inside compiled layers, because it writes to the pool that they share.
    AttentionInterface.register(NAME, torch.compiler.disable(behind_prefix))
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def require_no_cap(module, options: dict) -> None:
    """Raise ConfigError if the model caps its attention scores."""
    if options.get("softcap"):
        remedy = "caps its attention scores, which shared prefixes do not support; use another model"
        raise ConfigError("model.source", module.config.model_type, remedy)


def behind_prefix(module, query, key, value, attention_mask, scaling=None, behind: Behind | None = None, **kwargs):
    """Compute attention like transformers' attention functions or, if `behind` is given, behind its prefix.

    With `behind`, query is [1, heads, tokens, size], and key and value are [1, kv heads, tokens, size], of the fed tokens of
    all rows. Returns ([1, tokens, heads, size], None).
    """
    if behind is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    require_no_cap(module, kwargs)
    window = kwargs.get("sliding_window")
    scaling = scaling or query.shape[-1] ** -0.5
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    keys, values = behind.own.put(module.layer_idx, behind.slots, key, value)
    flash = _flash(query)
    prefix = behind.prefix[module.layer_idx]
    far = behind.hidden_prefix(window, prefix[0].shape[2])
    to_prefix: Callable = _flash_prefix if flash and far is None else _dense_prefix
    to_own: Callable = _flash_own if flash else _dense_own
    parts = (*to_prefix(query, *prefix, scaling, far), *to_own(query, keys, values, scaling, window, behind))
    return behind.join(*parts, value.dtype)[None], None


def join(
    of_prefix: "torch.Tensor",
    prefix_lse: "torch.Tensor",
    of_own: "torch.Tensor",
    own_lse: "torch.Tensor",
    dtype: "torch.dtype",
) -> "torch.Tensor":
    """Combine two parts of attention, from their outputs [tokens, heads, size] and their logsumexps [tokens, heads]."""
    import torch

    # A share near 1 would round to 1 in 16 bits and drop the other part, so compute in float32.
    share = (prefix_lse - own_lse).sigmoid()[..., None]
    return torch.lerp(of_own.float(), of_prefix.float(), share).to(dtype)


Part = tuple["torch.Tensor", "torch.Tensor"]


def _flash_prefix(query, key, value, scaling: float, far: None) -> Part:
    """Return (outputs [tokens, heads, size], logsumexps [tokens, heads]). query: [tokens, heads, size]; key as in
    `Behind.prefix`.
    """
    import torch

    asking = query[None].transpose(1, 2)
    out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention(asking, key, value, 0.0, False, scale=scaling)[:2]
    return out[0].transpose(0, 1), logsumexp[0].transpose(0, 1)


def _dense_prefix(query, key, value, scaling: float, far: "torch.Tensor | None") -> Part:
    """Compute what `_flash_prefix` does, in one dense product. `far`: bool [tokens, kept], keys that a query does not see."""
    groups, (tokens, heads, size) = key.shape[1], query.shape
    # The heads of a group share keys, so one product takes the queries of all of them.
    asking = query.view(tokens, groups, -1, size).permute(1, 2, 0, 3).reshape(groups, -1, size)
    hidden = None if far is None else far.repeat(heads // groups, 1)[None]
    out, logsumexp, _ = weighted(asking, key[0], value[0], scaling, hidden)
    out, logsumexp = (x.view(heads, tokens, x.shape[-1]).transpose(0, 1) for x in (out, logsumexp))
    return out, logsumexp[..., 0]


def _flash_own(query, keys, values, scaling: float, window: int | None, behind: Behind) -> Part:
    """Attend from each row to its own tokens in `keys` and `values` [slots, kv heads, size]. Returns what
    `_flash_prefix` does.
    """
    import torch

    local = {"window_size_left": window - 1} if window and behind.longest > window else {}
    out, logsumexp = torch.ops.aten._flash_attention_forward(
        query.contiguous(),
        keys,
        values,
        behind.starts,
        behind.first,
        behind.widest,
        behind.longest,
        0.0,
        True,
        False,
        scale=scaling,
        seqused_k=behind.used,
        **local,
    )[:2]
    return out, logsumexp.transpose(0, 1)


def _dense_own(query, keys, values, scaling: float, window: int | None, behind: Behind) -> Part:
    """Compute what `_flash_own` does, in one product of all rows, padded to the widest and the longest row."""
    import torch

    heads, size = query.shape[1:]
    columns = torch.arange(behind.longest, device=query.device)
    at = (behind.first[:-1, None] + columns).clamp(max=len(keys) - 1).long()
    key, value = (x[at].transpose(1, 2) for x in (keys, values))
    rows, groups = key.shape[:2]
    asking = query[behind.padded].view(rows, behind.widest, groups, -1, size).permute(0, 2, 3, 1, 4).flatten(2, 3)
    back = behind.positions[behind.padded][..., None] - columns
    hidden = back < 0 if not window else (back < 0) | (back >= window)
    out, logsumexp, _ = weighted(asking, key, value, scaling, hidden.repeat(1, heads // groups, 1)[:, None])
    # [rows, groups, heads of a group * widest, n] -> [tokens, heads, n]
    out, logsumexp = (
        x.view(rows, heads, behind.widest, x.shape[-1]).transpose(1, 2).flatten(0, 1)[behind.unpadded] for x in (out, logsumexp)
    )
    return out, logsumexp[..., 0]


def _flash(query: "torch.Tensor") -> bool:
    """Return whether FlashAttention has a kernel: on GPUs since Ampere, in 16 bits, for head sizes 8, 16 ... 256."""
    import torch

    halves = query.dtype in (torch.bfloat16, torch.float16)
    fits = query.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    return query.is_cuda and halves and fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def weighted(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float, hidden: "torch.Tensor | None" = None
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Return (attention output, logsumexp of its scores [..., 1] in float32, weights). `hidden`: keys that a query does not
    see.

    The logsumexp of a query that sees no key is the lowest float32, so `join` gives this part no weight.
    """
    import torch

    weights = (query @ key.mT).float().mul_(scaling)
    if hidden is not None:
        weights.masked_fill_(hidden, torch.finfo(torch.float32).min)
    highest = weights.amax(-1, keepdim=True)
    total = weights.sub_(highest).exp_().sum(-1, keepdim=True)
    weights = weights.div_(total).to(value.dtype)
    return weights @ value, total.log_().add_(highest), weights
