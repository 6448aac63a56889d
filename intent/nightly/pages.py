"""Render one nightly run, all nightly runs, and a single run as HTML pages without scripts or outside resources.

Every text goes through `html.escape`: products and languages come from other people.
"""

import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from importlib.resources import files
from itertools import pairwise
from string import Template

from intent.nightly.gate import Profile, shares_of, total
from intent.run.inspection import EDGES, Inspection

MOST_BARS, MOST_LINES = 15, 4
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 360, 150, 44, 10, 24
COLORS = "abcd"
MEAN_ITEMS = "mean items a message"


def nightly_run_page(night: Profile, last: Sequence[Profile], accepted: bool) -> str:
    """Render one nightly run: the verdict, its counts, and each distribution beside that of the last runs."""
    summary = night.summary

    def mean(counts: Iterable[int]) -> str:
        return f"{sum(counts) / len(last):,.0f}" if last else ""

    usual = {name: sum(p.shares.get(name, 0.0) for p in last) / len(last) for name in night.shares} if last else {}
    rows = [("rows", f"{summary.rows:,}", mean(p.summary.rows for p in last))]
    rows += [("labelled", f"{summary.labelled:,}", "")]
    rows += [(name, f"{share:.2%}", f"{usual[name]:.2%}" if last else "") for name, share in night.shares.items()]
    if night.mean_items is not None:
        usually = [p.mean_items for p in last if p.mean_items is not None]
        rows += [(MEAN_ITEMS, f"{night.mean_items:.2f}", f"{sum(usually) / len(usually):.2f}" if usually else "")]
    rows += [(f"gold set right, {variant}", f"{right:.1%}", "") for variant, right in night.gold.items()]
    rows += [("rows from the label cache", f"{summary.cached:,}", mean(p.summary.cached for p in last))]
    rows += [("rows saved as duplicates", f"{summary.duplicates_saved:,}", mean(p.summary.duplicates_saved for p in last))]
    rows += [("messages that models saw", f"{summary.classified:,}", mean(p.summary.classified for p in last))]
    if summary.agreement is not None:
        rows += [(f"cached labels that agree, of {summary.asked_again:,} asked again", f"{summary.agreement:.2%}", "")]
    rows += [("retries", f"{summary.retries:,}", "")]
    rows += [(f"rows by {name}", f"{entry['rows']:,.0f}", "") for name, entry in summary.variants.items()]
    compared = (
        f"Compared with {len(last)} accepted nights before it." if last else "No accepted night before it to compare with."
    )
    head = f'{_verdict(night, accepted)}<p class="note">{compared} <a href="index.html">All nights</a></p>'
    charts = [_bars(name, mix, total(p.mixes.get(name, {}) for p in last)) for name, mix in night.mixes.items()]
    table = _table(["", "this night", "the last nights"], rows)
    return _page(f"Night of {night.night} (UTC)", head, table, _grid(charts))


def trend_page(nights: Sequence[Profile], accepted: Collection[str]) -> str:
    """Render all `nights`, oldest first. Those with a date in `accepted` are published."""
    kinds = {night.night: state(night, night.night in accepted) for night in nights}
    newest = nights[-1]
    charts = [_lines("rows", nights, kinds, {"": [float(night.summary.rows) for night in nights]}, "{:,.0f}")]
    if any(night.summary.cached for night in nights):
        shares = [night.summary.cached / max(1, night.summary.rows) for night in nights]
        charts.append(_lines("rows from the label cache", nights, kinds, {"": shares}))
    for name in newest.shares:
        charts.append(_lines(name, nights, kinds, {"": [night.shares.get(name) for night in nights]}))
    if newest.mean_items is not None:
        charts.append(_lines(MEAN_ITEMS, nights, kinds, {"": [night.mean_items for night in nights]}, "{:.2f}"))
    gold = {variant: [night.gold.get(variant) for night in nights] for variant in list(newest.gold)[:MOST_LINES]}
    charts += [_lines("gold set right", nights, kinds, gold)] if gold else []
    for name in newest.mixes:
        mixes = [night.mixes.get(name, {}) for night in nights]
        if len(values := sorted(total(mixes))) <= MOST_LINES:
            shares = [shares_of(mix) for mix in mixes]
            charts.append(_lines(name, nights, kinds, {v: [s.get(v, 0.0) if s else None for s in shares] for v in values}))
    head = ["night", "rows", *newest.shares, "state", "outside its limits"]
    rows = [
        (
            n.night,
            f"{n.summary.rows:,}",
            *(f"{n.shares.get(s, 0):.2%}" for s in newest.shares),
            kinds[n.night],
            "; ".join(n.findings),
        )
        for n in reversed(nights)
    ]
    note = '<p class="note">A dot is an accepted night, a ring one accepted by hand, a cross one that is not published.</p>'
    return _page(f"Nights from {nights[0].night} to {newest.night} (UTC)", note, _grid(charts), _table(head, rows, links=True))


