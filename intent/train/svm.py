"""Fits the linear SVM of `engine/svm.py` on labelled messages: seconds on a CPU, the same each time."""

from collections.abc import Sequence

import numpy as np

from intent import calibration
from intent.catalog import normalize
from intent.engine.svm import SvmClassifier, features, require_one_choice, vectorizers
from intent.errors import ConfigError
from intent.schema import IntentSchema
from intent.synth.example import Example

# Margins differ by about 1 where a language model's logits differ by this much.
SCALE = 8.0


def fit(training: Sequence[Example], validation: Sequence[Example], schema: IntentSchema) -> SvmClassifier:
    """One class against the others; temperature from `validation`.

    Raises ConfigError where the schema is not one Choice or the training messages have fewer than two labels.
    """
    from sklearn.svm import LinearSVC

    slot = require_one_choice(schema).name
    texts, labels = [normalize(example.message) for example in training], [example.intent[slot] for example in training]
    if len(set(labels)) < 2:
        raise ConfigError("data", sorted(set(labels)), "an SVM needs training messages of at least two labels")
    fitted = vectorizers()
    for vectorizer in fitted:
        vectorizer.fit(texts)
    machine = LinearSVC(C=1.0, random_state=0).fit(features(fitted, texts), labels)
    weights, bias = machine.coef_.T.astype(np.float32), machine.intercept_.astype(np.float32)
    if len(machine.classes_) == 2:
        # One machine tells two classes apart: its margin is the second's.
        weights, bias = np.hstack([-weights, weights]), np.hstack([-bias, bias])
    model = SvmClassifier(schema, [str(label) for label in machine.classes_], fitted, weights, bias, 1.0)
    model.temperature = _temperature(model, validation, slot)
    return model


def _temperature(model: SvmClassifier, validation: Sequence[Example], slot: str) -> float:
    known = [example for example in validation if example.intent[slot] in model.labels]
    if not known:
        return 1.0
    margins = model.margins([normalize(example.message) for example in known])
    right = [model.labels.index(example.intent[slot]) for example in known]
    beyond = margins - margins[np.arange(len(known)), right][:, None]
    return calibration.fit(list(SCALE * beyond)) / SCALE
