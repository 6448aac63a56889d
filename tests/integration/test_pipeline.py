"""The whole job with a small random model: every real step, from generated messages to a classified log."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import runs

from intent import artifacts
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import find_models
from intent.config import ClassifyConfig
from intent.dataset import dataset
from intent.engine import calibration
from intent.errors import ConfigError, CorruptData, MissingArtifact
from intent.storage import open_store
from jobs.app import load_config
from jobs.calibrate import decide, fit
from jobs.classify import classify
from jobs.evaluate import evaluate
from jobs.generate import generate
from jobs.quantize import quantize
from jobs.train import train
from tests.tiny import NAMES, write_adapter, write_checkpoint

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]
VARIANTS = ["gptq-w4g64", "gguf-Q4_K_M"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("base"))


def config(base, workspace, *more) -> ClassifyConfig:
    overrides = [
        f"workspace={workspace}",
        f"model.source={base}",
        "model.sha256=null",
        "model.adapter=null",
        "model.vocabulary=full",
        "model.group_size=64",
        "model.file_type=Q4_K_M",
        "data.train=64",
        "data.validation=16",
        "data.test=32",
        "train.epochs=1",
        "train.batch_messages=16",
        "train.validate_every=4",
        "train.cpus=1",
        "quant.cpus=1",
        "quant.calibration_messages=64",
        f"quant.variants=[{','.join(VARIANTS)}]",
        "engine.gguf_sequences=8",
        # A hardly trained model is undecided about most messages, so its quantized variants differ.
        "engine.golden_disagreement=0.95",
        *more,
    ]
    return load_config("classify", overrides, ClassifyConfig)


def test_one_command_makes_its_models_and_labels_and_a_new_catalog_reuses_them(base, tmp_path, capfd):
    """In an empty workspace, with the settings of a first user."""
    adapter = write_adapter(tmp_path / "adapter", base)
    runs.write_log(open_store(f"{tmp_path}/0/in"), files=2, rows=30)
    shutil.copytree(tmp_path / "0/in", tmp_path / "1/in")
    stamps = []
    for number, products in enumerate((NAMES, ("Bread", "Butter", "Crisps"))):
        root = tmp_path / str(number)
        Path(f"{root}.json").write_text(json.dumps([{"name": name} for name in products]))
        job = load_config(
            "classify",
            [
                *(f"workspace={tmp_path}/w", f"catalog={root}.json", f"input={root}/in", f"output={root}/out"),
                *(f"model.source={base}", "model.sha256=null", f"model.adapter={adapter}", "model.vocabulary=full"),
                # An untrained model is undecided about most messages, so its quantized variants differ.
                *("model.group_size=64", "quant.cpus=1", "engine.gguf_sequences=8", "engine.golden_disagreement=0.95"),
            ],
            ClassifyConfig,
        )
        summary = classify(job)
        runs.check_run(str(root))
        assert summary.rows == 60 and list(summary.variants) == ["gguf-Q8_0"]
        workspace = open_store(f"{tmp_path}/w")
        stamps.append({b.key: b.etag for b in workspace.list() if not b.key.startswith("cache")})
    assert stamps[0] == stamps[1]
    output = capfd.readouterr().err
    assert output.count("has no models yet: makes gguf-Q8_0") == 1 and "quantize gguf-Q8_0: done" in output


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """A workspace in which every job has run, named relative to the working folder of the jobs."""
    made = config(base, os.path.relpath(tmp_path_factory.mktemp("workspace")), "input=x", "output=y")
    lineage = Lineage(made)
    generate(lineage, made.data)
    train(lineage)
    quantize(lineage, made.quant.specs())
    return made


def test_training_moves_the_model_and_keeps_its_adapter(finished, base):
    checkpoint = Lineage(finished).checkpoint()
    assert {"adapter/adapter_model.safetensors", "model.safetensors", "tokenizer.json"} <= set(checkpoint.record.files)
    assert checkpoint.record.metrics["messages"] == 64
    before = artifacts.file_sha256(base / "model.safetensors")
    assert checkpoint.record.files["model.safetensors"]["sha256"] != before


def test_temperatures_fitted_on_held_out_messages_make_them_likelier(finished):
    lineage = Lineage(finished)
    held_out = lineage.data()
    predictions = decide(lineage.checkpoint(), held_out, lineage.schema, finished.output_format.value, lineage.options, 1)
    assert set(predictions) == set(lineage.schema.names) and len(predictions["action"]) <= held_out.record.metrics["test"]
    fitted, text = fit(predictions)
    assert f"nothing: {fitted.nothing:+g} to its logit" in text
    for decided, temperature in zip(predictions.values(), fitted.temperatures, strict=True):
        plain = calibration.loss([decision.margins for decision in decided], 1.0)
        assert calibration.loss(calibration.shifted(decided, fitted.nothing), temperature) <= plain + 0.01
    # Each message has one first decision.
    assert sum(decision.nothing >= 0 for made in predictions.values() for decision in made) == held_out.record.metrics["test"]


def test_nothing_is_made_again(finished):
    lineage = Lineage(finished)
    stamps = {blob.key: blob.etag for blob in open_store(finished.workspace).list()}
    generate(lineage, finished.data)
    train(lineage)
    quantize(lineage, finished.quant.specs())
    assert {b.key: b.etag for b in open_store(finished.workspace).list() if b.key != "models.json"} == {
        key: etag for key, etag in stamps.items() if key != "models.json"
    }


def test_without_training_the_checkpoint_is_the_base(finished, base, tmp_path):
    """In a workspace that has the base model and no data."""
    made = Lineage(finished).base()
    shutil.copytree(made.uri, tmp_path / Path(made.uri).name)
    lineage = Lineage(config(base, tmp_path, "train.epochs=0", "input=in", "output=out"))
    assert lineage.base().fingerprint == made.fingerprint
    checkpoint = train(lineage)
    weights = [entry["sha256"] for key, entry in checkpoint.record.files.items() if key.endswith(".safetensors")]
    assert weights == [made.record.files["model.safetensors"]["sha256"]]
    assert checkpoint == train(lineage) == lineage.checkpoint()


def test_workers_train_one_model_together_each_on_its_part(finished, base):
    lineage = Lineage(config(base, finished.workspace, "input=x", "output=y", "train.workers=2", "train.seed=10"))
    made = train(lineage)
    # 64 messages in batches of 16, of which each worker has 8.
    assert made.record.metrics["step"] == 4 and made.record.metrics["messages"] == 64


def test_an_error_of_a_training_worker_is_reported_once_and_unchanged(finished, base):
    lineage = Lineage(config(base, finished.workspace, "input=x", "output=y", "train.seed=8"))
    file = Path(lineage.base().files_uri) / "model.safetensors"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        with pytest.raises(CorruptData, match=r"^.*model\.safetensors: SHA-256 is [^\n]*$"):
            train(lineage)
    finally:
        file.write_bytes(kept)


@pytest.mark.parametrize(
    ("more", "named"), [("train.device=cuda", r"train\.device='cuda'"), ("train.workers=8", r"train\.workers=8")]
)
def test_training_does_not_wait_for_resources_that_a_local_cluster_lacks(finished, base, more, named):
    with pytest.raises(ConfigError, match=named):
        train(Lineage(config(base, finished.workspace, "input=x", "output=y", "train.seed=9", more)))


def test_every_variant_is_scored_against_the_reference(finished):
    made = evaluate(Lineage(finished), finished.quant.specs())
    results = json.loads(artifacts.Files(made).read("results.json"))
    assert list(results) == ["reference", *VARIANTS]
    assert results["reference"]["agreement"] == 1.0
    assert all(result["score"]["messages"] == 32 for result in results.values())
    assert results["gguf-Q4_K_M"]["file_bytes"] < results["reference"]["file_bytes"]
    assert "<svg" in artifacts.Files(made).read("report.html").decode()


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_a_log_is_labelled_by_both_engines(finished, base, root):
    messages = [example.message for example in dataset.read_split(artifacts.Files(Lineage(finished).data()), "test")]
    rows = [messages[i % 32] for i in range(300)] + [None, ""]
    table = pa.table({"id": [str(i) for i in range(302)], "message": rows})
    for number in range(2):
        half = table.slice(number * 151, 151)
        open_store(f"{root}/in").put(f"part-{number}.parquet", dataset.parquet(half))
    job = config(base, finished.workspace, f"input={root}/in", f"output={root}/out", "fleet.rows_per_shard=50")
    summary = classify(job)
    runs.check_run(root)
    assert (summary.rows, summary.labelled, summary.rejected) == (302, 300, 2)
    assert classify(job).already_done
    labelled = runs.read(open_store(f"{root}/out"), "labelled/")
    schema = Lineage(finished).schema
    for row in labelled.to_pylist():
        schema.check({name: row[name] for name in schema.names}, Lineage(finished).catalog.names)
        assert row["variant"] in VARIANTS


def test_a_changed_model_file_is_refused_before_it_is_parsed(finished, tmp_path):
    variant = find_models(f"{finished.workspace}/models.json", ["gguf-Q4_K_M"], Lineage(finished).options)["gguf-Q4_K_M"]
    copy = tmp_path / "copy"
    for blob in open_store(variant.uri).list():
        open_store(str(copy)).put(blob.key, open_store(variant.uri).read(blob.key))
    model = copy / variant.path("model.gguf")
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(CorruptData, match=r"model\.gguf: SHA-256"):
        artifacts.fetch(artifacts.load(str(copy), ""))


def test_what_is_missing_is_named_with_the_command_that_makes_it(base, tmp_path):
    lineage = Lineage(config(base, tmp_path, "input=x", "output=y"))
    with pytest.raises(MissingArtifact, match=r"jobs\.generate"):
        lineage.data()
    with pytest.raises(MissingArtifact, match=r"jobs\.train"):
        quantize(lineage, lineage.config.quant.specs())
    with pytest.raises(MissingArtifact, match="make demo"):
        classify(lineage.config)


def test_a_group_size_that_does_not_fit_is_refused_before_any_task(finished, base):
    wrong = config(base, finished.workspace, "input=x", "output=y", "quant.variants=[gptq-w4g100]")
    with pytest.raises(ConfigError, match=r"group size 100.*\[16, 32, 64, 128, 256\]"):
        quantize(Lineage(wrong), wrong.quant.specs())
