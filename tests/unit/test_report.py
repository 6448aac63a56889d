"""A report of invented measurements: figures, escaped text, and the selection."""

import html.parser
import io
import json
import random
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intent.artifacts import Artifact, ArtifactRecord, make
from intent.artifacts.lineage import Lineage
from intent.artifacts.loader import ClassifierLoader
from intent.artifacts.selection import select
from intent.artifacts.variant import VariantSpec
from intent.dataset.example import Example
from intent.engine import Prediction
from intent.engine.load import EngineOptions
from intent.errors import ConfigError
from intent.evaluate import divergence, paper
from intent.evaluate.measurement import Trial
from intent.evaluate.plots import Point, front
from intent.evaluate.report import numbers, render_html, render_markdown, render_text, write_report
from intent.evaluate.results import AccuracyTarget, Measured, Sources, results_of
from intent.evaluate.speed import Speed
from intent.hardware import CPU, GPU, Hardware
from intent.storage import StorageOptions
from intent.task.prompt import Prompt
from jobs import evaluate
from jobs.app import load_config
from jobs.nodes import Node
from jobs.sweep import describe
from tests.tiny import BASKET, CART, LABELS

XEON, T4 = Hardware(CPU, "Xeon", 2), Hardware(GPU, "Tesla T4", 1)
NASTY = "<img src=//x onerror=alert(1)> ![p](http://x/y.png) | `add` </td>"
NONE = {"action": "none", "product": None, "quantity": None}


def add(product="Milk", quantity=1):
    return {"action": "add", "product": product, "quantity": quantity}


def measured(name: str, hardware: Hardware, right: int, rate: float, mb: float, price: float | None = None) -> Measured:
    """Return a measurement in which the first `right` of 40 messages are right and the others have a wrong quantity."""
    held = {"types": {"Q5_0": 60_000_000, "Q8_0": 30_000_000}, "fell_back": 90_000_000} if name == "gguf-Q4_K_M" else {}
    record = ArtifactRecord(
        f"variant-{name}", {"output_format": "compact"}, {}, {"model.gguf": {"sha256": name, "bytes": int(mb * 1e6)}}, held
    )
    loader = ClassifierLoader(name, Artifact(f"w/{name}", record), Prompt(CART), EngineOptions("compact"), StorageOptions())
    predictions = [Prediction(e.intent if i < right else add(quantity=9), 0.9) for i, e in enumerate(EXAMPLES)]
    memory = {"peak_bytes": int(mb * 3e6), "gpu_peak_bytes": int(mb * 2e6) if hardware is T4 else None}
    speed = Speed(rate, rate * 9, 0.01, 0.02, 1.5, **memory, others=0.4 if name == "gguf-Q2_K" else 0.01)
    trial = Trial(loader, Artifact("d", ArtifactRecord("data", {}, {})), hardware, 32)
    return Measured(trial, predictions, speed, price, decisions=lambda: decided(name))


def decided(name: str) -> pa.Table | None:
    """Return two decisions. GGUF files other than Q8_0 differ from the reference in one. GPTQ was measured without any."""
    if name.startswith("gptq"):
        return None
    chances = [[0.5, 0.5], [0.25, 0.75] if name in ("reference", "gguf-Q8_0") else [0.75, 0.25]]
    rows = [{"message": i, "decision": 0, "token": 1, "log_probabilities": np.log(each)} for i, each in enumerate(chances)]
    return pa.Table.from_pylist(rows, schema=divergence.SCHEMA)


EXAMPLES = [Example(str(i), f"add {i} milk", add() if i % 3 else NONE, "en", phenomena=("digit",)) for i in range(39)]
EXAMPLES.append(Example("39", NASTY, add(NASTY), "de"))
ROWS = {
    "reference": measured("reference", XEON, 38, 10, 270, 0.08),
    "gguf-Q8_0": measured("gguf-Q8_0", XEON, 38, 40, 140, 0.08),
    "gguf-Q4_K_M": measured("gguf-Q4_K_M", XEON, 36, 60, 100, 0.08),
    "gguf-Q2_K": measured("gguf-Q2_K", XEON, 20, 50, 80, 0.08),
    "reference on T4": measured("reference", T4, 38, 100, 270),
    "gptq-w4g64 on T4": measured("gptq-w4g64", T4, 37, 50, 135),
}
SOURCES = Sources(
    EXAMPLES,
    f"# Data\n\n| a | b |\n| --- | --- |\n| {NASTY.replace('|', '')} | 1 |\n",
    {},
    "2026-11-25",
    "python -m jobs.sweep",
    "1",
)


