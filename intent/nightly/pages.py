"""Compute the values on three pages: one nightly run, all nightly runs, and any other run.

The templates beside this module lay the pages out, without scripts or external resources.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from intent.html import render
from intent.html.charts import Frame, Scale
from intent.nightly.gate import Profile, shares_of, total
from intent.run.inspection import EDGES, Inspection

MOST_BARS, MOST_LINES = 15, 4
FRAME = Frame(width=360, height=150, left=44, top=10, right=360, bottom=126)
MEAN_ITEMS = "mean items a message"


@dataclass(frozen=True)
class Bar:
    """A value's `share`, and its `usual` share in the last runs if there are any. `widths`: of their bars, in percent."""

    name: str
    share: float
    usual: float | None
    widths: Sequence[float]


@dataclass(frozen=True)
class Bars:
    """A distribution, `compared` with that of the last runs if there are any."""

    title: str
    bars: Sequence[Bar]
    compared: bool = False


@dataclass(frozen=True)
class Dot:
    """A nightly run on a line: its position in pixels, its date, its value as text, and its state."""

    x: float
    y: float
    day: str
    value: str
    state: str


@dataclass(frozen=True)
class Lines:
    """A chart of dots, by the name of their line; "" if there is only one line. `least`, `most`: the ends of
    the axis, as text.
    """

    title: str
    least: str
    most: str
    lines: Mapping[str, Sequence[Dot]]


def nightly_run_page(run: Profile, last: Sequence[Profile], accepted: bool) -> str:
    """Render one nightly run: the verdict, its counts, and each distribution beside that of the last runs."""
    summary = run.summary

    def mean(counts: Iterable[int]) -> str:
        return f"{sum(counts) / len(last):,.0f}" if last else ""

    usual = {name: sum(p.shares.get(name, 0.0) for p in last) / len(last) for name in run.shares} if last else {}
    rows = [("rows", f"{summary.rows:,}", mean(p.summary.rows for p in last))]
    rows += [("labelled", f"{summary.labelled:,}", "")]
    rows += [(name, f"{share:.2%}", f"{usual[name]:.2%}" if last else "") for name, share in run.shares.items()]
    if run.mean_items is not None:
        usually = [p.mean_items for p in last if p.mean_items is not None]
        rows += [(MEAN_ITEMS, f"{run.mean_items:.2f}", f"{sum(usually) / len(usually):.2f}" if usually else "")]
    rows += [(f"gold set right, {variant}", f"{right:.1%}", "") for variant, right in run.gold.items()]
    rows += [("rows from the label cache", f"{summary.cached:,}", mean(p.summary.cached for p in last))]
    rows += [("rows saved as duplicates", f"{summary.duplicates_saved:,}", mean(p.summary.duplicates_saved for p in last))]
    rows += [("messages that models saw", f"{summary.classified:,}", mean(p.summary.classified for p in last))]
    if summary.agreement is not None:
        rows += [(f"cached labels that agree, of {summary.asked_again:,} asked again", f"{summary.agreement:.2%}", "")]
    rows += [("retries", f"{summary.retries:,}", "")]
    rows += [(f"rows by {name}", f"{entry['rows']:,.0f}", "") for name, entry in summary.variants.items()]
    charts = [_bars(name, mix, total(p.mixes.get(name, {}) for p in last)) for name, mix in run.mixes.items()]
    values = {"run": run, "state": state(run, accepted), "compared": len(last), "rows": rows, "charts": charts}
    return render("nightly/nightly_run.html.j2", **values)


def trend_page(runs: Sequence[Profile], accepted: Collection[str]) -> str:
    """Render all nightly runs, oldest first. `accepted`: the dates of those that are published."""
    kinds = {run.night: state(run, run.night in accepted) for run in runs}
    newest = runs[-1]
    charts = [_lines("rows", runs, kinds, {"": [float(run.summary.rows) for run in runs]}, "{:,.0f}")]
    if any(run.summary.cached for run in runs):
        shares = [run.summary.cached / max(1, run.summary.rows) for run in runs]
        charts.append(_lines("rows from the label cache", runs, kinds, {"": shares}))
    for name in newest.shares:
        charts.append(_lines(name, runs, kinds, {"": [run.shares.get(name) for run in runs]}))
    if newest.mean_items is not None:
        charts.append(_lines(MEAN_ITEMS, runs, kinds, {"": [run.mean_items for run in runs]}, "{:.2f}"))
    gold = {variant: [run.gold.get(variant) for run in runs] for variant in list(newest.gold)[:MOST_LINES]}
    charts += [_lines("gold set right", runs, kinds, gold)] if gold else []
    for name in newest.mixes:
        mixes = [run.mixes.get(name, {}) for run in runs]
        if len(values := sorted(total(mixes))) <= MOST_LINES:
            shares = [shares_of(mix) for mix in mixes]
            charts.append(_lines(name, runs, kinds, {v: [s.get(v, 0.0) if s else None for s in shares] for v in values}))
    head = ["date", "rows", *newest.shares, "state", "outside its limits"]
    rows = [
        (
            run.night,
            f"{run.summary.rows:,}",
            *(f"{run.shares.get(s, 0):.2%}" for s in newest.shares),
            kinds[run.night],
            "; ".join(run.findings),
        )
        for run in reversed(runs)
    ]
    values = {"first": runs[0].night, "last": newest.night, "frame": FRAME, "charts": charts, "head": head, "rows": rows}
    return render("nightly/trend.html.j2", **values)


