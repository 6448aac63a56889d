"""A linear SVM on TF-IDF of a message's words and characters (Joachims, ECML 1998): what a language model has to beat.

For a schema of one Choice. Its files are `svm.json` (vocabularies, labels, temperature) and `svm.safetensors` (weights):
numbers and text, never a pickle. Knows counts of n-grams; knows nothing of prompts, tokens or prefixes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from intent.artifacts.variant import SVM
from intent.catalog import normalize
from intent.engine import Prediction, Status
from intent.engine.decode import decide
from intent.errors import ConfigError
from intent.schema import Choice, IntentSchema

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

TEXT, NUMBERS = "svm.json", "svm.safetensors"
EMPTY = Prediction(None, status=Status.REJECTED, reason="empty message")


@dataclass
class SvmClassifier:
    """A `Classifier`. `weights` [features, labels] and `bias` [labels] are float32.

    Confidence is the softmax of the margins over `temperature`, which was fitted on validation messages.
    """

    schema: IntentSchema
    labels: Sequence[str]
    vectorizers: Sequence["TfidfVectorizer"]
    weights: np.ndarray
    bias: np.ndarray
    temperature: float
    abstain_below: float = 0.0
    variant: str = SVM
    tokens_computed: int = 0
    answered: int = 0

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        texts = [normalize(message) for message in messages]
        full = [text for text in texts if text]
        self.answered += len(messages)
        decided = zip(*decide(self.margins(full) / self.temperature), strict=True) if full else iter(())
        predictions = [self._prediction(*next(decided)) if text else EMPTY for text in texts]
        return [replace(prediction, message=message) for prediction, message in zip(predictions, messages, strict=True)]

    def margins(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, labels]: the greatest is the answer."""
        return features(self.vectorizers, texts) @ self.weights + self.bias

    def close(self) -> None:
        """Nothing is held outside of Python."""

    def _prediction(self, choice: int, confidence: float) -> Prediction:
        intent, confidence = self.schema.intent([self.labels[choice]]), float(confidence)
        if confidence < self.abstain_below:
            return Prediction(dict.fromkeys(intent), confidence, (confidence,), Status.ABSTAINED)
        return Prediction(intent, confidence, (confidence,))


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


def features(fitted: Sequence["TfidfVectorizer"], texts: Sequence[str]) -> "csr_matrix":
    """TF-IDF of each text, float32 [texts, features of all vectorizers]."""
    from scipy.sparse import hstack

    return hstack([vectorizer.transform(texts) for vectorizer in fitted], format="csr", dtype=np.float32)


def write_svm(folder: Path, model: SvmClassifier) -> None:
    from safetensors.numpy import save_file

    terms = [list(vectorizer.get_feature_names_out()) for vectorizer in model.vectorizers]
    said = {"labels": list(model.labels), "temperature": model.temperature, "vocabularies": terms}
    (folder / TEXT).write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    numbers = {f"idf.{i}": vectorizer.idf_ for i, vectorizer in enumerate(model.vectorizers)}
    save_file(numbers | {"weights": np.ascontiguousarray(model.weights), "bias": model.bias}, str(folder / NUMBERS))


def load_svm(folder: Path, schema: IntentSchema, abstain_below: float = 0.0) -> SvmClassifier:
    from safetensors.numpy import load_file

    said, numbers = json.loads((folder / TEXT).read_text(encoding="utf-8")), load_file(str(folder / NUMBERS))
    fitted = vectorizers(said["vocabularies"])
    for i, vectorizer in enumerate(fitted):
        vectorizer.idf_ = numbers[f"idf.{i}"]
    weights, bias = numbers["weights"], numbers["bias"]
    return SvmClassifier(schema, said["labels"], fitted, weights, bias, said["temperature"], abstain_below)


def require_one_choice(schema: IntentSchema) -> Choice:
    """The schema's only slot. Raises ConfigError where there are others, it is no Choice, or a message may mean several."""
    slot = schema.slots[0]
    if len(schema.slots) > 1 or not isinstance(slot, Choice):
        raise ConfigError("quant.variants", SVM, f"labels schemas of one choice, not {schema.name!r} with {schema.names}")
    if schema.repeat > 1:
        told = f"labels a message with one intent, not with a list as {schema.name!r} does; leave it and its cascades out"
        raise ConfigError("quant.variants", SVM, f"{told}, or use schema.repeat=1")
    return slot
