"""Show the progress of counted work: the finished units, the rate, and the time left.

A terminal shows a bar, and other streams get lines. They appear from the first second on, even while the work reports nothing.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

TICK_SECONDS = 1.0
# The time between two lines is 1/LINES of the time so far, within these limits, so that a job of hours does not flood the log.
LEAST_SECONDS, MOST_SECONDS, LINES = 10.0, 60.0, 30
# A rate is measured over this time.
WINDOW_SECONDS = 300.0

# Called with the finished units, the total, the unit ("row"; "" if nothing can be counted), and a note.
Report = Callable[[int, int, str, str], None]


def unreported(done: int, total: int, unit: str, note: str = "") -> None:
    """Do nothing. It is the `Report` for work whose progress nobody watches."""


class Count:
    """Count work of one kind, and measure its rate.

    `total`: 0 if the amount of work is unknown. `clock`: returns seconds. `warms_up`: measure the rate from the end of the
    first unit instead of the first update, because a unit that compiles says nothing about the speed of the others.
    """

    def __init__(self, unit: str = "", clock: Callable[[], float] = time.monotonic, warms_up: bool = False):
        self.unit, self.clock, self.warms_up = unit, clock, warms_up
        self.done, self.total, self.note = 0, 0, ""
        self.started = clock()
        self._begin()

    def _begin(self) -> None:
        self._begun = self.clock(), self.done
        self._samples = deque([self._begun])

    def update(self, done: int, total: int, note: str = "") -> None:
        """Set the finished units, the total and the note."""
        changed, first = done != self.done, self.total == 0
        self.done, self.total, self.note = done, total, note
        if first:
            # The first update may include work that an earlier run did. It is not part of this run's rate.
            self._begin()
        elif changed and self.warms_up:
            self.warms_up = False
            self._begin()
        elif changed:
            self._samples.append((self.clock(), done))
            while len(self._samples) > 2 and self._samples[1][0] < self.clock() - WINDOW_SECONDS:
                self._samples.popleft()

    @property
    def finished(self) -> bool:
        """Return whether all of a known amount of work is done."""
        return 0 < self.total <= self.done

    def rate(self) -> float | None:
        """Return units per second, or None if nothing was measured yet.

        It is the overall rate if the work is finished, else the rate over WINDOW_SECONDS.
        """
        since, before = self._begun if self.finished else self._samples[0]
        until = self._until()
        return (self.done - before) / (until - since) if self.done > before and until > since else None

    def remaining(self) -> float | None:
        """Return the seconds that the rest will take, or None if nothing was measured yet."""
        rate = self.rate()
        return max(0.0, (self.total - self.done) / rate - (self.clock() - self._until())) if rate else None

    def _until(self) -> float:
        """Return the time of the last update, or now if the next one is late, so that the rate falls while work hangs."""
        first, last, now = self._samples[0][0], self._samples[-1][0], self.clock()
        usual = (last - first) / max(1, len(self._samples) - 1)
        return last if self.finished or now - last <= 2 * usual else now

    def __str__(self) -> str:
        return "; ".join(filter(None, [", ".join(filter(None, self._figures())), self.note]))

    def _figures(self) -> list[str]:
        passed, rate = self.clock() - self.started, self.rate()
        counted = f"{self.done:,} of {self.total:,} {_plural(self.unit)}".rstrip() if self.total else ""
        if self.finished:
            return [f"{counted} in {time_of(passed)}", speed(rate, self.unit)]
        if rate and (remaining := self.remaining()) is not None:
            return [counted, speed(rate, self.unit), f"{time_of(remaining)} left"]
        return [counted, f"{time_of(passed)} so far" if passed >= 1 else ""]


def speed(rate: float | None, unit: str) -> str:
    """Format units per second or, for slow work, seconds per unit."""
    if not rate or not unit:
        return ""
    if rate < 1:
        return f"{1 / rate:,.1f} s a {unit}"
    return f"{rate:,.0f} {_plural(unit)}/s" if rate >= 10 else f"{rate:.1f} {_plural(unit)}/s"


def _plural(unit: str) -> str:
    return unit and f"{unit}s"


def time_of(seconds: float) -> str:
    """Format hours, minutes and seconds as 0:01:30."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Steps:
    """Show the progress of work, or of several parts of it side by side.

    On a terminal, each part has a bar. On other streams, each part has a line at its start, at its end, and every 10 s to 60 s.
    `unit`: a noun in the singular. `stream`: stderr by default. `clock`, `warms_up`: as for a Count.
    """

    def __init__(
        self,
        title: str,
        unit: str = "",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        warms_up: bool = False,
    ):
        self.title, self.unit, self.stream, self.clock = title, unit, stream or sys.stderr, clock
        self.warms_up = warms_up
        self._counts: dict[str, Count] = {}
        self._printed: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._lock, self._over = threading.RLock(), threading.Event()
        self._bars: _Bars | None = None

    def __enter__(self) -> "Steps":
        if self.stream.isatty():
            self._bars = _Bars(self.stream)
        else:
            self._ticking = threading.Thread(target=self._tick, daemon=True)
            self._ticking.start()
        return self

    def __exit__(self, kind, *error) -> None:
        self._over.set()
        if self._bars:
            self._bars.stop()
            return
        self._ticking.join()
        if kind is None:
            for part, count in self._counts.items():
                if not count.finished:
                    self._print(part, count)

    def update(self, done: int, total: int, note: str = "", part: str = "", unit: str | None = None) -> None:
        """Report the finished units of `part`. If the `unit` changes, a new count starts."""
        with self._lock:
            unit = self.unit if unit is None else unit
            count = self._counts.get(part)
            if count is None or count.unit != unit:
                count = self._counts[part] = Count(unit, self.clock, self.warms_up)
                self._began.setdefault(part, count.started)
                self._printed.pop(part, None)
            before = count.finished
            count.update(done, total, note)
            if self._bars:
                self._bars.show(self._named(part), count, count.done, count.total)
            elif count.finished and not before:
                self._print(part, count)
            else:
                self.show_due()

    def report(self, done: int, total: int, unit: str, note: str = "") -> None:
        """Report the progress of the work as a whole, as a `Report`."""
        self.update(done, total, note, unit=unit)

    def end(self, part: str = "", note: str = "done") -> None:
        """End `part`, even if its count is not finished. If `note` is empty, no line is printed."""
        with self._lock:
            self._counts.pop(part, None)
            text = f"{note or 'done'} in {time_of(self.clock() - self._began.pop(part, self.clock()))}"
            if self._bars:
                self._bars.show(self._named(part), text, 1, 1)
            elif note:
                write(f"{self._named(part)}: {text}", self.stream)

    def say(self, line: str) -> None:
        """Print a line without damaging the bars."""
        with self._lock:
            self._bars.say(line) if self._bars else write(line, self.stream)

    def show_due(self) -> None:
        """Print a line for each unfinished part whose last line is old."""
        with self._lock:
            for part, count in self._counts.items():
                wait = min(MOST_SECONDS, max(LEAST_SECONDS, (self.clock() - count.started) / LINES))
                if not count.finished and (part not in self._printed or self.clock() - self._printed[part] >= wait):
                    self._print(part, count)

    def _tick(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            self.show_due()

    def _print(self, part: str, count: Count) -> None:
        self._printed[part] = self.clock()
        write(f"{self._named(part)}: {count}", self.stream)

    def _named(self, part: str) -> str:
        return f"{self.title} {part}".rstrip()


def write(line: str, stream: TextIO | None = None) -> None:
    """Print a line. A closed or full stream is not an error, because progress is not worth failing for."""
    with suppress(OSError, ValueError):
        print(line, file=stream or sys.stderr, flush=True)


def counted(items: Iterable, total: int, report: Report, unit: str, note: str = "") -> Iterator:
    """Yield the items, and report each one as finished when the next one is requested."""
    report(0, total, unit, note)
    for number, item in enumerate(items, 1):
        yield item
        report(number, total, unit, note)


@contextmanager
def polled(done: Callable[[], int], total: int, report: Report, unit: str, note: str = "") -> Iterator[None]:
    """Report `done()` of `total` every second, for work in the block that reports nothing itself."""
    over = threading.Event()

    def poll() -> None:
        while not over.wait(TICK_SECONDS):
            report(done(), total, unit, note)

    report(done(), total, unit, note)
    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    report(done(), total, unit, note)


class _Bars:
    """Draw bars on a terminal several times per second. Text is never interpreted as markup."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.text import Text

        class Figures(ProgressColumn):
            def render(self, task) -> Text:
                return Text(str(task.fields["figures"]))

        columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), Figures()
        self._progress = Progress(*columns, console=Console(file=stream))
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def show(self, title: str, figures: Count | str, done: int, total: int) -> None:
        """Draw a bar. `figures`: the text beside it, formatted again whenever the bar is drawn."""
        if title not in self._tasks:
            self._tasks[title] = self._progress.add_task(title, total=None, figures=figures)
        self._progress.update(self._tasks[title], total=total or None, completed=done, figures=figures)

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)

    def stop(self) -> None:
        self._progress.stop()
