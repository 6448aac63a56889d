"""List a variant's mistakes: the worst messages, the confusions, and how well its confidence is calibrated."""

from collections.abc import Iterator, Mapping, Sequence

from intent.evaluate.tables import Table
from intent.task.schema import INTENTS, items_of

# A slot with more values than this gets its most frequent confusions instead of a matrix.
MATRIX = 12
PAIRS = 20


def mistakes_of(name: str, result: Mapping) -> Iterator[tuple[str, Table]]:
    """Yield (summary, table) of a result's most confident mistakes, of its confusions by slot, and of its calibration."""
    worst = [[w["message"], _intent(w["meant"]), _intent(w["said"]), f"{w['confidence']:.3f}"] for w in result["worst"]]
    table = Table(("message", "gold", "predicted", "confidence"), worst, prose=True)
    yield f"{name}: the {len(worst)} most confident mistakes", table
    for slot, pairs in result["confusion"].items():
        wrong = sum(n for gold, predicted, n in pairs if gold != predicted)
        yield f"{name}: {slot}, {wrong:,} confused", confusion_table(pairs)
    bins = [[f"{sure:.2f}", true, f"{share:.1%}"] for sure, true, share in result["score"]["reliability"]]
    yield f"{name}: calibration of its confidence", Table(("confidence", "right", "of all"), bins)


def confusion_table(pairs: Sequence[Sequence]) -> Table:
    """Return a table of [gold, predicted, count]: a matrix if the slot has at most MATRIX values, else the PAIRS most frequent
    confusions.
    """
    values = list(dict.fromkeys(value for gold, predicted, _ in pairs for value in (gold, predicted)))
    if len(values) > MATRIX:
        wrong = [[_value(gold), _value(predicted), f"{n:,}"] for gold, predicted, n in pairs if gold != predicted]
        return Table(("gold", "predicted", "times"), wrong[:PAIRS])
    counts = {(gold, predicted): n for gold, predicted, n in pairs}
    totals = {gold: sum(n for (m, _), n in counts.items() if m == gold) for gold in values}
    rows = [
        [f"{_value(gold)} ({totals[gold]:,})", *(counts.get((gold, s), 0) / (totals[gold] or 1) for s in values)]
        for gold in values
    ]
    return Table(("gold, predicted as", *map(_value, values)), rows)


def _intent(intent: dict | None) -> str:
    if intent is not None and intent.get(INTENTS) == []:
        return "an empty list"
    items = [", ".join(str(value) for value in item.values() if value is not None) for item in items_of(intent)]
    return "; ".join(items) if items else "nothing"


def _value(value: str | int | None) -> str:
    return "nothing" if value is None else str(value)
