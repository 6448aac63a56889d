"""What a job's command line does with several runs, and with an error that comes from a Ray task."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from intent.errors import ConfigError
from jobs.app import _exit_code

ROOT = Path(__file__).parents[2]


def test_of_several_runs_each_is_made_and_the_exit_code_is_the_worst(tmp_path):
    command = [sys.executable, "-m", "jobs.quantize", "-m", "quant.variants=[gptq-w4g0],[gguf-Q9],[gguf-Q1]"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: quant.variants")]
    assert [name in line for name, line in zip(("gptq-w4g0", "gguf-Q9", "gguf-Q1"), lines, strict=True)] == [True] * 3
    assert not list(tmp_path.glob("*.yaml"))


def test_an_error_of_a_task_is_one_line(capsys):
    def run():
        raise ray.exceptions.RayTaskError("f", "Traceback\n" * 30, ConfigError("a.b", 1, "use 2")).as_instanceof_cause()

    assert _exit_code(run) == 2
    assert capsys.readouterr().err.strip() == "error: a.b=1: use 2"


def test_an_exit_code_of_a_job_is_kept():
    assert _exit_code(lambda: sys.exit(7)) == 7
    assert _exit_code(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        _exit_code(lambda: 1 / 0)
