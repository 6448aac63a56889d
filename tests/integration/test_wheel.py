"""The project after `pip install .`, in an environment without a clone, run from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("intent", "jobs", "conf", "pyproject.toml", "README.md")
UNTRACKED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The programs of an environment that has only this project, and sees the libraries of the tests' environment."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("environment")
    for name in SOURCES:
        # A build leaves files beside its sources.
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=UNTRACKED)
        else:
            shutil.copy(ROOT / name, source)
    venv.create(folder, symlinks=True)
    programs, pip = folder / "bin", [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # In two steps, since the build needs the tests' setuptools and the new environment must not see their packages yet.
    for command in (
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", source, source],
        [*pip, "--python", programs / "python", "install", "--no-deps", "--no-index", "--find-links", source, "intent"],
    ):
        done = run(command, folder)
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(source)
    # Libraries only: a .pth file in a folder that another one names is not read, so an editable project stays outside.
    packages = sysconfig.get_path("purelib", vars={"base": folder, "platbase": folder})
    (Path(packages) / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return programs


def run(command: list, folder: Path) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=180)


def test_a_job_runs_from_an_empty_folder_by_either_name(installed, tmp_path):
    helped = run([installed / "python", "-m", "jobs.generate", "--help"], tmp_path)
    assert helped.returncode == 0 and "schema: basket, cart, clinc150, labels" in helped.stdout, helped.stdout + helped.stderr
    small = ["data.train=20", "data.validation=4", "data.test=4", "data.languages=[en,hr]"]
    made = run([installed / "intent", "generate", *small], tmp_path)
    assert made.returncode == 0 and f"data set: {tmp_path}/artifacts/data-" in made.stdout, made.stdout + made.stderr


def test_all_that_the_clone_reads_is_installed(installed):
    """Data files are installed too. A missing language, gold set or configuration would fail only one job."""
    where = "import intent, jobs; print(intent.__path__[0]); print(jobs.__path__[0])"
    code = f"import sys; {where}"
    [intent, jobs] = map(Path, run([installed / "python", "-P", "-c", code], installed).stdout.split())
    assert ROOT not in intent.parents and intent.parent == jobs.parent
    for name in ("intent", "jobs", "conf"):
        there = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*") if path.is_file()}
        wanted = {path for path in there if path.suffix not in (".pyc", ".md")}
        assert not {path for path in wanted if not (intent.parent / name / path).exists()}


def test_a_job_that_is_none_is_refused_with_the_names_of_those_there_are(installed, tmp_path):
    done = run([installed / "intent", "clasify"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: job='clasify': no such job; use one of benchmark, cache, calibrate, classify,"), (
        done.stderr
    )
    listed = run([installed / "intent", "--help"], tmp_path)
    assert listed.returncode == 0 and re.search("classify +Classify a query log: Parquet in", listed.stdout), listed.stdout
