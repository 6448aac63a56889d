"""A trimmed vocabulary encodes the same texts as the whole one. A base model in pieces is joined and trimmed."""

import hashlib
import json
from pathlib import Path

import pytest

from intent.errors import ConfigError, CorruptData
from intent.task.prompt import load_tokenizer
from intent.train import base, vocabulary
from intent.train.config import ModelConfig
from tests.tiny import NAMES, write_gemma, write_pieces

TEXTS = (*NAMES, "two litres, please!", "Größe über ça va? ñandú", "牛乳をください", "пожалуйста", "👩‍👩‍👧 \x00\t\n", "  a  b ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_pieces(folder)
    return folder


@pytest.fixture(scope="module")
def trimmed(whole, tmp_path_factory, monkeypatch_module):
    # The tiny vocabulary has no rare tokens: only what is listed stays.
    monkeypatch_module.setattr(vocabulary, "FIRST", 0)
    spec = json.loads((whole / "tokenizer.json").read_text())
    listed = vocabulary.needed(spec, {"▁Milk", "▁Eggs", "牛"})
    kept, former = vocabulary.trim(spec, listed)
    folder = tmp_path_factory.mktemp("trimmed")
    (folder / "tokenizer.json").write_text(json.dumps(kept, ensure_ascii=False))
    return folder, listed, former


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_every_text_comes_back_from_fewer_tokens(whole, trimmed):
    folder, _, former = trimmed
    tokenizer, before = load_tokenizer(folder), load_tokenizer(whole)
    assert tokenizer.get_vocab_size() == len(former) < 0.85 * before.get_vocab_size()
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    assert tokenizer.encode("x").ids[0] == tokenizer.token_to_id("<bos>")


def test_a_listed_token_is_one_token_as_before(whole, trimmed):
    folder, listed, former = trimmed
    tokenizer, before = load_tokenizer(folder), load_tokenizer(whole)
    single = 0
    for token in listed:
        text = token.replace("▁", " ")
        old = before.encode(text, add_special_tokens=False).ids
        if len(old) == 1:
            (new,) = tokenizer.encode(text, add_special_tokens=False).ids
            assert former[new] == old[0]
            single += 1
    assert single >= 2


def test_a_list_of_another_model_is_refused(whole):
    spec = json.loads((whole / "tokenizer.json").read_text())
    with pytest.raises(ConfigError, match=r"model\.vocabulary='no such': .*make the list again"):
        vocabulary.trim(spec, ["no such"])
    spec["model"]["byte_fallback"] = False
    with pytest.raises(ConfigError, match=r"model\.vocabulary='BPE': .*use full"):
        vocabulary.trim(spec, [])


def test_a_list_is_read_as_it_was_written(tmp_path):
    tokens = ["▁a", "\n\n", "\u2028", '"', "\\"]
    vocabulary.write(tmp_path / "list.txt", tokens)
    assert vocabulary.read(tmp_path / "list.txt") == tokens


def test_a_base_model_is_trimmed_with_its_tokenizer(tmp_path, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(vocabulary, "FIRST", 0)
    source = write_gemma(tmp_path / "source")
    spec = json.loads((source / "tokenizer.json").read_text())
    text = "a Milk b Eggs"
    used = load_tokenizer(source).encode(text).tokens
    vocabulary.write(tmp_path / "list.txt", vocabulary.needed(spec, used))
    (tmp_path / "base").mkdir()
    base.write_base(ModelConfig("m", str(source), vocabulary=str(tmp_path / "list.txt")), tmp_path / "base")

    before, after = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in (source, tmp_path / "base"))
    old, new = load_tokenizer(source), load_tokenizer(tmp_path / "base")
    assert after.config.vocab_size == new.get_vocab_size() < old.get_vocab_size()
    assert after.config.bos_token_id == new.token_to_id("<bos>")
    ids = [new.encode(text).ids, old.encode(text).ids]
    assert [new.id_to_token(i) for i in ids[0]] == [old.id_to_token(i) for i in ids[1]]
    tokens = [*used, "<eos>"]
    logits = [
        model(torch.tensor([row])).logits[0, -1, [tokenizer.token_to_id(token) for token in tokens]]
        for model, tokenizer, row in ((after, new, ids[0]), (before, old, ids[1]))
    ]
    assert torch.allclose(*logits, atol=1e-3)


def test_a_gguf_in_pieces_is_joined_and_checked_as_a_whole(tmp_path, monkeypatch):
    whole = bytes(range(256)) * 40
    for number, piece in enumerate((whole[:5000], whole[5000:])):
        package = tmp_path / f"pieces_{number}"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('the code of a package is never run')")
        (package / f"m.part{number}").write_bytes(piece)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "package:pieces_0/m.part0 pieces_1/m.part1"
    digest = hashlib.sha256(whole).hexdigest()
    with base._located(ModelConfig("m", source, sha256=digest)) as (folder, options):
        assert (Path(folder) / options["gguf_file"]).read_bytes() == whole
    with (
        pytest.raises(CorruptData, match=r"pieces_0/m\.part0, .*pieces_1/m\.part1: SHA-256 is .*install the packages again"),
        base._located(ModelConfig("m", source, sha256="0" * 64)),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"model\.source=.*gone is not installed"),
        base._located(ModelConfig("m", "package:pieces_0/m.part0 gone/m.part1")),
    ):
        pass
