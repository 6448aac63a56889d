"""Embeddings as a baseline: vectors from a package, a logistic head, and files that load without the package."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from intent.artifacts import file_sha256
from intent.artifacts.variant import VariantSpec
from intent.engine import Status
from intent.engine.embedding import Encoder, load_embedding, write_embedding
from intent.engine.load import EngineOptions, load_classifier
from intent.errors import ConfigError, CorruptData
from intent.task.prompt import Prompt, load_tokenizer
from intent.train import linear
from intent.train.linear import Source, fit_embedding
from tests.tiny import LABELS, write_tokenizer
from tests.unit.test_cascade import TALK, THINGS, examples

SPEC = VariantSpec.parse("embedding-wordllama")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with static vectors, as in a wheel. Its code must not run."""
    folder = tmp_path / "tinyvectors"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    tokenizer = write_tokenizer(folder, tuple(form for forms in TALK.values() for form in forms))
    vectors = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 64)).astype(np.float16)
    save_file({"embedding.weight": vectors}, str(folder / "vectors.safetensors"))
    files = {"model.safetensors": "vectors.safetensors", "tokenizer.json": "tokenizer.json"}
    source = Source("tinyvectors", "tinyvectors==1.0", files, file_sha256(folder / "vectors.safetensors"))
    monkeypatch.setitem(linear.SOURCES, "wordllama", source)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_it_labels_unseen_messages_and_its_files_need_no_package(package, tmp_path, monkeypatch):
    made = tmp_path / "made"
    made.mkdir()
    model = fit_embedding(SPEC, made, examples(THINGS[:6]), examples(THINGS[6:8]), LABELS)
    write_embedding(made, model)
    test = examples(THINGS[8:])
    messages = [example.message for example in test]
    predictions = model.classify(messages)
    assert np.mean([given.intent == example.intent for given, example in zip(predictions, test, strict=True)]) > 0.85
    monkeypatch.setattr(linear, "SOURCES", {})
    (package / "vectors.safetensors").unlink()
    again = load_classifier(made, SPEC.name, Prompt(LABELS), EngineOptions("embedding", threads=1)).classify(messages)
    assert [given.intent for given in again] == [given.intent for given in predictions]
    assert [given.confidence for given in again] == pytest.approx([given.confidence for given in predictions], abs=1e-5)
    strange = ["", " \n", "\ud800", "é" * 4096, "<eos>"]
    unsure = load_embedding(made, SPEC.name, LABELS, abstain_below=0.9999).classify(strange)
    assert [given.status for given in unsure] == [Status.REJECTED] * 3 + [Status.ABSTAINED] * 2


def test_a_package_that_lacks_or_has_other_vectors_is_named_with_the_remedy(package, tmp_path, monkeypatch):
    (package / "vectors.safetensors").write_bytes(b"other")
    with pytest.raises(CorruptData, match="tinyvectors: vectors.safetensors is not that of tinyvectors==1.0"):
        fit_embedding(SPEC, tmp_path, examples(THINGS[:6]), [], LABELS)
    monkeypatch.setitem(linear.SOURCES, "wordllama", Source("no_such_package", "no-such==1", {}, ""))
    with pytest.raises(ConfigError, match="quant.variants='embedding-wordllama'.*run pip install --no-deps no-such==1"):
        fit_embedding(SPEC, tmp_path, examples(THINGS[:6]), [], LABELS)


def test_an_encoders_vectors_do_not_depend_on_the_other_texts(tmp_path):
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = write_tokenizer(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)).save_pretrained(tmp_path)
    encoder = Encoder(load_tokenizer(tmp_path), tmp_path)
    texts = ["milk", "two eggs please", "add " * 300, "remove the milk"] * 20
    together = encoder(texts)
    alone = np.vstack([encoder([text]) for text in texts[:4]])
    np.testing.assert_allclose(together[:4], alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_variant_names_select_the_embedding():
    assert (SPEC.engine, SPEC.source, SPEC.linear, SPEC.only_cpus, SPEC.parts) == ("embedding", "wordllama", True, True, [])
    for wrong in ("embedding", "embedding-glove", "cascade-embedding-wordllama"):
        with pytest.raises(ConfigError, match="embedding-<one of"):
            VariantSpec.parse(wrong)
