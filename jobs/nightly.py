"""Classify the query logs of one date or of a range, compare each with the last runs, and publish it if it is within limits."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TextIO

from intent import observe
from intent.artifacts import fingerprint
from intent.artifacts.lineage import Lineage
from intent.config import YESTERDAY, NightlyConfig
from intent.engine import Classifier, Prediction, abstain, classify_each
from intent.errors import ConfigError, EngineFailed, IntentError
from intent.evaluate import own_gold
from intent.evaluate.metrics import is_right
from intent.lake import DELTA
from intent.nightly.addresses import DatedAddress, output_address
from intent.nightly.arrival import wait
from intent.nightly.journal import Journal
from intent.nightly.promotion import Examination, promote
from intent.run.actor_pool import EngineSpec
from intent.run.driver import identify, require_apart
from intent.run.ledger import begun_versions
from intent.run.listing import list_input
from intent.run.metrics import report_end
from intent.storage import Store, inside, open_store, read_uri, sha256
from intent.task.schema import Intent
from jobs.app import Steps, cluster, complain, job, say, watcher
from jobs.caching import tending
from jobs.choice import serving
from jobs.classify import columns, describe, engines, identity, label, publication, subject, teller

# Exit codes from the least to the most urgent. A range of dates ends with the most urgent code.
URGENCY = (0, 8, 7, 4, 3, 6, 5, 2, 1)
HOUR = 3600


def resolve(text: str, today: date) -> list[date]:
    """Return the dates that `text` names, in order. Raises ConfigError for invalid or future dates."""
    if text == YESTERDAY:
        return [today - timedelta(days=1)]
    ends = text.split("..")
    try:
        first, last = date.fromisoformat(ends[0]), date.fromisoformat(ends[-1])
        if len(ends) > 2:
            raise ValueError
    except ValueError:
        raise ConfigError("date", text, f"give {YESTERDAY}, a date as YYYY-MM-DD, or a range FIRST..LAST (UTC)") from None
    if first > last:
        raise ConfigError("date", text, f"begins after it ends; give {last}..{first}")
    if last > today:
        raise ConfigError("date", text, f"is in the future: it is {today} (UTC)")
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def open_journal(config: NightlyConfig) -> Journal:
    """Open the output's journal in the workspace. Raises ConfigError if the journal is inside the output's folder."""
    options = config.storage.options()
    output = output_address(open_store(config.output, options).uri)
    base = f"{config.workspace}/nights/{fingerprint(output.address)}"
    everything = open_store(f"{output.stem}/", options)
    if inside(open_store(base, options), everything):
        remedy = f"runs are staged here until they are accepted, and readers of {everything.uri} would see them; name another"
        raise ConfigError("workspace", config.workspace, remedy)
    return Journal(
        store=open_store(base, options),
        below=lambda path: open_store(f"{base}/{path}", options),
        output=lambda day: open_store(output.of(date.fromisoformat(day))[0], options),
    )


def examination(lineage: Lineage[NightlyConfig], fleet: Callable[[], list[EngineSpec]]) -> Examination:
    """Return the gate's limits and gold set. Reads the gold set, to raise ConfigError before any work."""
    config = lineage.config
    if config.gate.gold is None:
        return Examination(lineage.schema, config.gate)
    try:
        data = read_uri(config.gate.gold, lineage.options)
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError("gate.gold", config.gate.gold, "no such file; give a Parquet, CSV or JSON file") from None
    names, column = lineage.catalog.names, config.message_column
    intents = own_gold.read(data, config.gate.gold, lineage.schema, names, column, "gate.gold")
    shares = lambda: gold_shares(fleet(), intents, watcher(config.cluster))  # noqa: E731
    return Examination(lineage.schema, config.gate, shares, sha256(data))


def gold_shares(fleet: Sequence[EngineSpec], intents: Mapping[str, Intent], stream: TextIO | None = None) -> dict[str, float]:
    """Return the share of the gold set that each variant gets right, on the kind of node that labels the log.

    `intents`: the intent of each message. Raises IntentError if a variant has not answered within an hour.
    """
    import ray
    from ray.exceptions import RayTaskError

    messages, calls = list(intents), {}
    for spec in fleet:
        environment = {"runtime_env": {"env_vars": spec.env_vars}} if spec.env_vars else {}
        task = ray.remote(answer).options(num_cpus=spec.cpus, num_gpus=spec.gpus, **environment)
        calls[task.remote(spec.variant, spec.load, messages, spec.abstain_below)] = spec.variant
    say(f"labelling the gold set's {len(messages)} messages with {', '.join(calls.values())}")
    with Steps("gold set", stream=stream) as steps:
        steps.update(0, 0, "is labelled")
        _, late = ray.wait(list(calls), num_returns=len(calls), timeout=HOUR)
    if late:
        for call in late:
            ray.cancel(call, force=True)
        names = ", ".join(calls[call] for call in late)
        remedy = "run again once there is a node for each, or leave them out of engine.variants; the labels of the log are kept"
        raise IntentError(f"no answer to the gold set within an hour from {names}: {remedy}")
    try:
        labels = {name: ray.get(call) for call, name in calls.items()}
    except RayTaskError as error:
        raise error.cause from None
    return {
        name: sum(is_right(intents[message], answer) for message, answer in zip(messages, answers, strict=True)) / len(intents)
        for name, answers in labels.items()
    }


