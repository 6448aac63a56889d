"""The data card's plots: one picture without scripts or outside resources, in SVG.

Knows counts of examples; whatever text it draws is escaped.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from intent.dataset.example import Example
from intent.synth.card import first_slot, kind

WIDTH, LABEL, ROW, GAP = 760, 190, 20, 46
LENGTHS = ((0, 10), (10, 20), (20, 40), (40, 60), (60, 90), (90, 130), (130, 200), (200, 10_000))
COLOURS = ("#4878a8", "#d1813f", "#5a9a68", "#9a6aa8")
STYLE = """<style>
svg { background: #fff; font: 13px system-ui, sans-serif; } text { fill: #222; } .quiet { fill: #666; }
@media (prefers-color-scheme: dark) { svg { background: #16181c; } text { fill: #e6e6e6; } .quiet { fill: #a0a0a0; } }
</style>"""

Bars = Mapping[str, Mapping[str, int]]


def picture(examples: Sequence[Example]) -> str:
    """Languages by the first slot's value (where it has so few that colours tell them apart), message lengths, phenomena."""
    first = first_slot(examples)
    kinds = [value for value, _ in Counter(kind(e, first) for e in examples).most_common()]
    told = len(kinds) <= len(COLOURS)
    kinds = kinds if told else [""]
    languages = Counter((e.language, kind(e, first) if told else "") for e in examples)
    phenomena = Counter(name for e in examples for name in e.phenomena)
    lengths = Counter(len(e.message) for e in examples)
    panels = [
        (
            f"Languages, by {first}" if told else "Languages",
            {code: {name: languages[code, name] for name in kinds} for code in sorted({c for c, _ in languages})},
        ),
        ("Characters a message", {_span(low, high): {"": _between(lengths, low, high)} for low, high in LENGTHS}),
        ("Phenomena (a message has several)", {name: {"": n} for name, n in phenomena.most_common()}),
    ]
    drawn, top = [], 10
    for title, bars in panels:
        panel, top = _panel(title, bars, len(examples), top)
        drawn.append(panel)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">{STYLE}{"".join(drawn)}</svg>'


def _panel(title: str, bars: Bars, whole: int, top: int) -> tuple[str, int]:
    """A bar a row, stacked by kind, each with its share of the whole set; (SVG, where the next panel begins)."""
    most = max((sum(kinds.values()) for kinds in bars.values()), default=0) or 1
    names = [name for name in next(iter(bars.values()), {}) if name]
    parts = [f'<text x="10" y="{top + 16}" font-weight="600">{escape(title)}</text>']
    for i, name in enumerate(names):
        x = LABEL + 110 * i + 160
        parts.append(f'<rect x="{x}" y="{top + 6}" width="11" height="11" fill="{COLOURS[i % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x + 16}" y="{top + 16}">{escape(name)}</text>')
    for row, (label, kinds) in enumerate(bars.items()):
        parts.append(_bar(label, list(kinds.values()), most, whole, top + 28 + row * ROW))
    return "".join(parts), top + 28 + len(bars) * ROW + GAP // 2


def _bar(label: str, counts: Sequence[int], most: int, whole: int, y: int) -> str:
    room, x, total = WIDTH - LABEL - 80, float(LABEL), sum(counts)
    parts = [f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>']
    for i, count in enumerate(counts):
        width = room * count / most
        parts.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="14" fill="{COLOURS[i % len(COLOURS)]}"/>')
        x += width
    return "".join(parts) + f'<text class="quiet" x="{x + 6:.1f}" y="{y + 13}">{total / max(whole, 1):.1%}</text>'


def _between(lengths: Mapping[int, int], low: int, high: int) -> int:
    return sum(n for length, n in lengths.items() if low <= length < high)


def _span(low: int, high: int) -> str:
    return f"{low} to {high - 1}" if high < LENGTHS[-1][1] else f"{low} or more"
