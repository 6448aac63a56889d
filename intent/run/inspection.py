"""Sum up a run from its output: counts, confidence, the slowest shards, rejected rows, and damage.

Reads, never writes. Knows the ledger and parts; nothing of Ray, engines or pages.
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.engine import Status
from intent.errors import ConfigError, CorruptData
from intent.run.ledger import COUNTS, LABELLED, MANIFEST, PLAN, Ledger, RunIdentity, part_key
from intent.run.part import Part, Receipt, open_part
from intent.run.shard import Plan
from intent.storage import Store
from intent.task.schema import CONFIDENCE, ITEM

# Bins are finer where most answers are.
EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
SURE = (Status.OK, Status.ABSTAINED)
SLOWEST, EXAMPLES, MOST_LETTERS = 10, 3, 80
# Reasons that differ only in a number, such as a message's length, count as one.
NUMBER = "[0-9]+"


@dataclass(frozen=True)
class Timed:
    """A shard of `rows` rows, from row `start` of `object` on, and the `seconds` that an engine took to label it."""

    object: str
    start: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Reason:
    """Why `rows` rows were rejected, with the ids of the first ones."""

    text: str
    rows: int
    ids: Sequence[str]


@dataclass(frozen=True)
class Inspection:
    """The state of the run at `uri`. `shards`: planned shards. `done`: shards with a part. `counts`: rows of the parts.

    `confidence`: rows per bin of EDGES, for each status that has a confidence. `variants`: rows per variant that labelled them.
    `failed`: the shards that the run gave up. `faults`: differences from the manifest or from a part's own checksum. `summary`:
    as the manifest has it; empty until the run is finished.
    """

    uri: str
    run: Mapping[str, Any]
    finished: bool
    shards: int
    done: int
    counts: Mapping[str, int]
    variants: Mapping[str, int]
    confidence: Mapping[str, Sequence[int]]
    slowest: Sequence[Timed] = ()
    reasons: Sequence[Reason] = ()
    failed: Sequence[Mapping[str, object]] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Look:
    """The share of one part in an inspection. `reasons`: rows and first ids by reason."""

    receipt: Receipt
    confidence: Mapping[str, np.ndarray]
    reasons: Mapping[str, tuple[int, list[str]]]


def inspect_run(store: Store) -> Inspection:
    """Read and check every part of the run in `store`, finished or not.

    Raises ConfigError if there is no run, CorruptData if its plan or its manifest cannot be read.
    """
    ledger = Ledger(store, RunIdentity({}, "", "", ""))
    try:
        planned, manifest = ledger.planned(), ledger.manifest()
        if manifest is not None:
            return _finished(Ledger(store, RunIdentity(**manifest["run"])), planned and planned[1], manifest)
        if planned is not None:
            return _unfinished(Ledger(store, planned[0]), planned[1])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        fault = f"its plan or manifest is damaged or from another version of intent ({type(error).__name__}: {error})"
        raise CorruptData(f"{store.uri}: {fault}; inspect it with that version") from error
    remedy = "name the output of jobs.classify, the folder of a published nightly run, or the staged folder that it reports"
    raise ConfigError("output", store.uri, f"holds no run; {remedy}")


def _finished(ledger: Ledger, plan: Plan | None, manifest: dict) -> Inspection:
    entries, faults, looks = manifest["parts"], ledger.strays(manifest), []
    planned, listed = {shard.id for shard in plan.shards} if plan else set(), {entry["shard"] for entry in entries}
    if plan is None:
        faults.append(f"{ledger.store.uri}/{PLAN}: is missing")
    elif planned != listed:
        faults.append(f"{ledger.store.uri}/{MANIFEST}: its shards differ from those of {PLAN}: {sorted(planned ^ listed)[:3]}")
    for its_faults, look in ledger.examine(manifest, _look):
        faults += its_faults
        looks += [look] if look else []
    where = {entry["shard"]: (entry["object"], entry["start"]) for entry in entries}
    counts = {name: manifest[name] for name in COUNTS}
    rest = {"left_out": manifest["left_out"], "faults": faults, "summary": manifest["summary"]}
    return _sum(ledger, looks, where, counts, finished=True, **rest)


def _unfinished(ledger: Ledger, plan: Plan) -> Inspection:
    where = {shard.id: (shard.blob.key, shard.start) for shard in plan.shards}
    faults, looks = [], []
    with ThreadPoolExecutor(ledger.store.parallel) as pool:
        ids = sorted(ledger.committed_ids() & where.keys())
        for result in pool.map(lambda shard: _peek(ledger, shard), ids):
            (faults if isinstance(result, str) else looks).append(result)
    counts = {name: sum(getattr(look.receipt, name) for look in looks) for name in COUNTS}
    rest = {"left_out": plan.left_out, "faults": faults, "failed": ledger.failed()}
    return _sum(ledger, looks, where, counts, finished=False, **rest)


def _peek(ledger: Ledger, shard: str) -> _Look | str:
    """Return the share of a shard's part, or the fault of the part."""
    key = part_key(LABELLED, shard)
    uri = f"{ledger.store.uri}/{key}"
    try:
        part = open_part(ledger.store.read(key), uri)
    except CorruptData as error:
        return str(error)
    same = part.receipt.shard == shard and part.receipt.fingerprint == ledger.run.fingerprint
    return _look(part) if same else f"{uri}: belongs to another shard or run; delete it and run again"


