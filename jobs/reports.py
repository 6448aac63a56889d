"""Show the progress of tasks on the cluster in the `Steps` of this process."""

import threading
import time
from contextlib import suppress

from intent.progress import TICK_SECONDS, Report, Steps

# The least time between two reports of one task.
BETWEEN_SECONDS = 0.5


class Reports:
    """Collect the reports of tasks in an actor, which a thread of this process reads."""

    def __init__(self, steps: Steps):
        import ray

        self.steps, self._over = steps, threading.Event()
        self._ended: set[str] = set()
        self._lock = threading.Lock()
        self._board = ray.remote(num_cpus=0)(_Board).remote()

    def __enter__(self) -> "Reports":
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        return self

    def __exit__(self, *error) -> None:
        import ray

        self._over.set()
        self._reading.join()
        ray.kill(self._board)

    def of(self, part: str = "") -> Report:
        """Return a function to send to a task, with which it reports on `part` of the work."""
        return _Reporter(self._board, part)

    def end(self, part: str = "", note: str = "done") -> None:
        """End the task of `part`."""
        with self._lock:
            self._ended.add(part)
            self.steps.end(part, note)

    def _read(self) -> None:
        over = False
        while not over:
            # Reads once more at the end, for the last report.
            over = self._over.wait(TICK_SECONDS)
            self._show()

    def _show(self) -> None:
        import ray

        # An error of the progress display must not fail the work.
        with suppress(ray.exceptions.RayError):
            reports = ray.get(self._board.read.remote(), timeout=TICK_SECONDS)
            with self._lock:
                for part, (done, total, unit, note) in reports.items():
                    if part not in self._ended:
                        self.steps.update(done, total, note, part, unit)


class _Board:
    def __init__(self):
        self.reports: dict[str, tuple] = {}

    def write(self, part: str, *report) -> None:
        self.reports[part] = report

    def read(self) -> dict[str, tuple]:
        return self.reports


class _Reporter:
    def __init__(self, board, part: str):
        self.board, self.part, self.sent = board, part, 0.0
        self.last: tuple = ()

    def __call__(self, done: int, total: int, unit: str, note: str = "") -> None:
        now, kind = time.monotonic(), (total, unit, note)
        if done < total and kind == self.last and now - self.sent < BETWEEN_SECONDS:
            return
        self.sent, self.last = now, kind
        self.board.write.remote(self.part, done, total, unit, note)
