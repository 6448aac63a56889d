"""The selection of a variant: the cheapest that is good enough, on the hardware where it was measured."""

import json
from unittest.mock import ANY

import pytest

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import find_models, publish_models
from intent.artifacts.selection import choose, publish, select
from intent.config import ClassifyConfig
from intent.errors import ConfigError
from intent.hardware import CPU, GPU, Hardware
from intent.storage import StorageOptions, open_store
from jobs import choice
from jobs.app import load_config
from jobs.nodes import Node

HERE = StorageOptions()


def result(variant: str, exact: float, rate: float, hardware: str = "Xeon", size: int = 100) -> dict:
    loss = (0.95 - exact, 0.95 - exact - 0.01, 0.95 - exact + 0.01)
    return {
        **{
            "variant": variant,
            "engine": variant.split("-")[0],
            "fingerprint": f"f-{variant}",
            "batch": 16,
            "score": {"exact": exact},
            "loss": loss,
        },
        **{"hardware": {"kind": GPU if hardware == "T4" else CPU, "model": hardware}, "messages_per_second": rate},
        **{"file_bytes": size, "price_per_million": 3.0},
    }


RESULTS = {
    "reference": result("reference", 0.95, 10),
    "gguf-Q8_0": result("gguf-Q8_0", 0.95, 40),
    "gguf-Q4_K_M": result("gguf-Q4_K_M", 0.941, 60),
    "gguf-Q2_K": result("gguf-Q2_K", 0.70, 90),
    "base": result("base", 0.95, 500),
    "big-1": result("endpoint-big", 0.99, 500, "api.openai.com"),
    "gguf-IQ4_XS": {"reason": "RuntimeError: cannot be built"},
    "gptq-w4g128 on T4": result("gptq-w4g128", 0.90, 70, "T4"),
    "reference on T4": result("reference", 0.95, 200, "T4"),
}


def test_the_fastest_within_the_allowed_loss_is_selected_for_each_processor():
    chosen = select(RESULTS, 0.01)
    assert {model: selected.variant for model, selected in chosen.items()} == {"Xeon": "gguf-Q4_K_M", "T4": "reference"}
    assert "3 of 4" in chosen["Xeon"].reason and "0.941 exact" in chosen["Xeon"].reason
    assert select(RESULTS, 0.0)["Xeon"].variant == "gguf-Q8_0"
    assert select(RESULTS, 0.5)["Xeon"].variant == "gguf-Q2_K"


def test_where_none_is_good_enough_the_most_accurate_is_selected_and_says_so():
    chosen = select({"a": result("gguf-Q2_K", 0.5, 90), "b": result("gguf-Q3_K_M", 0.6, 80)}, 0.01)["Xeon"]
    assert chosen.variant == "gguf-Q3_K_M"
    assert chosen.reason.startswith("the most accurate: none of 2")


def test_without_a_measured_reference_nothing_is_selected():
    """A loss is relative to the reference. The first measured row does not replace it."""
    alone = {name: result | {"loss": None} for name, result in RESULTS.items() if "reason" not in result}
    assert select(alone, 0.01) == {}


def test_what_answers_only_labels_can_be_selected():
    rows = {"reference": result("reference", 0.95, 10), "svm": result("svm", 0.93, 8000)}
    rows["cascade-gguf-Q8_0"] = result("cascade-gguf-Q8_0", 0.95, 100)
    assert select(rows, 0.01)["Xeon"].variant == "cascade-gguf-Q8_0"
    assert select(rows, 0.05)["Xeon"].variant == "svm"


def test_a_selection_is_kept_by_processor_until_the_checkpoint_is_another(root):
    chosen = select(RESULTS, 0.01)
    publish(root, "checkpoint-1", "e1", {"Xeon": chosen["Xeon"]}, HERE)
    publish(root, "checkpoint-1", "e2", {"T4": chosen["T4"]}, HERE)
    assert {model: s.variant for model, s in choose(root, ["Xeon", "T4"], HERE).items()} == {
        "Xeon": "gguf-Q4_K_M",
        "T4": "reference",
    }
    assert choose(root, [], HERE) == choose(root, ["Xeon", "T4"], HERE), "of no named processor, all"
    assert choose(root, ["EPYC"], HERE) == {}
    publish(root, "checkpoint-2", "e3", {"T4": chosen["T4"]}, HERE)
    assert choose(root, ["Xeon"], HERE) == {}


@pytest.fixture
def lineage(tmp_path, monkeypatch):
    """The default configuration on a cluster of one Xeon, with the fingerprints of RESULTS as the workspace's variants."""
    monkeypatch.setattr(choice, "distinct_nodes", lambda: [Node(Hardware(CPU, "Xeon", 2), "node", 2)])
    monkeypatch.setattr(Artifact, "fingerprint", property(lambda artifact: artifact.record.config["f"]))
    monkeypatch.setattr(
        "intent.artifacts.registry.load",
        lambda uri, remedy, options: Artifact(uri, ArtifactRecord("variant", {"f": uri.removeprefix(f"{tmp_path}/")}, {})),
    )
    made = Lineage(
        load_config(
            "classify",
            ["input=in", f"output={tmp_path}/out", f"workspace={tmp_path}", "model.file_type=Q4_K_M"],
            ClassifyConfig,
        )
    )
    names = ["gguf-Q4_K_M", "gptq-w4g128"]
    publish_models(str(tmp_path), {n: Artifact(f"f-{n}", ArtifactRecord("variant", {"f": n}, {})) for n in names}, HERE)
    return made


