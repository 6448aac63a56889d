"""The recipes for schedulers: their commands, and their handling of exit codes.

The recipes for Airflow and Dagster run only if these are installed. Neither is a dependency of the project.
"""

import asyncio
import fcntl
import gc
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from intent.config import NightlyConfig
from jobs import submit
from jobs.app import load_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/schedulers"
RETRIED, FINAL = (1, 3, 8, 130), (2, 4, 5, 6, 7)


class Python:
    """A stand-in for the Python that runs `jobs.submit`. It records its arguments and exits with the next of `codes`."""

    def __init__(self, folder: Path):
        self.path, self.calls, self.codes = folder / "python", folder / "calls", folder / "codes"
        self.calls.touch()
        self.path.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, sys\n"
            f"codes = pathlib.Path({str(self.codes)!r})\n"
            "first, *rest = codes.read_text().split()\n"
            "codes.write_text(' '.join(rest))\n"
            f"open({str(self.calls)!r}, 'a').write(json.dumps(sys.argv[1:]) + chr(10))\n"
            "print('job 7')\n"
            "print('the last line')\n"
            "sys.exit(int(first))\n"
        )
        self.path.chmod(0o755)

    def ends(self, *codes: int) -> None:
        self.codes.write_text(" ".join(map(str, codes)))

    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()]


@pytest.fixture
def python(tmp_path) -> Python:
    return Python(tmp_path)


def config(call: list[str]) -> NightlyConfig:
    """Return the job's configuration for the submitted command. Raises if the job would refuse it."""
    assert call[:2] == ["-m", "jobs.submit"]
    arguments = submit.parse(call[2:])
    assert arguments.job == "nightly"
    return load_config("nightly", arguments.overrides, NightlyConfig)


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_recipe_retries_the_same_exit_codes_as_the_cronjob():
    job = yaml.safe_load((ROOT / "infra/kuberay/base/nightly.yaml").read_text())
    rules = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert tuple(rules[0]["onExitCodes"]["values"]) == FINAL
    for path in ("airflow/plugins/intent_night.py", "dagster_nightly.py"):
        assert f"RETRIED = {RETRIED}" in (FOLDER / path).read_text()


