"""A fingerprint names content: changed content under the same name is another artifact, and a moved folder is the same one."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from intent.artifacts import ArtifactRecord, make, source
from intent.artifacts.lineage import Lineage
from intent.errors import ConfigError
from jobs import train
from jobs.app import load_config
from tests.tiny import write_checkpoint

A, B = "a" * 40, "b" * 40
HUB = "model.source=org/model"


def lineage(*overrides: str) -> Lineage:
    plain = ["model.sha256=null", "model.adapter=null", "model.vocabulary=full"]
    return Lineage(load_config("train", [*plain, *overrides]))


@pytest.fixture
def model(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "model")


def test_a_data_set_is_named_by_its_content_and_not_by_its_place(tmp_path, model):
    def publish(name: str, text: str) -> str:
        record = ArtifactRecord("data", {}, {})
        return make(f"{tmp_path}/{name}", record, lambda folder: (folder / "train").write_text(text) and None).uri

    def checkpoint(uri: str) -> str:
        return lineage(f"data.uri={uri}", f"model.source={model}").checkpoint_record().fingerprint

    place = publish("here", "one")
    before = checkpoint(place)
    shutil.copytree(place, tmp_path / "moved")
    assert checkpoint(str(tmp_path / "moved")) == before
    shutil.rmtree(place)
    assert publish("here", "two") == place
    assert checkpoint(place) != before


def test_a_checkpoint_is_named_by_its_content_and_not_by_its_place(tmp_path):
    """Training is not deterministic, so equal settings can give different weights."""
    fingerprints = []
    for text in ("one", "two"):
        record = ArtifactRecord("checkpoint", {"output_format": "entity_first"}, {"schema": "s"})
        made = make(str(tmp_path / text), record, lambda folder, text=text: (folder / "w").write_text(text) and None)
        own = lineage(f"train.uri={made.uri}", f"workspace={tmp_path}", "quant.variants=[gguf-Q8_0]")
        fingerprints.append(own.variant_record(own.checkpoint(), own.config.quant.specs()[0]).fingerprint)
    assert len(set(fingerprints)) == 2


def test_a_model_folder_is_named_by_the_files_that_are_read(tmp_path, model):

    def base(where) -> str:
        return lineage(f"model.source={where}").base_record().fingerprint

    before = base(model)
    (model / "README.md").write_text("nobody reads it")
    shutil.copytree(model, tmp_path / "moved")
    assert base(model) == base(tmp_path / "moved") == before
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[:-1] + b" ")
        assert base(model) != before, name
        (model / name).write_bytes(data)
    (model / "adapter_config.json").write_text("{}")
    assert base(model) != before, "transformers applies it"
    with pytest.raises(ConfigError, match=r"model\.source=.*no such folder"):
        base(tmp_path / "none")


def test_a_base_is_not_made_of_other_files_than_it_is_named_by(tmp_path, model):
    """Each node may have its own folder of that path."""
    own = lineage(f"model.source={model}", f"workspace={tmp_path}/w")
    record = own.base_record()
    (model / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"model\.source=.*holds other files on this node"):
        train._make_base(own.config.workspace, record, own.model, own.options)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Fake the Hub, at a commit or out of reach, with an empty cache on this machine."""
    state = SimpleNamespace(commit=A, cache=tmp_path)

    def model_info(name, revision=None, timeout=None):
        if state.commit is None:
            raise ConnectionError("Name or service not known")
        return SimpleNamespace(sha=state.commit)

    monkeypatch.setattr("huggingface_hub.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source._commit.cache_clear()
    yield state
    source._commit.cache_clear()


def test_a_model_of_the_hub_is_the_commit_that_it_is_at(hub, caplog):
    with caplog.at_level(logging.WARNING):
        first = lineage(HUB)
        before = first.base_record().fingerprint
    assert first.model.revision == A, "what is loaded is what is named"
    assert f"is commit {A} now; set model.revision={A}" in caplog.text
    assert lineage(HUB, f"model.revision={A}").base_record().fingerprint == before
    source._commit.cache_clear()
    hub.commit = B
    assert lineage(HUB).base_record().fingerprint != before


def test_without_the_hub_a_model_is_the_commit_that_this_machine_has_or_is_refused(hub):
    hub.commit = None
    with pytest.raises(ConfigError, match=r"model\.revision=None: org/model is not pinned .*model\.revision=COMMIT"):
        lineage(HUB).base_record()
    assert lineage(HUB, f"model.revision={B}").model.revision == B
    refs = hub.cache / "models--org--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(A)
    assert lineage(HUB).model.revision == A


def test_a_named_artifact_needs_none_of_its_inputs(hub, tmp_path):
    """A job with a given checkpoint does not ask the Hub for its base."""
    hub.commit = None
    made = make(str(tmp_path), ArtifactRecord("checkpoint", {}, {}), lambda folder: None)
    assert lineage(HUB, f"train.uri={made.uri}", f"workspace={tmp_path}").checkpoint() == made


def test_the_number_of_workers_is_not_part_of_the_fingerprint(model):
    one, four = (lineage("train.batch_messages=32", f"train.workers={n}", f"model.source={model}") for n in (1, 4))
    assert one.checkpoint_record() == four.checkpoint_record()
    with pytest.raises(ConfigError, match=r"train\.batch_messages=32: .*3 workers.*30 or 33"):
        lineage("train.batch_messages=32", "train.workers=3")
