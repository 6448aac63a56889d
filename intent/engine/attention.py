"""Compute attention of many rows behind one shared prefix, whose keys and values are read in place and copied for no row.

To the prefix, the queries of all rows are those of one long row (the shared part of Hydragen, Juravsky et al., arXiv
2402.05099): one product, or one call of FlashAttention on a GPU. What a row sees of the prefix and of its own tokens is
joined by the logsumexps of their scores. A layer with a sliding window keeps only the end of the prefix, and each query
sees the part of it that its window reaches. Knows nothing of messages.
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


@dataclass(frozen=True)
class Behind:
    """What a forward pass of rows behind a prefix needs to know.

    prefix: by layer, keys and values of the prefix [1, kv heads, kept, size]. A windowed layer keeps the last tokens only.
    length: tokens of the whole prefix.
    own: by layer, keys and values of the rows' own tokens so far. A pass appends to it.
    queries: int64 [rows, width], positions of the fed tokens behind the prefix, from 0. Those of padding mean nothing.
    keys: int64 [rows, own], positions of the rows' own tokens, the fed ones last.
    hidden: bool [rows, 1, width, own], true where a token does not see an own one.
    core: `joined`, or it compiled.
    """

    prefix: Sequence["KeysValues"]
    length: int
    own: dict[int, "KeysValues"]
    queries: "torch.Tensor"
    keys: "torch.Tensor"
    hidden: "torch.Tensor"
    core: Callable

    def append(self, layer: int, key: "torch.Tensor", value: "torch.Tensor") -> "KeysValues":
        """Return the keys and values of all own tokens of a layer, to which those of the fed ones are appended."""
        import torch

        if layer in self.own:
            key, value = (torch.cat([before, new], 2) for before, new in zip(self.own[layer], (key, value), strict=True))
        self.own[layer] = key, value
        return key, value

    def hidden_own(self, window: int | None) -> "torch.Tensor":
        """Return `hidden` for a layer of this window."""
        if not window or self.keys.shape[1] <= window:
            return self.hidden
        return self.hidden | (self.queries[:, :, None] - self.keys[:, None, :] >= window)[:, None]

    def hidden_prefix(self, window: int | None, kept: int) -> "torch.Tensor | None":
        """Return where a query does not see one of the prefix's last `kept` tokens, bool [rows, width, kept], or None."""
        if not window or self.length + self.keys.shape[1] <= window:
            return None
        return self.queries[:, :, None] + (kept - self.columns[:kept]) >= window

    @cached_property
    def columns(self) -> "torch.Tensor":
        import torch

        return torch.arange(self.length, device=self.queries.device)


def install(model) -> None:
    """Let a transformers model take `behind=`, what all rows are behind, in its forward pass."""
    import torch
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    # A compiled layer calls it as it is: what it appends to belongs to no layer.
    AttentionInterface.register(NAME, torch.compiler.disable(behind_prefix))
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def require_no_cap(module, options: dict) -> None:
    """Raises ConfigError where the model caps its scores."""
    if options.get("softcap"):
        remedy = "caps its attention scores, which shared prefixes do not; use another model"
        raise ConfigError("model.source", module.config.model_type, remedy)


def behind_prefix(module, query, key, value, attention_mask, scaling=None, behind: Behind | None = None, **kwargs):
    """Compute attention as transformers' attention functions do, or, given `behind`, behind its prefix.

    query [rows, heads, width, size], key and value [rows, kv heads, width, size], of the fed tokens. Returns
    ([rows, width, heads, size], None).
    """
    if behind is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    require_no_cap(module, kwargs)
    window = kwargs.get("sliding_window")
    scaling = scaling or query.shape[-1] ** -0.5
    prefix_key, prefix_value = behind.prefix[module.layer_idx]
    key, value = behind.append(module.layer_idx, key, value)
    far = behind.hidden_prefix(window, prefix_key.shape[2])
    of_prefix, prefix_mass = _to_prefix(query, prefix_key, prefix_value, scaling, far)
    return behind.core(query, key, value, of_prefix, prefix_mass, scaling, behind.hidden_own(window)), None


def joined(
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    of_prefix: "torch.Tensor",
    prefix_mass: "torch.Tensor",
    scaling: float,
    hidden: "torch.Tensor",
) -> "torch.Tensor":
    """Return attention to the prefix and to own tokens, [rows, width, heads, size].

    query [rows, heads, width, size], key and value [rows, kv heads, own, size], `of_prefix` and `prefix_mass` as `_to_prefix`
    returns them, `hidden` bool [rows, 1, width, own].
    """
    import torch

    rows, heads, width, size = query.shape
    # The heads of a group share its keys: they are more queries of the same product.
    grouped = query.reshape(rows, key.shape[1], -1, size)
    of_own, own_mass, _ = weighted(grouped, key, value, scaling, hidden.repeat(1, 1, heads // key.shape[1], 1))
    # In 16 bits a share near 1 would leave nothing of the other.
    share = (prefix_mass - own_mass.view(rows, heads, width, 1)).sigmoid()
    out = torch.lerp(of_own.view(query.shape).float(), of_prefix.float(), share).to(value.dtype)
    return out.transpose(1, 2)


def _to_prefix(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float, far: "torch.Tensor | None"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Attention's output and the logsumexp of its scores, as `weighted` has them, [rows, heads, width, size] and [..., 1].

    query [rows, heads, width, size], key and value [1, kv heads, kept, size], `far` bool [rows, width, kept] or None.
    """
    import torch

    rows, heads, width, size = query.shape
    if far is None and _flash(query):
        # Laid out as [tokens, heads, size], which is how the projection wrote it.
        asking = query.transpose(1, 2).reshape(1, rows * width, heads, size).transpose(1, 2)
        out, mass = torch.ops.aten._scaled_dot_product_flash_attention(asking, key, value, 0.0, False, scale=scaling)[:2]
        return out.view(heads, rows, width, size).transpose(0, 1), mass.view(heads, rows, width, 1).transpose(0, 1)
    groups = key.shape[1]
    asking = query.reshape(rows, groups, -1, size).transpose(0, 1).reshape(groups, -1, size)
    hidden = None if far is None else far[:, None].expand(-1, heads // groups, -1, -1).reshape(1, -1, key.shape[2])
    out, mass, _ = weighted(asking, key[0], value[0], scaling, hidden)
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
    """Return (attention's output, logsumexp of its scores [..., 1] in float32, weights); `hidden`: where a query sees no key.

    A query that sees no key has the least logsumexp there is, so that it takes nothing of this part.
    """
    import torch

    weights = (query @ key.mT).float().mul_(scaling)
    if hidden is not None:
        weights.masked_fill_(hidden, torch.finfo(torch.float32).min)
    highest = weights.amax(-1, keepdim=True)
    total = weights.sub_(highest).exp_().sum(-1, keepdim=True)
    weights = weights.div_(total).to(value.dtype)
    return weights @ value, total.log_().add_(highest), weights
