"""Compare a labelled run with the last ones. This finds faults that no single row shows, such as `none` for half of the rows.

Knows parts and Arrow; nothing of Ray, stores, dates or pages.
"""

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.engine import Status
from intent.errors import ConfigError
from intent.nightly.config import GateConfig
from intent.run import items
from intent.run.progress import Summary
from intent.task.catalog import normalize
from intent.task.schema import INTENTS, ITEM, Choice, Entity, IntentSchema

NONE, NO_LANGUAGE, OTHERS = "none", "no language", "other languages"
# The distribution of the number of items per message, if intents are lists.
ITEMS = "items a message"
LANGUAGE = "gate.language"
MOST_LANGUAGES, MOST_LETTERS = 24, 40
# The number of parts whose counts are held at a time.
MOST_COUNTS = 64
# The quantile for chance: 99.9 % of the runs that are like the last ones must pass.
Z = 3.09


@dataclass(frozen=True)
class Profile:
    """Statistics of a nightly run. `night`: its date, by the name in stored profiles. `shares`: of all rows.

    `of`: the fingerprint of the parts and settings. `mixes`: the counts of each value, by slot, and by slot and language if a
    column gives the language. If intents are lists, they count items, and one more mix counts messages by their number of
    items. `gold`: the share of the gold set that each variant gets right. `findings`: the limits that the run is over. Shares
    are in [0, 1].
    """

    night: str
    of: str
    summary: Summary
    shares: dict[str, float]
    mixes: dict[str, dict[str, int]]
    gold: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def mean_items(self) -> float | None:
        """Return the mean number of items of an answered message; None if intents are not lists."""
        mix = self.mixes.get(ITEMS)
        return sum(int(number) * count for number, count in mix.items()) / sum(mix.values()) if mix else None


def profile_run(day: str, of: str, counts: Iterable[pa.Table], schema: IntentSchema, summary: Summary) -> Profile:
    """Return a run's profile, without gold and findings. `day`: its date. `of`: see `Profile`. `counts`: `count` of each
    part.
    """
    slots = _named_slots(schema)
    if schema.repeat > 1:
        mixes = _mixes(_summed(counts), [*slots, ITEMS])
        nones = mixes.get(ITEMS, {}).get("0", 0)
    else:
        mixes = _mixes(_summed(counts), slots)
        nones = next((mixes.get(slot.name, {}).get(NONE, 0) for slot in schema.slots if isinstance(slot, Choice)), 0)
    counted = {"rejected": summary.rejected, "abstained": summary.abstained, NONE: nones}
    return Profile(day, of, summary, {name: count / max(1, summary.rows) for name, count in counted.items()}, mixes)


def count(part: bytes, schema: IntentSchema, language: str | None) -> pa.Table:
    """Count the intents of a labelled part, by language if there is a column `language`. Raises ConfigError if that column is
    not text.
    """
    slots = _named_slots(schema)
    file = pq.ParquetFile(io.BytesIO(part), page_checksum_verification=True)
    exploded = ITEM in file.schema_arrow.names
    columns = slots if schema.repeat == 1 else [ITEM, *slots] if exploded else [INTENTS]
    table = file.read(columns=[*columns, *([language] if language else []), "status"])
    sure = table.filter(pc.equal(table["status"], str(Status.OK)))
    if schema.repeat == 1:
        return _counted(sure, slots, language)
    sure = sure if exploded else items.explode(sure, schema)
    messages = items.counts(sure)
    messages = messages.append_column(ITEMS, messages[ITEM].cast(pa.string()))
    both = [_counted(sure.filter(pc.is_valid(sure[ITEM])), slots, language), _counted(messages, [ITEMS], language)]
    keys = [*slots, ITEMS, *([LANGUAGE] if language else []), "count_all"]
    return pa.concat_tables(both, promote_options="default").select(keys)


def _counted(sure: pa.Table, names: Sequence[str], language: str | None) -> pa.Table:
    counted = {name: sure[name] for name in names} | ({LANGUAGE: _words(sure[language])} if language else {})
    return pa.table(counted).group_by([*counted]).aggregate([([], "count_all")])


