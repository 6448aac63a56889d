"""T1, T3 to T5: actors and drivers that die, stop or compete, and shards that kill their actor."""

import functools
import io
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import runs

from intent.errors import ConfigError, Disagreement, ManifestLost, ShardsFailed
from intent.run import actor_pool, driver, queue
from intent.run.actor_pool import DEPTH
from intent.run.ledger import Ledger
from intent.run.progress import Tally
from intent.run.rows import ShardReader
from intent.run.worker import Worker
from intent.storage import LocalStore, open_store
from intent.storage.s3 import S3Store

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster")]

UNIQUE = [f"message {n}" for n in range(1000)]
NO_TABLE = {"frequent_messages": 0}


STEPS = ("read_before", "answer_before", "label_before", "label_after", "put_if_absent_before", "put_if_absent_after")


def mortal(harm: str) -> None:
    """An actor that may die before it reads, decodes, builds a part, publishes it, copies its rejected rows or answers."""
    runs.dying(harm, ShardReader, "read")
    runs.dying(harm, Worker, "answer")
    for after in (False, True):
        runs.dying(harm, Worker, "label", after)
        runs.dying(harm, LocalStore, "put_if_absent", after)
        runs.dying(harm, S3Store, "put_if_absent", after)


def assert_survives_every_step(root: str, harm, **table) -> None:
    runs.write_log(open_store(f"{root}/in"), messages=["milk", None, "unsure", "refuse", "eggs"])
    for kind in STEPS:
        harm.add(kind)
    summary = runs.run(root, [runs.engine(before=functools.partial(mortal, harm))], attempts=len(STEPS) + 1, **table)
    runs.check_run(root)
    assert harm.left == []
    assert len(STEPS) <= summary.retries <= len(STEPS) * DEPTH


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_t1_an_actor_may_be_killed_at_any_step(root, harm):
    assert_survives_every_step(root, harm, **NO_TABLE)


def test_t1_an_actor_may_be_killed_at_any_step_of_the_table(tmp_path, harm):
    assert_survives_every_step(str(tmp_path), harm)


def test_a_shard_that_kills_every_actor_is_quarantined_and_the_others_finish(tmp_path):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"), files=2, rows=200, messages=UNIQUE)
    runs.write_log(open_store(f"{root}/in"), files=1, rows=20, messages=["please die"], key="poison-{}.parquet")
    with pytest.raises(ShardsFailed, match="1 shards \\(20 rows\\) failed.*\n.*poison-0.*killed its actor"):
        runs.run(root, [runs.engine("a"), runs.engine("b")], rows_per_shard=40)
    labelled = runs.read(open_store(f"{root}/out"), "labelled/")
    assert len(set(labelled["id"].to_pylist())) == len(labelled) == 400
    assert "manifest.json" not in runs.snapshot(root)


def test_a_shard_that_hangs_its_engine_is_quarantined_and_the_others_finish(tmp_path, monkeypatch):
    root = str(tmp_path)
    monkeypatch.setattr(queue, "HANGING_SECONDS", 5)
    monkeypatch.setattr(queue, "HANGING_SECONDS_PER_ROW", 0)
    monkeypatch.setattr(queue, "HANGING_PACES", 0)
    runs.write_log(open_store(f"{root}/in"), files=1, messages=UNIQUE)
    runs.write_log(open_store(f"{root}/in"), files=1, rows=20, messages=["hang"], key="poison-{}.parquet")

    def stuck():
        classify = runs.RuleClassifier.classify

        def call(engine, messages):
            time.sleep(3600 * ("hang" in messages))
            return classify(engine, messages)

        runs.RuleClassifier.classify = call

    with pytest.raises(ShardsFailed, match="1 shards \\(20 rows\\) failed.*\n.*poison-0.*it hung.*tried 2 times"):
        runs.run(root, [runs.engine(before=stuck)], attempts=2, **NO_TABLE)
    assert runs.read(open_store(f"{root}/out"), "labelled/").num_rows == 100