@pytest.fixture
def cron(python, tmp_path) -> Callable:
    names = {"PYTHON": python.path, "SETTINGS": tmp_path / "settings", "LOCK": tmp_path / "lock", "PAUSE": 0}
    environment = os.environ | {f"INTENT_{name}": str(value) for name, value in names.items()}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [str(FOLDER / "cron.sh"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize(
    ("codes", "ended"),
    [((0,), 0), ((3, 130, 0), 0), ((8, 8, 8, 8), 8), ((1, 7), 7), *(((code,), code) for code in FINAL)],
)
def test_cron_retries_where_that_may_help_and_ends_with_the_last_code(cron, python, codes, ended):
    python.ends(*codes, 0)
    done = cron("2026-11-23")
    assert done.returncode == ended and f"run of 2026-11-23: exit code {ended}" in done.stderr
    assert len(python.called()) == len(codes)
    for call in python.called():
        assert (made := config(call)).date == "2026-11-23" and made.input == "s3://BUCKET/log/dt={date}"


def test_cron_labels_yesterday_in_utc_with_its_settings(cron, python, tmp_path):
    python.ends(0)
    (tmp_path / "settings").write_text("RAY_API_SERVER_ADDRESS=http://head:8265\n")
    before = datetime.now(UTC).date() - timedelta(days=1)
    assert cron().returncode == 0
    assert config(python.called()[0]).date in (str(before), str(before + timedelta(days=1)))


def test_cron_starts_no_second_run_beside_a_running_one(cron, python, tmp_path):
    python.ends(0)
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cron("2026-11-23")
    assert done.returncode == 75 and "another run is in progress" in done.stderr
    assert not python.called()


@pytest.fixture
def airflow(tmp_path_factory, monkeypatch):
    """The module of the DAG. Airflow reads its settings at its first import."""
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    pytest.importorskip("airflow.sdk", reason="Airflow 3 is not installed")
    monkeypatch.syspath_prepend(str(FOLDER / "airflow/plugins"))
    return load(FOLDER / "airflow/dags/intent_nightly.py")


def first_event(trigger) -> dict:
    async def first() -> dict:
        async for event in trigger.run():
            return event.payload

    return asyncio.run(first())


def follow(task, context) -> dict:
    """Run the task as Airflow does. The task defers, and a triggerer creates its trigger from the stored arguments."""
    from airflow.sdk.exceptions import TaskDeferred
    from airflow.sdk.module_loading import import_string

    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    assert deferred.value.method_name == "ended" and deferred.value.timeout == timedelta(hours=22)
    path, arguments = deferred.value.trigger.serialize()
    return first_event(import_string(path)(**json.loads(json.dumps(arguments))))


@pytest.mark.parametrize("code", [0, *RETRIED, *FINAL])
def test_airflow_waits_in_the_triggerer_and_gives_each_exit_code_its_state(airflow, python, code):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    task = airflow.dag.get_task("label")
    context = {"params": {"date": None}, "data_interval_start": datetime(2026, 11, 23, 1, 30, tzinfo=UTC)}
    task.render_template_fields(context)
    task.python = str(python.path)
    python.ends(code)
    event = follow(task, context)
    assert event == {"code": code, "lines": ["job 7", "the last line"]}
    assert config(python.called()[0]).date == "2026-11-23"
    if code == 0:
        return task.ended({}, event)
    with pytest.raises(AirflowException, match=f"exit code {code}: the last line") as failed:
        task.ended({}, event)
    assert isinstance(failed.value, AirflowFailException) == (code in FINAL)


def test_airflow_uses_the_date_of_a_manual_start(airflow):
    for params, interval, date in (
        ({"date": "2026-11-02"}, None, "2026-11-02"),
        ({"date": None}, None, "yesterday"),
        ({"date": "2026-11-02"}, datetime(2026, 11, 23, tzinfo=UTC), "2026-11-02"),
    ):
        task = load(FOLDER / "airflow/dags/intent_nightly.py").dag.get_task("label")
        task.render_template_fields({"params": params, "data_interval_start": interval})
        assert task.date == date and 'input="s3://BUCKET/log/dt={date}"' in task.overrides


def test_airflow_starts_a_run_once_its_day_has_ended_and_backfills_one_at_a_time(airflow):
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    dag = airflow.dag
    assert dag.max_active_runs == 1 and not dag.catchup and dag.get_task("label").retries == 3
    timetable = CronDataIntervalTimetable(dag.timetable.expression, timezone=dag.timetable.timezone)
    dag_run = timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(dag.start_date, None, catchup=True)
    )
    assert dag_run.data_interval.start.date() == dag_run.run_after.date() - timedelta(days=1)


def test_airflow_says_which_python_is_not_there(airflow, tmp_path):
    from intent_night import NightEnded

    event = first_event(NightEnded([str(tmp_path / "nowhere"), "-m", "jobs.submit"]))
    assert event["code"] == 2 and "nowhere: No such file or directory; correct `python`" in event["lines"][0]


def test_airflow_leaves_no_command_behind_when_its_trigger_is_cancelled(airflow, tmp_path):
    from intent_night import NightEnded

    started, ended = tmp_path / "started", tmp_path / "ended"
    script = f"trap 'touch {ended}; exit' TERM; touch {started}; while :; do sleep 0.05; done"

    async def cancel() -> None:
        task = asyncio.ensure_future(anext(NightEnded(["sh", "-c", script]).run()))
        while not started.exists():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not ended.exists():
            await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(cancel(), 30))


@pytest.fixture
def dagster(python, monkeypatch):
    pytest.importorskip("dagster", reason="Dagster is not installed")
    monkeypatch.setenv("INTENT_PYTHON", str(python.path))
    yield load(FOLDER / "dagster_nightly.py")
    # Its instances complain when they are collected, which Python 3.11 does not survive where that is while it parses.
    gc.collect()


@pytest.mark.parametrize("code", [0, 7])
def test_dagster_makes_a_partition_of_a_day(dagster, python, code):
    import dagster as dg

    python.ends(code)
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([dagster.labels], partition_key="2026-11-23", raise_on_error=False, instance=instance)
    assert done.success == (code == 0) and len(python.called()) == 1
    assert config(python.called()[0]).date == "2026-11-23"
    if code == 0:
        [made] = done.asset_materializations_for_node("labels")
        assert made.partition == "2026-11-23" and "the last line" in made.metadata["log"].value


@pytest.mark.parametrize("code", [*RETRIED, *FINAL])
def test_dagster_retries_where_that_may_help(dagster, python, code):
    import dagster as dg

    python.ends(code)
    with pytest.raises(dg.Failure, match=f"exit code {code}: the last line") as failed:
        dagster.labels(dg.build_asset_context(partition_key="2026-11-23"))
    assert failed.value.allow_retries == (code in RETRIED)


def test_dagster_has_a_schedule_after_midnight_utc_for_the_day_that_has_ended(dagster):
    import dagster as dg

    [schedule] = dagster.defs.get_repository_def().schedule_defs
    assert schedule.cron_schedule == "30 1 * * *" and schedule.execution_timezone == "UTC"
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 11, 24, 1, 30, tzinfo=UTC))
    made = schedule.evaluate_tick(context).run_requests
    assert [request.partition_key for request in made] == ["2026-11-23"]
