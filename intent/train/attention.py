"""Attention over packed rows: a prefix once and messages behind it, each of which sees the prefix and itself.

A mask over whole rows would compute every pair of a row's tokens, most of them for nothing. A GPU leaves out the blocks of
pairs that nobody sees (FlexAttention, Dong et al., arXiv 2412.05496). A CPU has no such kernel: there the prefix attends to
itself, all messages' tokens attend to the prefix in one product, and each message attends to itself; a message's two parts
are joined by their log-sum-exps, as blocks are in FlashAttention (Dao et al., arXiv 2205.14135).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from intent.engine.attention import require_plain, weighted

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    from intent.train.batches import Packed

NAME = "shared_prefix"
PREFIX, PADDING = -1, -2
BLOCK = 128  # tokens of a block of the GPU's kernel

logger = logging.getLogger(__name__)

# FlexAttention, compiled, since `fused` was asked; as it is, it computes every pair.
flex: Callable | None = None


@dataclass(frozen=True)
class Layout:
    """Where packed rows' tokens are.

    reach: how many tokens the longest message is, with its prefix.
    blocks: which pairs of tokens see each other, on a GPU; what follows is then not needed.
    start: the column where messages begin, in every row.
    padding: bool [rows, 1, 1, start], true where a shorter prefix is padded; None where all are of one length.
    tokens: [messages, longest] index of each message's tokens among all rows' columns behind the prefix, laid end to end.
    places: [rows * columns behind the prefix] index of each such column's token among `tokens`, laid end to end.
    """

    reach: int
    blocks: "BlockMask | None" = None
    start: int = 0
    padding: "torch.Tensor | None" = None
    tokens: "torch.Tensor | None" = None
    places: "torch.Tensor | None" = None


@cache
def fused(device: str) -> bool:
    """Whether `device` ("cuda", "cpu") has the kernel: a GPU with a compiler beside it."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    global flex
    if device != "cuda":
        return False
    flex = torch.compile(flex_attention, dynamic=True)
    try:
        rows = torch.zeros(1, 1, BLOCK, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
        flex(rows, rows, rows, block_mask=blocks(torch.zeros(1, BLOCK, dtype=torch.int64, device=device))).sum().backward()
    except Exception as error:
        logger.warning("no fused attention (%s: %.200s): training takes several times as long", type(error).__name__, error)
        return False
    return True


def multiple(device: str) -> int:
    """What the width of packed rows should be a multiple of."""
    return BLOCK if fused(device) else 1


def layout(packed: "Packed", device: "torch.device") -> Layout:
    import torch

    reach = packed.start + packed.tokens.shape[1]
    if fused(device.type):
        return Layout(reach, blocks(torch.from_numpy(packed.owners).to(device)))
    padding, tokens, places = (
        torch.from_numpy(a).to(device)
        for a in (packed.owners[:, None, None, : packed.start] == PADDING, packed.tokens, packed.places)
    )
    return Layout(reach, None, packed.start, padding if padding.any() else None, tokens, places)


def blocks(owners: "torch.Tensor") -> "BlockMask":
    """For `owners` [rows, width]: PREFIX, PADDING or the number of a message."""
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(row, head, query, key):
        asking, asked = owners[row, query], owners[row, key]
        return ((asked == PREFIX) | (asking == asked)) & (query >= key)

    rows, width = owners.shape
    return create_block_mask(seen, rows, None, width, width, device=owners.device, BLOCK_SIZE=BLOCK)


def register() -> str:
    """Make it known to transformers; returns the name that `attn_implementation` takes."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME


def attend(module, query, key, value, attention_mask, scaling: float, *, layout: Layout, **kwargs) -> tuple:
    """transformers' attention function: query [rows, heads, width, size], key and value [rows, key heads, width, size].

    Returns ([rows, width, heads, size], None). What stands on padding is undefined. Raises ConfigError for attention that is
    capped or windowed, which this is not.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        # Where a norm computes in float32, they are still in it; and what is written out below has no autocast backwards.
        query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
    if kwargs.get("softcap") or kwargs.get("sliding_window"):
        require_plain(module, kwargs, layout.reach)
    if layout.blocks is not None:
        return flex(query, key, value, block_mask=layout.blocks, scale=scaling, enable_gqa=True).transpose(1, 2), None
    rows, heads, _, size = query.shape
    shared, before, behind = key.shape[1], slice(0, layout.start), slice(layout.start, None)
    of_prefix = scaled_dot_product_attention(
        query[:, :, before], key[:, :, before], value[:, :, before], is_causal=True, scale=scaling, enable_gqa=heads != shared
    )
    # Query heads that share a key head stand behind one another, as if they were more tokens.
    asking = query[:, :, behind].unflatten(1, (shared, -1))
    to_prefix, prefix_mass = _weighted(asking.flatten(2, 3), key[:, :, before], value[:, :, before], scaling, layout.padding)

    messages, longest = layout.tokens.shape
    own_query, own_key, own_value = (
        _columns(x[:, :, behind], layout.tokens).view(messages, longest, shared, -1, size).permute(0, 2, 3, 1, 4)
        for x in (query, key, value)
    )
    later = torch.ones(longest, longest, dtype=torch.bool, device=query.device).triu(1).repeat(own_query.shape[2], 1)
    to_own, own_mass = _weighted(own_query.flatten(2, 3), own_key.squeeze(2), own_value.squeeze(2), scaling, later)

    def placed(x: "torch.Tensor") -> "torch.Tensor":
        """[messages, key heads, groups * longest, n] -> [rows, heads, width behind the prefix, n]."""
        by_token = x.unflatten(2, (-1, longest)).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1)
        return by_token.index_select(0, layout.places).view(rows, -1, heads, x.shape[-1]).transpose(1, 2)

    to_prefix, prefix_mass = (x.unflatten(2, (heads // shared, -1)).flatten(1, 2) for x in (to_prefix, prefix_mass))
    # In 16 bits a share near 1 would leave nothing of the other.
    share = (prefix_mass - placed(own_mass)).sigmoid()
    of_messages = torch.lerp(placed(to_own).float(), to_prefix.float(), share).to(of_prefix.dtype)
    return torch.cat([of_prefix, of_messages], 2).transpose(1, 2), None


def _weighted(query, key, value, scaling: float, hidden: "torch.Tensor | None") -> tuple["torch.Tensor", "torch.Tensor"]:
    """(attention's output, log-sum-exp of its scores [..., 1] in float32); `hidden` is true where a query does not see a key.

    One step for autograd, with its derivative written out: scores are by far the largest arrays, and are made once.
    """
    import torch

    class Weighted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, query, key, value):
            out, mass, weights = weighted(query, key, value, scaling, hidden)
            ctx.save_for_backward(query, key, value, weights, out)
            return out, mass

        @staticmethod
        def backward(ctx, to_out, to_mass):
            query, key, value, weights, out = ctx.saved_tensors
            centre = (to_out * out).sum(-1, keepdim=True) - to_mass
            to_scores = (to_out @ value.transpose(-1, -2)).sub_(centre).mul_(weights).mul_(scaling)
            to_scores = to_scores.to(query.dtype)
            return to_scores @ key, to_scores.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ to_out

    return Weighted.apply(query, key, value)


def _columns(x: "torch.Tensor", which: "torch.Tensor") -> "torch.Tensor":
    """Columns `which` of x [rows, heads, columns, size], all rows' laid end to end: [len(which), heads * size]."""
    return x.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, which.flatten())
