"""What the operator sees of a night: a bar or plain lines while it runs, and one summary at its end."""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from intent.night.part import Committed

SECONDS_BETWEEN_LINES = 10.0
NAMED_LEFT_OUT = 20


@dataclass(frozen=True)
class Summary:
    """A night's totals. `rows` = labelled + abstained + rejected; `duplicates_saved`: messages that no model had to see.

    `variants`: rows (of the whole night) and rows a second (of this run) by the variant that labelled them.
    `objects_left_out`: how many objects of the input were not read; `left_out`: the first of them, and why. The manifest has
    all of them.
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
    objects_left_out: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    def leaving_out(self, left_out: Mapping[str, str]) -> "Summary":
        first = dict(list(left_out.items())[:NAMED_LEFT_OUT])
        return replace(self, objects_left_out=len(left_out), left_out=first)

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
        for name in ("rows", "labelled", "abstained", "rejected", "classified"):
            self.counts[name] += getattr(receipt, name)
        self.variants.update(receipt.variants)
        if fresh:
            self.fresh.update(receipt.variants)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def saved(self) -> int:
        return max(0, self.counts["labelled"] + self.counts["abstained"] - self.counts["classified"])

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
        done = self.tally.counts["rows"] - self._done_at_start
        if not done:
            return "time left unknown"
        seconds = int((self.total - self.tally.counts["rows"]) * self.tally.seconds / done)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"


def say(line: str, stream=None) -> None:
    """Before there is anything to count."""
    print(line, file=stream or sys.stderr, flush=True)


class _Bar:
    """Rows done and time left on one line, the rest on the next. Untrusted text is never read as markup."""

    def __init__(self, stream, total: int, done: int):
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
        from rich.text import Text

        self._note = Text()
        self._progress = Progress(BarColumn(), MofNCompleteColumn(), "rows", TimeRemainingColumn())
        self._task = self._progress.add_task("rows", total=total, completed=done)
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
