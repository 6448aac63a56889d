"""The user's own labels through all jobs: import, SVM, cascade with a small random model, evaluation, and labelling a log."""

import csv

import pyarrow as pa
import pytest
import runs

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import VariantSpec
from intent.config import ClassifyConfig
from intent.dataset import dataset
from intent.errors import ConfigError
from intent.storage import open_store
from jobs.app import load_config
from jobs.classify import classify
from jobs.evaluate import evaluate, results_at
from jobs.generate import generate
from jobs.quantize import quantize, refusals
from tests.tiny import write_checkpoint

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]
FORMS = {
    "order_status": ["where is my {}", "has the {} been sent", "track my {}", "when will the {} arrive"],
    "return_item": ["send the {} back", "return this {}", "my money back for the {} please", "this {} does not fit"],
    "none": ["nice {} today", "who invented the {}", "tell me a {} joke", "hello {}"],
}
CASCADE = "cascade-gguf-Q8_0"


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> ClassifyConfig:
    """300 labelled messages and 3 bad rows in a CSV file, and an untrained checkpoint."""
    folder = tmp_path_factory.mktemp("labels")
    with open(folder / "mine.csv", "w", newline="") as file:
        rows = [(form.format(f"thing{i}"), label) for i in range(25) for label, forms in FORMS.items() for form in forms]
        csv.writer(file).writerows([("text", "topic"), *rows, ("", "none"), ("x", "refund"), ("hello thing1!", "none")])
    overrides = [f"workspace={folder}/w", f"labelled.uri={folder}/mine.csv", "labelled.message=text", "input=x", "output=y"]
    overrides += ["labelled.slots=[topic]", "quant.cpus=1", "quant.cascade_precision=0.9", "engine.gguf_sequences=8"]
    # An untrained model is undecided about every message, so rounding decides.
    overrides += ["engine.golden_messages=0"]
    # A second actor would load both models and find no shard.
    overrides += ["fleet.gguf_actors=1"]
    overrides += [f"quant.variants=[svm,gguf-Q8_0,{CASCADE}]", "schema=labels"]
    made = load_config("classify", overrides, ClassifyConfig)
    record = ArtifactRecord("checkpoint", {"output_format": "compact"}, {"schema": Lineage(made).schema_fingerprint})
    made.train.uri = artifacts.make(f"{folder}/w", record, lambda to: write_checkpoint(to) and None).uri
    return made


@pytest.fixture(scope="module")
def lineage(job) -> Lineage:
    lineage = Lineage(job)
    generate(lineage, job.data)
    return lineage


def test_the_data_set_has_the_layout_of_a_generated_one_and_counts_omitted_rows(lineage):
    made = lineage.data()
    files = artifacts.Files(made)
    counts = {split: len(dataset.read_split(files, split)) for split in dataset.SPLITS}
    metrics = made.record.metrics
    assert {split: metrics[split] for split in counts} == counts
    assert sum(counts.values()) + sum(metrics["refused"].values()) == 303
    assert metrics["refused"]["empty message"] == metrics["refused"]["label: not a value of the schema"] == 1
    assert metrics["unknown"] == {"label": ["refund"]}
    card = files.read("card.md").decode()
    assert "order\\_status" in card and "| Shared with evaluation | 0 examples" in card
    assert lineage.data_record().fingerprint == made.record.fingerprint


def test_the_svm_is_measured_before_any_language_model(lineage):
    quantize(lineage, [VariantSpec.parse("svm")])
    results = results_at(evaluate(lineage, [VariantSpec.parse("svm")]), lineage)
    assert list(results) == ["svm"]
    score = results["svm"]["score"]
    assert score["exact"] > 0.9 and set(score["phenomena"]) == {"in_scope", "out_of_scope"}
    assert results["svm"]["messages_per_second"] > 0


def test_a_cascade_is_a_row_beside_its_models_and_labels_a_log(lineage, job, tmp_path):
    made = quantize(lineage, job.quant.specs())
    threshold = made[CASCADE].record.metrics
    assert 0 < threshold["answers"] <= 1 and threshold["precision"] >= 0.9
    evaluation = evaluate(lineage, job.quant.specs())
    results = results_at(evaluation, lineage)
    assert list(results) == ["reference", "svm", "gguf-Q8_0", CASCADE]
    # Only a language model that makes every decision is compared with the unquantized one.
    assert [results[name]["kl"] is None for name in results] == [False, True, False, True]
    assert sum(results[CASCADE]["answered"].values()) == pytest.approx(1)
    assert results[CASCADE]["score"]["exact"] > results["gguf-Q8_0"]["score"]["exact"] + 0.2
    assert results[CASCADE]["file_bytes"] == results["svm"]["file_bytes"] + results["gguf-Q8_0"]["file_bytes"]
    assert "the SVM if it is confident" in artifacts.Files(evaluation).read("report.html").decode()
    messages = [e.message for e in dataset.read_split(artifacts.Files(lineage.data()), "test")] + ["zzz qqq", "vvv", None]
    table = pa.table({"id": [str(i) for i in range(len(messages))], "message": messages})
    open_store(f"{tmp_path}/in").put("part-0.parquet", dataset.parquet(table))
    job.input, job.output, job.engine.variants = f"{tmp_path}/in", f"{tmp_path}/out", [CASCADE]
    summary = classify(job)
    runs.check_run(str(tmp_path))
    assert summary.rejected == 1
    rows = runs.read(open_store(job.output), "labelled/").to_pylist()
    assert {row["variant"] for row in rows} == {"svm", "gguf-Q8_0"}
    assert all(row["confidence"] >= threshold["confidence"] for row in rows if row["variant"] == "svm")


def test_what_a_schema_cannot_have_and_rows_that_teach_nothing_are_refused(lineage, job, tmp_path):
    cart = load_config("classify", ["input=x", "output=y", f"quant.variants=[{CASCADE}]"], ClassifyConfig)
    assert set(refusals(Lineage(cart), cart.quant.specs())) == {CASCADE}
    (tmp_path / "bad.csv").write_text("message,label\nhello,greeting\n")
    overrides = [f"workspace={tmp_path}", f"labelled.uri={tmp_path}/bad.csv", "schema=labels", "input=x", "output=y"]
    bad = load_config("classify", overrides, ClassifyConfig)
    with pytest.raises(ConfigError, match=r"1 of 1 rows are refused.*first bad.csv:2.*'label': \['greeting'\]"):
        generate(Lineage(bad), bad.data)
    (tmp_path / "bad.csv").write_text("message,label\nhello,none\n")
    with pytest.raises(ConfigError, match="gives no [a-z]+ messages"):
        generate(Lineage(bad), bad.data)
