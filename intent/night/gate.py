"""A labelled night against the last ones: what no single row shows, such as half of the messages being `none` at once.

A night's portrait is counted from its labelled parts and kept beside them. Knows parts, Arrow and the store; nothing of
Ray, dates or pages.
"""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.config import GateConfig
from intent.engine import Status
from intent.night.ledger import LABELLED, MANIFEST
from intent.night.progress import Summary
from intent.schema import Choice, Entity, IntentSchema
from intent.storage import Store

PORTRAIT, QUARANTINED = "portrait.json", "quarantined.json"
NONE = "none"


@dataclass(frozen=True)
class Portrait:
    """What a night looks like. `shares` of all rows, in [0, 1]: rejected, abstained, none.

    `mixes`: how often each value is answered, by slot, and by slot and language where a column names it. `findings`: why
    the night is outside its limits.
    """

    night: str
    rows: int
    shares: dict[str, float]
    mixes: dict[str, dict[str, int]]
    findings: list[str] = field(default_factory=list)


def portrait(night: str, store: Store, schema: IntentSchema, summary: Summary, language: str | None) -> Portrait:
    """Of the parts in `store`, read a few at a time."""
    slots = [slot.name for slot in schema.slots if isinstance(slot, Choice | Entity)]
    columns = [*slots, *([language] if language else [])]
    with ThreadPoolExecutor(store.parallel) as pool:
        counts = pool.map(lambda blob: _count(store.read(blob.key), columns), store.list(f"{LABELLED}/"))
        table = pa.concat_tables(counts)
    mixes: dict[str, dict[str, int]] = {}
    for slot in slots:
        mixes |= {slot: _sum(table, slot)}
        for value in pc.unique(table[language]).to_pylist() if language else []:
            mixes |= {f"{slot} in {value}": _sum(table.filter(_same(table[language], value)), slot)}
    nones = next((mixes[slot.name].get(NONE, 0) for slot in schema.slots if isinstance(slot, Choice)), 0)
    counted = {"rejected": summary.rejected, "abstained": summary.abstained, NONE: nones}
    shares = {name: count / max(1, summary.rows) for name, count in counted.items()}
    return Portrait(night, summary.rows, shares, mixes)


def _count(part: bytes, columns: list[str]) -> pa.Table:
    table = pq.read_table(io.BytesIO(part), columns=[*columns, "status"], page_checksum_verification=True)
    sure = table.filter(pc.equal(table["status"], str(Status.OK))).select(columns)
    return pa.table({name: sure[name].cast(pa.string()) for name in columns}).group_by(columns).aggregate([([], "count_all")])


def _same(column: pa.ChunkedArray, value: str | None) -> pa.ChunkedArray:
    return column.is_null() if value is None else pc.equal(column, value)


def _sum(table: pa.Table, slot: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for value, count in zip(table[slot].to_pylist(), table["count_all"].to_pylist(), strict=True):
        if value is not None:
            counts[value] += count
    return dict(sorted(counts.items()))


def findings(night: Portrait, last: Sequence[Portrait], limits: GateConfig) -> list[str]:
    """Every limit that `night` is over, in words. Without `last` nights only those that need none."""
    found = [
        f"{name} is {night.shares[name]:.1%} of all rows, over gate.{name}={most}"
        for name, most in (("rejected", limits.rejected), ("abstained", limits.abstained))
        if night.shares[name] > most
    ]
    if not last:
        return found
    for name, share in night.shares.items():
        usual = sum(portrait.shares[name] for portrait in last) / len(last)
        if abs(share - usual) > limits.change:
            found.append(f"{name} is {share:.1%} of all rows, usually {usual:.1%}: more than gate.change={limits.change} apart")
    for name, mix in night.mixes.items():
        usual = total(portrait.mixes.get(name, {}) for portrait in last)
        if usual and mix and (far := distance(mix, usual)) > limits.distance + noise(mix, usual):
            found.append(f"the mix of {name} is {far:.2f} from the last nights', over gate.distance={limits.distance}")
    return found


def total(mixes) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for mix in mixes:
        counts.update(mix)
    return dict(counts)


def distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Jensen-Shannon distance (base 2) of two distributions given by counts: 0 where they are the same, 1 where disjoint."""
    keys = sorted({*one, *other})
    p, q = (np.array([mix.get(key, 0) for key in keys], float) for mix in (one, other))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sqrt(max(0.0, (_divergence(p, (p + q) / 2) + _divergence(q, (p + q) / 2)) / 2)))


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())


def noise(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """The distance that two samples of one distribution have by chance, of their sizes (the divergence is a scaled chi-square)."""
    sizes = 1 / max(1, sum(one.values())) + 1 / max(1, sum(other.values()))
    return float(np.sqrt((len({*one, *other}) - 1) * sizes / (8 * np.log(2))))


def keep(store: Store, night: Portrait) -> None:
    """Beside the parts, with the mark of a night that is outside its limits, or without it where it no longer is."""
    store.put(PORTRAIT, json.dumps(asdict(night), ensure_ascii=False, indent=1).encode())
    if night.findings:
        store.put(QUARANTINED, json.dumps(night.findings, ensure_ascii=False, indent=1).encode())
    else:
        store.delete(QUARANTINED)


def load(store: Store, accepted: bool = True) -> Portrait | None:
    """The portrait kept in `store`; with `accepted`, None for a night without a manifest."""
    if accepted and store.stat(MANIFEST) is None:
        return None
    try:
        return Portrait(**json.loads(store.read(PORTRAIT)))
    except FileNotFoundError:
        return None