def run_page(found: Inspection) -> str:
    """Render one run: whether it is whole, its counts, its confidence, its slowest shards, and what was rejected or
    given up.
    """
    rows = max(1, found.counts["rows"])
    counts = [(name, f"{count:,}", f"{count / rows:.2%}") for name, count in found.counts.items()]
    counts += [(f"rows by {name}", f"{count:,}", f"{count / rows:.2%}") for name, count in found.variants.items()]
    counts += [("shards", f"{found.done:,} of {found.shards:,}", ""), ("objects left out", f"{len(found.left_out):,}", "")]
    counts += [(f"fingerprint of {name}", print_, "") for name, print_ in found.run["models"].items()]
    slowest = [(f"{s.object} from row {s.start:,}", f"{s.rows:,}", f"{s.seconds:,.1f}") for s in found.slowest]
    reasons = [(r.text, f"{r.rows:,}", ", ".join(r.ids)) for r in found.reasons[:MOST_BARS]]
    failed = [(f"{f['object']} from row {f['start']}", str(f["rows"]), str(f["reason"])) for f in found.failed]
    left_out = [(key, why) for key, why in list(found.left_out.items())[:MOST_BARS]]
    tables = [
        _table(head, lines, words=True)
        for head, lines in (
            (["shards that took longest", "rows", "seconds"], slowest),
            (["rejected because", "rows", "ids, such as"], reasons),
            (["shards given up", "rows", "reason"], failed),
            (["objects left out", "reason"], left_out),
        )
        if lines
    ]
    charts = [_histogram(f"confidence of {name} rows", bins) for name, bins in found.confidence.items() if any(bins)]
    return _page(f"Run at {found.uri}", _whole(found), _table(["", "rows", "share"], counts), _grid(charts), *tables)


def _whole(found: Inspection) -> str:
    if found.faults:
        faults = "".join(f"<li>{html.escape(fault)}</li>" for fault in found.faults[:MOST_BARS])
        return f'<p class="quarantined">damaged: {len(found.faults):,} faults, such as</p><ul>{faults}</ul>'
    if not found.finished:
        return '<p class="quarantined">not finished: run it again</p>'
    return '<p class="accepted">finished, and every part is as its manifest says</p>'


def _histogram(title: str, bins: Sequence[int]) -> str:
    most, rows = max(bins), sum(bins)
    drawn = [
        f'<div class="bar"><span>{low:g} to {high:g}</span><span><i style="width:{100 * count / most:.1f}%"></i></span>'
        f"<span>{count / rows:.1%}</span></div>"
        for (low, high), count in zip(pairwise(EDGES), bins, strict=True)
    ]
    return _figure(title, "".join(drawn))


def state(night: Profile, accepted: bool) -> str:
    if accepted:
        return "accepted by hand" if night.findings else "accepted"
    return "quarantined" if night.findings else "unfinished"


def _page(title: str, verdict: str, *parts: str) -> str:
    page = Template((files("intent.nightly") / "page.html").read_text(encoding="utf-8"))
    return page.substitute(title=html.escape(title), verdict=verdict, parts="\n".join(parts))


def _grid(charts: Sequence[str]) -> str:
    return '<div class="charts">\n' + "\n".join(charts) + "\n</div>"


