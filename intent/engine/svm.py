"""Classify with a linear SVM on TF-IDF of words and characters (Joachims, ECML 1998), the baseline of a language model.

Its files are `svm.json` (vocabularies, labels, temperature) and `svm.safetensors` (weights): numbers and text, never a pickle.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
    """Return vectorizers of word n-grams (1 and 2) and of character n-grams within words (2 to 5).

    `vocabularies`: the terms of each; None: to be fitted.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf = partial(TfidfVectorizer, sublinear_tf=True, dtype=np.float32)
    words, characters = vocabularies
    return [
        tfidf(vocabulary=words, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"),
        # Character n-grams of a single training message enlarge the model by half without improving it.
        tfidf(vocabulary=characters, analyzer="char_wb", ngram_range=(2, 5), min_df=2),
    ]


def write_svm(folder: Path, model: LinearClassifier) -> None:
    """Write the model's vocabularies, labels and weights into a folder."""
    from safetensors.numpy import save_file

    assert isinstance(model.features, Tfidf), "only a model on n-grams is an SVM"
    fitted = model.features.vectorizers
    terms = [list(vectorizer.get_feature_names_out()) for vectorizer in fitted]
    fields = {"labels": list(model.labels), "temperature": model.temperature, "vocabularies": terms}
    (folder / TEXT).write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")
    numbers = {f"idf.{i}": vectorizer.idf_ for i, vectorizer in enumerate(fitted)}
    save_file(numbers | {"weights": np.ascontiguousarray(model.weights), "bias": model.bias}, str(folder / NUMBERS))


def load_svm(folder: Path, schema: IntentSchema, abstain_below: float = 0.0) -> LinearClassifier:
    """Load the classifier from a variant's folder."""
    from safetensors.numpy import load_file

    fields, numbers = json.loads((folder / TEXT).read_text(encoding="utf-8")), load_file(str(folder / NUMBERS))
    fitted = vectorizers(fields["vocabularies"])
    for i, vectorizer in enumerate(fitted):
        vectorizer.idf_ = numbers[f"idf.{i}"]
    weights, bias = numbers["weights"], numbers["bias"]
    return LinearClassifier(SVM, schema, fields["labels"], Tfidf(fitted), weights, bias, fields["temperature"], abstain_below)
