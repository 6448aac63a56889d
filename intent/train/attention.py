"""Compute attention over packed rows: one prefix, then messages, each of which attends to the prefix and to itself.

A layer with a sliding window attends to tokens whose positions are less than a window back. A message's positions are those
that it would have if it alone followed the prefix.

A mask over whole rows would compute every pair of tokens, and most pairs are masked. On a GPU, FlexAttention (Dong et al.,
arXiv 2412.05496) skips blocks that are masked completely. A CPU has no such kernel. There the prefix attends to itself, the
tokens of all messages attend to the prefix in one product, and each message attends to itself. The two parts of a message are
combined by their logsumexps, as in FlashAttention (Dao et al., arXiv 2205.14135).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from intent.engine.attention import require_no_cap, weighted

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    from intent.train.batches import Packed

NAME = "shared_prefix"
PREFIX, PADDING = -1, -2
BLOCK = 128  # tokens per block of the GPU's kernel
EVERYTHING = 1 << 30  # a window that covers every position
HOPPER = (9, 0)
# For heads of 256 on Hopper, FlexAttention takes 0.75 of the time that its own choice takes (docs/benchmarks.md).
HEADS_OF_256 = {
    "fwd_BLOCK_M": 128,
    "fwd_BLOCK_N": 32,
    "fwd_num_stages": 2,
    "fwd_num_warps": 8,
    "bwd_BLOCK_M1": 64,
    "bwd_BLOCK_N1": 64,
    "bwd_BLOCK_M2": 64,
    "bwd_BLOCK_N2": 64,
    "bwd_num_stages": 2,
    "bwd_num_warps": 8,
}

logger = logging.getLogger(__name__)

# Compiled by `fused`. Uncompiled FlexAttention computes every pair of tokens.
flex: Callable | None = None
hopper = False


class Masks(NamedTuple):
    """Hold the masks for a CPU: bool, true if a query does not see a key.

    prefix: [rows, 1, start, start], from the prefix to itself, or None if it is causal. to_prefix: [rows, 1, columns after the
    prefix, start] or a shape that broadcasts to it, from messages to the prefix, or None. own: [messages or 1, longest,
    longest], from a message to itself.
    """

    prefix: "torch.Tensor | None"
    to_prefix: "torch.Tensor | None"
    own: "torch.Tensor"


@dataclass(frozen=True)
class Layout:
    """Locate the tokens of packed rows. It is complete before the pass, because compiled layers cannot extend it.

    whole, windowed: the masks of layers without and with a sliding window.
    start: the column at which messages begin, in every row; 0 on a GPU.
    tokens: [messages, longest], the index of each message's tokens in the flattened columns after the prefix; None on a GPU.
    flat_index: [rows * columns after the prefix], the index of each of these columns in the flattened `tokens`; None on a GPU.
    """

    whole: "BlockMask | Masks"
    windowed: "BlockMask | Masks"
    start: int = 0
    tokens: "torch.Tensor | None" = None
    flat_index: "torch.Tensor | None" = None


@cache
def fused(device: str) -> bool:
    """Compile the GPU's kernel if `device` ("cuda", "cpu") has one. Returns whether it works."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    global flex, hopper
    if device != "cuda":
        return False
    hopper = torch.cuda.get_device_capability() == HOPPER
    flex = torch.compile(flex_attention, dynamic=True)
    try:
        rows = torch.zeros(1, 1, BLOCK, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
        zeros = torch.zeros(1, BLOCK, dtype=torch.int64, device=device)
        flex(rows, rows, rows, block_mask=blocks(zeros, zeros)).sum().backward()
    except Exception as error:
        logger.warning("fused attention fails (%s: %.200s): training takes several times as long", type(error).__name__, error)
        return False
    return True


def block(device: str) -> int | None:
    """Return the tokens per block of the GPU's kernel, or None for a device without one. See `batches.pack`."""
    return BLOCK if fused(device) else None


def layout(packed: "Packed", device: "torch.device", window: int | None = None) -> Layout:
    """Return the layout of a batch. `window`: the tokens that layers with a sliding window see; None if the model has none."""
    import torch

    positions, owners = (torch.from_numpy(a).to(device) for a in (packed.positions, packed.owners))
    window = window if window and window <= packed.positions.max() else None
    if packed.tokens is None:
        return Layout(*(blocks(owners, positions, back) for back in (EVERYTHING, window or EVERYTHING)))
    tokens, flat_index = (torch.from_numpy(a).to(device) for a in (packed.tokens, packed.flat_index))
    sizes = packed.start, packed.tokens.shape[1]
    whole = _masks(owners, positions, *sizes)
    windowed = _masks(owners, positions, *sizes, window) if window else whole
    return Layout(whole, windowed, packed.start, tokens, flat_index)


def blocks(owners: "torch.Tensor", positions: "torch.Tensor", window: int = EVERYTHING) -> "BlockMask":
    """Return the block mask for `owners` and `positions`, both [rows, width]."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    # A Python number would be a constant of the kernel, which would be compiled again for each value.
    back = torch.tensor(window, device=owners.device)

    def seen(row, head, query, key):
        asking, asked = owners[row, query], owners[row, key]
        visible = ((asked == PREFIX) | (asking == asked)) & (query >= key)
        return visible & (positions[row, query] - positions[row, key] < back)

    rows, width = owners.shape
    return create_block_mask(seen, rows, None, width, width, device=owners.device, BLOCK_SIZE=BLOCK)


def _masks(owners: "torch.Tensor", positions: "torch.Tensor", start: int, longest: int, window: int | None = None) -> Masks:
    import torch

    later = torch.ones(longest, longest, dtype=torch.bool, device=owners.device).triu(1)[None]
    padding = owners[:, None, None, :start] == PADDING
    if window is None:
        return Masks(None, padding if padding.any() else None, later)
    far = positions[:, :, None] - positions[:, None, :start] >= window
    later_columns = torch.ones(start, start, dtype=torch.bool, device=far.device).triu(1)
    own = torch.arange(longest, device=far.device)
    return Masks(
        (far[:, :start] | later_columns)[:, None],
        far[:, None, start:] | padding,
        later | (own[:, None] - own >= window),
    )


def register() -> str:
    """Register `attend` with transformers. Returns the name to give as `attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME


def attend(module, query, key, value, attention_mask, scaling: float, *, layout: Layout, **kwargs) -> tuple:
    """Compute attention as transformers' attention functions do.

    query: [rows, heads, width, size]. key, value: [rows, key heads, width, size]. Returns ([rows, width, heads, size], None).
    The output at padding is undefined. Raises ConfigError for a model that caps attention scores.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        # A norm in float32 leaves its outputs in float32, and the custom autograd function below has no autocast of its own.
        query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
    require_no_cap(module, kwargs)
    masks = layout.windowed if kwargs.get("sliding_window") else layout.whole
    if layout.tokens is None:
        assert flex is not None, "a layout without tokens is for the compiled kernel"
        options = HEADS_OF_256 if hopper and query.shape[-1] == 256 else None
        of_all = flex(query, key, value, block_mask=masks, scale=scaling, enable_gqa=True, kernel_options=options)
        return of_all.transpose(1, 2), None
    before = slice(0, layout.start)
    of_prefix = scaled_dot_product_attention(
        query[:, :, before],
        key[:, :, before],
        value[:, :, before],
        None if masks.prefix is None else ~masks.prefix,
        is_causal=masks.prefix is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    of_messages = _attend_messages(query, key, value, masks, scaling, layout).to(of_prefix.dtype)
    return torch.cat([of_prefix, of_messages], 2).transpose(1, 2), None


def _attend_messages(query, key, value, masks: Masks, scaling: float, layout: Layout) -> "torch.Tensor":
    """Compute the attention of the messages' tokens on a CPU, float32 [rows, heads, columns after the prefix, size]."""
    import torch

    (rows, heads, _, size), shared = query.shape, key.shape[1]
    before, behind = slice(0, layout.start), slice(layout.start, None)
    # Query heads that share a key head are concatenated like more tokens, so that one product covers them.
    asking = query[:, :, behind].unflatten(1, (shared, -1))
    hidden = masks.to_prefix
    if hidden is not None and hidden.shape[2] > 1:
        hidden = hidden.repeat(1, 1, heads // shared, 1)
    to_prefix, prefix_lse = _weighted(asking.flatten(2, 3), key[:, :, before], value[:, :, before], scaling, hidden)

    assert layout.tokens is not None, "a layout for a CPU has tokens"
    messages, longest = layout.tokens.shape
    own_query, own_key, own_value = (
        _columns(x[:, :, behind], layout.tokens).view(messages, longest, shared, -1, size).permute(0, 2, 3, 1, 4)
        for x in (query, key, value)
    )
    later = masks.own.repeat(1, own_query.shape[2], 1)[:, None]
    to_own, own_lse = _weighted(own_query.flatten(2, 3), own_key.squeeze(2), own_value.squeeze(2), scaling, later)

    def by_column(x: "torch.Tensor") -> "torch.Tensor":
        """Move [messages, key heads, groups * longest, n] to [rows, heads, columns after the prefix, n]."""
        by_token = x.unflatten(2, (-1, longest)).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1)
        return by_token.index_select(0, layout.flat_index).view(rows, -1, heads, x.shape[-1]).transpose(1, 2)

    to_prefix, prefix_lse = (x.unflatten(2, (heads // shared, -1)).flatten(1, 2) for x in (to_prefix, prefix_lse))
    # In 16 bits, a share near 1 would round the other part to 0.
    share = (prefix_lse - by_column(own_lse)).sigmoid()
    return torch.lerp(by_column(to_own).float(), to_prefix.float(), share)


def _weighted(query, key, value, scaling: float, hidden: "torch.Tensor | None") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return (attention output, logsumexp of its scores [..., 1] in float32). `hidden`: true if a query does not see a key.

    It is one autograd function with its own derivative, because the scores are by far the largest arrays. They are stored once.
    """
    import torch

    class Weighted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, query, key, value):
            out, lse, weights = weighted(query, key, value, scaling, hidden)
            ctx.save_for_backward(query, key, value, weights, out)
            return out, lse

        @staticmethod
        def backward(ctx, to_out, to_lse):
            query, key, value, weights, out = ctx.saved_tensors
            center = (to_out * out).sum(-1, keepdim=True) - to_lse
            to_scores = (to_out @ value.transpose(-1, -2)).sub_(center).mul_(weights).mul_(scaling)
            to_scores = to_scores.to(query.dtype)
            return to_scores @ key, to_scores.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ to_out

    return Weighted.apply(query, key, value)


def _columns(x: "torch.Tensor", which: "torch.Tensor") -> "torch.Tensor":
    """Select columns of x [rows, heads, columns, size]. Returns [number of indices, heads * size].

    `which`: indices into the columns of all rows, flattened.
    """
    return x.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, which.flatten())
