"""Run `intent JOB OVERRIDES` as `python -m jobs.JOB OVERRIDES`."""

import ast
import runpy
import sys
from pathlib import Path

from intent.errors import ConfigError
from jobs.app import CONFIGS, complain

JOBS = sorted({path.stem for path in CONFIGS.glob("*.yaml")} - {"base"} | {"submit"})


def usage() -> str:
    width = max(map(len, JOBS))
    return "\n".join(["usage: intent JOB [PATH=VALUE ...]", "", *(f"  {job:{width}}  {purpose(job)}" for job in JOBS)])


def purpose(job: str) -> str:
    """Return the first line of a job's docstring. Parses the source, because importing a job takes a second."""
    source = (Path(__file__).parent / f"{job}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


def main() -> None:
    job = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if job in ("-h", "--help"):
        print(f"{usage()}\n\n`intent JOB --help` says more.")
        return
    if job not in JOBS:
        refused = ConfigError("job", job, f"no such job; use one of {', '.join(JOBS)}")
        complain(str(refused))
        sys.exit(refused.exit_code)
    del sys.argv[1]
    runpy.run_module(f"jobs.{job}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
