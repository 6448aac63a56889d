"""A logistic regression on a message's embedding, by vectors that others learnt on much text: the usual step beyond TF-IDF.

`embedding.json` has the labels and the temperature, `embedding.safetensors` the weights. `tokenizer.json` and
`model.safetensors` are what embeds, copied whole: who loads the files needs no package for it. An encoder has its `config.json`
too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from intent.engine.linear import Features, LinearClassifier
from intent.prompt import load_tokenizer
from intent.schema import IntentSchema

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT, NUMBERS = "embedding.json", "embedding.safetensors"
VECTORS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"
# Of a text; the rest is not read.
MOST_TOKENS = 256
TOGETHER = 64


@dataclass
class Static:
    """The `Features` of static vectors: the mean of a text's tokens' vectors, of length 1. `vectors`: [tokens, width]."""

    tokenizer: "Tokenizer"
    vectors: np.ndarray

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), self.vectors.shape[1]), np.float32)
        for row, encoded in zip(found, self.tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
            if ids := encoded.ids[:MOST_TOKENS]:
                row[:] = self.vectors[ids].mean(axis=0)
        return _normalized(found)


@dataclass
class Encoder:
    """The `Features` of a sentence encoder (BERT): the mean of its last layer over a text's tokens, of length 1."""

    tokenizer: "Tokenizer"
    folder: Path
    model: object = field(init=False)

    def __post_init__(self):
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(self.folder, use_safetensors=True).eval()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        ids = [encoded.ids[:MOST_TOKENS] for encoded in self.tokenizer.encode_batch(list(texts))]
        found = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        # Texts of like length together: what fills up a shorter one is computed too.
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for start in range(0, len(order), TOGETHER):
            rows = order[start : start + TOGETHER]
            found[rows] = self._embed([ids[row] for row in rows])
        return _normalized(found)

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
    """What embeds, from its files."""
    from safetensors.numpy import load_file

    tokenizer = load_tokenizer(folder)
    if (folder / CONFIG).exists():
        return Encoder(tokenizer, folder)
    [vectors] = load_file(str(folder / VECTORS)).values()
    return Static(tokenizer, vectors.astype(np.float32))


def write_embedding(folder: Path, model: LinearClassifier) -> None:
    """The labels and weights of `model`, beside what embeds."""
    from safetensors.numpy import save_file

    said = {"labels": list(model.labels), "temperature": model.temperature}
    (folder / TEXT).write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    save_file({"weights": np.ascontiguousarray(model.weights), "bias": model.bias}, str(folder / NUMBERS))


def load_embedding(folder: Path, variant: str, schema: IntentSchema, abstain_below: float = 0.0) -> LinearClassifier:
    from safetensors.numpy import load_file

    said, numbers = json.loads((folder / TEXT).read_text(encoding="utf-8")), load_file(str(folder / NUMBERS))
    weights = numbers["weights"], numbers["bias"]
    return LinearClassifier(
        variant, schema, said["labels"], load_features(folder), *weights, said["temperature"], abstain_below
    )
