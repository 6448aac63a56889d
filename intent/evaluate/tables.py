"""Render a report's tables as aligned text, Markdown and HTML. A cell is always text, never markup."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

NONE = "-"
# Characters that would be markup, a link or another cell in a Markdown table.
_ACTIVE = re.compile(r"([\\`*\[\]<>|])")


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] with its interval."""

    value: float
    low: float
    high: float


Cell = str | float | Share | None


@dataclass(frozen=True)
class Table:
    """`rows` under `columns`. A float or Share is in [0, 1]; in HTML a larger value has a darker background. None is no value.

    The last cell of a row that is too short spans the missing cells.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def text(self) -> str:
        lines = [list(self.columns), *([_said(cell) for cell in row] for row in self.rows)]
        full = [line for line in lines if len(line) == len(self.columns)]
        widths = [max(len(line[0]) for line in lines), *(max(map(len, column)) for column in list(zip(*full, strict=True))[1:])]
        padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=False)] for line in lines]
        return "\n".join("  ".join(line).rstrip() for line in padded)

    def markdown(self) -> str:
        lines = [[escape_markdown(name) for name in self.columns], ["---"] * len(self.columns)]
        for row in self.rows:
            lines.append([escape_markdown(_said(cell)) for cell in row] + [""] * (len(self.columns) - len(row)))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(f"<tr>{''.join(self._cells(row))}</tr>" for row in self.rows)
        return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'

    def _cells(self, row: Sequence[Cell]) -> list[str]:
        cells = [_html_cell(cell) for cell in row]
        if (lacking := len(self.columns) - len(row)) > 0:
            cells[-1] = f'<td class="words" colspan="{lacking + 1}">{html.escape(_said(row[-1]))}</td>'
        return cells


def escape_markdown(text: str) -> str:
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))


def _html_cell(cell: Cell) -> str:
    share = cell.value if isinstance(cell, Share) else cell
    shade = f' class="share" style="--share:{share:.3f}"' if isinstance(share, float) else ""
    return f"<td{shade}>{html.escape(_said(cell))}</td>"


def _said(cell: Cell) -> str:
    if cell is None:
        return NONE
    if isinstance(cell, Share):
        return f"{cell.value:.3f} ({cell.low:.3f}-{cell.high:.3f})"
    return f"{cell:.3f}" if isinstance(cell, float) else cell
