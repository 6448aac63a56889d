"""A submission to a cluster: the command arrives unchanged, with few other files."""

import shlex
import zipfile
from datetime import date
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from intent.errors import ConfigError, IntentError
from jobs import submit

# Ray's job server takes 100 MiB.
MOST = 34e6


@pytest.mark.parametrize(
    "override",
    [
        'input="s3://shop/log/dt={date}"',
        "keep_columns=[store,session]",
        "schema.instruction='a b'",
        "x=$HOME;`id`",
        'y="*"',
        "",
    ],
)
def test_an_override_arrives_as_it_was_given(override):
    sent = submit.entrypoint("nightly", [override])
    assert shlex.split(sent) == ["python", "-m", "jobs.nightly", "cluster=attach", override]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (["engine=auto"], ["engine=auto", "date=2026-11-24"]),
        (["date=yesterday", "engine=auto"], ["engine=auto", "date=2026-11-24"]),
        (["date=2026-11-01..2026-11-03"], ["date=2026-11-01..2026-11-03"]),
        (["gate.accept=true"], ["gate.accept=true"]),
    ],
)
def test_a_daily_run_is_submitted_with_its_date_so_that_a_retry_after_midnight_keeps_it(given, sent):
    assert submit.dated(given, date(2026, 11, 25)) == sent


def test_the_jobs_are_those_that_have_a_configuration():
    assert {"nightly", "classify", "train", "quantize"} <= set(submit.JOBS)
    with pytest.raises(SystemExit):
        submit.parse(["nothing"])


def test_variables_are_passed_by_name_and_one_that_is_not_set_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store")
    assert submit.environment(["AWS_ENDPOINT_URL_S3"]) == {"AWS_ENDPOINT_URL_S3": "http://store"}
    with pytest.raises(ConfigError, match="NOWHERE"):
        submit.environment(["NOWHERE"])


def test_overrides_may_look_like_options():
    arguments = submit.parse(["--env", "A", "nightly", "--env", "date=today"])
    assert (arguments.env, arguments.overrides) == (["A"], ["--env", "date=today"])


def test_the_working_tree_that_is_sent_is_small_and_runs(tmp_path):
    package = tmp_path / "package.zip"
    create_package(str(submit.ROOT), package, include_gitignore=True, include_parent_dir=False)
    assert package.stat().st_size < MOST
    names = set(zipfile.ZipFile(package).namelist())
    # If .rayignore named a folder without its path, the package's folder of that name would be left out too.
    sources = [path for part in ("intent", "jobs") for path in (submit.ROOT / part).rglob("*.py")]
    modules = {path.relative_to(submit.ROOT).as_posix() for path in sources}
    assert modules | {"conf/nightly.yaml", "conf/catalogs/grocery.csv"} <= names
    assert not {Path(name).parts[0] for name in names} & {".git", ".venv", "artifacts", "demo", "tests", "outputs"}


@pytest.mark.parametrize("answers", [True, False])
def test_submit_waits_for_a_restarting_head_and_a_missing_one_can_be_retried(monkeypatch, answers):
    asked = []

    def client(address):
        asked.append(address)
        if not answers or len(asked) < 3:
            raise ConnectionError("refused")
        return "client"

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", client)
    monkeypatch.setattr(submit, "PATIENCE", 60.0 if answers else 0.0)
    monkeypatch.setattr(submit, "PAUSE", 0.0)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    if answers:
        assert submit.connect("http://127.0.0.1:9") == "client" and len(asked) == 3
        return
    with pytest.raises(IntentError, match="no cluster answers; start one, or tunnel") as error:
        submit.connect("http://127.0.0.1:9")
    assert error.value.exit_code == 1
