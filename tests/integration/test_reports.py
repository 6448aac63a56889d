"""The progress that tasks on the cluster report is shown where the job was started."""

import io
import time
from pathlib import Path

import pytest
import ray

from intent.progress import Report, Steps
from jobs.reports import Reports

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Watched(io.StringIO):
    """A stream that creates the file `seen` when the line `awaited` is written."""

    def __init__(self, awaited: str, seen: Path):
        super().__init__()
        self.awaited, self.seen = awaited, seen

    def write(self, text: str) -> int:
        if self.awaited in text:
            self.seen.touch()
        return super().write(text)


def test_a_task_is_watched_while_it_runs_and_its_end_is_told(tmp_path):
    seen = tmp_path / "seen"

    def work(report: Report) -> bool:
        report(0, 0, "", "loads")
        report(3, 30, "layer", "")
        deadline = time.monotonic() + 60
        while not seen.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return seen.exists()

    stream = Watched("quantize gptq: 3 of 30 layers", seen)
    with Steps("quantize", stream=stream) as steps, Reports(steps) as reports:
        assert ray.get(ray.remote(work).remote(reports.of("gptq"))), "its report was not shown"
        reports.end("gptq")
    assert stream.getvalue().splitlines()[-1].startswith("quantize gptq: done in ")
