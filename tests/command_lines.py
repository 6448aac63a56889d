"""Run command lines of jobs in forks of one process that has imported their modules, because an import takes seconds."""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 120


class CommandLines:
    def __init__(self):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], cwd=ROOT, env=environment, **pipes)

    def run(self, job: str, *arguments: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess:
        """Run `python -m jobs.JOB ARGUMENTS` with these variables added to its environment."""
        print(json.dumps([job, arguments, dict(env)]), file=self.process.stdin, flush=True)
        return subprocess.CompletedProcess([job, *arguments], *json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve() -> None:
    import intent.run.driver  # noqa: F401
    import jobs.app  # noqa: F401

    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            process = os.fork()
            if process == 0:
                os.dup2(output.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                signal.alarm(SECONDS)
                become(*json.loads(line))
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            for file in (output, errors):
                file.seek(0)
            print(json.dumps([code, output.read(), errors.read()]), flush=True)


def become(job: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Run the command in this process and exit with its code. Never returns."""
    os.environ |= environment
    sys.argv = [job, *arguments]
    runpy.run_module(f"jobs.{job}", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    serve()
