"""Run tests that are scripts in their own process, because they change Ray for the whole process."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
PATH = os.pathsep.join([str(HERE.parent.parent), str(HERE.parent), str(HERE)])


def run(root: Path, script: str, *arguments, by=lambda command: command, env: Mapping[str, str] = {}) -> tuple[int, str]:
    """Run a script and return (exit code, output). Leaves none of its processes behind."""
    return run_command(root, by([sys.executable, str(HERE / script), str(root), *map(str, arguments)]), env)


def run_command(root: Path, command: list[str], env: Mapping[str, str] = {}) -> tuple[int, str]:
    with open(root / "output", "w+") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **env, "PYTHONPATH": PATH}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(timeout=240)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read()
