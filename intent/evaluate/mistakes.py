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
    shown = Table(("message", "meant", "said", "confidence"), worst, prose=True)
    yield f"{name}: the {len(worst)} most confident mistakes", shown
    for slot, pairs in result["confusion"].items():
        wrong = sum(n for meant, said, n in pairs if meant != said)
        yield f"{name}: {slot}, {wrong:,} confused", confusion_table(pairs)
    bins = [[f"{said:.2f}", true, f"{share:.1%}"] for said, true, share in result["score"]["reliability"]]
    yield f"{name}: calibration of its confidence", Table(("confidence", "right", "of all"), bins)


def confusion_table(pairs: Sequence[Sequence]) -> Table:
    """Return a table of [meant, said, count]: a matrix if the slot has at most MATRIX values, else the PAIRS most frequent
    confusions.
    """
    values = list(dict.fromkeys(value for meant, said, _ in pairs for value in (meant, said)))
    if len(values) > MATRIX:
        wrong = [[_value(meant), _value(said), f"{n:,}"] for meant, said, n in pairs if meant != said]
        return Table(("meant", "said", "times"), wrong[:PAIRS])
    counts = {(meant, said): n for meant, said, n in pairs}
    totals = {meant: sum(n for (m, _), n in counts.items() if m == meant) for meant in values}
    rows = [
        [f"{_value(meant)} ({totals[meant]:,})", *(counts.get((meant, s), 0) / (totals[meant] or 1) for s in values)]
        for meant in values
    ]
    return Table(("meant, said as", *map(_value, values)), rows)


def _intent(intent: dict | None) -> str:
    if intent is not None and intent.get(INTENTS) == []:
        return "an empty list"
    items = [", ".join(str(value) for value in item.values() if value is not None) for item in items_of(intent)]
    return "; ".join(items) if items else "nothing"


def _value(value: str | int | None) -> str:
    return "nothing" if value is None else str(value)
