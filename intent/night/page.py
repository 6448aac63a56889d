"""A night, and the run of nights, as pages without scripts or outside resources. Knows portraits only."""

import html
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from string import Template

from intent.night.gate import Portrait, total
from intent.night.progress import Summary

MOST_BARS = 20
WIDTH, HEIGHT, LEFT = 680, 180, 60


def night_page(night: Portrait, last: Sequence[Portrait], summary: Summary) -> str:
    """One night: the verdict, its counts, and each mix beside that of the last nights."""
    counts = [("rows", f"{night.rows:,}"), ("labelled", f"{summary.labelled:,}")]
    counts += [(name, f"{share:.2%}") for name, share in night.shares.items()]
    counts += [("messages that models saw", f"{summary.classified:,}"), ("retries", f"{summary.retries:,}")]
    counts += [(f"rows by {name}", f"{entry['rows']:,.0f}") for name, entry in summary.variants.items()]
    usual = {name: total(portrait.mixes.get(name, {}) for portrait in last) for name in night.mixes}
    charts = [_bars(name, mix, usual[name]) for name, mix in night.mixes.items()]
    return _page(f"night of {night.night}", _verdict(night), _table(["", "this night"], counts), charts)


def trend_page(nights: Sequence[Portrait]) -> str:
    """All `nights`, oldest first; those outside their limits in red."""
    charts = [_line("rows", nights, lambda night: night.rows, "{:,.0f}")]
    for name in nights[-1].shares:
        charts.append(_line(name, nights, lambda night, name=name: night.shares.get(name, 0.0), "{:.1%}"))
    head = ["night", "rows", *nights[-1].shares, "outside its limits"]
    rows = [
        (n.night, f"{n.rows:,}", *(f"{n.shares.get(name, 0):.2%}" for name in nights[-1].shares), "; ".join(n.findings))
        for n in reversed(nights)
    ]
    return _page(f"nights from {nights[0].night} to {nights[-1].night}", "", _table(head, rows), charts)


def _page(title: str, verdict: str, table: str, charts: Sequence[str]) -> str:
    page = Template((files("intent.night") / "page.html").read_text())
    return page.substitute(title=html.escape(title), verdict=verdict, table=table, charts="\n".join(charts))


def _verdict(night: Portrait) -> str:
    if not night.findings:
        return '<p class="accepted">accepted</p>'
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in night.findings)
    return f'<p class="quarantined">quarantined: there is no manifest, nothing should read its labels</p><ul>{reasons}</ul>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"


def _bars(name: str, mix: Mapping[str, int], usual: Mapping[str, int]) -> str:
    """The most frequent values' shares: this night's bar above the last nights'."""
    now, before = _shares(mix), _shares(usual)
    keys = sorted({*now, *before}, key=lambda key: (-max(now.get(key, 0), before.get(key, 0)), key))[:MOST_BARS]
    most = max([now.get(key, 0) for key in keys] + [before.get(key, 0) for key in keys], default=0) or 1
    drawn = []
    for i, key in enumerate(keys):
        y = 26 * i
        drawn.append(f'<text x="190" y="{y + 15}" text-anchor="end">{html.escape(key[:28])}</text>')
        for kind, shares, down in (("now", now, 2), ("usual", before, 13)):
            width = 400 * shares.get(key, 0) / most
            drawn.append(f'<rect class="{kind}" x="200" y="{y + down}" width="{width:.1f}" height="10"/>')
        drawn.append(f'<text x="610" y="{y + 15}">{now.get(key, 0):.1%}</text>')
    left = "" if len({*now, *before}) <= MOST_BARS else f", the {MOST_BARS} most frequent of {len({*now, *before})}"
    return _figure(f"{name}{left} (grey: the last nights)", drawn, 26 * len(keys))


def _line(name: str, nights: Sequence[Portrait], value: Callable[[Portrait], float], form: str) -> str:
    values = [value(night) for night in nights]
    most = max(values) or 1
    step = (WIDTH - LEFT - 20) / max(1, len(nights) - 1)
    points = [(LEFT + i * step, HEIGHT - 24 - (HEIGHT - 40) * v / most) for i, v in enumerate(values)]
    drawn = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (16, HEIGHT - 24)]
    drawn += [f'<text x="0" y="20">{form.format(most)}</text><text x="0" y="{HEIGHT - 20}">{form.format(0)}</text>']
    drawn += [f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>']
    for night, (x, y), v in zip(nights, points, values, strict=True):
        said = html.escape(f"{night.night}: {form.format(v)}")
        drawn.append(
            f'<circle class="{"bad" if night.findings else "dot"}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{said}</title></circle>'
        )
    drawn.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">{html.escape(nights[0].night)}</text>')
    drawn.append(f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">{html.escape(nights[-1].night)}</text>')
    return _figure(name, drawn, HEIGHT)


def _shares(mix: Mapping[str, int]) -> dict[str, float]:
    rows = sum(mix.values())
    return {key: count / rows for key, count in mix.items()}


def _figure(title: str, drawn: Sequence[str], height: int) -> str:
    svg = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}">{"".join(drawn)}</svg>'
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"