def test_a_message_that_raises_fails_its_shard_only(tmp_path):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"), files=2, messages=UNIQUE)
    runs.write_log(open_store(f"{root}/in"), files=1, rows=20, messages=["raise"], key="odd-{}.parquet")
    with pytest.raises(ShardsFailed, match="odd-0.*rule raised RuntimeError in runs.py.*tried 3 times"):
        runs.run(root)
    done = runs.read(open_store(f"{root}/out"), "labelled/")["id"].to_pylist()
    assert sorted(done) == sorted(f"{file}-{row}" for file in range(2) for row in range(100))


def test_an_engine_that_cannot_load_is_named_and_the_others_go_on(tmp_path, capsys):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"))

    def broken():
        raise ValueError("no such GPU")

    runs.run(root, [runs.engine("good"), runs.engine("bad", before=broken)], attempts=2)
    runs.check_run(root)
    other = str(tmp_path / "other")
    runs.write_log(open_store(f"{other}/in"))
    with pytest.raises(ShardsFailed, match="no engine is left.*bad: ValueError: no such GPU"):
        runs.run(other, [runs.engine("bad", before=broken)], attempts=2)


def test_an_engine_that_hangs_while_it_loads_is_killed_counted_and_named(tmp_path, monkeypatch):
    root, killed = str(tmp_path), []
    runs.write_log(open_store(f"{root}/in"))
    monkeypatch.setattr(actor_pool, "LOADING_SECONDS", 0.5)
    monkeypatch.setattr(actor_pool.Meters, "died", lambda _, slot: killed.append(slot.spec.variant))
    hanging = runs.engine("bad", before=lambda: time.sleep(3600))
    with pytest.raises(ShardsFailed, match=r"no engine is left.*bad: EngineHung: .*not loaded within .* minutes on '.+'"):
        runs.run(root, [hanging], attempts=2, **NO_TABLE)
    assert killed == ["bad", "bad"]


def test_an_engine_that_hangs_at_loading_stops_no_other_and_waiting_actors_are_not_killed(tmp_path, monkeypatch):
    root, gone, output = str(tmp_path), tmp_path / "gone", io.StringIO()
    runs.write_log(open_store(f"{root}/in"))
    monkeypatch.setattr(actor_pool, "LOADING_SECONDS", 5)
    monkeypatch.setattr(actor_pool.Meters, "died", lambda *_: gone.touch())

    def later():
        """Label only after the other engine has gone."""
        classify = runs.RuleClassifier.classify

        def call(engine, messages):
            runs.wait_until(gone.exists)
            return classify(engine, messages)

        runs.RuleClassifier.classify = call

    hanging, waiting = runs.engine("bad", before=lambda: time.sleep(3600)), runs.engine("waiting", cpus=64)
    runs.run(root, [runs.engine("good", before=later), hanging, waiting], attempts=1, stream=output, **NO_TABLE)
    runs.check_run(root)
    assert "of bad died" in output.getvalue() and "of waiting died" not in output.getvalue()


def test_an_engine_that_cannot_load_gets_no_resources_of_a_growing_cluster(tmp_path, monkeypatch):
    root, output, gone = str(tmp_path), io.StringIO(), tmp_path / "gone"
    monkeypatch.setattr(actor_pool, "GROW_SECONDS", 0.1)
    runs.write_log(open_store(f"{root}/in"), files=2, rows=20)

    def broken():
        gone.touch()
        raise ValueError("no such GPU")

    def later():
        """Keep labelling for a while after the other engine has gone."""
        classify = runs.RuleClassifier.classify

        def call(engine, messages):
            runs.wait_until(gone.exists)
            return classify(engine, messages)

        runs.RuleClassifier.classify = call

    # Takes both CPUs, so that another actor fits only after this one has gone.
    bad = replace(runs.engine("bad", cpus=1.5, before=broken), grows=True)
    good = runs.engine("good", before=later, seconds=1.0)
    runs.run(root, [good, bad], rows_per_shard=10, attempts=1, stream=output, **NO_TABLE)
    runs.check_run(root)
    assert output.getvalue().count("bad died") == 1 and "they join" not in output.getvalue()


