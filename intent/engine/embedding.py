"""Classify pretrained embeddings of messages by logistic regression, the usual step beyond TF-IDF.

`embedding.json` has the labels and the temperature, and `embedding.safetensors` has the weights. `tokenizer.json` and
`model.safetensors` are the embedding model, copied whole, so that loading needs no other package. An encoder also has its
`config.json`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intent.engine.linear import Features, LinearClassifier
from intent.task.prompt import load_tokenizer
from intent.task.schema import IntentSchema

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT, NUMBERS = "embedding.json", "embedding.safetensors"
VECTORS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"
# Tokens of a text beyond this number are ignored.
MOST_TOKENS = 256
TOGETHER = 64


@dataclass
class Static:
    """`Features` of static vectors: the normalized mean of the vectors of a text's tokens. `vectors`: [tokens, width]."""

    tokenizer: "Tokenizer"
    vectors: np.ndarray

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        embeddings = np.zeros((len(texts), self.vectors.shape[1]), np.float32)
        for row, encoded in zip(embeddings, self.tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
            if ids := encoded.ids[:MOST_TOKENS]:
                row[:] = self.vectors[ids].mean(axis=0)
        return _normalized(embeddings)


@dataclass
class Encoder:
    """`Features` of a sentence encoder (BERT): the normalized mean of its last layer over a text's tokens."""

    tokenizer: "Tokenizer"
    folder: Path
    model: Any = field(init=False)

    def __post_init__(self):
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(self.folder, use_safetensors=True).eval()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        ids = [encoded.ids[:MOST_TOKENS] for encoded in self.tokenizer.encode_batch(list(texts))]
        embeddings = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        # Sort by length, because a batch is padded to its longest text and padding is computed too.
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for start in range(0, len(order), TOGETHER):
            rows = order[start : start + TOGETHER]
            embeddings[rows] = self._embed([ids[row] for row in rows])
        return _normalized(embeddings)

    def _embed(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        import torch

        width = max(map(len, ids))
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        padded = torch.tensor([list(row) + [0] * (width - len(row)) for row in ids])
        with torch.inference_mode():
            hidden = self.model(input_ids=padded, attention_mask=mask).last_hidden_state
        return ((hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)).float().numpy()


def _normalized(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def load_features(folder: Path) -> Features:
    """Load the embedding model from its files: an `Encoder` if there is a config.json, else `Static` vectors."""
    from safetensors.numpy import load_file

    tokenizer = load_tokenizer(folder)
    if (folder / CONFIG).exists():
        return Encoder(tokenizer, folder)
    [vectors] = load_file(str(folder / VECTORS)).values()
    return Static(tokenizer, vectors.astype(np.float32))


def write_embedding(folder: Path, model: LinearClassifier) -> None:
    """Write the labels and weights of `model`, beside the embedding model."""
    from safetensors.numpy import save_file

    fields = {"labels": list(model.labels), "temperature": model.temperature}
    (folder / TEXT).write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")
    save_file({"weights": np.ascontiguousarray(model.weights), "bias": model.bias}, str(folder / NUMBERS))


def load_embedding(folder: Path, variant: str, schema: IntentSchema, abstain_below: float = 0.0) -> LinearClassifier:
    """Load the classifier from a variant's folder."""
    from safetensors.numpy import load_file

    fields, numbers = json.loads((folder / TEXT).read_text(encoding="utf-8")), load_file(str(folder / NUMBERS))
    weights = numbers["weights"], numbers["bias"]
    return LinearClassifier(
        variant, schema, fields["labels"], load_features(folder), *weights, fields["temperature"], abstain_below
    )
