"""The gate reports real changes of a daily run, and does not report random variation."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import runs

from intent.errors import ConfigError
from intent.nightly.config import GateConfig
from intent.nightly.gate import ITEMS, Profile, count, distance, findings, noise, profile_run
from intent.nightly.pages import nightly_run_page, trend_page
from intent.run.columns import Columns
from intent.run.part import build_part
from intent.run.progress import Summary
from intent.run.shard import Shard
from intent.run.worker import Worker
from intent.storage import Blob

LIMITS = GateConfig()


def part(actions, languages=None, statuses=None) -> bytes:
    rows = len(actions)
    products = [None if action in (None, "none") else "Milk" for action in actions]
    table = pa.table({"action": pa.array(actions, pa.string()), "product": pa.array(products, pa.string())})
    table = table.append_column("status", pa.array(statuses or ["ok"] * rows))
    if languages is not None:
        table = table.append_column("language", languages if isinstance(languages, pa.Array) else pa.array(languages))
    counts = {"shard": "s", "fingerprint": "f", "rows": rows, "labelled": rows, "abstained": 0, "rejected": 0}
    return build_part(counts, table, pa.table({"id": []})).data


def by_language(actions, languages) -> Profile:
    counted = count(part(actions, languages), runs.CART, "language")
    return profile_run("2026-11-23", "f", [counted], runs.CART, Summary(len(actions), len(actions), 0, 0))


def profile(mix: dict[str, int], night="2026-11-23", rejected=0, abstained=0, **more) -> Profile:
    rows = sum(mix.values()) + rejected + abstained
    summary = Summary(rows, sum(mix.values()), abstained, rejected)
    shares = {"rejected": rejected / rows, "abstained": abstained / rows, "none": mix.get("none", 0) / rows}
    return Profile(night, "f", summary, shares, {"action": mix, "action in de": mix} | more)


USUAL = [profile({"add": 700, "remove": 100, "none": 200}) for _ in range(7)]


def test_a_profile_counts_confident_labels_by_slot_and_language():
    parts = [
        part(["add", "none", "add", None], ["en", "de", None, "en"], ["ok", "ok", "ok", "abstained"]),
        part(["remove", "add"], ["en", "en"]),
    ]
    painted = profile_run("2026-11-23", "f", [count(p, runs.CART, "language") for p in parts], runs.CART, Summary(8, 5, 1, 2))
    assert painted.shares == {"rejected": 0.25, "abstained": 0.125, "none": 0.125}
    assert painted.mixes["action"] == {"add": 3, "none": 1, "remove": 1}
    assert painted.mixes["action in en"] == {"add": 2, "remove": 1}
    assert painted.mixes["action in no language"] == {"add": 1}
    assert painted.mixes["product"] == {"Milk": 4} and "product in de" not in painted.mixes


def test_the_memory_of_a_profile_does_not_grow_with_the_number_of_parts(monkeypatch):
    concat, sizes = pa.concat_tables, []

    def seen(tables):
        tables = [*tables]
        sizes.append(sum(table.num_rows for table in tables))
        return concat(tables)

    monkeypatch.setattr(pa, "concat_tables", seen)
    counted = count(part(["add", "none"], ["en", "de"]), runs.CART, "language")
    painted = profile_run("2026-11-23", "f", (counted for _ in range(200)), runs.CART, Summary(400, 400, 0, 0))
    assert painted.mixes["action"] == {"add": 200, "none": 200} and painted.mixes["action in de"] == {"none": 200}
    assert max(sizes) == 64 * 2


def test_a_language_column_may_hold_anything_and_stays_small():
    many = pa.array([f"user-{n}" for n in range(500)] + ["en"] * 100)
    painted = by_language(["add"] * 600, many)
    assert len(painted.mixes) <= 2 * (24 + 2) and painted.mixes["action in en"] == {"add": 100}
    broken = pa.array([b"\xff\x1b[31m", b"en"]).view(pa.string())
    assert "action in \ufffd[31m" in by_language(["add", "add"], broken).mixes
    assert by_language(["add"], [7]).mixes["action in 7"] == {"add": 1}
    with pytest.raises(ConfigError, match="gate.language"):
        count(part(["add"], [[1]]), runs.CART, "language")


@pytest.mark.parametrize(
    ("profiled", "expected"),
    [
        (
            profile({"add": 700, "remove": 100, "none": 200}, rejected=90),
            "rejected is 8.3% of all rows, over gate.rejected=0.05",
        ),
        (profile({"add": 70, "none": 20}, abstained=60), "abstained is 40.0% of all rows, over gate.abstained=0.3"),
        (profile({"add": 500, "remove": 100, "none": 400}), "none is 40.0% of all rows, usually 20.0%"),
        (profile({"add": 100, "remove": 700, "none": 200}), "the mix of action is 0.60 from the last runs'"),
        (replace(USUAL[0], gold={"gguf": 0.5, "gptq": 1.0}), "gguf gets 50.0% of the gold set right, under gate.agreement=0.9"),
        (replace(USUAL[0], summary=Summary(0, 0, 0, 0)), "it has no rows"),
    ],
)
def test_a_finding_names_the_limit_and_by_how_much_it_is_exceeded(profiled, expected):
    assert expected in "; ".join(findings(profiled, USUAL, LIMITS))


def test_one_language_that_changes_is_found_where_the_whole_is_as_ever():
    odd = {"action in de": {"add": 5, "remove": 5, "none": 190}}
    [finding] = findings(replace(USUAL[0], mixes=USUAL[0].mixes | odd), USUAL, LIMITS)
    assert finding.startswith("the mix of action in de is 0.")


def test_usual_days_new_languages_and_first_days_pass():
    assert findings(USUAL[0], USUAL, LIMITS) == []
    assert findings(replace(USUAL[0], mixes=USUAL[0].mixes | {"action in fr": {"none": 5}}), USUAL, LIMITS) == []
    assert findings(profile({"none": 1000}), [], LIMITS) == []


def test_the_jensen_shannon_distance_is_that_of_the_textbook():
    assert distance({"a": 3}, {"a": 90}) == 0 and distance({"a": 1}, {"b": 1}) == 1
    assert distance({"a": 1, "b": 1}, {"a": 1}) == pytest.approx(np.sqrt(1 - 0.75 * np.log2(3) + 0.5), abs=1e-9)


@pytest.mark.parametrize(("values", "rows"), [(3, 40), (3, 5000), (300, 200), (300, 100_000)])
def test_chance_alone_stays_under_the_noise(values, rows):
    """Compares two samples of a Zipf distribution 400 times. The allowance is for 1 in 1,000, and close to the maximum."""
    drawn, weights = np.random.default_rng(1), 1 / np.arange(1, values + 1)
    over, ratios = 0, []
    for _ in range(400):
        one, other = (drawn.multinomial(n, weights / weights.sum()) for n in (rows, 7 * rows))
        one, other = ({str(k): int(n) for k, n in enumerate(mix) if n} for mix in (one, other))
        ratios.append(distance(one, other) / noise(one, other))
        over += ratios[-1] > 1
    assert over <= 4 and max(ratios) > 0.5


@pytest.mark.parametrize("explode", [False, True])
def test_a_profile_of_lists_counts_items_and_items_per_message(explode):
    messages = ["milk and eggs", "hello", "milk", "unsure", "milk and eggs and eggs", "refuse"]
    rows = pa.table({"id": range(6), "message": messages, "language": ["en", "de", "en", "en", "de", "en"]})
    worker = Worker(runs.RuleClassifier(lists=True), runs.BASKET, Columns(keep=("language",), explode=explode), "run")
    parts = [worker.label(Shard(Blob("log", 1, "e"), 0, 6), rows).data for _ in range(2)]
    counted = [count(data, runs.BASKET, "language") for data in parts]
    painted = profile_run("2026-11-23", "f", counted, runs.BASKET, Summary(12, 8, 2, 2))
    assert painted.mixes["action"] == {"add": 6, "remove": 6} and painted.mixes["product"] == {"Eggs": 6, "Milk": 6}
    assert painted.mixes["action in de"] == {"add": 2, "remove": 4}
    assert painted.mixes[ITEMS] == {"0": 2, "1": 2, "2": 2, "3": 2}
    assert painted.mixes[f"{ITEMS} in en"] == {"1": 2, "2": 2}
    assert painted.mean_items == 1.5 and painted.shares["none"] == pytest.approx(2 / 12)
    plain = profile_run("2026-11-23", "f", [count(d, runs.BASKET, None) for d in parts], runs.BASKET, Summary(12, 8, 2, 2))
    assert plain.mixes == {name: mix for name, mix in painted.mixes.items() if " in " not in name}
    for page in (nightly_run_page(painted, [painted], True), trend_page([plain], [])):
        assert "mean items a message" in page and "1.50" in page
    assert profile({"add": 1}).mean_items is None


def test_a_change_of_list_lengths_is_a_finding():
    usual = [replace(each, mixes=each.mixes | {ITEMS: {"0": 200, "1": 700, "2": 100}}) for each in USUAL]
    odd = replace(usual[0], mixes=usual[0].mixes | {ITEMS: {"0": 200, "1": 100, "2": 100, "8": 600}})
    [finding] = findings(odd, usual, LIMITS)
    assert finding.startswith(f"the mix of {ITEMS} is 0.") and "most: " in finding
    assert findings(usual[0], usual, LIMITS) == []