def _sum(
    ledger: Ledger, looks: Sequence[_Look], where: Mapping[str, tuple[str, int]], counts: Mapping[str, int], **rest
) -> Inspection:
    """Add up the parts. `where`: the object and the first row of each planned shard."""
    variants: Counter[str] = Counter()
    confidence = {str(status): np.zeros(len(EDGES) - 1, np.int64) for status in SURE}
    for look in looks:
        variants.update(look.receipt.variants)
        for status, bins in look.confidence.items():
            confidence[status] += bins
    receipts = [look.receipt for look in looks]
    timed = [Timed(*where[r.shard], r.rows, r.seconds) for r in receipts if r.seconds is not None]
    return Inspection(
        uri=ledger.store.uri,
        run=asdict(ledger.run),
        shards=len(where),
        done=len(looks),
        counts=counts,
        variants=dict(sorted(variants.items())),
        confidence={status: bins.tolist() for status, bins in confidence.items()},
        slowest=sorted(timed, key=lambda shard: -shard.seconds)[:SLOWEST],
        reasons=_reasons(look.reasons for look in looks),
        **rest,
    )


def _look(part: Part) -> _Look:
    file = pq.ParquetFile(io.BytesIO(part.data))
    exploded = ITEM in file.schema_arrow.names
    table = file.read(columns=[CONFIDENCE, "status", *([ITEM] if exploded else [])])
    if exploded:
        # A message has one row per item, or one row without an item.
        table = table.filter(pc.less_equal(pc.fill_null(table[ITEM], 0), 1))
    confidence = {}
    for status in SURE:
        values = table[CONFIDENCE].filter(pc.equal(table["status"], str(status))).drop_null().to_numpy()
        confidence[str(status)] = np.histogram(np.clip(values, 0, 1), np.array(EDGES, values.dtype))[0]
    return _Look(part.receipt, confidence, _rejected(part.rejected) if part.rejected else {})


def _rejected(data: bytes) -> dict[str, tuple[int, list[str]]]:
    """Return (rows, the first ids) by reason."""
    table = pq.read_table(io.BytesIO(data), columns=["id", "reason"], page_checksum_verification=True)
    reasons = pc.replace_substring_regex(table["reason"], NUMBER, "N", max_replacements=1)
    rejected = {}
    for entry in reasons.value_counts().to_pylist():
        ids = table["id"].filter(pc.equal(reasons, entry["values"]))[:EXAMPLES]
        rejected[entry["values"]] = (entry["counts"], [_shown(id_) for id_ in ids])
    return rejected


def _reasons(shards: Iterable[Mapping[str, tuple[int, list[str]]]]) -> list[Reason]:
    rows: Counter[str] = Counter()
    ids: dict[str, list[str]] = {}
    for reasons in shards:
        for text, (count, some) in reasons.items():
            rows[text] += count
            ids[text] = (ids.get(text, []) + some)[:EXAMPLES]
    return [Reason(text, count, ids[text]) for text, count in rows.most_common()]


def _shown(id_: pa.Scalar) -> str:
    """Escape an id for a terminal and shorten it. An id may be any text or bytes."""
    try:
        value = id_.as_py()
    except UnicodeDecodeError:
        value = id_.cast(pa.large_binary()).as_py()
    text = value.decode(errors="replace") if isinstance(value, bytes) else "null" if value is None else str(value)
    text = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
