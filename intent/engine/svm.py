"""A linear SVM on TF-IDF of a message's words and characters (Joachims, ECML 1998): what a language model has to beat.

Its files are `svm.json` (vocabularies, labels, temperature) and `svm.safetensors` (weights): numbers and text, never a pickle.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from intent.artifacts.variant import SVM
from intent.engine.linear import LinearClassifier
from intent.task.schema import IntentSchema

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

TEXT, NUMBERS = "svm.json", "svm.safetensors"


@dataclass
class Tfidf:
    """The `Features` of n-grams: TF-IDF of each text, float32 [texts, terms of all vectorizers]."""

    vectorizers: Sequence["TfidfVectorizer"]

    def __call__(self, texts: Sequence[str]) -> "csr_matrix":
        from scipy.sparse import hstack

        return hstack([vectorizer.transform(texts) for vectorizer in self.vectorizers], format="csr", dtype=np.float32)


def vectorizers(vocabularies: Sequence[Sequence[str] | None] = (None, None)) -> list["TfidfVectorizer"]:
    """Of words and pairs of them, and of two to five characters within a word; with known terms, or to be fitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    # Characters that one training message alone has make the model half as large again and no better.
    characters = {"analyzer": "char_wb", "ngram_range": (2, 5), "min_df": 2}
    return [
        TfidfVectorizer(sublinear_tf=True, dtype=np.float32, vocabulary=vocabulary, **settings)
        for vocabulary, settings in zip(vocabularies, (words, characters), strict=True)
    ]


def write_svm(folder: Path, model: LinearClassifier) -> None:
    from safetensors.numpy import save_file

    fitted = model.features.vectorizers
    terms = [list(vectorizer.get_feature_names_out()) for vectorizer in fitted]
    said = {"labels": list(model.labels), "temperature": model.temperature, "vocabularies": terms}
    (folder / TEXT).write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    numbers = {f"idf.{i}": vectorizer.idf_ for i, vectorizer in enumerate(fitted)}
    save_file(numbers | {"weights": np.ascontiguousarray(model.weights), "bias": model.bias}, str(folder / NUMBERS))


def load_svm(folder: Path, schema: IntentSchema, abstain_below: float = 0.0) -> LinearClassifier:
    from safetensors.numpy import load_file

    said, numbers = json.loads((folder / TEXT).read_text(encoding="utf-8")), load_file(str(folder / NUMBERS))
    fitted = vectorizers(said["vocabularies"])
    for i, vectorizer in enumerate(fitted):
        vectorizer.idf_ = numbers[f"idf.{i}"]
    weights, bias = numbers["weights"], numbers["bias"]
    return LinearClassifier(SVM, schema, said["labels"], Tfidf(fitted), weights, bias, said["temperature"], abstain_below)
