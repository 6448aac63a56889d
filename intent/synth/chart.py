"""Draw the data card's bar charts as one SVG picture without scripts or external resources."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from intent.dataset.example import Example
from intent.html import render
from intent.html.charts import Scale
from intent.synth.card import first_slot, kind

WIDTH, LABEL, HEAD, ROW, GAP = 760, 190, 28, 20, 23
LENGTHS = ((0, 10), (10, 20), (20, 40), (40, 60), (60, 90), (90, 130), (130, 200), (200, 10_000))
MOST_KINDS = 4

Bars = Mapping[str, Mapping[str, int]]


def picture(examples: Sequence[Example]) -> str:
    """Return the bars of languages, message lengths and phenomena as SVG.

    The bars of the languages are stacked by the first slot's value if it has at most MOST_KINDS values.
    """
    first = first_slot(examples)
    kinds = [value for value, _ in Counter(kind(e, first) for e in examples).most_common()]
    is_stacked = len(kinds) <= MOST_KINDS
    kinds = kinds if is_stacked else [""]
    languages = Counter((e.language, kind(e, first) if is_stacked else "") for e in examples)
    phenomena = Counter(name for e in examples for name in e.phenomena)
    lengths = Counter(len(e.message) for e in examples)
    panels = [
        (
            f"Languages, by {first}" if is_stacked else "Languages",
            {code: {name: languages[code, name] for name in kinds} for code in sorted({c for c, _ in languages})},
        ),
        ("Characters a message", {_span(low, high): {"": _between(lengths, low, high)} for low, high in LENGTHS}),
        ("Phenomena (a message has several)", {name: {"": n} for name, n in phenomena.most_common()}),
    ]
    placed, top = [], 10
    for title, bars in panels:
        placed.append(_panel(title, bars, len(examples), top))
        top += HEAD + len(bars) * ROW + GAP
    return render("synth/chart.svg.j2", panels=placed, width=WIDTH, height=top, label=LABEL)


def _panel(title: str, bars: Bars, whole: int, top: int) -> dict:
    """Return a panel that starts `top` pixels down: one row per bar, stacked by kind, with its share of `whole` examples."""
    across = Scale(0, max((sum(kinds.values()) for kinds in bars.values()), default=0) or 1, LABEL, WIDTH - 80)
    rows = []
    for row, (label, kinds) in enumerate(bars.items()):
        *_, count = ends = list(accumulate(kinds.values(), initial=0))
        blocks = [(across.at(start), round(across.at(end) - across.at(start), 1)) for start, end in pairwise(ends)]
        share = count / max(whole, 1)
        rows.append({"label": label, "y": HEAD + row * ROW, "blocks": blocks, "end": across.at(count), "share": share})
    names = [name for name in next(iter(bars.values()), {}) if name]
    return {"title": title, "top": top, "names": names, "rows": rows}


def _between(lengths: Mapping[int, int], low: int, high: int) -> int:
    return sum(n for length, n in lengths.items() if low <= length < high)


def _span(low: int, high: int) -> str:
    return f"{low} to {high - 1}" if high < LENGTHS[-1][1] else f"{low} or more"
