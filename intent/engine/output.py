"""Compute a model's logits of some tokens only, for both engines and training."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def logits(model, hidden: "torch.Tensor", tokens: "torch.Tensor") -> "torch.Tensor":
    """Return the float32 logits [rows, tokens] of the token ids `tokens` [tokens] after the decoder's `hidden` [rows, size].

    Skips the other rows of the output layer, which has most of a small model's weights if the vocabulary is large.
    """
    from torch.nn.functional import linear

    layer, config = model.get_output_embeddings(), model.config
    bias = getattr(layer, "bias", None)
    scores = linear(hidden, layer.weight[tokens], None if bias is None else bias[tokens]).float()
    scores = scores * getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return (scores / cap).tanh() * cap if cap else scores
