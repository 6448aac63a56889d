"""Send a job to a running cluster, follow its log, and end with its exit code.

If a job with the same command is running, follow that one. A nightly job without a date gets yesterday's date. The job keeps
running after an interrupt or SIGTERM. Ray's token comes from RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or the
file ~/.ray/auth_token.
"""

import argparse
import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from intent.config import YESTERDAY
from intent.errors import ConfigError, IntentError

ROOT = Path(__file__).parents[1]
JOBS = sorted({path.stem for path in (ROOT / "conf").glob("*.yaml")} - {"base", "demo"})
INTERRUPTED = 130
PATIENCE, PAUSE = 120.0, 2.0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("python -m jobs.submit", description=__doc__, allow_abbrev=False)
    parser.add_argument("--address", help="the dashboard's address, http://HOST:8265; default: RAY_API_SERVER_ADDRESS")
    parser.add_argument(
        "--env",
        metavar="NAME",
        action="append",
        default=[],
        help="a variable to pass to the job; everyone who can see the job can see its value",
    )
    installed = "run the code of the cluster's image and send none; always so outside a clone"
    parser.add_argument("--installed", action="store_true", help=installed)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("overrides", nargs=argparse.REMAINDER, help="Hydra overrides, as on the job's own command line")
    return parser.parse_args(arguments)


def entrypoint(job: str, overrides: Sequence[str]) -> str:
    """Return the command for the cluster's shell, quoted so that every override arrives unchanged."""
    attach = [] if any(override.startswith("cluster=") for override in overrides) else ["cluster=attach"]
    return shlex.join(["python", "-m", f"jobs.{job}", *attach, *overrides])


def dated(overrides: Sequence[str], today: date) -> list[str]:
    """Add the date to the overrides of a nightly job, so that it keeps the date even if it starts after midnight."""
    named = [override for override in overrides if override != f"date={YESTERDAY}"]
    # The job itself refuses gate.accept without a date.
    if any(override.startswith(("date=", "gate.accept=")) for override in named):
        return list(overrides)
    return [*named, f"date={today - timedelta(days=1)}"]


def environment(names: Sequence[str]) -> dict[str, str]:
    """Return the variables to pass to the job. Raises ConfigError if one is not set."""
    for name in names:
        if name not in os.environ:
            raise ConfigError("--env", name, "is not set; export it first, or leave it out")
    return {name: os.environ[name] for name in names}


def connect(address: str | None):
    """Connect to the cluster at `address`. Waits up to PATIENCE seconds for a head that is starting.

    Raises ConfigError if it refuses the token, IntentError if it does not answer.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if address:
        # Ray's client prefers this variable to its argument.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
    where = os.environ.setdefault("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    deadline, announced = time.monotonic() + PATIENCE, False
    while True:
        try:
            return JobSubmissionClient(where)
        except AuthenticationError:
            remedy = (
                "it expects another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token to its own"
            )
            raise ConfigError("--address", where, remedy) from None
        except ConnectionError:
            if time.monotonic() > deadline:
                raise IntentError(f"--address={where!r}: no cluster answers; start one, or tunnel to its dashboard") from None
        if not announced:
            print(f"no cluster answers at {where}: trying for {PATIENCE:.0f} s", file=sys.stderr, flush=True)
            announced = True
        time.sleep(PAUSE)


def submit(client, command: str, runtime_env: dict) -> str:
    """Submit the job and return its id. Waits for a head that has just started and cannot run jobs yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return client.submit_job(entrypoint=command, runtime_env=runtime_env)
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise IntentError(f"the cluster refuses the job: {error}") from error
            time.sleep(PAUSE)


def under_way(client, command: str) -> str | None:
    """Return the id of a running job with this command, or None."""
    jobs = (job for job in client.list_jobs() if job.submission_id and job.entrypoint == command)
    return next((job.submission_id for job in jobs if not job.status.is_terminal()), None)


class Log:
    """Print a job's log as it grows, each character once, even if the connection breaks."""

    def __init__(self, client, job_id: str):
        self.client, self.job_id, self.printed = client, job_id, 0

    async def tail(self) -> None:
        seen = 0
        async for text in self.client.tail_job_logs(self.job_id):
            # Every connection sends the log from its start.
            seen += len(text)
            self._show(text[max(0, len(text) - max(0, seen - self.printed)) :])

    def rest(self) -> None:
        """Print the part of an ended job's log that is not printed yet."""
        self._show(self.client.get_job_logs(self.job_id)[self.printed :])

    def _show(self, text: str) -> None:
        print(text, end="", flush=True)
        self.printed += len(text)


def follow(client, job_id: str) -> int:
    """Print the job's log until the job ends. Returns its exit code, or 128 + the number of the signal that ended it."""
    log, lost = Log(client, job_id), None
    while True:
        try:
            if (details := client.get_job_info(job_id)).status.is_terminal():
                log.rest()
                break
            # The cluster answers, so the time without a connection starts again at zero.
            lost = None
            asyncio.run(log.tail())
        except Exception as error:
            lost = lost or time.monotonic()
            if time.monotonic() - lost > PATIENCE:
                raise IntentError(f"{job_id}: its log cannot be followed; see `ray job status {job_id}`: {error}") from error
        time.sleep(PAUSE / 4)
    code = details.driver_exit_code
    if code is None:
        print(f"job {job_id} {details.status}: {details.message}", file=sys.stderr)
        return 0 if details.status == "SUCCEEDED" else 1
    return code if code >= 0 else 128 - code


def run(arguments: argparse.Namespace) -> int:
    """Send or find the job, and follow it. Returns the exit code."""
    runtime_env: dict = {"env_vars": environment(arguments.env)}
    # Outside a clone, ROOT is the folder of all installed packages and must not be sent.
    if not arguments.installed and (ROOT / "pyproject.toml").exists():
        runtime_env["working_dir"] = str(ROOT)
    overrides = arguments.overrides
    if arguments.job == "nightly":
        overrides = dated(overrides, datetime.now(UTC).date())
    command, client = entrypoint(arguments.job, overrides), connect(arguments.address)
    if job_id := under_way(client, command):
        print(f"job {job_id} is under way with this command: following it", file=sys.stderr, flush=True)
    else:
        job_id = submit(client, command, runtime_env)
        print(f"job {job_id}", file=sys.stderr, flush=True)
    try:
        return follow(client, job_id)
    except KeyboardInterrupt:
        print(f"the job keeps running; to stop it: ray job stop {job_id}", file=sys.stderr)
        return INTERRUPTED


def main() -> None:
    arguments = parse(sys.argv[1:])
    # Kubernetes stops a pod with SIGTERM, which Python ignores as the first process of a container.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(run(arguments))
    except IntentError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
