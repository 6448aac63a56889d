"""What the operator sees of a night: bars or plain lines while it is surveyed and labelled, and one summary at its end."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from intent.night.part import Committed

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Summary:
    """A night's totals. `rows` = labelled + abstained + rejected; `duplicates_saved`: rows that a model answered without
    seeing them, since another row has the same message.

    `variants`: rows (of the whole night) and rows a second (of this run) by the variant that labelled them.
    """

    rows: int
    labelled: int
    abstained: int
    rejected: int
    variants: dict[str, dict[str, float]] = field(default_factory=dict)
    duplicates_saved: int = 0
    classified: int = 0
    retries: int = 0
    seconds: float = 0.0
    output: str = ""
    already_done: bool = False

    def as_dict(self) -> dict:
        return asdict(self)


class Tally:
    """Counts of the parts committed so far, and when this run's came. `classified`: messages that were seen for no part."""

    def __init__(self, classified: int = 0):
        self.counts: Counter[str] = Counter(classified=classified)
        self.variants: Counter[str] = Counter()
        self.fresh: Counter[str] = Counter()
        self.started = time.monotonic()

    def add(self, part: Committed, fresh: bool = True) -> None:
        receipt = part.receipt
        for name in ("rows", "labelled", "abstained", "rejected", "classified", "refused"):
            self.counts[name] += getattr(receipt, name)
        self.variants.update(receipt.variants)
        if fresh:
            self.fresh.update(receipt.variants)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def saved(self) -> int:
        return max(0, self.counts["rows"] - self.counts["refused"] - self.counts["classified"])

    def rates(self) -> dict[str, float]:
        return {name: rows / max(self.seconds, 1e-9) for name, rows in sorted(self.fresh.items())}

    def summary(self, retries: int, output: str) -> Summary:
        rates = self.rates()
        variants = {
            name: {"rows": rows, "rows_per_second": round(rates.get(name, 0.0), 1)}
            for name, rows in sorted(self.variants.items())
        }
        counts = {name: self.counts[name] for name in ("rows", "labelled", "abstained", "rejected", "classified")}
        return Summary(
            **counts,
            variants=variants,
            duplicates_saved=self.saved,
            retries=retries,
            seconds=round(self.seconds, 3),
            output=output,
        )


class Stage:
    """Progress of what is found out about the input before anything is labelled: of `total` objects or shards, the `unit`.

    A rich bar on a terminal; elsewhere a plain line at once and every ten seconds. `watch` is called at every update.
    """

    def __init__(self, name: str, title: str, unit: str, total: int, stream=None, watch: Callable | None = None):
        self.name, self.title, self.unit, self.total, self.stream = name, title, unit, total, stream or sys.stderr
        self.watch, self.done, self.retries, self._note = watch, 0, 0, ""
        self._bar, self._started, self._printed = None, time.monotonic(), -SECONDS_BETWEEN_LINES

    def __enter__(self) -> "Stage":
        if self.stream.isatty():
            self._bar = _Bar(self.stream, self.total, 0, self.unit)
        self.update(0)
        return self

    def __exit__(self, *error) -> None:
        if self._bar:
            self._bar.stop(self.done)
        elif time.monotonic() - self._started >= SECONDS_BETWEEN_LINES:
            self._tell()

    def update(self, done: int, retries: int = 0, note: str = "") -> None:
        """So many of all are done, and so many tasks were begun again."""
        self.done, self.retries, self._note = done, retries, note
        if self.watch:
            self.watch(self)
        if self._bar:
            self._bar.update(self.done, f"{self.title}: {self._said()}")
        elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._tell()

    def _tell(self) -> None:
        self._printed = time.monotonic()
        left = _left(self._printed - self._started, self.done, self.total - self.done)
        say(f"{self.title}: {self.done:,} of {self.total:,}, {self._said()}, {left}", self.stream)

    def _said(self) -> str:
        rate = self.done / max(time.monotonic() - self._started, 1e-9)
        return ", ".join(filter(None, [f"{rate:,.0f} {self.unit}/s", f"{self.retries} retries", self._note]))


class Progress:
    """A rich bar on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, total: int, tally: Tally, stream=None):
        self.total, self.tally, self.stream = total, tally, stream or sys.stderr
        self._bar, self._printed = None, time.monotonic()
        self._done_at_start = tally.counts["rows"]

    def __enter__(self) -> "Progress":
        if self.stream.isatty():
            self._bar = _Bar(self.stream, self.total, self._done_at_start)
        return self

    def __exit__(self, *error) -> None:
        if self._bar:
            self._bar.stop(self.tally.counts["rows"])

    def update(self, retries: int, fleet: str) -> None:
        if self._bar:
            self._bar.update(self.tally.counts["rows"], self.note(retries, fleet))
        elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            self.say(f"{self.tally.counts['rows']:,} of {self.total:,} rows, {self.note(retries, fleet)}, {self.left()}")

    def say(self, line: str) -> None:
        if self._bar:
            self._bar.say(line)
        else:
            say(line, self.stream)

    def note(self, retries: int, fleet: str) -> str:
        rates = ", ".join(f"{name} {rate:,.0f} rows/s" for name, rate in self.tally.rates().items())
        counts = f"{self.tally.saved:,} duplicates saved, {self.tally.counts['rejected']:,} rejected, {retries} retries"
        return f"{rates or 'no rows yet'}; {counts}; {fleet}"

    def left(self) -> str:
        rows = self.tally.counts["rows"]
        return _left(self.tally.seconds, rows - self._done_at_start, self.total - rows)


def _left(seconds: float, done: int, open_: int) -> str:
    if not done:
        return "time left unknown"
    left = int(open_ * seconds / done)
    return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"


def say(line: str, stream=None) -> None:
    """Before there is anything to count."""
    print(line, file=stream or sys.stderr, flush=True)


class _Bar:
    """How many of `unit` are done, and time left, on one line; the rest on the next. Untrusted text is never markup."""

    def __init__(self, stream, total: int, done: int, unit: str = "rows"):
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
        from rich.text import Text

        self._note = Text()
        self._progress = Progress(BarColumn(), MofNCompleteColumn(), unit, TimeRemainingColumn())
        self._task = self._progress.add_task(unit, total=total, completed=done)
        self._live = Live(Group(self._progress, self._note), console=Console(file=stream))
        self._live.start()

    def update(self, rows: int, note: str) -> None:
        self._note.plain = note
        self._progress.update(self._task, completed=rows)

    def say(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False)

    def stop(self, rows: int) -> None:
        self._progress.update(self._task, completed=rows)
        self._live.stop()
