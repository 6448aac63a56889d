"""Results as a table for a terminal and as one self-contained HTML page with plots."""

import html
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from intent.evaluate.results import Sources

REPORT = "report.html"
COLUMNS = ("variant", "exact", "agrees", "messages/s", "peak memory", "file", "ECE", "kept at 99 %", "$ per million")


def rows(results: Mapping[str, Mapping]) -> list[list[str]]:
    """A line a result; one that failed has its reason instead of figures."""
    return [[name, result["reason"]] if "reason" in result else _row(name, result) for name, result in results.items()]


def _row(name: str, result: Mapping) -> list[str]:
    score, price = result["score"], result["price_per_million"]
    return [
        name,
        f"{score['exact']:.3f}",
        f"{result['agreement']:.3f}",
        f"{result['messages_per_second']:,.1f}",
        f"{result['peak_bytes'] / 1e6:,.0f} MB",
        f"{result['file_bytes'] / 1e6:,.0f} MB",
        f"{score['ece']:.3f}",
        f"{score['kept_at_99']:.2f}",
        "-" if price is None else f"{price:,.2f}",
    ]


def render_text(results: Mapping[str, Mapping]) -> str:
    lines = [list(COLUMNS), *rows(results)]
    full = [line for line in lines if len(line) == len(COLUMNS)]
    widths = [max(len(line[0]) for line in lines), *(max(map(len, column)) for column in list(zip(*full, strict=True))[1:])]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=False)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def write_report(folder: Path, results: Mapping[str, Mapping], selected: Mapping[str, Mapping], sources: Sources) -> None:
    (folder / REPORT).write_text(render_html(results, selected, len(sources.examples)), encoding="utf-8")


def render_html(results: Mapping[str, Mapping], selected: Mapping[str, Mapping], messages: int) -> str:
    """One page without scripts or outside resources: the table, what was selected, then a bar chart a question."""
    page = Template((files("intent.evaluate") / "report.html").read_text())
    measured = {name: result for name, result in results.items() if "reason" not in result}
    score = {name: result["score"] for name, result in measured.items()}
    charts = [
        _chart("Exact match", {name: s["exact"] for name, s in score.items()}, "{:.3f}", 1.0),
        _chart("Messages per second", {name: r["messages_per_second"] for name, r in measured.items()}, "{:,.1f}"),
        _chart("Peak memory of the process, MB", {name: r["peak_bytes"] / 1e6 for name, r in measured.items()}, "{:,.0f}"),
        *(_chart(f"Exact match by language, {name}", s["languages"], "{:.3f}", 1.0) for name, s in score.items()),
        *(_chart(f"Exact match by phenomenon, {name}", s["phenomena"], "{:.3f}", 1.0) for name, s in score.items()),
    ]
    chosen = [["hardware", "selected, because"], *([model, f"{c['variant']}: {c['reason']}"] for model, c in selected.items())]
    tables = _table([list(COLUMNS), *rows(results)]) + _table(chosen)
    return page.substitute(table=tables, charts="\n".join(charts), messages=f"{messages:,}")


def _table(lines: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in lines[0])
    body = "".join(f"<tr>{_cells(line, len(lines[0]))}</tr>" for line in lines[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(line: list[str], columns: int) -> str:
    """The last cell of a short line takes the place of those that it lacks."""
    span = f' colspan="{columns - len(line) + 1}"' if len(line) < columns else ""
    *first, last = (html.escape(cell) for cell in line)
    return "".join(f"<td>{cell}</td>" for cell in first) + f"<td{span}>{last}</td>"


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
