"""Render a report's tables as aligned text and as Markdown, and return their cells for its page. Cells never contain markup."""

import re
from collections.abc import Iterator, Sequence
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
    """A table. A cell that is a float or a Share is in [0, 1], and a page shades it by its value. None is no value.

    The last cell of a short row spans the missing cells. `prose`: cells have text that a page may wrap.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    prose: bool = False

    def text(self) -> str:
        """Return the table as text with aligned columns."""
        lines = [list(self.columns), *([_text(cell) for cell in row] for row in self.rows)]
        full = [line for line in lines if len(line) == len(self.columns)]
        widths = [max(len(line[0]) for line in lines), *(max(map(len, column)) for column in list(zip(*full, strict=True))[1:])]
        padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=False)] for line in lines]
        return "\n".join("  ".join(line).rstrip() for line in padded)

    def markdown(self) -> str:
        """Return the table as Markdown, with escaped cells."""
        lines = [[escape_markdown(name) for name in self.columns], ["---"] * len(self.columns)]
        for row in self.rows:
            lines.append([escape_markdown(_text(cell)) for cell in row] + [""] * (len(self.columns) - len(row)))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def cells(self) -> Iterator[list[tuple[str, float | None, int]]]:
        """Yield (text, share or None, columns that it spans) of each cell, row by row."""
        for row in self.rows:
            spans = [*(1 for _ in row[1:]), len(self.columns) - len(row) + 1]
            yield [(_text(cell), _share(cell), span) for cell, span in zip(row, spans, strict=True)]


def escape_markdown(text: str) -> str:
    """Return text on one line, without active Markdown."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))


def _share(cell: Cell) -> float | None:
    value = cell.value if isinstance(cell, Share) else cell
    return value if isinstance(value, float) else None


def _text(cell: Cell) -> str:
    if cell is None:
        return NONE
    if isinstance(cell, Share):
        return f"{cell.value:.3f} ({cell.low:.3f}-{cell.high:.3f})"
    return f"{cell:.3f}" if isinstance(cell, float) else cell
