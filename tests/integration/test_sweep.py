"""A sweep of a small random model: failures are rows, measured rows are kept, and the next run uses the selected variant."""

import json
import shutil
from pathlib import Path

import pytest
import ray
import runs

from intent import artifacts
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import publish_models
from intent.config import ClassifyConfig
from intent.errors import ConfigError
from intent.storage import open_store
from jobs import quantize
from jobs.app import load_config
from jobs.classify import classify
from jobs.evaluate import results_at
from jobs.generate import generate
from jobs.sweep import sweep
from tests.tiny import write_checkpoint

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]


def lineage(workspace, *more) -> Lineage:
    overrides = [
        *(f"workspace={workspace}", f"model.source={workspace}/base", "model.sha256=null", "model.adapter=null"),
        "model.vocabulary=full",
        "train.epochs=1",
        *("data.train=16", "data.validation=4", "data.test=24", "quant.cpus=1", "engine.gguf_sequences=8"),
        # An untrained model is undecided about most messages, so its quantized variants differ.
        *("input=x", "output=y", "cluster.prices.cpu=0.04", "engine.golden_disagreement=0.95"),
        # A second actor would load a model and find no shard.
        *("fleet.gguf_actors=1", "fleet.gptq_actors=1", *more),
    ]
    return Lineage(load_config("classify", overrides, ClassifyConfig))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with examples and an untrained checkpoint."""
    folder = tmp_path_factory.mktemp("workspace")
    write_checkpoint(folder / "base")
    made = lineage(folder)
    generate(made, made.config.data)

    def build(target: Path) -> None:
        shutil.copytree(folder / "base", target, dirs_exist_ok=True)

    artifacts.make(str(folder), made.base_record(), build)
    artifacts.make(str(folder), made.checkpoint_record(), build)
    return folder


def measurements(workspace) -> dict[str, str]:
    blobs = open_store(str(workspace)).list("measurement-")
    return {blob.key: blob.etag for blob in blobs if blob.key.endswith("record.json")}


def test_a_sweep_measures_once_reports_failures_and_selects(workspace, tmp_path, capsys):
    first = lineage(workspace, "quant.variants=[base,gguf-Q8_0,gptq-w4g100]")
    made, selected = sweep(first)
    results = results_at(made, first)
    assert list(results) == ["reference", "base", "gguf-Q8_0", "gptq-w4g100"]
    assert "group size 100" in results["gptq-w4g100"]["reason"]
    for name in ("reference", "base"):
        # The checkpoint is the base itself.
        assert (results[name]["kl"], results[name]["same_choice"]) == (0.0, 1.0)
    assert results["gguf-Q8_0"]["kl"] > 0 and 0.5 < results["gguf-Q8_0"]["same_choice"] <= 1
    once = measurements(workspace)
    assert len(once) == 3

    again, _ = sweep(first)
    assert again.uri == made.uri and measurements(workspace) == once
    more, selected = sweep(lineage(workspace, "quant.variants=['gguf-{Q8_0,Q4_0}']"))
    assert results_at(more, first)["gguf-Q4_0"]["kl"] > results_at(more, first)["gguf-Q8_0"]["kl"]
    assert once.items() < measurements(workspace).items() and len(measurements(workspace)) == 4
    assert more.uri != made.uri
    page = artifacts.Files(made).read("report.html").decode()
    assert "<svg" in page and "group size 100" in page and "USD per million messages" in page

    (chosen,) = selected.values()
    assert json.loads((workspace / "selection.json").read_text())["hardware"].keys() == selected.keys()
    runs.write_log(open_store(f"{tmp_path}/in"), files=1, rows=20)
    job = lineage(workspace, f"input={tmp_path}/in", f"output={tmp_path}/out").config
    assert list(classify(job).variants) == [chosen.variant]
    runs.check_run(str(tmp_path))
    publish_models(str(workspace), {chosen.variant: artifacts.load(made.uri, "")}, first.options)
    job.output = f"{tmp_path}/other"
    with pytest.raises(ConfigError, match=r"another checkpoint.*jobs\.sweep"):
        classify(job)


def test_a_variant_that_cannot_be_measured_is_a_row_with_its_reason(workspace):
    swept = lineage(workspace, "quant.variants=[gguf-Q3_K_M]", "quant.batches=[2,4]")
    broken = swept.variant_record(swept.checkpoint(), swept.config.quant.specs()[0])
    made = artifacts.make(str(workspace), broken, lambda folder: (folder / "model.gguf").write_bytes(b"no model") and None)
    (Path(made.files_uri) / "model.gguf").write_bytes(b"not the same")
    made, selected = sweep(swept)
    results = results_at(made, swept)
    assert list(results) == ["reference x2", "reference x4", "gguf-Q3_K_M x2", "gguf-Q3_K_M x4"]
    assert all("SHA-256" in results[f"gguf-Q3_K_M x{batch}"]["reason"] for batch in (2, 4))
    assert all(choice.variant != "gguf-Q3_K_M" for choice in selected.values())


def test_what_a_sweep_lacks_is_a_row_with_its_reason_or_refused_before_any_measuring(workspace, tmp_path, monkeypatch):
    """The base is missing beside a given checkpoint, variants fail on the golden set, or a key is not set."""
    brought = lineage(workspace, f"train.uri={lineage(workspace).checkpoint().uri}", "quant.variants=[base,gguf-Q2_K]")
    brought.config.model.name = "another"

    def fails(*_):
        raise ray.exceptions.RayTaskError("gold", "", MemoryError("no room"))

    monkeypatch.setattr(quantize, "_gold", fails)
    made, selected = sweep(brought)
    results = results_at(made, brought)
    assert results["base"]["reason"].startswith("MissingArtifact") and "jobs.train" in results["base"]["reason"]
    assert "golden set" in results["gguf-Q2_K"]["reason"] and "MemoryError: no room" in results["gguf-Q2_K"]["reason"]
    assert [choice.variant for choice in selected.values()] == ["reference"]

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for more, named in (("baseline.model=gpt-4.1", "OPENAI_API_KEY"), ("gold=guide", "gold")):
        with pytest.raises(ConfigError, match=named):
            sweep(lineage(workspace, more, "quant.variants=[gguf-Q8_0]", f"workspace={tmp_path}"))
