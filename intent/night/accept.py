"""A night in two places: labelled where no reader looks, and, if it is within its limits, published where readers do.

Knows the journal, the gate and the ledger; nothing of Ray, dates or the command line.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from intent.artifact import fingerprint
from intent.config import GateConfig
from intent.errors import CorruptData, ManifestLost, Quarantined
from intent.night.gate import Portrait, count, findings, paint
from intent.night.journal import Journal
from intent.night.ledger import LABELLED, Ledger, RunIdentity, probe
from intent.night.part import open_part
from intent.night.progress import Summary
from intent.schema import IntentSchema
from intent.storage import Store, sha256

T = TypeVar("T")


@dataclass(frozen=True)
class Examination:
    """How a night is judged. `gold`: gives the share of the gold set that each variant gets right; `of` names that set."""

    schema: IntentSchema
    limits: GateConfig
    gold: Callable[[], dict[str, float]] = dict
    of: str = ""


def settle_night(journal: Journal, day: str, run: RunIdentity, label: Callable[[str], object], exam: Examination) -> Summary:
    """The night of `day`, from wherever an earlier run of it stopped. `label` labels it into a place, once.

    Raises Quarantined where the night is outside its limits, and what `label` raises.
    """
    output = journal.output(day)
    ledger = Ledger(output, run)
    ledger.require_same()
    if manifest := ledger.manifest():
        ledger.close(manifest["summary"])
        finish(journal, day, exam.limits)
        return Summary(**manifest["summary"] | {"already_done": True})
    staged = journal.staged(day, run.fingerprint)
    label(staged.uri)
    try:
        labelled = Staged(staged)
        portrait = judge(journal, day, labelled, exam)
        if portrait.findings and not exam.limits.accept:
            raise Quarantined(_describe(portrait, staged, journal.draw(day, exam.limits.nights)))
        publish(labelled, output)
    except (ManifestLost, FileNotFoundError) as error:
        # Another driver publishes the same night, and may have cleared it away already.
        if not journal.accepted(day):
            raise
        journal.clear(day)
        raise ManifestLost(f"{output.uri}: another driver finished this night first; its labels stand") from error
    finish(journal, day, exam.limits)
    return portrait.summary


class Staged:
    """A night that is labelled and not published. Raises FileNotFoundError where it is not, or no longer, there."""

    def __init__(self, store: Store):
        self.store = store
        self.ledger = Ledger(store, RunIdentity({}, "", "", ""))
        manifest = self.ledger.manifest()
        if manifest is None:
            raise FileNotFoundError(f"{store.uri}: has no manifest")
        self.ledger = Ledger(store, RunIdentity(**manifest["run"]))
        self.summary: dict = manifest["summary"]
        self.parts = {entry["shard"]: entry[LABELLED] for entry in manifest["parts"]}

    def map(self, function: Callable[[bytes, str], T]) -> list[T]:
        """Of every labelled part, a few at a time, and its URI. Raises CorruptData where one is not what the manifest lists."""

        def call(entry: dict) -> T:
            data, uri = self.store.read(entry["key"]), f"{self.store.uri}/{entry['key']}"
            if sha256(data) != entry["sha256"]:
                raise CorruptData(f"{uri}: SHA-256 is not its manifest's; delete {self.store.uri} and run again")
            return function(data, uri)

        with ThreadPoolExecutor(self.store.parallel) as pool:
            return list(pool.map(call, self.parts.values()))


def judge(journal: Journal, day: str, staged: Staged, exam: Examination) -> Portrait:
    """The night's portrait with its findings, kept; counted anew only where it was not counted from the same before."""
    language = exam.limits.language
    of = fingerprint([staged.ledger.run.fingerprint, language, exam.of])
    portrait = journal.portrait(day)
    if portrait is None or portrait.of != of:
        counts = staged.map(lambda data, _: count(data, exam.schema, language))
        summary = Summary(**staged.summary | {"output": journal.output(day).uri})
        portrait = replace(paint(day, of, counts, exam.schema, summary), gold=exam.gold())
    last = journal.last(day, exam.limits.nights)
    portrait = replace(portrait, findings=findings(portrait, last, exam.limits))
    journal.keep(portrait)
    return portrait


def publish(staged: Staged, output: Store) -> None:
    """Copy a labelled night to where readers look, by the same protocol: parts by conditional writes, the manifest last.

    Raises CorruptData, StoreUnfit, ManifestLost.
    """
    here = Ledger(output, staged.ledger.run)
    probe(output)
    shards = here.plan(lambda: staged.ledger.plan(list))
    parts = staged.map(lambda data, uri: here.publish(open_part(data, uri)))
    here.commit(shards, {part.receipt.shard: part for part in parts}, staged.summary | {"output": output.uri})


def finish(journal: Journal, day: str, limits: GateConfig) -> None:
    """What is left to do once a night is accepted; done again it changes nothing."""
    journal.clear(day)
    journal.draw(day, limits.nights)


def _describe(portrait: Portrait, staged: Store, page: str) -> str:
    reasons = "\n".join(f"  - {finding}" for finding in portrait.findings)
    return (
        f"outside its limits:\n{reasons}\n"
        f"it is not published: its labels are in {staged.uri}, its page is {page}\n"
        f"to accept it as it is, run the same command with date={portrait.night} gate.accept=true"
    )