def drive(root: str, before=lambda: None, log: str | None = None, **kwargs):
    """Start a run whose driver is a process of its own. Its actors die with the driver."""

    # A process of another task must not do what `before` made this one do.
    @ray.remote(num_cpus=0, max_retries=0, max_calls=1)
    def driver():
        before()
        return runs.run(root, [runs.engine(cpus=0.1, log=log)], **kwargs)

    return driver.remote()


DRIVER_STEPS = [
    (Ledger, "plan", False),
    (Ledger, "plan", True),
    (driver, "find_frequent", True),
    (driver, "load_frequent_answers", False),
    (Tally, "add", True),
    (Ledger, "commit", False),
    (Ledger, "close", False),
]


@pytest.mark.parametrize("owner, name, after", DRIVER_STEPS, ids=[f"{name}-{after}" for _, name, after in DRIVER_STEPS])
def test_t3_a_killed_driver_is_followed_by_one_that_goes_on(tmp_path, harm, owner, name, after):
    root, log = str(tmp_path), str(tmp_path / "log")
    runs.write_log(open_store(f"{root}/in"), files=2, messages=UNIQUE)
    table = {} if owner is driver else NO_TABLE
    harm.add(f"{name}_{'after' if after else 'before'}")
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(drive(root, functools.partial(runs.dying, harm, owner, name, after), log, **table))
    committed = {key: etag for key, etag in runs.snapshot(root).items() if key.startswith("labelled/")}
    seen = Path(log).read_text().splitlines() if Path(log).exists() else []
    done = runs.read(open_store(f"{root}/out"), "labelled/")
    ray.get(drive(root, log=log, **table))
    runs.check_run(root)
    assert committed.items() <= runs.snapshot(root).items()
    again = Path(log).read_text().splitlines()[len(seen) :] if Path(log).exists() else []
    different = 100 if table == {} else 200
    assert len(again) == (0 if name in ("close", "load_frequent_answers") else different - len(done))


def test_t4_of_two_drivers_at_once_one_writes_the_manifest_and_the_other_says_so(tmp_path, harm):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"))

    meet = functools.partial(runs.meet, harm)
    assert runs.ends_of([drive(root, meet), drive(root, meet)]) == [4, 300]
    runs.check_run(root)


def test_t5_a_driver_that_wakes_up_late_changes_nothing(tmp_path, harm):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"))

    zombie = drive(root, functools.partial(runs.stop_before, harm, Ledger, "commit"))
    pid = Path(harm, "pid")
    runs.wait_until(lambda: pid.exists() and pid.read_text())
    try:
        ray.get(drive(root))
        finished = runs.snapshot(root)
    finally:
        os.kill(int(pid.read_text()), signal.SIGCONT)
    with pytest.raises(ManifestLost):
        ray.get(zombie)
    assert runs.snapshot(root) == finished
    runs.check_run(root)


def test_an_engine_that_disagrees_with_the_reference_labels_nothing(tmp_path):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"))

    def disagree():
        raise Disagreement("bad: 30 of 32 golden-set messages are labeled otherwise")

    with pytest.raises(Disagreement, match="30 of 32"):
        runs.run(root, [runs.engine("bad", before=disagree)])
    assert runs.read(open_store(f"{root}/out"), "labelled/").num_rows == 0


def test_a_run_whose_engines_refuse_their_configuration_is_refused_and_not_failed(tmp_path):
    root = str(tmp_path)
    runs.write_log(open_store(f"{root}/in"))

    def refuse():
        raise ConfigError("engine.device", "cuda", "this machine has no CUDA device; use engine.device=auto")

    with pytest.raises(ConfigError, match="^engine.device='cuda'") as refused:
        runs.run(root, [runs.engine("bad", before=refuse)])
    assert refused.value.exit_code == 2 and "run again" not in str(refused.value)
