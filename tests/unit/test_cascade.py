"""The SVM and the cascade: right labels from files without pickles, a reliable threshold, and the variant of each answer."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from intent.artifacts.variant import VariantSpec
from intent.dataset.example import Example
from intent.engine import Prediction, Status
from intent.engine.cascade import NEVER, Cascade, Threshold
from intent.engine.config import Device
from intent.engine.linear import require_one_choice
from intent.engine.load import EngineOptions, load_classifier
from intent.engine.svm import load_svm, write_svm
from intent.errors import ConfigError
from intent.run.columns import Columns
from intent.run.worker import Worker
from intent.task.prompt import Prompt
from intent.train.linear import fit_svm
from tests.tiny import CART, LABELS, write_checkpoint

TALK = {
    "order_status": ["where is my {}", "has the {} been sent", "track my {}", "when will the {} arrive"],
    "return_item": ["send the {} back", "return this {}", "i want my money back for the {}", "the {} does not fit"],
    "none": ["nice {} today", "who invented the {}", "tell me a {} joke", "hello {}"],
}
THINGS = ["parcel", "shirt", "weather", "order", "lamp", "phone", "sofa", "weekend", "book", "coat"]


def examples(things):
    pairs = [(form.format(thing), label) for label, forms in TALK.items() for form in forms for thing in things]
    return [Example(str(i), message, {"label": label}, "en") for i, (message, label) in enumerate(pairs)]


@pytest.fixture(scope="module")
def svm():
    return fit_svm(examples(THINGS[:6]), examples(THINGS[6:8]), LABELS)


def test_it_labels_unseen_messages_and_its_files_give_the_same_labels(svm, tmp_path):
    test = examples(THINGS[8:])
    predictions = svm.classify([example.message for example in test])
    assert np.mean([given.intent == example.intent for given, example in zip(predictions, test, strict=True)]) > 0.9
    write_svm(tmp_path, svm)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["svm.json", "svm.safetensors"]
    again = load_svm(tmp_path, LABELS).classify([example.message for example in test])
    assert [given.intent for given in again] == [given.intent for given in predictions]
    assert [given.confidence for given in again] == pytest.approx([given.confidence for given in predictions], abs=1e-5)


def test_no_message_makes_it_raise_and_unsure_answers_abstain(svm, tmp_path):
    write_svm(tmp_path, svm)
    strange = ["", " \n", "\ud800", "\0", "é" * 4096, "<eos>", "%s {label}"]
    predictions = load_svm(tmp_path, LABELS, abstain_below=0.999).classify(strange)
    assert [given.message for given in predictions] == strange
    assert [given.status for given in predictions[:4]] == [Status.REJECTED] * 4
    assert {given.status for given in predictions[4:]} == {Status.ABSTAINED}
    assert all(given.intent == {"label": None} and 0 < given.confidence < 0.999 for given in predictions[4:])


def test_two_labels_are_distinguished_and_one_label_or_a_cart_is_refused():
    two = [example for example in examples(THINGS) if example.intent["label"] != "none"]
    model = fit_svm(two, two, LABELS)
    assert np.mean([p.intent == e.intent for p, e in zip(model.classify([e.message for e in two]), two, strict=True)]) == 1
    with pytest.raises(ConfigError, match="at least two labels"):
        fit_svm([two[0]], two, LABELS)
    with pytest.raises(ConfigError, match="one choice, not 'cart'"):
        fit_svm(two, two, CART)


@pytest.mark.parametrize("target", [0.5, 0.9, 0.97, 1.0])
def test_the_threshold_is_the_lowest_that_keeps_the_precision(target):
    rng = np.random.default_rng(3)
    confidence = rng.integers(0, 40, 500) / 40
    right = rng.random(500) < 0.3 + 0.7 * confidence
    threshold = Threshold.reaching(confidence, right, target)
    kept = {level: right[confidence >= level].mean() for level in np.unique(confidence)}
    good = [level for level, share in kept.items() if share >= target]
    assert threshold.confidence == (min(good) if good else NEVER)
    if good:
        sure = confidence >= threshold.confidence
        assert (threshold.answers, threshold.precision) == (pytest.approx(sure.mean()), pytest.approx(right[sure].mean()))


class Says:
    """Answers with a fixed label, with a confidence by the message's length."""

    tokens_computed, closed = 0, False

    def __init__(self, variant, label):
        self.variant, self.label, self.asked = variant, label, []

    def classify(self, messages):
        self.asked += messages
        return [Prediction({"label": self.label}, min(1.0, len(message) / 10), message=message) for message in messages]

    def close(self):
        self.closed = True


def test_each_model_answers_its_own_messages_and_the_row_names_it():
    cheap, other = Says("svm", "order_status"), Says("gguf-Q8_0", "return_item")
    both = Cascade("cascade-gguf-Q8_0", cheap, other, threshold=0.5)
    table = Worker(both, LABELS, Columns(), "run").answer(pa.array([b"12345", b"1", b"1234567", b"12"])).table
    answers = {row["variant"]: row["label"] for row in table.to_pylist() if row["status"] == "ok"}
    assert answers == {"svm": "order_status", "gguf-Q8_0": "return_item"}
    assert other.asked == ["1", "12"]
    assert [(p.variant, p.message) for p in both.classify(["1", "123456"])] == [("gguf-Q8_0", "1"), ("svm", "123456")]
    both.close()
    assert cheap.closed and other.closed


def test_a_cascades_folder_loads_as_both_models(svm, tmp_path):
    write_checkpoint(tmp_path)
    write_svm(tmp_path, svm)
    messages = [example.message for example in examples(THINGS[8:])] + ["zzz", "qqq vvv"]
    threshold = float(np.median([given.confidence for given in svm.classify(messages)]))
    Threshold(threshold, 0.5, 0.99).write(tmp_path)
    options = EngineOptions("compact", device=Device.cpu, threads=1)
    both = load_classifier(tmp_path, "cascade-reference-float32", Prompt(LABELS), options)
    sure = {m: p for m, p in zip(messages, svm.classify(messages), strict=True) if p.confidence >= threshold}
    predictions = dict(zip(messages, both.classify(messages), strict=True))
    assert {m for m, p in predictions.items() if p.variant == "svm"} == set(sure)
    assert all(predictions[m].intent == sure[m].intent for m in sure)
    assert {p.variant for p in predictions.values()} == {"svm", "reference-float32"}
    raised = load_classifier(tmp_path, "cascade-reference-float32", Prompt(LABELS), EngineOptions("compact", abstain_below=1.0))
    assert all(p.status is Status.ABSTAINED for p in raised.classify(messages) if p.variant != "svm")


def test_variant_names_are_parsed():
    spec = VariantSpec.parse("cascade-gguf-Q4_K_M-imatrix")
    assert (spec.engine, spec.model.name, spec.only_cpus) == ("cascade", "gguf-Q4_K_M-imatrix", True)
    assert not VariantSpec.parse("cascade-gptq-w4g64").only_cpus
    assert [part.name for part in spec.parts] == ["svm", "gguf-Q4_K_M-imatrix"]
    for wrong in ("cascade-svm", "cascade-cascade-gguf-Q8_0", "cascade-base", "cascade-", "svm-2"):
        with pytest.raises(ConfigError, match="cascade-<"):
            VariantSpec.parse(wrong)


def test_an_svm_for_a_schema_of_lists_is_refused_by_name():
    lists = replace(LABELS, repeat=3)
    with pytest.raises(
        ConfigError, match=r"quant.variants='svm': labels a message with one intent, not with a list as 'labels'"
    ):
        require_one_choice(lists, "svm")
