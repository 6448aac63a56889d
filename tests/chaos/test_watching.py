"""A run as its operator sees it: through a real Prometheus, the dashboard, the alerts and the logs of every process."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from scripts import PATH
from servers import RayHead, free_port, wait_for
from watched_run import CANARY

HERE = Path(__file__).parent
INFRA = HERE.parents[1] / "infra"
# No GPU here.
EMPTY = {"ray_node_gpus_utilization"}
LEFT = "ray_intent_shards_left"
pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.rig]


class Prometheus:
    """Start with infra/prometheus/prometheus.yaml, but with this head's list of nodes and a shorter interval."""

    def __init__(self, folder: Path, head: RayHead):
        for program in ("prometheus", "promtool"):
            if not shutil.which(program):
                subprocess.run(["apt-get", "update", "-qq"], check=True)
                subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "prometheus"], check=True)
        config = (INFRA / "prometheus/prometheus.yaml").read_text()
        listed = head.session / "prom_metrics_service_discovery.json"
        config = config.replace("/tmp/ray/prom_metrics_service_discovery.json", str(listed))
        config = config.replace("15s", "1s").replace("30s", "1s").replace("rules.yaml", str(INFRA / "prometheus/rules.yaml"))
        (folder / "prometheus.yaml").write_text(config)
        self.url = f"http://127.0.0.1:{free_port()}"
        listen = self.url.removeprefix("http://")
        command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
        with open(folder / "prometheus.log", "w") as log:
            self.process = subprocess.Popen([*command, f"--web.listen-address={listen}"], stdout=log, stderr=log)
        wait_for(f"{self.url}/-/ready")

    def query(self, expression: str, lasting: bool = False) -> list[dict]:
        """Return the value now or, with `lasting`, the values of the last ten minutes."""
        now = time.time()
        span = {"start": now - 600, "end": now, "step": 1} if lasting else {}
        path = f"query{'_range' if lasting else ''}?{urlencode({'query': expression, **span})}"
        with urlopen(f"{self.url}/api/v1/{path}", timeout=10) as reply:
            return json.load(reply)["data"]["result"]

    def wait_for(self, expression: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not self.query(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.5)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def panels() -> list[tuple[str, bool]]:
    """Return every query of the dashboard, and whether its panel is a time series."""
    board = json.loads((INFRA / "grafana/night.json").read_text())
    queries = [(target["expr"], panel["type"] == "timeseries") for panel in board["panels"] for target in panel["targets"]]
    filled = {"$run": ".+", "$__rate_interval": "1m", "$__range": "1h"}
    return [(re.sub(r"\$\w+", lambda name: filled[name[0]], expression), lasting) for expression, lasting in queries]


def alerts() -> dict[str, str]:
    (group,) = yaml.safe_load((INFRA / "prometheus/rules.yaml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"] if "alert" in rule}


@pytest.fixture(scope="module")
def watched(tmp_path_factory, as_root):
    """A head, a Prometheus that scrapes it, a run on it that lost a shard, and the driver's output."""
    folder = tmp_path_factory.mktemp("watched")
    head = RayHead(folder, RAY_metrics_report_interval_ms="1000", PYTHONPATH=PATH)
    prometheus = None
    try:
        head.start()
        prometheus = Prometheus(folder, head)
        prometheus.wait_for("up == 1")
        command = [sys.executable, HERE / "watched_run.py", folder, "50"]
        done = subprocess.run(
            command, env=head.env | {"RAY_ADDRESS": head.address}, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        assert "1 shards (20 rows) failed" in done.stdout, done.stdout
        # What it said last is scraped, and the rules have used it.
        prometheus.wait_for("last_over_time(ray_intent_shards_failed[1h]) == 1", 20)
        time.sleep(3)
        logs = [
            path.read_text(errors="replace") for path in (head.session / "session_latest/logs").rglob("*") if path.is_file()
        ]
        logs.append((folder / "out/failed.json").read_text())
        yield prometheus, done, logs
    finally:
        if prometheus:
            prometheus.stop()
        head.stop()


def test_every_query_of_the_dashboard_has_data(watched):
    prometheus, _, _ = watched
    for expression, lasting in panels():
        assert bool(prometheus.query(expression, lasting)) != (expression in EMPTY), expression


def test_every_alert_asks_for_metrics_that_there_are_and_only_the_right_ones_are_raised(watched):
    prometheus, _, _ = watched
    raised = {"IntentShardsFailed", "IntentNightNotPublished"}
    for name, expression in alerts().items():
        for metric in set(re.findall(r"(?:ray_intent|intent:)\w+|\bup\b", expression)):
            assert prometheus.query(metric, lasting=True), metric
        # The shard that was given up is 20 of 620 rows, and 7 rows more were refused: too few for an alert.
        assert bool(prometheus.query(expression)) == (name in raised), name


def test_the_start_time_of_a_run_is_exported_as_long_as_its_shards_are(watched):
    """Ray drops a gauge that is not set again. An alert on the run's age would have no data."""
    prometheus, _, _ = watched
    [left], [started] = (prometheus.query(f"count_over_time({name}[1h])") for name in (LEFT, "ray_intent_started_seconds"))
    # The head here reports each second, and drops after five.
    assert float(left["value"][1]) > 15 and abs(float(left["value"][1]) - float(started["value"][1])) <= 2


def test_a_finished_run_exports_no_shards_left(watched):
    [left] = watched[0].query(f"last_over_time({LEFT}[1h])")
    assert left["value"][1] == "0"


@pytest.mark.parametrize("command", ["check rules infra/prometheus/rules.yaml", "test rules tests/unit/alerts.yaml"])
def test_the_alerts_pass_their_own_tests(watched, command):
    done = subprocess.run(["promtool", *command.split()], cwd=INFRA.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rows_and_cost_are_known_by_engine_and_node(watched):
    prometheus, _, _ = watched
    rows = prometheus.query("sum by (engine, variant, node, status) (ray_intent_rows_total)")
    assert sum(float(entry["value"][1]) for entry in rows) == 600
    assert {entry["metric"]["variant"] for entry in rows} == {"gptq", "gguf"}
    assert all(entry["metric"]["node"] and entry["metric"]["engine"] == "stub" for entry in rows)
    [cost] = prometheus.query("sum(ray_intent_cost_usd_total)")
    [seconds] = prometheus.query("sum(ray_intent_engine_seconds_total)")
    # 3.6 USD an hour are 0.001 a second, of which an engine is idle for some; no hour is charged for a second of it.
    assert 0.001 * float(seconds["value"][1]) * 0.8 < float(cost["value"][1]) < 3.6


def test_logs_are_json_lines_with_run_and_shard_and_hold_no_message(watched):
    _, done, logs = watched
    records = [json.loads(line) for line in done.stderr.splitlines()]
    shards = {r["shard"] for r in records if r["message"] == "shard done" and r["object"].startswith("log-")}
    assert len(shards) == 30 and len({record["run"] for record in records if "run" in record}) == 1
    assert any(record["message"] == "shard failed" and "RuntimeError" in record["reason"] for record in records)
    labelling = [line for text in logs for line in text.splitlines() if '"message": "labelling"' in line]
    assert shards <= {json.loads(line)["shard"] for line in labelling}
    assert not any(CANARY in text for text in [*logs, done.stderr, done.stdout])