def test_without_a_selection_the_mixed_fleet_classifies_and_it_is_said(lineage, capsys):
    variants, batches = choice.serving(lineage, None)
    assert list(variants) == ["gptq-w4g128", "gguf-Q4_K_M"] and batches == {}
    output = capsys.readouterr().err
    assert "nothing is selected for Xeon" in output and "using gptq-w4g128, gguf-Q4_K_M" in output
    lineage.config.engine.otherwise = []
    with pytest.raises(ConfigError, match=r"engine\.otherwise=\[\].*engine\.variants"):
        choice.serving(lineage, None)


def test_the_selected_variant_classifies_with_the_batch_it_was_measured_at(lineage):
    publish(lineage.config.workspace, "checkpoint-1", "e", select(RESULTS, 0.01), HERE)
    variants, batches = choice.serving(lineage, None)
    assert list(variants) == ["gguf-Q4_K_M"] and batches == {"gguf-Q4_K_M": 16}


def test_a_selection_made_for_another_checkpoint_is_refused(lineage):
    publish(lineage.config.workspace, "checkpoint-1", "e", select(RESULTS, 0.01), HERE)
    newer = Artifact("f-of-another", ArtifactRecord("variant", {"f": "x"}, {}))
    publish_models(lineage.config.workspace, {"gguf-Q4_K_M": newer}, HERE)
    with pytest.raises(ConfigError, match=r"another checkpoint \(f-gguf-Q4_K_M.*f-of-another.*jobs.sweep"):
        choice.serving(lineage, None)
    lineage.config.engine.variants = ["gguf-Q4_K_M"]
    assert list(choice.serving(lineage, None)[0]) == ["gguf-Q4_K_M"], "a variant that is named is used"


def test_a_selection_for_another_checkpoint_than_the_workspaces_models_is_refused(lineage):
    workspace = lineage.config.workspace
    publish(workspace, "checkpoint-1", "e", select(RESULTS, 0.01), HERE)
    models = {name: Artifact(f"f-{name}", ArtifactRecord("variant", {"f": name}, {})) for name in ("gguf-Q4_K_M", "svm")}
    publish_models(workspace, models, HERE, "checkpoint-1")
    assert list(choice.serving(lineage, None)[0]) == ["gguf-Q4_K_M"]
    publish_models(workspace, {"gguf-Q8_0": models["gguf-Q4_K_M"]}, HERE, "checkpoint-2")
    with pytest.raises(ConfigError, match=r"another checkpoint \(checkpoint-1.*checkpoint-2.*jobs.sweep"):
        choice.serving(lineage, None)
    with pytest.raises(ConfigError, match=r"has \['gguf-Q8_0', 'svm'\]"):
        find_models(f"{workspace}/models.json", ["gguf-Q4_K_M"], HERE)


def test_while_no_node_is_up_all_that_is_selected_classifies(lineage, monkeypatch, capsys):
    publish(lineage.config.workspace, "checkpoint-1", "e", select(RESULTS, 0.05), HERE)
    publish_models(lineage.config.workspace, {"reference": Artifact("f-reference", ArtifactRecord("c", {}, {}))}, HERE)
    monkeypatch.setattr(choice, "distinct_nodes", list)
    assert set(choice.serving(lineage, None)[0]) == {"gguf-Q4_K_M", "reference"}
    monkeypatch.setattr(choice, "distinct_nodes", lambda: [Node(Hardware(CPU, name, 2), name, 2) for name in ("Xeon", "EPYC")])
    assert set(choice.serving(lineage, None)[0]) == {"gguf-Q4_K_M"}
    assert "nothing is selected for EPYC" in capsys.readouterr().err


def test_a_log_that_was_begun_keeps_its_variants_whichever_nodes_are_up(lineage, monkeypatch):
    publish(lineage.config.workspace, "checkpoint-1", "e", select(RESULTS, 0.01), HERE)
    plan = json.dumps({"run": {"models": {"gguf-Q4_K_M": "f-gguf-Q4_K_M"}}})
    open_store(lineage.config.output).put("plan.json", plan.encode())
    monkeypatch.setattr(choice, "distinct_nodes", lambda: [Node(Hardware(GPU, "T4", 1), "node", 2)])
    assert choice.serving(lineage, None) == ({"gguf-Q4_K_M": ANY}, {"gguf-Q4_K_M": 16})


def test_a_staged_run_keeps_its_variants_unless_its_model_is_older(lineage, monkeypatch, tmp_path):
    publish(lineage.config.workspace, "checkpoint-1", "e", select(RESULTS, 0.01), HERE)
    monkeypatch.setattr(choice, "distinct_nodes", lambda: [Node(Hardware(GPU, "T4", 1), "node", 2)])
    staged = {name: open_store(f"{tmp_path}/{name}") for name in ("older", "begun")}
    for name, of in (("older", "of-an-older-model"), ("begun", "f-gguf-Q4_K_M")):
        staged[name].put("plan.json", json.dumps({"run": {"models": {"gguf-Q4_K_M": of}}}).encode())
    with pytest.raises(ConfigError, match="engine.variants='reference'"):
        choice.serving(lineage, None, [staged["older"]])
    assert list(choice.serving(lineage, None, [*staged.values()])[0]) == ["gguf-Q4_K_M"]


def test_a_workspace_can_be_moved(tmp_path):
    made = artifacts.make(f"{tmp_path}/here", ArtifactRecord("variant", {}, {}), lambda folder: None)
    publish_models(f"{tmp_path}/here", {"gguf-Q8_0": made}, HERE)
    (tmp_path / "here").rename(tmp_path / "there")
    model = find_models(f"{tmp_path}/there/models.json", ["gguf-Q8_0"], HERE)["gguf-Q8_0"]
    assert model.uri == made.uri.replace("/here/", "/there/")
