"""Results as a table for a terminal and as one self-contained HTML page with plots."""

import html
from collections.abc import Mapping
from importlib.resources import files
from string import Template

REPORT = "report.html"
COLUMNS = ("variant", "exact", "agrees", "messages/s", "peak memory", "file", "ECE", "kept at 99 %")


def rows(results: Mapping[str, Mapping]) -> list[list[str]]:
    return [
        [
            name,
            f"{result['score']['exact']:.3f}",
            f"{result['agreement']:.3f}",
            f"{result['messages_per_second']:,.1f}",
            f"{result['peak_bytes'] / 1e6:,.0f} MB",
            f"{result['file_bytes'] / 1e6:,.0f} MB",
            f"{result['score']['ece']:.3f}",
            f"{result['score']['kept_at_99']:.2f}",
        ]
        for name, result in results.items()
    ]


def render_text(results: Mapping[str, Mapping]) -> str:
    lines = [list(COLUMNS), *rows(results)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def render_html(results: Mapping[str, Mapping]) -> str:
    """One page without scripts or outside resources: the table, then a bar chart a question."""
    page = Template((files("intent.evaluate") / "report.html").read_text())
    score = {name: result["score"] for name, result in results.items()}
    charts = [
        _chart("Exact match", {name: s["exact"] for name, s in score.items()}, "{:.3f}", 1.0),
        _chart("Messages per second", {name: r["messages_per_second"] for name, r in results.items()}, "{:,.1f}"),
        _chart("Peak memory of the process, MB", {name: r["peak_bytes"] / 1e6 for name, r in results.items()}, "{:,.0f}"),
        *(_chart(f"Exact match by language, {name}", s["languages"], "{:.3f}", 1.0) for name, s in score.items()),
        *(_chart(f"Exact match by phenomenon, {name}", s["phenomena"], "{:.3f}", 1.0) for name, s in score.items()),
    ]
    table = _table([list(COLUMNS), *rows(results)])
    messages = next(iter(score.values()))["messages"]
    return page.substitute(table=table, charts="\n".join(charts), messages=f"{messages:,}")


def _table(lines: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in lines[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _chart(title: str, values: Mapping[str, float], form: str, most: float | None = None) -> str:
    """A horizontal bar chart in SVG; bars of `most` (or of the largest value) fill the width."""
    most = most or max(values.values(), default=0) or 1
    bars = []
    for i, (name, value) in enumerate(values.items()):
        y, width = 22 * i, 380 * value / most
        bars.append(
            f'<text x="190" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="200" y="{y + 2}" width="{width:.1f}" height="16" rx="2"/>'
            f'<text x="{206 + width:.1f}" y="{y + 14}">{form.format(value)}</text>'
        )
    height = 22 * len(values)
    svg = f'<svg viewBox="0 0 680 {height}" role="img" aria-label="{html.escape(title)}">{"".join(bars)}</svg>'
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"
