"""Attention of many rows behind one shared prefix, whose keys and values are read where they are and copied for no row.

The scores against the prefix are one matrix product for the whole batch, and one softmax spans prefix and row (the shared
part of Hydragen, Juravsky et al., arXiv 2402.05099). Knows nothing of messages.
"""

from typing import TYPE_CHECKING

from intent.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

NAME = "behind_prefix"


def install(model) -> None:
    """Let a transformers model take `prefix=`, the cache of one row that all rows are behind, in its forward pass."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, behind_prefix)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def require_plain(module, options: dict, length: int) -> None:
    """Raises ConfigError where the model caps its scores, or its attention does not reach over `length` tokens."""
    window = options.get("sliding_window")
    if options.get("softcap") or (window and window < length):
        remedy = "caps or windows its attention, which shared prefixes do not; use another model"
        raise ConfigError("model.source", module.config.model_type, remedy)


def behind_prefix(module, query, key, value, attention_mask, scaling=None, prefix: "DynamicCache | None" = None, **kwargs):
    """As transformers' attention functions: query [rows, heads, width, size], key and value [rows, kv heads, own, size].

    `attention_mask`: bool [rows, 1, width, own], of the rows' own tokens; the prefix is open to all.
    """
    import torch

    if prefix is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    layer = prefix.layers[module.layer_idx]
    require_plain(module, kwargs, layer.keys.shape[2] + key.shape[2])
    rows, heads, width, size = query.shape
    groups = key.shape[1]
    # The heads of a group share its keys: they are more queries of the same product.
    grouped = (query * (scaling or size**-0.5)).reshape(rows, groups, -1, size)
    shared = _through(grouped, layer.keys[0].mT)
    own = grouped @ key.mT
    closed = ~attention_mask.repeat(1, 1, heads // groups, 1)
    scores = torch.cat([shared, own.masked_fill(closed, -torch.inf)], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    length = layer.keys.shape[2]
    out = _through(weights[..., :length], layer.values[0]) + weights[..., length:] @ value
    return out.reshape(rows, heads, width, size).transpose(1, 2), None


def _through(rows: "torch.Tensor", matrix: "torch.Tensor") -> "torch.Tensor":
    """[rows, groups, n, a] by one [groups, a, b] for all rows: [rows, groups, n, b]."""
    count, groups, n, _ = rows.shape
    product = rows.transpose(0, 1).reshape(groups, count * n, -1) @ matrix
    return product.view(groups, count, n, -1).transpose(0, 1)
