"""The workspace's pointers, models.json and selection.json: no publisher's entry is lost, and a failed job changes neither."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from intent.artifacts import Artifact, ArtifactRecord, make
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import find_models, publish_models
from intent.artifacts.selection import Selected, choose, publish
from intent.artifacts.variant import VariantSpec
from intent.errors import CorruptData, IntentError
from intent.storage import StorageOptions, open_store
from jobs import quantize, sweep
from jobs.app import load_config

HERE = StorageOptions()
NAMES = [f"gptq-w4g{n}" for n in range(1, 9)]


def test_of_publishers_at_once_none_is_lost(root):
    made = {name: make(root, ArtifactRecord(f"variant-{name}", {}, {}), lambda folder: None) for name in NAMES}

    def run(name: str) -> None:
        publish_models(root, {name: made[name]}, HERE, "checkpoint")
        publish(root, "checkpoint", "e", {f"model of {name}": Selected(name, name, None, "CPU", "why")}, HERE)

    with ThreadPoolExecutor(len(NAMES)) as pool:
        list(pool.map(run, NAMES))
    assert find_models(f"{root}/models.json", NAMES, HERE) == made
    assert {chosen.variant for chosen in choose(root, [], HERE).values()} == set(NAMES)


def test_a_registry_that_is_none_is_named_and_kept(root):
    open_store(root).put("models.json", b"{not json")
    for ask in (lambda: find_models(f"{root}/models.json", [], HERE), lambda: publish_models(root, {}, HERE)):
        with pytest.raises(CorruptData, match=r"models\.json: is not a registry of models .*; delete it"):
            ask()
    assert open_store(root).read("models.json") == b"{not json"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace with models and a selection of an older checkpoint, in which every build fails."""
    older = make(str(tmp_path), ArtifactRecord("variant-gguf-Q8_0", {}, {}), lambda folder: None)
    publish_models(str(tmp_path), {"gguf-Q8_0": older}, HERE, "older")
    publish(str(tmp_path), "older", "e", {"Xeon": Selected("gguf-Q8_0", older.fingerprint, None, "CPU", "why")}, HERE)
    monkeypatch.setattr(Lineage, "checkpoint", lambda self: Artifact("newer", ArtifactRecord("checkpoint", {}, {})))
    return tmp_path


def contents(workspace) -> dict[str, bytes]:
    return {name: (workspace / name).read_bytes() for name in ("models.json", "selection.json")}


def test_a_quantization_that_fails_leaves_the_models_as_they_were(workspace, monkeypatch):
    """This also holds if some variants could be made. Otherwise variants of two checkpoints would be in use."""
    newer, before = Artifact("newer", ArtifactRecord("variant", {}, {})), contents(workspace)
    monkeypatch.setattr(quantize, "_attempt_models", lambda *_: ({"gguf-Q4_0": newer}, {"gguf-Q5_K_M": IntentError("failed")}))
    lineage = Lineage(load_config("quantize", [f"workspace={workspace}"]))
    with pytest.raises(IntentError, match="failed"):
        quantize.quantize(lineage, [VariantSpec.parse(name) for name in ("gguf-Q4_0", "gguf-Q5_K_M")])
    assert contents(workspace) == before
    assert list(quantize.quantize(lineage, [VariantSpec.parse("gguf-Q4_0")])) == ["gguf-Q4_0"]
    assert contents(workspace) != before


@pytest.mark.parametrize("fault", ["evaluation fails", "nothing is selected"])
def test_a_sweep_that_fails_leaves_models_and_selection_as_they_were(workspace, monkeypatch, fault):
    newer, before = Artifact("newer", ArtifactRecord("variant", {}, {})), contents(workspace)

    def evaluate(*_):
        if fault == "evaluation fails":
            raise IntentError("no node is left")
        return newer

    monkeypatch.setattr(sweep, "attempt", lambda *_: ({"gguf-Q4_0": newer}, {}))
    monkeypatch.setattr(sweep, "evaluate", evaluate)
    monkeypatch.setattr(sweep, "results_at", lambda *_: {})
    lineage = Lineage(load_config("sweep", [f"workspace={workspace}", "quant.variants=[gguf-Q4_0]"]))
    if fault == "nothing is selected":
        assert sweep.sweep(lineage) == (newer, {})
    else:
        with pytest.raises(IntentError, match="no node is left"):
            sweep.sweep(lineage)
    assert contents(workspace) == before
