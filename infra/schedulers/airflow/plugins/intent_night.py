"""An Airflow 3 operator that submits a nightly run to the cluster and waits for its end in the triggerer, without a worker.

Copy it into Airflow's plugins folder, because the triggerer must import it. `python` names the interpreter of an environment in
which intent is installed, on the workers and on the triggerer. It need not be Airflow's own environment.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

# A retry may help: some shards failed, the input is late, the follower was interrupted, or something else went wrong.
RETRIED = (1, 3, 8, 130)
LAST_LINES = 30


class NightEnded(BaseTrigger):
    """Runs a command of `jobs.submit` to its end.

    A triggerer that takes over from another one runs the command again, which then follows the running job. Cancelling
    the trigger ends the command and leaves the job running.
    """

    def __init__(self, command: Sequence[str]):
        super().__init__()
        self.command = list(command)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "intent_night.NightEnded", {"command": self.command}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*self.command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        except OSError as error:
            yield TriggerEvent({"code": 2, "lines": [f"{self.command[0]}: {error.strerror}; correct `python`"]})
            return
        lines: list[str] = []
        try:
            async for line in process.stdout:
                lines = [*lines[1 - LAST_LINES :], line.decode(errors="replace").rstrip()]
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
        yield TriggerEvent({"code": code, "lines": lines})


class NightOperator(BaseOperator):
    """Labels the log of `date` with the settings `overrides` of `jobs.nightly`.

    Exit code 0 is success. The exit codes in RETRIED fail this attempt. All others fail the task without a retry.
    """

    template_fields = ("date", "overrides")

    def __init__(
        self,
        *,
        date: str,
        overrides: Sequence[str],
        python: str = "python",
        hours: float = 22,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.date, self.overrides, self.python, self.hours = date, overrides, python, hours

    def execute(self, context) -> None:
        command = [self.python, "-m", "jobs.submit", "nightly", f"date={self.date}", *self.overrides]
        self.defer(trigger=NightEnded(command), method_name="ended", timeout=timedelta(hours=self.hours))

    def ended(self, context, event: dict[str, Any]) -> None:
        """End the task as the exit code says. Writes the last lines of the job's log to the task's log."""
        code, log = event["code"], "\n".join(event["lines"])
        self.log.info("run of %s: exit code %d\n%s", self.date, code, log)
        if code == 0:
            return
        failure = AirflowException if code in RETRIED or code < 0 else AirflowFailException
        raise failure(f"run of {self.date}: exit code {code}: {log.splitlines()[-1] if log else 'no output'}")
