"""Export a run's metrics to Prometheus through Ray's metrics agent on the driver's node, under names with ray_intent_ first.

Counters start at zero with each driver and count each shard's first part. Gauges describe the whole run. Labels are names of
engines, variants and hosts, and the run's fingerprint, never text from the log.
"""

import time
from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge

from intent.run.actor import Outcome
from intent.run.part import Receipt
from intent.run.progress import Progress, Stage
from intent.run.queue import Queue

ENGINE = ("run", "engine", "variant", "node")
STAGE = ("run", "stage")


class Meters:
    """A run's counters and gauges. `node`: the name of an actor's host."""

    def __init__(self, run: str):
        self.run, self._began, self._charged = {"run": run}, time.time(), time.monotonic()
        # By variant: the seconds that engines have computed, and the messages that they have seen.
        self._paces: dict[str, list] = {}
        self.rows = Counter("intent_rows", "Rows committed", (*ENGINE, "status"))
        self.classified = Counter("intent_classified_messages", "Messages that a model saw", ENGINE)
        self.seconds = Counter("intent_engine_seconds", "Seconds that engines computed", ENGINE)
        self.cost = Counter("intent_cost_usd", "Cost so far of the actors' CPUs and GPUs, by cluster.prices", ENGINE)
        self.spared = Counter("intent_cached_messages", "Messages that the label cache answered in an engine's place", ENGINE)
        self.saved_cost = Counter("intent_cost_saved_usd", "Estimated cost of these messages at the engine's own pace", ENGINE)
        self.deaths = Counter("intent_actor_deaths", "Actors that died or hung and were killed", ENGINE)
        self.actors = Gauge("intent_actors", "Actors that are ready, or waiting for a node", (*ENGINE[:3], "state"))
        self.planned = Gauge("intent_rows_planned", "Rows of the run's input", ("run",))
        self.done_ = Gauge("intent_rows_done", "Rows done, by this and earlier runs", ("run",))
        self.rejected = Gauge("intent_rows_rejected", "Rows rejected, by this and earlier runs", ("run",))
        self.saved = Gauge("intent_duplicates_saved", "Rows that no model had to see", ("run",))
        self.cached = Gauge("intent_rows_cached", "Rows that the label cache answered, by this and earlier runs", ("run",))
        self.rechecked = Gauge("intent_cache_asked_again", "Cached messages that engines were asked again", ("run",))
        self.agreed = Gauge("intent_cache_agreed", "Of those, messages that got the same intent", ("run",))
        self.unfinished = Gauge("intent_shards_left", "Shards that wait or are in progress", ("run",))
        self.failed = Gauge("intent_shards_failed", "Shards given up", ("run",))
        self.retries = Gauge("intent_retries", "Shards that went back into the queue", ("run",))
        self.started = Gauge("intent_started_seconds", "Unix time at which this run began", ("run",))
        self.surveyed = Gauge("intent_survey_done", "Before labelling: footers read, parts checked, shards counted", STAGE)
        self.to_survey = Gauge("intent_survey_total", "Before labelling: all footers, earlier parts, or shards", STAGE)
        self.survey_retries = Gauge("intent_survey_retries", "Tasks before labelling that were retried", STAGE)

    def survey(self, stage: Stage) -> None:
        """Report the progress of a stage before labelling: footers, parts of an earlier run, or messages."""
        tags = self.run | {"stage": stage.name}
        self.started.set(self._began, self.run)
        self.surveyed.set(stage.done, tags)
        self.to_survey.set(stage.total, tags)
        self.survey_retries.set(stage.retries, tags)

    def done(self, slot, messages: int, outcome: Outcome) -> None:
        """Count a shard's part, or a chunk of `messages` frequent messages, from the actor in `slot`."""
        tags = self._tags(slot)
        self._add(self.seconds, outcome.seconds, tags)
        self._add(self.classified, outcome.part.receipt.classified if outcome.part else messages, tags)
        if not outcome.part:
            return
        self._spare(slot, outcome, outcome.part.receipt, tags)
        for status in ("labelled", "abstained", "rejected"):
            self._add(self.rows, getattr(outcome.part.receipt, status), tags | {"status": status})

    def _spare(self, slot, outcome: Outcome, receipt: Receipt, tags: dict[str, str]) -> None:
        """Count what the label cache saved, at this engine's average cost per message so far."""
        pace = self._paces.setdefault(slot.spec.variant, [0.0, 0])
        if receipt.classified:
            pace[0] += outcome.seconds
            pace[1] += receipt.classified
        self._add(self.spared, receipt.found, tags)
        if pace[1]:
            self._add(self.saved_cost, receipt.found * pace[0] / pace[1] * slot.usd_per_hour / 3600, tags)

    def died(self, slot) -> None:
        """Count the death of the actor in `slot`."""
        self._add(self.deaths, 1, self._tags(slot))

    def observe(self, slots: Sequence, queue: Queue, progress: Progress) -> None:
        """Set every gauge, even if it is unchanged, because Ray drops gauges that are not set for a minute."""
        counts, now = progress.tally.counts, time.monotonic()
        for gauge, value in (
            (self.started, self._began),
            (self.planned, progress.total),
            (self.done_, counts["rows"]),
            (self.rejected, counts["rejected"]),
            (self.saved, progress.tally.saved),
            (self.cached, counts["cached"]),
            (self.rechecked, counts["asked"]),
            (self.agreed, counts["agreed"]),
            (self.unfinished, queue.remaining),
            (self.failed, len(queue.failed)),
            (self.retries, queue.retries),
        ):
            gauge.set(value, self.run)
        for spec in {slot.spec.variant: slot.spec for slot in slots}.values():
            ready = [slot.ready for slot in slots if slot.spec.variant == spec.variant]
            tags = self.run | {"engine": spec.kind, "variant": spec.variant}
            self.actors.set(sum(ready), tags | {"state": "ready"})
            self.actors.set(len(ready) - sum(ready), tags | {"state": "waiting"})
        for slot in slots:
            if slot.ready:
                self._add(self.cost, slot.usd_per_hour * (now - self._charged) / 3600, self._tags(slot))
        self._charged = now

    def _tags(self, slot) -> dict[str, str]:
        return self.run | {"engine": slot.spec.kind, "variant": slot.spec.variant, "node": slot.node}

    @staticmethod
    def _add(counter: Counter, amount: float, tags: dict[str, str]) -> None:
        if amount > 0:
            counter.inc(amount, tags)


def report_end(day: str, code: int) -> None:
    """Report the exit code of the nightly run of this date. Ray sends it at the latest when the driver leaves the cluster."""
    ended = Gauge("intent_night_exit_code", "Last exit code of the nightly run of a date", ("night",))
    ended.set(code, {"night": day})
