"""Write the data card: a Markdown summary of a set of examples, so that a person can judge the set without opening it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import quantiles

from intent.dataset.deduplicate import deduplicate, leaks
from intent.dataset.example import Example
from intent.synth.contradictions import contradictions
from intent.synth.language import available
from intent.task.schema import INTENTS, Item, items_of

BAR = 24
MARKUP = frozenset("\\`*_[]<>|")
SAMPLES = 3
COLUMNS = 12  # A first slot with more values is shown as bars instead of table columns.
PRODUCT, QUANTITY, NONE = "product", "quantity", "none"
CART = {"action", PRODUCT, QUANTITY}
QUANTITIES = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 9), (10, 12), (13, 24), (25, 99))


def card(
    examples: Sequence[Example],
    catalogs: Mapping[str, Sequence[str]],
    evaluation: Iterable[str] = (),
    title: str = "Data",
    taught: Mapping[str, object] | None = None,
) -> str:
    """Return the counts, checks and samples of `examples` as Markdown.

    `catalogs`: product names by catalog id ("" is the job's own catalog). `evaluation`: messages that must not be among the
    examples; the card counts those that are. `taught`: the result of `teacher.report`.
    """
    if not examples:
        return f"# {title}\n\nNo examples.\n"
    parts = [f"# {title}", _summary(examples, catalogs, list(evaluation)), _cross(examples)]
    parts += [_bars("Phenomena", Counter(name for e in examples for name in e.phenomena), len(examples))]
    if _are_lists(examples):
        lengths = Counter(str(n) for n in sorted(len(items_of(e.intent)) for e in examples))
        parts += [_bars("Items a message", lengths, len(examples), keep_order=True)]
    items = [item for e in examples for item in items_of(e.intent)]
    if any(isinstance(item.get(QUANTITY), int) for item in items):
        parts += [_bars("Quantity", _quantities(items), sum(_quantities(items).values()), keep_order=True)]
    parts += [_teacher(taught)] if taught else []
    return "\n\n".join([*parts, _samples(examples)]) + "\n"


def _teacher(taught: Mapping) -> str:
    rows = {**taught, "rejected": sum(taught["rejected"].values())} | {f"- {why}": n for why, n in taught["rejected"].items()}
    return "## Teacher\n\n" + _table(
        ("", ""), [(name, f"{n:,.6g}" if not isinstance(n, str) else n) for name, n in rows.items()]
    )


def _summary(examples: Sequence[Example], catalogs: Mapping[str, Sequence[str]], evaluation: list[str]) -> str:
    lengths = sorted(len(e.message) for e in examples)
    unique = deduplicate(examples)
    rows = {
        "Examples": f"{len(examples):,}",
        "Generators": ", ".join(sorted({e.generator for e in examples})),
        "Seeds": ", ".join(str(seed) for seed in sorted({e.seed for e in examples})),
        "Characters a message": _spread(lengths),
        "Repeated messages": f"{unique.repeated:,} ({unique.repeated / len(examples):.1%})",
        "Repeated with another label": f"{unique.contradicting:,}",
    }
    if all(set(item) >= CART for e in examples for item in items_of(e.intent)):
        rows |= _cart(examples, catalogs)
    if evaluation:
        rows["Shared with evaluation"] = f"{len(leaks(examples, evaluation)):,} examples, of {len(evaluation):,} messages"
    return _table(("", ""), list(rows.items()))


def _cart(examples: Sequence[Example], catalogs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    requested = [(e.catalog, item[PRODUCT]) for e in examples for item in items_of(e.intent)]
    products = Counter((catalog, product) for catalog, product in requested if product)
    # The rules can read only languages that have a language file.
    readable = [example for example in examples if example.language in available()]
    return {
        "Catalogs": f"{len({e.catalog for e in examples}):,}",
        "Products asked for": f"{len(products):,}, one at most in {max(products.values(), default=0) / len(examples):.1%}",
        "Labels that rules contradict": f"{sum(1 for _ in contradictions(readable, catalogs)):,}",
    }


def _spread(lengths: list[int]) -> str:
    if len(lengths) < 2:
        return str(lengths[0])
    cuts = quantiles(lengths, n=20)
    return f"median {cuts[9]:.0f}, 5 % under {cuts[0]:.0f}, 5 % over {cuts[18]:.0f}, longest {lengths[-1]}"


def _are_lists(examples: Sequence[Example]) -> bool:
    return INTENTS in examples[0].intent


def first_slot(examples: Sequence[Example]) -> str:
    """Return the name of the first slot. Lists that are all empty do not show it; then it is the name of the list."""
    return next((name for e in examples for item in items_of(e.intent) for name in item), INTENTS)


def kind(example: Example, first: str) -> str:
    """Return the value of the slot `first`: for a list, each different value joined by "and"; for an empty list, "none"."""
    return " and ".join(sorted({str(item[first]) for item in items_of(example.intent)})) or NONE


def _cross(examples: Sequence[Example]) -> str:
    first = first_slot(examples)
    counts = Counter((e.language, kind(e, first)) for e in examples)
    languages = sorted({language for language, _ in counts})
    actions = [a for a, _ in Counter(kind(e, first) for e in examples).most_common()]
    if len(actions) > COLUMNS:
        return _bars(first.capitalize(), Counter(kind(e, first) for e in examples), len(examples))
    rows = [
        (lang, *(f"{counts[lang, a]:,}" for a in actions), f"{sum(counts[lang, a] for a in actions):,}") for lang in languages
    ]
    totals = [sum(counts[lang, a] for lang in languages) for a in actions]
    rows.append(("all", *(f"{n:,} ({n / len(examples):.0%})" for n in totals), f"{len(examples):,}"))
    return f"## Languages and {first}s\n\n" + _table(("language", *actions, "all"), rows)


def _quantities(items: Sequence[Item]) -> Counter:
    counts: Counter = Counter()
    for low, high in QUANTITIES:
        name = str(low) if low == high else f"{low}-{high}"
        counts[name] = sum(1 for item in items if isinstance(n := item[QUANTITY], int) and low <= n <= high)
    return counts


def _bars(title: str, counts: Counter, whole: int, keep_order: bool = False) -> str:
    rows = list(counts.items()) if keep_order else sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    most = max(counts.values(), default=0) or 1
    lines = [(name, f"{n:,}", f"{n / max(whole, 1):.1%}", "█" * max(1, round(BAR * n / most)) if n else "") for name, n in rows]
    return f"## {title}\n\n" + _table(("", "examples", "share", ""), lines)


def _samples(examples: Sequence[Example]) -> str:
    """Show the first SAMPLES examples of every language and value of the first slot."""
    first = first_slot(examples)
    chosen: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        group = chosen[example.language, kind(example, first)]
        if len(group) < SAMPLES:
            group.append(example)
    slots = [INTENTS] if _are_lists(examples) else list(examples[0].intent)
    rows = [(e.language, e.message, *_values(e), ", ".join(e.phenomena)) for key in sorted(chosen) for e in chosen[key]]
    return "## Samples\n\n" + _table(("language", "message", *slots, "phenomena"), rows)


def _values(example: Example) -> list[object]:
    """Return one cell per slot. A list is one cell with all its items."""
    if INTENTS not in example.intent:
        return [value or "" for value in example.intent.values()]
    return ["; ".join(" ".join(str(value) for value in item.values()) for item in items_of(example.intent))]


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    """Escape markup, because a message is text even if it looks like markup."""
    return "".join(f"\\{c}" if c in MARKUP else c for c in str(value))
