"""The alerts and the dashboard, without a Prometheus: each names metrics that there are, and is in the runbook."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "infra/prometheus/rules.yaml").read_text()
BOARD = (ROOT / "infra/grafana/night.json").read_text()
MADE = re.findall(r'(Counter|Gauge)\(\s*"(intent_\w+)"', (ROOT / "intent/night/metrics.py").read_text())


@pytest.mark.parametrize("text", [RULES, BOARD], ids=["rules", "dashboard"])
def test_each_metric_that_is_asked_for_is_made(text):
    made = {f"ray_{name}{'_total' if kind == 'Counter' else ''}" for kind, name in MADE}
    asked = set(re.findall(r"ray_intent_\w+", text))
    assert asked and asked <= made


def test_each_metric_is_shown():
    assert all(f"ray_{name}" in BOARD or name == "intent_started_seconds" for _, name in MADE)
    assert {panel["type"] for panel in json.loads(BOARD)["panels"]} == {"gauge", "stat", "timeseries"}


def test_each_alert_is_in_the_runbook():
    (group,) = yaml.safe_load(RULES)["groups"]
    runbook = (ROOT / "docs/runbook.md").read_text()
    for rule in group["rules"]:
        assert "alert" not in rule or f"`{rule['alert']}`" in runbook, rule["alert"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool (Debian's package prometheus)")
def test_each_alert_is_raised_by_a_night_that_goes_badly_and_by_no_other():
    done = subprocess.run(["promtool", "test", "rules", "tests/unit/alerts.yaml"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
