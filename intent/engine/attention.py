"""Attention of many rows behind one shared prefix, whose keys and values are read where they are and copied for no row.

To the prefix, the queries of all rows are those of one long row (the shared part of Hydragen, Juravsky et al., arXiv
2402.05099): one product, or one call of FlashAttention on a GPU. What a row sees of the prefix and of its own tokens is joined
by the log-sum-exps of their scores. Knows nothing of messages.
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
    scaling = scaling or size**-0.5
    to_prefix, prefix_mass = _to_prefix(query, layer.keys, layer.values, scaling)
    # The heads of a group share its keys: they are more queries of the same product.
    grouped = query.reshape(rows, key.shape[1], -1, size)
    closed = ~attention_mask.repeat(1, 1, heads // key.shape[1], 1)
    to_own, own_mass, _ = weighted(grouped, key, value, scaling, closed)
    # In 16 bits a share near 1 would leave nothing of the other.
    share = (prefix_mass - own_mass.view(rows, heads, width, 1)).sigmoid()
    out = torch.lerp(to_own.view(query.shape).float(), to_prefix.float(), share).to(value.dtype)
    return out.transpose(1, 2), None


def _to_prefix(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Attention's output and the log-sum-exp of its scores, as `weighted` has them, [rows, heads, width, size] and [..., 1].

    query [rows, heads, width, size], key and value [1, kv heads, prefix, size].
    """
    import torch

    rows, heads, width, size = query.shape
    if _flash(query):
        # Laid out as [tokens, heads, size], which is how the projection wrote it.
        asking = query.transpose(1, 2).reshape(1, rows * width, heads, size).transpose(1, 2)
        out, mass = torch.ops.aten._scaled_dot_product_flash_attention(asking, key, value, 0.0, False, scale=scaling)[:2]
        return out.view(heads, rows, width, size).transpose(0, 1), mass.view(heads, rows, width, 1).transpose(0, 1)
    groups = key.shape[1]
    asking = query.reshape(rows, groups, -1, size).transpose(0, 1).reshape(groups, -1, size)
    out, mass, _ = weighted(asking, key[0], value[0], scaling)
    # [groups, rows * heads of a group * width, n] -> [rows, heads, width, n]
    return tuple(x.view(groups, rows, -1, width, x.shape[-1]).transpose(0, 1).flatten(1, 2) for x in (out, mass))


def _flash(query: "torch.Tensor") -> bool:
    """Whether FlashAttention has a kernel: on GPUs since Ampere, in 16 bits, for heads of 8, 16 ... 256."""
    import torch

    halves = query.dtype in (torch.bfloat16, torch.float16)
    fits = query.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    return query.is_cuda and halves and fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def weighted(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float, hidden: "torch.Tensor | None" = None
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """(attention's output, log-sum-exp of its scores [..., 1] in float32, weights); `hidden`: where a query sees no key.

    Every query must see some key.
    """
    weights = (query @ key.mT).float().mul_(scaling)
    if hidden is not None:
        weights.masked_fill_(hidden, float("-inf"))
    highest = weights.amax(-1, keepdim=True)
    total = weights.sub_(highest).exp_().sum(-1, keepdim=True)
    weights = weights.div_(total).to(value.dtype)
    return weights @ value, total.log_().add_(highest), weights
