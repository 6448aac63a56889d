"""Draw a report's plots: SVG without scripts, colored by the page's own style. Knows points and names, not their meaning."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
LETTER, LINE = 7.0, 13
# More names than this, after those of the front, are left out.
NAMES = 10
# A wider range gets a logarithmic axis.
LOG_FROM = 5.0


@dataclass(frozen=True)
class Point:
    """A point. `y` has an interval (low, high). `kind` is a class of the page's style."""

    name: str
    x: float
    y: float
    interval: tuple[float, float]
    kind: str


def front(points: Sequence[Point], more: bool) -> list[Point]:
    """Return the Pareto front, from its cheap end: points that no other equals or beats in both x and y. `more`: more x is
    better.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.x if more else p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def tradeoff(title: str, axis: str, points: Sequence[Point], more: bool) -> str:
    """Draw y against x with the Pareto front. `more`: more x is better."""
    scale = _Scale([p.x for p in points])
    low, high = min(p.interval[0] for p in points), max(p.interval[1] for p in points)
    rise = _Rise(max(0.0, low - 0.02), min(1.0, high + 0.02))
    best = front(points, more)
    parts = [*_grid(scale, rise, axis), _staircase([(scale.at(p.x), rise.at(p.y)) for p in best], scale, more)]
    for p in sorted(points, key=lambda p: p in best):
        x, (bottom, top) = scale.at(p.x), (rise.at(bound) for bound in p.interval)
        said = html.escape(f"{p.name}: {p.y:.3f} at {_short(p.x)}")
        parts.append(f'<line class="whisker {p.kind}" x1="{x:.1f}" y1="{bottom:.1f}" x2="{x:.1f}" y2="{top:.1f}"/>')
        parts.append(f'<circle class="{p.kind}" cx="{x:.1f}" cy="{rise.at(p.y):.1f}" r="4.5"><title>{said}</title></circle>')
    named = [*best, *(p for p in points if p not in best)][: max(NAMES, len(best))]
    at = {p.name: (scale.at(p.x), rise.at(p.y)) for p in points}
    parts += _labels([(p.name, *at[p.name]) for p in named], list(at.values()))
    label = html.escape(f"{title}; the front: {', '.join(p.name for p in best)}")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"


class _Scale:
    """Map x to pixels, with room on both sides; logarithmic if values are far apart."""

    def __init__(self, values: Sequence[float]):
        low, high = min(values), max(values)
        self.log = low > 0 and high / low > LOG_FROM
        self.to = math.log10 if self.log else float
        margin = 0.08 * ((self.to(high) - self.to(low)) or abs(self.to(high)) or 1.0)
        self.low, self.high = self.to(low) - margin, self.to(high) + margin

    def at(self, value: float) -> float:
        return LEFT + (self.to(value) - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        if not self.log:
            return _even(self.low, self.high, 5)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return [value for value in found if self.low <= math.log10(value) <= self.high]


class _Rise:
    """Map a share to pixels, upwards."""

    def __init__(self, low: float, high: float):
        self.low, self.high = low, max(high, low + 0.01)

    def at(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def _even(low: float, high: float, about: int) -> list[float]:
    """Return about `about` round numbers from `low` to `high`."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _grid(scale: _Scale, rise: _Rise, axis: str) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    for value in scale.ticks():
        x = scale.at(value)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{_short(value)}</text>'
    for value in _even(rise.low, rise.high, 6):
        y = rise.at(value)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>'
    middle, below = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6
    yield f'<text class="tick" x="{middle}" y="{below}" text-anchor="middle">{html.escape(axis)}</text>'


def _staircase(corners: Sequence[tuple[float, float]], scale: _Scale, more: bool) -> str:
    """Return the best reachable y at each x: from the good edge over every corner, downwards at the end."""
    path = [f"M{corners[0][0]:.1f},{HEIGHT - BOTTOM}", f"V{corners[0][1]:.1f}"]
    for x, y in corners[1:]:
        path += [f"H{x:.1f}", f"V{y:.1f}"]
    edge = LEFT if more else WIDTH - RIGHT
    return f'<path class="front" d="{" ".join(path)} H{edge}"/>'


def _labels(wanted: Sequence[tuple[str, float, float]], points: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Put names beside their points, the first ones first. A name without free space stays in the point's title only."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for name, x, y in wanted:
        wide = LETTER * len(name)
        for left, top in ((x + 8, y - 7), (x - 8 - wide, y - 7), (x - wide / 2, y - 20), (x - wide / 2, y + 7)):
            box = (left, top, left + wide, top + LINE)
            inside = box[0] >= LEFT and box[2] <= WIDTH - 4 and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                yield f'<text x="{left:.1f}" y="{top + 11:.1f}">{html.escape(name)}</text>'
                break


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.3g}"
