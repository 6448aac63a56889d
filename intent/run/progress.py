"""Count a run's rows, and show the operator its progress and its summary."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TextIO

from intent.progress import Steps, write
from intent.run.part import Committed, Receipt

NAMED_LEFT_OUT = 20
COUNTED = ("rows", "labelled", "abstained", "rejected", "classified", "refused", "cached", "found", "asked", "agreed")


@dataclass(frozen=True)
class Summary:
    """A run's totals: `rows` = labelled + abstained + rejected.

    `duplicates_saved`: rows that were answered without a model because another row has the same message. `cached`: rows whose
    answers earlier runs made. `asked_again`: messages of the label cache that the model saw again. `agreed`: of these, the
    messages that got the same intent. `variants`: rows (of the whole run) and rows per second (of this try) per variant.
    `objects_left_out`: the number of input objects that were not read. `left_out`: the first of them, with the reasons; the
    manifest lists all.
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
    cached: int = 0
    asked_again: int = 0
    agreed: int = 0

    @property
    def agreement(self) -> float | None:
        """Return the share of messages asked again that agreed; None if there were none."""
        return self.agreed / self.asked_again if self.asked_again else None

    def leaving_out(self, left_out: Mapping[str, str]) -> "Summary":
        """Return the summary with the objects left out."""
        first = dict(list(left_out.items())[:NAMED_LEFT_OUT])
        return replace(self, objects_left_out=len(left_out), left_out=first)

    def as_dict(self) -> dict:
        """Return the fields as JSON types."""
        return asdict(self)


class Tally:
    """Add up the receipts so far. `classified`: frequent messages that have answers already."""

    def __init__(self, classified: int = 0):
        self.counts: Counter[str] = Counter(classified=classified)
        self.frequent = classified
        self.variants: Counter[str] = Counter()
        self.fresh: Counter[str] = Counter()
        self.started = time.monotonic()

    def add(self, part: Committed, fresh: bool = True) -> None:
        """Count a committed part. `fresh`: this try made it, so it counts for the speed."""
        receipt = part.receipt
        for name in COUNTED:
            self.counts[name] += getattr(receipt, name)
        self.variants.update(receipt.variants)
        if fresh:
            self.fresh.update(receipt.variants)

    def answer(self, messages: int, receipt: Receipt | None = None) -> None:
        """Count frequent messages that now have answers, from a model unless `receipt` says otherwise."""
        self.frequent += messages
        self.counts["classified"] += receipt.classified if receipt else messages
        for name in ("found", "asked", "agreed") if receipt else ():
            self.counts[name] += getattr(receipt, name)

    @property
    def seconds(self) -> float:
        """Return the seconds since this try began."""
        return time.monotonic() - self.started

    @property
    def saved(self) -> int:
        """Return the rows whose message another row had already."""
        return max(0, self.counts["rows"] - sum(self.counts[name] for name in ("refused", "cached", "classified")))

    def rates(self) -> dict[str, float]:
        """Return the rows per second of this try, by variant."""
        return {name: rows / max(self.seconds, 1e-9) for name, rows in sorted(self.fresh.items())}

    def summary(self, retries: int, output: str) -> Summary:
        """Return the totals. `output`: the URI of the run."""
        rates = self.rates()
        variants = {
            name: {"rows": rows, "rows_per_second": round(rates.get(name, 0.0), 1)}
            for name, rows in sorted(self.variants.items())
        }
        counts: dict[str, Any] = {
            name: self.counts[name] for name in ("rows", "labelled", "abstained", "rejected", "classified", "cached")
        }
        counts |= {"asked_again": self.counts["asked"], "agreed": self.counts["agreed"]}
        return Summary(
            **counts,
            variants=variants,
            duplicates_saved=self.saved,
            retries=retries,
            seconds=round(self.seconds, 3),
            output=output,
        )


class Stage:
    """Progress of a stage before labelling. `unit`: what is counted, such as "object". `total`: how many there are.

    `watch`: called with the stage at every update.
    """

    def __init__(
        self,
        name: str,
        title: str,
        unit: str,
        total: int,
        stream: TextIO | None = None,
        watch: Callable | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name, self.total, self.watch = name, total, watch
        self.done, self.retries = 0, 0
        self._steps = Steps(title, unit, stream, clock)

    def __enter__(self) -> "Stage":
        self._steps.__enter__()
        self.update(0)
        return self

    def __exit__(self, *error) -> None:
        self._steps.__exit__(*error)

    def update(self, done: int, retries: int = 0, note: str = "") -> None:
        """Show how many are done and how many tasks were retried."""
        self.done, self.retries = done, retries
        if self.watch:
            self.watch(self)
        retried = f"{retries} retries" if retries else ""
        self._steps.update(done, self.total, ", ".join(filter(None, [retried, note])))


class Progress:
    """Progress of labelling, first of the run's most frequent messages and then of its `total` rows."""

    FREQUENT = "the most frequent messages"

    def __init__(self, total: int, tally: Tally, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.total, self.tally, self.clock = total, tally, clock
        self._steps = Steps("labels", stream=stream, clock=clock)
        self._messages = 0
        self.rows()

    def __enter__(self) -> "Progress":
        self._steps.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._steps.__exit__(*error)

    def frequent(self, total: int) -> None:
        """Begin to count the `total` most frequent messages."""
        self._messages = total

    def rows(self) -> None:
        """Begin to count rows."""
        if self._messages:
            self._steps.end(self.FREQUENT, "")
        self._messages = 0
        self._since, self._before = self.clock(), Counter(self.tally.fresh)

    def update(self, retries: int, actors: str, loading: str = "") -> None:
        """Update the display. `actors`: a note on the actors. `loading`: while no engine is ready, a note on what they wait
        for.
        """
        part, unit, done, total = "rows", "row", self.tally.counts["rows"], self.total
        if self._messages:
            part, unit, done, total = self.FREQUENT, "message", self.tally.frequent, self._messages
        if loading:
            # Parts of an earlier try say nothing about this try's speed.
            unit, done, total = "", 0, 0
        self._steps.update(done, total, loading or self._note(retries, actors), part, unit)

    def say(self, line: str) -> None:
        """Print a line above the progress."""
        self._steps.say(line)

    def _note(self, retries: int, actors: str) -> str:
        if self._messages:
            return f"{retries} retries; {actors}; then {self.total:,} rows"
        seconds = max(self.clock() - self._since, 1e-9)
        rates = [f"{name} {(n - self._before[name]) / seconds:,.0f} rows/s" for name, n in sorted(self.tally.fresh.items())]
        cached = f"{self.tally.counts['cached']:,} from the cache, " if self.tally.counts["cached"] else ""
        counts = f"{cached}{self.tally.saved:,} duplicates saved, {self.tally.counts['rejected']:,} rejected, {retries} retries"
        return "; ".join(filter(None, [", ".join(rates), counts, actors]))


def say(line: str, stream=None) -> None:
    """Print a line outside a stage."""
    write(line, stream)