@pytest.fixture(scope="module")
def results():
    failed = {"gguf-IQ4_XS": {"reason": f"RuntimeError: {NASTY}"}}
    return json.loads(json.dumps(results_of(CART, EXAMPLES, ROWS) | failed))


class Reader(html.parser.HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.links, self.texts, self.open = set(), [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [f"{name}={value}" for name, value in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_holds_every_row_and_asks_for_nothing_from_elsewhere(results):
    page = Reader(render_html(results, {}, SOURCES))
    assert not page.tags & {"script", "img", "link", "iframe"}
    assert page.links == []
    text = "".join(page.texts)
    for name in results:
        assert name in text
    assert text.count("<img src=//x onerror=alert(1)>") >= 3, "in a reason, a mistake, and the data card"
    assert "svg" in page.tags


def test_markdown_keeps_foreign_text_inside_its_cell(results):
    from markdown_it import MarkdownIt

    rendered = Reader(MarkdownIt("commonmark", {"html": True}).enable("table").render(render_markdown(results, {}, SOURCES)))
    assert rendered.links == []
    assert {"table", "h1", "h2"} <= rendered.tags
    assert "img" not in rendered.tags


def test_figures_can_be_quoted_with_their_day_command_code_hardware_intervals_and_sizes(results):
    for text in (render_markdown(results, {}, SOURCES), "".join(Reader(render_html(results, {}, SOURCES)).texts)):
        assert "40 held-out messages, 2026-11-25" in text
        assert "Measured on Xeon (2 CPUs), Tesla T4, 2026-11-25, by python -m jobs.sweep, intent 1." in text
        assert "en (39)" in text and "de (1)" in text
        assert "0.923 (0.821-1.000)" in text, "36 of 39"


def test_the_answer_none_has_its_precision_and_recall_by_kind(results):
    _, _, section = render_markdown(results, {}, SOURCES).partition("## The answer none\n")
    for row in ("| recall (13) |", "| recall: digit (13) |", "| wrong: digit (26) |", "| precision ("):
        assert row in section


def test_the_types_that_a_file_really_has_are_told(results):
    for text in (render_markdown(results, {}, SOURCES), " | ".join(Reader(render_html(results, {}, SOURCES)).texts)):
        assert "gguf-Q4_K_M | Q5_0 60 MB, Q8_0 30 MB | 90 MB" in text
    assert "Types in the files" not in render_markdown({"reference": results["reference"]}, {}, SOURCES)


def test_a_terminal_shows_figures_in_columns_and_a_failure_with_its_reason(results):
    lines = render_text(results).splitlines()
    assert re.split(r"\s{2,}", lines[3]) == [
        *("gguf-Q4_K_M", "0.900", "0.950", "0.275", "0.5000", "60.0", "300 MB", "100 MB", "0.000", "0.00", "0.37"),
    ]
    assert lines[7].startswith("gguf-IQ4_XS")
    assert "RuntimeError" in lines[7]
    assert lines[-1].endswith("other processes used the CPUs too (their share): gguf-Q2_K (40%).")


def test_a_sweep_in_which_everything_failed_still_says_why(tmp_path):
    write_report(tmp_path, {"reference": {"reason": "MemoryError: 1"}, "gguf-Q8_0": {"reason": "MemoryError: 2"}}, {}, SOURCES)
    assert "MemoryError: 2" in (tmp_path / "report.html").read_text()
    assert "MemoryError: 2" in (tmp_path / "report.md").read_text()


def test_where_the_reference_was_not_measured_nothing_is_compared_with_another_row(tmp_path):
    base, quantized = measured("base", XEON, 5, 500, 270), measured("gguf-Q8_0", XEON, 38, 40, 140)
    results = json.loads(json.dumps(results_of(CART, EXAMPLES, {"base": base, "gguf-Q8_0": quantized})))
    for compared in ("loss", "agreement", "kl", "same_choice"):
        assert [row[compared] for row in results.values()] == [None, None]
    assert select(results, 0.5) == {}
    assert describe({}).startswith("nothing selected: the reference was not measured")
    write_report(tmp_path, results, {}, SOURCES)
    assert "gguf-Q8_0" in (tmp_path / "report.md").read_text()


def test_the_lineage_is_of_the_real_base_and_with_gold_messages_of_the_training_examples(tmp_path):
    lineage = Lineage(load_config("evaluate", [f"workspace={tmp_path}", "gold=guide"]))

    def build(folder) -> None:
        (folder / "file").write_text("x")

    made = {name: make(str(tmp_path), record, build) for name, record in (
        ("base", lineage.base_record()),
        ("training examples", lineage.data_record()),
        ("checkpoint", lineage.checkpoint_record()),
    )}  # fmt: skip
    records = Sources.read(lineage, "python -m jobs.evaluate").records
    assert {name: records[name] for name in made} == {name: (each.uri, each.record) for name, each in made.items()}
    assert records["base"][1].files and records["base"][1].code.startswith("0.1.0, ")
    assert records["examples"][1].kind == "gold-guide"


def test_a_variant_without_a_node_is_a_row_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "distinct_nodes", lambda: [Node(XEON, "node", 2)])
    lineage = Lineage(load_config("evaluate", ["engine.device=cuda", f"workspace={tmp_path}"]))
    planned, failed = evaluate.plans(lineage, [VariantSpec.parse("gptq-w4g64")])
    assert planned == [] and "engine.device='cuda': no node of this cluster suits gptq-w4g64" in str(failed["gptq-w4g64"])
    with pytest.raises(ConfigError, match=r"engine\.device"):
        evaluate.evaluate(lineage, [VariantSpec.parse("gptq-w4g64")])


def test_the_numbers_are_a_parquet_row_each(results, tmp_path):
    write_report(tmp_path, results, {}, SOURCES)
    table = pq.read_table(io.BytesIO((tmp_path / "results.parquet").read_bytes())).to_pylist()
    by_name = {row["row"]: row for row in table}
    assert by_name["gguf-Q4_K_M"]["score.exact"] == pytest.approx(0.9)
    assert [by_name[name]["kl"] for name in ("reference", "gguf-Q8_0")] == [0.0, 0.0]
    assert by_name["gguf-Q4_K_M"]["kl"] == pytest.approx(0.275, abs=1e-3) and by_name["gguf-Q4_K_M"]["same_choice"] == 0.5
    assert by_name["gptq-w4g64 on T4"]["kl"] is by_name["gptq-w4g64 on T4"]["same_choice"] is None
    assert by_name["gguf-Q4_K_M"]["loss"] == pytest.approx(0.05)
    assert by_name["gguf-Q4_K_M"]["score.intervals.exact.low"] < 0.9 < by_name["gguf-Q4_K_M"]["score.intervals.exact.high"]
    assert by_name["gguf-IQ4_XS"]["reason"].startswith("RuntimeError")
    assert by_name["gptq-w4g64 on T4"]["hardware.model"] == "Tesla T4"
    assert by_name["gguf-Q4_K_M"]["score.sizes.languages.en"] == 39
    confused = pq.read_table(tmp_path / "confusion.parquet").to_pylist()
    wrong = [c for c in confused if c["row"] == "gguf-Q4_K_M" and c["slot"] == "quantity" and c["meant"] != c["said"]]
    assert sum(c["times"] for c in wrong) == 4 and {c["said"] for c in wrong} == {"9"}


def test_the_pareto_front_holds_the_rows_that_none_beats_in_both():
    points = [Point(n, x, y, (y, y), "gguf") for n, x, y in [("a", 1, 0.9), ("b", 2, 0.9), ("c", 3, 0.8), ("d", 2.5, 0.7)]]
    assert [p.name for p in front(points, more=True)] == ["c", "b"]
    assert [p.name for p in front(points, more=False)] == ["a"]
    rng = random.Random(5)
    many = [Point(str(i), rng.random(), rng.random(), (0, 1), "gguf") for i in range(60)]
    kept = {p.name for p in front(many, more=True)}
    assert kept == {p.name for p in many if not any(q.x > p.x and q.y > p.y for q in many)}


def test_beside_the_paper_stands_the_best_ratio_on_the_same_hardware(results):
    rows = {row[0]: row for row in paper.side_by_side(results).rows}
    speed, memory = (rows[f"GPTQ 4-bit on a GPU, {metric} against 16 bits"] for metric in ("speed", "memory"))
    assert speed[2] == "-50% (0.50x)" and speed[3] == "gptq-w4g64 on T4 against reference, Tesla T4"
    assert memory[2] == "-50% (0.50x)"
    assert rows["GGUF on a CPU, speed against the unquantized model"][2:] == ["6.0x", "gguf-Q4_K_M against reference, Xeon"]
    assert rows["commercial model, exact match"][2] == "not measured"
    only_cpu = {name: result for name, result in results.items() if "T4" not in name}
    assert {row[2] for row in paper.side_by_side(only_cpu).rows if "GPTQ" in row[0]} == {"not measured"}


def test_the_report_of_lists_has_items_lengths_and_mistakes_per_item():
    item = add("Eggs", 2)
    examples = [Example(str(i), "x", {"intents": [add(), item][: i % 3]}, "en") for i in range(30)]
    predictions = [Prediction({"intents": e.intent["intents"][::-1] if i else [item]}, 0.9) for i, e in enumerate(examples)]
    row = measured("reference", XEON, 38, 10, 270)
    row = replace(
        row, predictions=predictions, trial=replace(row.trial, loader=replace(row.trial.loader, prompt=Prompt(BASKET)))
    )
    results = results_of(BASKET, examples, {"reference": row})
    assert results["reference"]["score"]["exact"] == pytest.approx(29 / 30)
    page, text = render_html(results, {}, SOURCES), render_markdown(results, {}, SOURCES)
    assert "## Items of the lists" in text and "## By number of items" in text
    assert re.search(r"\| 2 \(10\) \| 1.000", text)
    assert "an empty list" in page and "add, Eggs, 2" in page
    assert "## Items of the lists" not in render_markdown(results_of(CART, EXAMPLES, ROWS), {}, SOURCES)
    assert numbers(results)["score.items.f1"].to_pylist() == [results["reference"]["score"]["items"]["f1"]]


def test_labels_have_two_rows_a_variant_in_scope_and_out_of_scope_or_say_that_no_threshold_will_do():
    examples = [Example(str(i), f"m{i}", {"label": "none" if i % 4 == 0 else "order_status"}, "en") for i in range(40)]
    # Confident and right about two thirds of the messages in scope, and not confident about all others.
    sure = [Prediction({"label": "order_status"}, 0.9 if i % 4 in (1, 2) else 0.3) for i in range(40)]
    results = {}
    for name, asked, price in (("svm", 0.5, 0.08), ("embedding-wordllama", 1.0, None)):
        row = replace(measured("reference", XEON, 0, 500, 30, price), predictions=sure, validation=sure)
        wrong = [replace(p, intent={"label": "return_item"}) if i == 1 else p for i, p in enumerate(sure)]
        row = row if name == "svm" else replace(row, predictions=wrong, validation=wrong)
        loader = replace(row.trial.loader, name=name, prompt=Prompt(LABELS))
        row = replace(row, trial=replace(row.trial, loader=loader))
        results |= results_of(LABELS, examples, {name: row}, AccuracyTarget(examples, asked))
    scope = json.loads(json.dumps(results))["svm"]["scope"]
    assert (scope["answered"]["accuracy"], scope["answered"]["recall"], scope["answered"]["precision"]) == (1.0, 0.0, None)
    thresholded = scope["thresholded"]
    assert (thresholded["threshold"], thresholded["recall"]) == (0.9, 1.0) and thresholded["accuracy"] == 2 / 3
    assert thresholded["precision"] == 0.5 and 0 < thresholded["macro_f1"] < 1
    text = render_markdown(results, {}, SOURCES)
    assert "| svm | 0.900 | 0.667 (" in text and "| 500.0 | 0.04 |" in text
    assert "no threshold: 0.967 of the validation messages in scope are right, too few for 1 of others" in text
    assert "In scope and out of scope" in "".join(Reader(render_html(results, {}, SOURCES)).texts)
    assert "out-of-scope recall" in render_text(results)
    assert "scope.thresholded.threshold" in numbers(results).column_names