def run_page(inspection: Inspection) -> str:
    """Render one run: its state, counts, confidence, slowest shards, reasons of rejection, and failed shards."""
    rows = max(1, inspection.counts["rows"])
    counts = [(name, f"{count:,}", f"{count / rows:.2%}") for name, count in inspection.counts.items()]
    counts += [(f"rows by {name}", f"{count:,}", f"{count / rows:.2%}") for name, count in inspection.variants.items()]
    counts += [
        ("shards", f"{inspection.done:,} of {inspection.shards:,}", ""),
        ("objects left out", f"{len(inspection.left_out):,}", ""),
    ]
    counts += [(f"fingerprint of {name}", print_, "") for name, print_ in inspection.run["models"].items()]
    slowest = [(f"{s.object} from row {s.start:,}", f"{s.rows:,}", f"{s.seconds:,.1f}") for s in inspection.slowest]
    reasons = [(r.text, f"{r.rows:,}", ", ".join(r.ids)) for r in inspection.reasons[:MOST_BARS]]
    failed = [(f"{f['object']} from row {f['start']}", str(f["rows"]), str(f["reason"])) for f in inspection.failed]
    left_out = [(key, why) for key, why in list(inspection.left_out.items())[:MOST_BARS]]
    tables = [
        (["shards that took longest", "rows", "seconds"], slowest),
        (["rejected because", "rows", "ids, such as"], reasons),
        (["shards given up", "rows", "reason"], failed),
        (["objects left out", "reason"], left_out),
    ]
    charts = [_histogram(f"confidence of {name} rows", bins) for name, bins in inspection.confidence.items() if any(bins)]
    return render("nightly/run.html.j2", inspection=inspection, counts=counts, charts=charts, tables=tables, most=MOST_BARS)


def _histogram(title: str, bins: Sequence[int]) -> Bars:
    """Return the share of rows in each bin of EDGES."""
    rows, most = sum(bins), max(bins)
    spans = (f"{low:g} to {high:g}" for low, high in pairwise(EDGES))
    bars = [Bar(span, n / rows, None, [round(100 * n / most, 1)]) for span, n in zip(spans, bins, strict=True)]
    return Bars(title, bars)


def state(run: Profile, accepted: bool) -> str:
    """Return the state of a nightly run, as its pages show it."""
    if accepted:
        return "accepted by hand" if run.findings else "accepted"
    return "quarantined" if run.findings else "unfinished"


def _bars(name: str, mix: Mapping[str, int], usual: Mapping[str, int]) -> Bars:
    """Return bars of the most frequent values, with this run's share above that of the last runs."""
    now, before = shares_of(mix), shares_of(usual)
    every = sorted({*now, *before}, key=lambda key: (-max(now.get(key, 0), before.get(key, 0)), key))
    most = max([*now.values(), *before.values()], default=1)
    bars = []
    for key in every[:MOST_BARS]:
        shares = [run.get(key, 0.0) for run in ([now, before] if before else [now])]
        bars.append(Bar(key, shares[0], shares[1] if before else None, [round(100 * share / most, 1) for share in shares]))
    note = "" if len(every) <= MOST_BARS else f", the {MOST_BARS} most frequent of {len(every)}"
    return Bars(f"{name}{note}", bars, bool(before))


def _lines(
    name: str,
    runs: Sequence[Profile],
    kinds: Mapping[str, str],
    series: Mapping[str, Sequence[float | None]],
    form: str = "{:.1%}",
) -> Lines:
    """Return one line per series over the dates. A value of None has no dot."""
    days = [date.fromisoformat(run.night).toordinal() for run in runs]
    most = max((value for values in series.values() for value in values if value is not None), default=0) or 1
    across = Scale(days[0], max(days[0] + 1, days[-1]), FRAME.left + 5, FRAME.right - 5)
    up = Scale(0, most, FRAME.bottom, FRAME.top)
    lines = {
        key: [
            Dot(across.at(day), up.at(value), run.night, form.format(value), kinds[run.night])
            for day, run, value in zip(days, runs, values, strict=True)
            if value is not None
        ]
        for key, values in series.items()
    }
    return Lines(name, form.format(0), form.format(most), lines)
