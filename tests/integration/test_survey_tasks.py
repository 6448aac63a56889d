"""Tasks that fail and die read footers and count frequent messages, and report their progress."""

import io
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
import runs

from intent.errors import ConfigError
from intent.run import metrics, survey
from intent.run.actor import RunContext
from intent.run.columns import Columns
from intent.run.ledger import Ledger
from intent.run.listing import list_input
from intent.run.progress import Stage
from intent.run.shard import plan_shards, read_footers
from intent.storage import open_store

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def log(tmp_path, monkeypatch) -> str:
    """A log of 24 shards. 12 tasks count them, and several more merge the counts."""
    monkeypatch.setattr(survey, "ROWS_PER_TASK", 2 * (50 + survey.ROWS_PER_SHARD))
    runs.write_log(open_store(f"{tmp_path}/in"), files=6, rows=200, messages=[f"add {n} milks" for n in range(50)])
    return str(tmp_path)


def count(root: str, stage: Stage, attempts: int = 3) -> list[str]:
    """Count the messages that are in 2 shards or more."""
    listing = list_input(f"{root}/in")
    shards = plan_shards(listing, Columns(), 50).shards
    assert (len(shards), len(survey.cut(shards))) == (24, 12)
    context = RunContext(listing.store, Ledger(open_store(f"{root}/out"), runs.IDENTITY), runs.CART, Columns())
    survey.find_frequent(context, shards, 100, stage, attempts)
    return sorted(pq.read_table(Path(root) / "out/frequent/messages.parquet")["message"].to_pylist())


def breaking(monkeypatch, name: str, harm) -> None:
    """Call `harm` in the process of each task of survey's `name`, before its work."""
    task = getattr(survey, name)

    def call(*args):
        harm()
        return task._function(*args)

    options = {"num_cpus": 1, "max_retries": 0, "num_returns": 1 if name == "_footers" else 2}
    monkeypatch.setattr(survey, name, ray.remote(**options)(call))


@pytest.mark.parametrize("name", ["_count", "_merge"])
@pytest.mark.parametrize("how", ["died", "raised"])
def test_what_a_task_loses_is_counted_again_and_told(log, monkeypatch, name, how):
    fault = Path(log) / "fault-1"
    fault.touch()

    def harm():
        if runs.take_fault(log, "fault"):
            if how == "died":
                os._exit(137)
            raise OSError("the store does not answer")

    breaking(monkeypatch, name, harm)
    stage = Stage("messages", "counts", "shards", 24, io.StringIO())
    assert count(log, stage) == sorted(f"add {n} milks" for n in range(50))
    assert not fault.exists() and stage.done == 24
    assert stage.retries == 1 if name == "_count" else stage.retries > 1


def test_a_task_that_raises_at_every_attempt_ends_the_search_and_not_the_run(log, monkeypatch):
    def harm():
        raise OSError("the store does not answer")

    breaking(monkeypatch, "_count", harm)
    output = io.StringIO()
    summary = runs.run(log, rows_per_shard=50, attempts=2, stream=output)
    assert "goes on without the table of frequent messages: OSError: the store does not answer" in output.getvalue()
    runs.check_run(log)
    assert summary.rows == 1200


def test_tasks_read_footers_in_order_and_a_refusal_is_reported_unchanged(log, monkeypatch):
    monkeypatch.setattr(survey, "FOOTERS_PER_TASK", 2)
    listing, names = list_input(f"{log}/in"), ["id", "message"]
    stage = Stage("footers", "plans", "objects", len(listing.blobs), io.StringIO())
    footers = survey.read_footers_on_cluster(listing.store, listing.blobs, names, stage, 3)
    assert footers == read_footers(listing.store, listing.blobs, names)
    assert (stage.done, stage.retries) == (6, 0)

    def harm():
        raise ConfigError("input", "a.parquet", "may not be read")

    breaking(monkeypatch, "_footers", harm)
    with pytest.raises(ConfigError, match=r"input='a\.parquet': may not be read"):
        survey.read_footers_on_cluster(listing.store, listing.blobs, names, stage, 3)
    assert stage.retries <= 3, "what another attempt cannot mend is not tried again"


def test_gauges_are_there_before_the_first_task_is_done(log, monkeypatch):
    """On a cluster that has no CPU yet, the operator sees that the run has started and what it waits for."""

    class Stop(Exception):
        pass

    def wait(*args, **kwargs):
        raise Stop

    gauges = set()
    monkeypatch.setattr(metrics.Gauge, "set", lambda gauge, value, tags: gauges.add((gauge.info["name"], tags.get("stage"))))
    monkeypatch.setattr(survey, "FOOTERS_PER_TASK", 2)
    monkeypatch.setattr(survey.ray, "wait", wait)
    monkeypatch.setattr(survey.ray, "cluster_resources", dict)
    stream = io.StringIO()
    with pytest.raises(Stop):
        runs.run(log, stream=stream)
    assert ("intent_started_seconds", None) in gauges and ("intent_survey_total", "footers") in gauges
    assert "plans 6 objects" in stream.getvalue() and "0 of 6" in stream.getvalue()