def answer(
    variant: str, load: Callable[[], Classifier], messages: Sequence[str], abstain_below: float = 0.0
) -> list[Prediction]:
    """Label the gold messages. Raises EngineFailed, without the engine's own text, because that may quote a message."""
    try:
        return [abstain(prediction, abstain_below) for prediction in classify_each(load(), messages)]
    except IntentError:
        raise
    except Exception as error:
        raise EngineFailed(variant, error) from None


def expired(inputs: Sequence[str], config: NightlyConfig, output: Store) -> bool:
    """Return whether the log, or the version of its table, no longer exists, as after a store deletes old data."""
    options, begun = config.storage.options(), begun_versions([output])
    try:
        list_input(inputs, options, config.input_pattern, config.input_version, begun)
        return False
    except ConfigError:
        return True


def complete(config: NightlyConfig, day: date, deadline: float) -> str:
    """Complete the nightly run of a date, from the point where an earlier try stopped. Returns a report for the operator.

    `deadline`: until when to wait for the input, in Unix time. Raises IntentError if the run is not accepted.
    """
    journal, options = open_journal(config), config.storage.options()
    inputs, [output] = DatedAddress("input", config.input).of(day), output_address(config.output).of(day)
    require_apart(open_store(output, options), inputs, options)
    name = f"nightly {config.output}"
    config = replace(config, output=output)
    lineage = Lineage(config)
    published = publication(lineage, inputs, day.isoformat())
    if journal.accepted(day.isoformat()) and expired(inputs, config, journal.output(day.isoformat())):
        if published:
            published.commit(journal.output(day.isoformat()))
        return f"run of {day}: already done, and its input is no longer there; page {journal.store.uri}/{day}.html"
    begun = [journal.output(day.isoformat()), *journal.begun(day.isoformat(), accept=True)]
    variants, batches = serving(lineage, config.models, journal.begun(day.isoformat(), config.gate.accept))
    exam = examination(lineage, lambda: engines(lineage, variants, batches))
    if config.arrival and not journal.accepted(day.isoformat()):
        for uri in inputs:
            wait(open_store(uri.removeprefix(DELTA), options), config.arrival, deadline, say)
    named, read = identity(lineage, variants), columns(config)
    listing, run = identify(inputs, options, named, read, config.input_pattern, config.input_version, begun)
    version = listing.table and listing.table[1]

    def into(uri: str) -> None:
        label(lineage, inputs, uri, variants, batches, version, published, observed.hear)

    with observe.run(subject(lineage, name, inputs, output, day), teller(config)) as observed:
        with tending(lineage, variants) as learn:
            summary = promote(journal, day.isoformat(), run, into, exam, learn=learn, publication=published)
        where = f"\npublished: {published.commit(journal.output(day.isoformat()))}" if published else ""
        observed.summary = summary
    profile = journal.profile(day.isoformat())
    how = "accepted by hand" if profile and profile.findings else "accepted"
    return f"run of {day}: {how}; page {journal.store.uri}/{day}.html\n{describe(summary)}{where}"


def attempt(config: NightlyConfig, day: date, deadline: float) -> int:
    """Complete and report the run of `day`. Returns its exit code, so that a failure does not stop other dates."""
    try:
        say(complete(config, day, deadline))
        return 0
    except IntentError as error:
        # As in `jobs.app`, a Ray task's error has the task's own error as its cause.
        complain(f"run of {day}: {getattr(error, 'cause', None) or error}", night=day.isoformat(), exit_code=error.exit_code)
        return error.exit_code
    except Exception:
        complain(f"run of {day}:\n{traceback.format_exc()}", night=day.isoformat(), exit_code=1)
        return 1


def worst(codes: Sequence[int]) -> int:
    """Return the most urgent exit code."""
    return max(codes, key=URGENCY.index)


def run(config: NightlyConfig) -> int:
    """Complete the run of every configured date in turn. Returns the most urgent exit code."""
    days = resolve(config.date, datetime.now(UTC).date())
    DatedAddress("input", config.input)
    open_journal(config)
    deadline = time.time() + HOUR * config.arrival_hours
    ends = {}
    with cluster(config.cluster):
        for day in days:
            ends[day] = attempt(config, day, deadline)
            report_end(day.isoformat(), ends[day])
    if len(days) > 1:
        say("\n".join(f"run of {day}: exit code {code}" for day, code in ends.items()))
    return worst(list(ends.values()))


@job("nightly", NightlyConfig)
def main(config: NightlyConfig) -> None:
    sys.exit(run(config))


if __name__ == "__main__":
    main()
