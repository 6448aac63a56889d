"""Label a nightly run into a staging folder, and publish it to its readers if it is within its limits.

Knows the journal, the gate and the ledger; nothing of Ray, dates or the command line.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from intent.artifacts import fingerprint
from intent.errors import ConfigError, ManifestLost, Quarantined
from intent.nightly.config import GateConfig
from intent.nightly.gate import Profile, count, findings, profile_run
from intent.nightly.journal import Journal
from intent.run.ledger import MANIFEST, Ledger, RunIdentity, probe
from intent.run.part import Committed, open_part
from intent.run.progress import Summary, Tally
from intent.run.publish import Publication
from intent.run.shard import Plan
from intent.run.staged import Staged
from intent.storage import Store
from intent.task.schema import IntentSchema


@dataclass(frozen=True)
class Examination:
    """The limits of a nightly run and how to measure it. `gold`: returns the share of the gold set that each variant gets
    right.

    `of`: the fingerprint of that gold set.
    """

    schema: IntentSchema
    limits: GateConfig
    gold: Callable[[], dict[str, float]] = dict
    of: str = ""


def promote(
    journal: Journal,
    day: str,
    run: RunIdentity,
    label: Callable[[str], object],
    exam: Examination,
    learn: Callable[[str], object] = lambda output: None,
    publication: Publication | None = None,
) -> Summary:
    """Complete the nightly run of `day`, from the point where an earlier try stopped.

    `label`: labels the log into the store at the given URI. `learn`: adds the labels at that URI to the label cache; it is
    called only for an accepted run. `publication`: a second target of the labels. They go to a branch of it before the run is
    judged, if it has branches, and to all of its readers once the run is accepted.

    Raises Quarantined if the run is outside its limits, ConfigError if gate.accept is set but the run was never labelled,
    ManifestLost if another driver finished first, and the errors of `label`.
    """
    output = journal.output(day)
    ledger = Ledger(output, run)
    ledger.require_same()
    staged = journal.staged(day, run.fingerprint)
    if manifest := ledger.manifest():
        ledger.close(manifest["summary"])
        summary = Summary(**manifest["summary"] | {"already_done": True})
    else:
        if exam.limits.accept and not staged.stat(MANIFEST):
            remedy = "no nightly run of these models and this input was judged; run the same command without it first"
            raise ConfigError("gate.accept", True, remedy)
        label(staged.uri)
        try:
            summary = _publish_accepted(journal, day, staged, exam, publication)
        except (ManifestLost, FileNotFoundError) as error:
            # Another driver is publishing the same run and may have deleted the staged copy.
            if not journal.accepted(day):
                raise
            learn(staged.uri)
            journal.clear(day)
            raise ManifestLost(f"{output.uri}: another driver finished this run first; its labels stand") from error
    learn(staged.uri)
    if publication:
        publication.commit(output)
    finish(journal, day, exam.limits)
    return summary


def _publish_accepted(journal: Journal, day: str, store: Store, exam: Examination, publication: Publication | None) -> Summary:
    """Judge the run in `store`, and publish it to the output. Raises Quarantined if it is outside its limits."""
    staged = Staged(store)
    branch = publication.stage(staged) if publication else ""
    profile = judge(journal, day, staged, exam)
    if profile.findings and not exam.limits.accept:
        raise Quarantined(_describe(profile, store, journal.draw(day, exam.limits.runs), branch))
    return publish(staged, journal.output(day))


def judge(journal: Journal, day: str, staged: Staged, exam: Examination) -> Profile:
    """Return the run's profile with its findings, and store it. Counts the parts again only if they or the settings changed."""
    language = exam.limits.language
    # If the staged folder was deleted and the log labelled again, the parts differ.
    parts = [entry["sha256"] for entry in staged.parts.values()]
    of = fingerprint([staged.ledger.run.fingerprint, language, exam.of, parts])
    profile = journal.profile(day)
    if profile is None or profile.of != of:
        counts = staged.map(lambda data, _: count(data, exam.schema, language))
        summary = Summary(**staged.summary | {"output": journal.output(day).uri})
        profile = replace(profile_run(day, of, counts, exam.schema, summary), gold=exam.gold())
    last = journal.last(day, exam.limits.runs)
    profile = replace(profile, findings=findings(profile, last, exam.limits))
    journal.keep(profile)
    return profile


def publish(staged: Staged, output: Store) -> Summary:
    """Copy a labelled run to its output, by the protocol of every run: parts by conditional writes, the manifest last.

    Returns the summary of the parts in the output. A part of an earlier try stays, and its counts may differ from the staged
    part's. Raises CorruptData, StoreUnfit or ManifestLost.
    """
    here = Ledger(output, staged.ledger.run)
    probe(output)
    plan = here.plan(lambda: staged.ledger.plan(Plan))

    def copy(data: bytes, uri: str) -> tuple[int, Committed]:
        part = open_part(data, uri)
        return part.receipt.classified, here.publish(part)

    # Only the staged summary counts messages that models saw outside of parts, such as the most frequent ones.
    parts, tally = {}, Tally(classified=staged.summary["classified"])
    for classified, part in staged.map(copy):
        parts[part.receipt.shard] = part
        tally.counts["classified"] -= classified
        tally.add(part)
    summary = _timed(tally.summary(staged.summary["retries"], output.uri), staged.summary).leaving_out(plan.left_out)
    here.commit(plan, parts, summary.as_dict())
    return summary


def _timed(summary: Summary, labelling: dict) -> Summary:
    """Replace the times of copying by those of labelling, and the counts of messages asked again, which parts lack."""
    rates = {name: entry["rows_per_second"] for name, entry in labelling["variants"].items()}
    variants = {name: entry | {"rows_per_second": rates.get(name, 0.0)} for name, entry in summary.variants.items()}
    rechecks = {name: labelling.get(name, 0) for name in ("asked_again", "agreed")}
    return replace(summary, variants=variants, seconds=labelling["seconds"], **rechecks)


def finish(journal: Journal, day: str, limits: GateConfig) -> None:
    """Clear the staged copy and draw the pages, once a run is accepted. May be repeated."""
    journal.clear(day)
    journal.draw(day, limits.runs)


def _describe(profile: Profile, staged: Store, page: str, branch: str) -> str:
    reasons = "\n".join(f"  - {finding}" for finding in profile.findings)
    return (
        f"outside its limits:\n{reasons}\n"
        f"it is not published; its labels are in {staged.uri}{f' and in {branch}' if branch else ''}, its page is {page}\n"
        f"to accept it as it is, run the same command with date={profile.night} gate.accept=true"
    )