def _verdict(night: Profile, accepted: bool) -> str:
    said = {
        "accepted": "accepted",
        "accepted by hand": "accepted by hand, outside its limits:",
        "quarantined": "quarantined: its labels are kept apart, no reader of the output sees them",
        "unfinished": "not published yet: run it again",
    }[state(night, accepted)]
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in night.findings)
    return f'<p class="{"accepted" if accepted else "quarantined"}">{said}</p>' + (f"<ul>{reasons}</ul>" if reasons else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], links: bool = False, words: bool = False) -> str:
    """Render a table. `links`: the first column links to runs and the last two hold words. `words`: the last column holds
    words.
    """
    last = len(head) - (2 if links else words)

    def cell(text: str, at: int, kind: str) -> str:
        said = html.escape(text)
        shown = f'<a href="{said}.html">{said}</a>' if links and kind == "td" and at == 0 else said
        return f"<{kind}{' class=words' if at >= last else ''}>{shown}</{kind}>"

    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(cell(text, at, kind) for at, text in enumerate(cells)) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table></div>'


def _bars(name: str, mix: Mapping[str, int], usual: Mapping[str, int]) -> str:
    """Render the most frequent values: this run's share above the last runs' share."""
    now, before = shares_of(mix), shares_of(usual)
    every = sorted({*now, *before}, key=lambda key: (-max(now.get(key, 0), before.get(key, 0)), key))
    most = max([*now.values(), *before.values()], default=1)
    drawn = []
    for key in every[:MOST_BARS]:
        share, earlier = now.get(key, 0.0), before.get(key, 0.0)
        shares = [share, earlier] if before else [share]
        bars = "".join(f'<i style="width:{100 * width / most:.1f}%"></i>' for width in shares)
        title = html.escape(f"{key}: {share:.2%}" + (f", the last nights {earlier:.2%}" if before else ""))
        said = f"<span>{html.escape(key)}</span><span>{bars}</span><span>{share:.1%}</span>"
        drawn.append(f'<div class="bar" title="{title}">{said}</div>')
    left = "" if len(every) <= MOST_BARS else f", the {MOST_BARS} most frequent of {len(every)}"
    keys = '<span class="key"></span>this night<span class="key usual"></span>the last nights' if before else ""
    return _figure(f"{name}{left}", f'<p class="note">{keys}</p>' + "".join(drawn))


def _lines(
    name: str,
    nights: Sequence[Profile],
    kinds: Mapping[str, str],
    series: Mapping[str, Sequence[float | None]],
    form: str = "{:.1%}",
) -> str:
    """Render one line per series over the dates. None is a date without a value."""
    first = date.fromisoformat(nights[0].night).toordinal()
    days = [date.fromisoformat(night.night).toordinal() - first for night in nights]
    most = max((value for values in series.values() for value in values if value is not None), default=0) or 1
    floor, step = HEIGHT - BOTTOM, (WIDTH - LEFT - 10) / max(1, days[-1])
    drawn = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (TOP, floor)]
    drawn += [_text(LEFT - 6, TOP + 4, form.format(most), "end"), _text(LEFT - 6, floor + 4, form.format(0), "end")]
    drawn += [_text(LEFT, HEIGHT - 6, nights[0].night), _text(WIDTH, HEIGHT - 6, nights[-1].night, "end")]
    for color, (key, values) in zip(COLORS, series.items(), strict=False):
        points = [
            (LEFT + 5 + day * step, floor - (floor - TOP) * value / most, night.night, value)
            for day, night, value in zip(days, nights, values, strict=True)
            if value is not None
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
        dots = [_dot(x, y, kinds[day], f"{day}: {key} {form.format(value)}, {kinds[day]}") for x, y, day, value in points]
        drawn.append(f'<g class="{color}"><polyline points="{line}"/>{"".join(dots)}</g>')
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(name)}">{"".join(drawn)}</svg>'
    keys = [f'<span class="key {c}"></span>{html.escape(k)}' for c, k in zip(COLORS, series, strict=False) if k]
    return _figure(name, svg + (f'<p class="note">{"".join(keys)}</p>' if keys else ""))


def _dot(x: float, y: float, kind: str, said: str) -> str:
    title = f"<title>{html.escape(said)}</title>"
    if kind.startswith("accepted"):
        hand = ' class="hand"' if kind == "accepted by hand" else ""
        return f'<circle{hand} cx="{x:.1f}" cy="{y:.1f}" r="3">{title}</circle>'
    return f'<path class="cross" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8">{title}</path>'


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(said)}</text>'


def _figure(title: str, drawn: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{drawn}</figure>"
