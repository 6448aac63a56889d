"""Compute the layout of a report's plots: points, axes, names and the Pareto front. Knows no variant and no metric."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from intent.html.charts import Frame, Scale

FRAME = Frame(width=460, height=320, left=46, top=12, right=448, bottom=280)
LETTER, LINE = 7.0, 13
# The most points with a name. All points of the front have one, even if they are more.
NAMES = 10


@dataclass(frozen=True)
class Point:
    """A point in the units of the axes. `interval`: that of `y`, (low, high). `kind`: its CSS class."""

    name: str
    x: float
    y: float
    interval: tuple[float, float]
    kind: str


@dataclass(frozen=True)
class Mark:
    """A point's position in pixels. `low`, `high`: the ends of its whisker. `value`: the point's x as text."""

    point: Point
    x: float
    y: float
    low: float
    high: float
    value: str


@dataclass(frozen=True)
class Plot:
    """A plot in pixels.

    `x_ticks`, `y_ticks`: (position, text). `front`: the marks of the Pareto front, best x first. `edge`: the x to which the
    front's line is extended. `labels`: (name, x, y).
    """

    frame: Frame
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    marks: Sequence[Mark]
    front: Sequence[Mark]
    edge: int
    labels: Sequence[tuple[str, float, float]]


def front(points: Sequence[Point], more: bool) -> list[Point]:
    """Return the Pareto front, best x first: the points that no other point equals or beats in both x and y.

    `more`: a larger x is better.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.x if more else p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def tradeoff(points: Sequence[Point], more: bool) -> Plot:
    """Return a plot of y against x with the Pareto front. `more`: a larger x is better."""
    low, high = min(p.interval[0] for p in points), max(p.interval[1] for p in points)
    low, high = max(0.0, low - 0.02), min(1.0, high + 0.02)
    across = Scale.around([p.x for p in points], FRAME.left, FRAME.right)
    up = Scale(low, max(high, low + 0.01), FRAME.bottom, FRAME.top)
    marks = [Mark(p, across.at(p.x), up.at(p.y), up.at(p.interval[0]), up.at(p.interval[1]), _short(p.x)) for p in points]
    best = front(points, more)
    leading = sorted((mark for mark in marks if mark.point in best), key=lambda mark: best.index(mark.point))
    others = [mark for mark in marks if mark.point not in best]
    return Plot(
        FRAME,
        x_ticks=[(across.at(value), _short(value)) for value in across.ticks(5)],
        y_ticks=[(up.at(value), f"{value:.2f}") for value in up.ticks(6)],
        marks=[*others, *leading],
        front=leading,
        edge=FRAME.left if more else FRAME.right,
        labels=list(_labels([*leading, *others][: max(NAMES, len(leading))], marks)),
    )


def _labels(named: Iterable[Mark], marks: Iterable[Mark]) -> Iterator[tuple[str, float, float]]:
    """Yield (name, x, y) of the names that fit beside their points. The other names are only in the points' titles."""
    boxes = [(m.x - 5, m.y - 5, m.x + 5, m.y + 5) for m in marks]
    for mark in named:
        name, x, y = mark.point.name, mark.x, mark.y
        wide = LETTER * len(name)
        for left, top in ((x + 8, y - 7), (x - 8 - wide, y - 7), (x - wide / 2, y - 20), (x - wide / 2, y + 7)):
            box = (left, top, left + wide, top + LINE)
            inside = left >= FRAME.left and box[2] <= FRAME.width - 4 and top >= 0 and box[3] <= FRAME.bottom
            if inside and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                yield name, round(left, 1), round(top + 11, 1)
                break


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.3g}"
