"""Alerts and dashboard, without a Prometheus: each names existing metrics, and the runbook has each alert."""

import json
import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from intent.run import metrics
from intent.run.actor import Outcome
from intent.run.part import Committed, Receipt
from intent.run.progress import Progress, Stage, Tally
from intent.run.queue import Queue

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "infra/prometheus/rules.yaml").read_text()
BOARD = (ROOT / "infra/grafana/night.json").read_text()
MADE = re.findall(r'(Counter|Gauge)\(\s*"(intent_\w+)"', (ROOT / "intent/run/metrics.py").read_text())


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((ROOT / f"infra/kuberay/base/{name}.yaml").read_text()))


@pytest.mark.parametrize("text", [RULES, BOARD], ids=["rules", "dashboard"])
def test_each_metric_that_is_asked_for_is_made(text):
    made = {f"ray_{name}{'_total' if kind == 'Counter' else ''}" for kind, name in MADE}
    asked = set(re.findall(r"ray_intent_\w+", text))
    assert asked and asked <= made


def test_each_metric_is_shown():
    assert all(f"ray_{name}" in BOARD or name == "intent_night_exit_code" for _, name in MADE)
    assert {panel["type"] for panel in json.loads(BOARD)["panels"]} == {"gauge", "stat", "timeseries"}


def test_each_alert_is_in_the_runbook():
    (group,) = yaml.safe_load(RULES)["groups"]
    runbook = (ROOT / "docs/runbook.md").read_text()
    for rule in group["rules"]:
        assert "alert" not in rule or f"`{rule['alert']}`" in runbook, rule["alert"]


def test_a_gauge_is_set_for_as_long_as_the_run_lasts(monkeypatch):
    """Ray drops a gauge that was not set for a minute. An alert on the start time would never see an hour of it."""
    values: dict[str, float] = {}
    began = time.time()
    monkeypatch.setattr(metrics.Gauge, "set", lambda gauge, value, tags: values.update({gauge.info["name"]: value}))
    meters, progress = metrics.Meters("run"), Progress(10, Tally())
    survey = {name for _, name in MADE if name.startswith("intent_survey_")}
    for _ in range(2):
        values.clear()
        meters.observe([], Queue([], 1), progress)
        gauges = {name for kind, name in MADE if kind == "Gauge"}
        assert set(values) == gauges - survey - {"intent_actors", "intent_night_exit_code"}
        assert values["intent_shards_left"] == 0 and began <= values["intent_started_seconds"] <= time.time()
        values.clear()
        meters.survey(Stage("footers", "plans", "objects", 7))
        assert set(values) == survey | {"intent_started_seconds"} and values["intent_survey_total"] == 7


def test_what_the_cache_spares_is_priced_at_the_pace_of_the_engine_that_did_not_see_it(monkeypatch):
    added: Counter = Counter()
    monkeypatch.setattr(metrics.Counter, "inc", lambda counter, amount, tags: added.update({counter.info["name"]: amount}))
    meters = metrics.Meters("run")
    slot = SimpleNamespace(spec=SimpleNamespace(variant="gguf", kind="gguf"), node="here", usd_per_hour=3600.0)

    def done(classified: int, hits: int, seconds: float) -> None:
        receipt = Receipt("s", "f", classified + hits, classified + hits, 0, 0, classified=classified, found=hits)
        meters.done(slot, 0, Outcome(Committed(receipt, 1, "0"), seconds=seconds))

    done(10, 0, 5.0)
    assert added["intent_cached_messages"] == added["intent_cost_saved_usd"] == 0
    # Half a second per message, at one dollar a second. Lookups do not change an engine's price.
    done(0, 20, 0.1)
    assert added["intent_cached_messages"] == 20 and added["intent_cost_saved_usd"] == pytest.approx(10.0)


def scrapes(name: str) -> dict:
    (config,) = yaml.safe_load((ROOT / f"infra/prometheus/{name}.yaml").read_text())["scrape_configs"]
    return config


def test_the_alerts_and_both_ways_to_scrape_name_one_job():
    assert set(re.findall(r'job="(\w+)"', RULES)) == {scrapes("prometheus")["job_name"]} == {scrapes("kubernetes")["job_name"]}


def test_in_kubernetes_every_pod_of_the_cluster_is_scraped_and_lets_prometheus_in():
    kubernetes, (cluster,) = scrapes("kubernetes"), documents("raycluster")
    label, port = kubernetes["relabel_configs"][0]["regex"].split(";")
    for group in [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]:
        assert group["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == label
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": port, "containerPort": 8080} in container["ports"]
    (policy,) = documents("network")
    [rule] = [rule for rule in policy["spec"]["ingress"] if rule.get("ports") == [{"port": 8080}]]
    assert rule["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool (Debian's package prometheus)")
def test_each_alert_is_raised_by_a_run_with_failures_and_by_no_other():
    done = subprocess.run(["promtool", "test", "rules", "tests/unit/alerts.yaml"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
