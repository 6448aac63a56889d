"""Any labels by configuration alone: 3 to 500 of them, with spaces, slashes, quotes and letters of many scripts."""

import csv

import pyarrow as pa
import pytest
import runs
import yaml

from intent import artifacts
from intent.artifacts.lineage import Lineage
from intent.config import ClassifyConfig
from intent.dataset import dataset
from intent.storage import open_store
from jobs.app import load_config
from jobs.classify import classify
from jobs.evaluate import REPORT, evaluate, results_at
from jobs.generate import generate
from jobs.quantize import quantize

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]
STRANGE = [
    "Rücksendung / Umtausch",
    "où est mon colis ?",
    "退款",
    "доставка/сроки",
    "yes",
    "1.10",
    "a, b",
    'say "hi"',
    "{x} %s",
]
STRANGE += ["#tag: it's", "إلغاء الطلب", "null", "<b>bold</b>", "50 % off | new", "ends with a dot."]
OUTSIDE = "anders / weiß nicht"
FORMS = ["tell me about {}", "i need {} please", "{} again", "what of {} now", "my {} is late", "is {} there"]
UNKNOWN = ["nothing of the kind {}", "who was {}", "sing of {} to me", "rain and {}", "how old is {}", "never mind {}"]


def names(number: int) -> list[str]:
    """Return `count` labels. The last one is for messages that fit no other label."""
    some = [f"{STRANGE[i % len(STRANGE)]} {i // len(STRANGE)}" if i >= len(STRANGE) else STRANGE[i] for i in range(number - 1)]
    return [*some, OUTSIDE]


def thing(i: int) -> str:
    return "".join(chr(ord("a") + int(digit)) * 2 for digit in f"{i:03d}") + "ing"


@pytest.mark.parametrize("number", [3, 500])
def test_labels_of_a_schema_file_work_in_every_job(number, tmp_path):
    labels = names(number)
    (tmp_path / "conf" / "schema").mkdir(parents=True)
    slot = {"kind": "choice", "name": "Anliegen", "values": labels, "ends": [OUTSIDE]}
    written = {"name": "mine", "instruction": "Welches Anliegen?", "slots": [slot]}
    (tmp_path / "conf" / "schema" / "mine.yaml").write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8")
    with open(tmp_path / "mine.csv", "w", newline="", encoding="utf-8") as file:
        rows = [(form.format(thing(i)), label) for i, label in enumerate(labels[:-1]) for form in FORMS]
        rows += [(form.format(f"{word}{n}"), OUTSIDE) for n in range(4) for word in ("sun", "moon") for form in UNKNOWN]
        # Messages out of scope are in all splits, whatever their hashes.
        splits = [("train", "train", "train", "train", "validation", "test")[i % 6] for i in range(len(rows))]
        csv.writer(file).writerows([("message", "Anliegen", "part"), *((*row, s) for row, s in zip(rows, splits, strict=True))])
    overrides = [f"hydra.searchpath=[file://{tmp_path}/conf]", "schema=mine", f"workspace={tmp_path}/w", "input=x", "output=y"]
    overrides += [f"labelled.uri={tmp_path}/mine.csv", "labelled.split=part", "quant.variants=[svm]", "engine.variants=[svm]"]
    job = load_config("classify", [*overrides, "quant.in_scope_accuracy=0.2"], ClassifyConfig)
    lineage = Lineage(job)

    data = generate(lineage, job.data)
    assert data.record.metrics["unknown"] == {} and data.record.metrics["train"] > 2 * number
    quantize(lineage, job.quant.specs())
    made = evaluate(lineage, job.quant.specs())
    result = results_at(made, lineage)["svm"]
    scope = result["scope"]
    assert scope["answered"]["accuracy"] > 0.8 and scope["answered"]["macro_f1"] > 0.7 and scope["answered"]["recall"] > 0
    assert scope["thresholded"]["threshold"] > 0 and scope["thresholded"]["recall"] >= scope["answered"]["recall"]
    assert set(result["score"]["phenomena"]) == {"in_scope", "out_of_scope"}
    assert "<b>bold</b>" not in artifacts.Files(made).read(REPORT).decode()

    test = dataset.read_split(artifacts.Files(data), "test")
    table = pa.table({"id": [e.id for e in test], "message": [e.message for e in test]})
    open_store(f"{tmp_path}/in").put("part-0.parquet", dataset.parquet(table))
    job.input, job.output = f"{tmp_path}/in", f"{tmp_path}/out"
    classify(job)
    runs.check_run(str(tmp_path))
    label_of = {row["id"]: row["Anliegen"] for row in runs.read(open_store(job.output), "labelled/").to_pylist()}
    assert set(label_of.values()) <= set(labels)
    right = sum(label_of[example.id] == example.intent["Anliegen"] for example in test)
    assert right == round(result["score"]["exact"] * len(test))