def _named_slots(schema: IntentSchema) -> list[str]:
    return [slot.name for slot in schema.slots if isinstance(slot, Choice | Entity)]


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column's words as bytes, with all but the MOST_LANGUAGES most frequent as OTHERS.

    A log may hold any bytes, and a wrong column may have as many words as rows.
    """
    try:
        words = column.cast(pa.string()).cast(pa.binary())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ConfigError("gate.language", str(column.type), "the column does not hold text; name another") from None
    counts = words.value_counts()
    if len(counts) <= MOST_LANGUAGES:
        return words
    most = counts.field("values").take(pc.sort_indices(counts.field("counts"), sort_keys=[("", "descending")])[:MOST_LANGUAGES])
    return pc.if_else(pc.is_in(words, most), words, OTHERS.encode())


def _summed(counts: Iterable[pa.Table]) -> pa.Table:
    """Add up counts, MOST_COUNTS at a time, so that many parts need no more memory than a few."""
    buffer: list[pa.Table] = []
    for table in counts:
        buffer.append(table)
        if len(buffer) == MOST_COUNTS:
            buffer = [_sum(buffer)]
    return _sum(buffer)


def _sum(counts: Sequence[pa.Table]) -> pa.Table:
    if not counts:
        return pa.table({})
    table = pa.concat_tables(counts)
    keys = table.column_names[:-1]
    return table.group_by(keys).aggregate([("count_all", "sum")]).rename_columns(table.column_names)


def _mixes(counts: pa.Table, slots: Sequence[str]) -> dict[str, dict[str, int]]:
    rows = counts.to_pylist()
    languages: Counter[str] = Counter()
    for row in rows if LANGUAGE in counts.column_names else []:
        row[LANGUAGE] = _name(row[LANGUAGE])
        languages[row[LANGUAGE]] += row["count_all"]
    frequent = {name for name, _ in languages.most_common(MOST_LANGUAGES)}
    mixes: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        for slot in slots:
            if (value := row[slot]) is not None:
                mixes[slot][value] += row["count_all"]
                if languages:
                    word = row[LANGUAGE] if row[LANGUAGE] in frequent else OTHERS
                    mixes[f"{slot} in {word}"][value] += row["count_all"]
    # Slots first, then slots per language.
    return {name: dict(sorted(mixes[name].items())) for name in sorted(mixes, key=lambda name: (name not in slots, name))}


def _name(word: bytes | None) -> str:
    return (normalize(word.decode(errors="replace"))[:MOST_LETTERS] if word else "") or NO_LANGUAGE


def findings(run: Profile, last: Sequence[Profile], limits: GateConfig) -> list[str]:
    """Describe every limit that `run` is over. Without `last` runs, only the limits that need no comparison apply."""
    rows, shares = run.summary.rows, run.shares
    reasons = [] if rows else ["it has no rows"]
    for name, most in (("rejected", limits.rejected), ("abstained", limits.abstained)):
        if shares[name] > most:
            reasons.append(f"{name} is {shares[name]:.1%} of all rows, over gate.{name}={most}")
    for variant, right in run.gold.items():
        if right < limits.agreement:
            reasons.append(f"{variant} gets {right:.1%} of the gold set right, under gate.agreement={limits.agreement}")
    if not last or not rows:
        return reasons
    before = sum(profile.summary.rows for profile in last)
    for name, share in shares.items():
        usual = sum(profile.shares[name] for profile in last) / len(last)
        if abs(share - usual) > limits.change + noise_of_share(share, rows, usual, before):
            reasons.append(
                f"{name} is {share:.1%} of all rows, usually {usual:.1%}: more than gate.change={limits.change} apart"
            )
    for name, mix in run.mixes.items():
        usual = total(profile.mixes.get(name, {}) for profile in last)
        if usual and mix and (far := distance(mix, usual)) > limits.distance + (chance := noise(mix, usual)):
            moved = f"the mix of {name} is {far:.2f} from the last runs'"
            reasons.append(
                f"{moved}, over gate.distance={limits.distance} and {chance:.2f} for chance; {_most_moved(mix, usual)}"
            )
    return reasons


def _most_moved(mix: Mapping[str, int], usual: Mapping[str, int]) -> str:
    now, before = shares_of(mix), shares_of(usual)
    key = max(sorted({*mix, *usual}), key=lambda key: abs(now.get(key, 0) - before.get(key, 0)))
    return f"most: {key} from {before.get(key, 0):.1%} to {now.get(key, 0):.1%}"


def total(mixes: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up mixes."""
    counts: Counter[str] = Counter()
    for mix in mixes:
        counts.update(mix)
    return dict(counts)


def shares_of(mix: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each value of a mix."""
    rows = sum(mix.values())
    return {key: count / rows for key, count in mix.items()}


def distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon distance (Endres and Schindelin 2003, base 2) of two distributions given by counts.

    It is 0 for equal and 1 for disjoint distributions.
    """
    keys = sorted({*one, *other})
    p, q = (np.array([mix.get(key, 0) for key in keys], float) for mix in (one, other))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sqrt(max(0.0, (_divergence(p, (p + q) / 2) + _divergence(q, (p + q) / 2)) / 2)))


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())


def noise(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Return the distance under which two samples of one distribution, of these sizes, stay in 99.9 % of cases.

    Their divergence is a scaled chi-square (Lin 1991). Its quantile is approximated as by Wilson and Hilferty (1931).
    """
    sizes = 1 / max(1, sum(one.values())) + 1 / max(1, sum(other.values()))
    if not (freedom := len({*one, *other}) - 1):
        return 0.0
    spread = 2 / (9 * freedom)
    return float(np.sqrt(freedom * (1 - spread + Z * np.sqrt(spread)) ** 3 * sizes / (8 * np.log(2))))


def noise_of_share(share: float, rows: int, usual: float, before: int) -> float:
    """Return the difference under which the shares of two samples stay in 99.9 % of cases, by the normal approximation.

    `share` of `rows`: this run. `usual` of `before`: the last runs.
    """
    pooled = (share * rows + usual * before) / max(1, rows + before)
    return float(Z * np.sqrt(pooled * (1 - pooled) * (1 / max(1, rows) + 1 / max(1, before))))
