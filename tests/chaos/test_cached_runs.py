"""T3, T4, T5, T11 and T13 with the label cache on: nothing is lost or duplicated, in the run or in the cache."""

import functools
import io
import os
import signal
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import caches
import pytest
import ray
import runs
from s3_proxy import Rule

from intent.errors import IntentError
from intent.label_cache import LabelCache, merge, piece
from intent.label_cache.pointer import FOLDER, POINTER
from intent.run import new_labels
from intent.run.config import ClusterConfig
from intent.run.ledger import Ledger
from intent.run.progress import Tally
from intent.storage import StorageOptions, open_store
from jobs import caching

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster")]

# Both files of a log hold all of them; the cache has the first half.
MESSAGES = [f"message {n}" for n in range(100)]
KNOWN = MESSAGES[:50]
NO_TABLE = {"frequent_messages": 0}


def cache_of(root: str, options: StorageOptions = StorageOptions(), **kwargs) -> LabelCache:
    made = caches.cache(root, {"model": root}, **{"sample": 0.0, **kwargs})
    return replace(made, store=open_store(f"{root}/{FOLDER}/{made.scope.name}", options))


def prepare(root: str, **kwargs) -> None:
    runs.write_log(open_store(f"{root}/in"), files=2, messages=MESSAGES)
    caches.learn(cache_of(root), "before", {message: len(message) for message in KNOWN}, **kwargs)


def cached_run(root: str, log: str | None = None, before=None, options: StorageOptions = StorageOptions(), **kwargs):
    """Run with the cache on, then add the new labels to the cache, as `jobs.classify` does."""
    cache = cache_of(root, options)
    engine = replace(runs.engine(cpus=0.1, log=log, before=before), cache=cache)
    summary = runs.run(root, [engine], options=options, **kwargs)
    new_labels.learn(open_store(f"{root}/out", options), [cache])
    return summary


def check(root: str) -> None:
    """Check I0, and that the cache holds each message once, with the engine's label."""
    runs.check_run(root)
    assert not list(open_store(f"{root}/out").list("fresh/")), "new labels outlived the run"
    cache = cache_of(root)
    assert merge.verify(cache) == []
    tables = [piece.load(cache.store.read(file.key), file.key) for file in cache.read().files]
    hashes = [(row["high"], row["low"]) for table in tables for row in table.to_pylist()]
    assert len(hashes) == len(set(hashes)) == len(MESSAGES)
    assert caches.look(cache, *MESSAGES) == [len(message) for message in MESSAGES]
    labelled = runs.read(open_store(f"{root}/out"), "labelled/")
    ids, quantities = labelled["id"].to_pylist(), labelled["quantity"].to_pylist()
    assert all(n == len(MESSAGES[int(row.split("-")[1])]) for row, n in zip(ids, quantities, strict=True))


def drive(root: str, before=lambda: None, log: str | None = None, **kwargs):
    """Start a run whose driver is a process of its own."""

    # A process of another task must not do what `before` made this one do.
    @ray.remote(num_cpus=0, max_retries=0, max_calls=1)
    def driver():
        before()
        return cached_run(root, log, **kwargs)

    return driver.remote()


def lines(log: str) -> list[str]:
    return Path(log).read_text().splitlines() if Path(log).exists() else []


@pytest.mark.parametrize("root", ["local", "s3"], indirect=True)
def test_a_run_with_a_cache_classifies_only_new_messages(root, tmp_path):
    prepare(root)
    log = str(tmp_path / "seen")
    summary = cached_run(root, log)
    check(root)
    assert sorted(lines(log)) == sorted(MESSAGES[50:])
    assert (summary.cached, summary.classified, summary.duplicates_saved) == (100, 50, 50)
    assert runs.run(root).cached == 100


STEPS = [
    (Tally, "add", True),
    (Ledger, "commit", False),
    (new_labels, "learn", False),
    (LabelCache, "add", False),
    (LabelCache, "add", True),
]


@pytest.mark.parametrize("owner, name, after", STEPS, ids=[f"{name}-{after}" for _, name, after in STEPS])
def test_t3_a_killed_driver_is_followed_by_one_that_goes_on_and_learns_once(tmp_path, harm, owner, name, after):
    root, log = str(tmp_path), str(tmp_path / "log")
    prepare(root)
    harm.add(f"{name}_{'after' if after else 'before'}")
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(drive(root, functools.partial(runs.dying, harm, owner, name, after), log, **NO_TABLE))
    committed = {key: etag for key, etag in runs.snapshot(root).items() if key.startswith("labelled/")}
    seen = lines(log)
    ray.get(drive(root, log=log, **NO_TABLE))
    check(root)
    assert harm.left == [] and committed.items() <= runs.snapshot(root).items()
    # No model labels a message that the cache has, or one that is committed.
    assert not set(KNOWN) & set(lines(log))
    if owner is not Tally:
        assert lines(log) == seen


def test_t4_two_drivers_at_once_learn_once(tmp_path, harm):
    root = str(tmp_path)
    prepare(root)

    meet = functools.partial(runs.meet, harm)
    assert runs.ends_of([drive(root, meet), drive(root, meet)]) == [4, 200]
    check(root)


def test_t5_a_driver_that_wakes_up_late_changes_nothing(tmp_path, harm):
    root = str(tmp_path)
    prepare(root)

    zombie = drive(root, functools.partial(runs.stop_before, harm, LabelCache, "add"))
    pid = Path(harm, "pid")
    runs.wait_until(lambda: pid.exists() and pid.read_text())
    try:
        ray.get(drive(root))
        finished, pointer = runs.snapshot(root), cache_of(root).read()
    finally:
        os.kill(int(pid.read_text()), signal.SIGCONT)
    ray.get(zombie)
    assert runs.snapshot(root) == finished and cache_of(root).read() == pointer
    check(root)


def test_t11_a_lost_reply_loses_or_duplicates_no_label(proxy, harmed, s3_root):
    prepare(s3_root)
    kinds = ("plan", "labelled/", "manifest", "fresh/", f"{FOLDER}/.*/{POINTER}", f"{FOLDER}/.*/files/")
    proxy.rules = [Rule("lost", f"PUT .*/{kind}", count=1) for kind in kinds]
    cached_run(s3_root, options=harmed)
    assert proxy.hits == len(kinds)
    check(s3_root)


def test_t13_only_labels_that_a_crashed_store_acknowledged_are_learned(proxy, harmed, s3_root):
    prepare(s3_root)
    # The gateway is gone for some requests of every kind, and then for longer than the client's patience.
    proxy.rules = [Rule("gone", kind, count=2) for kind in ("labelled/", "fresh/", f"{FOLDER}/.*/files/", POINTER)]
    cached_run(s3_root, options=harmed, **NO_TABLE)
    assert proxy.hits >= 8
    check(s3_root)


def test_t13_a_store_that_is_gone_while_the_cache_learns_leaves_it_to_the_next_run(proxy, harmed, s3_root, monkeypatch):
    prepare(s3_root)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.rules = [Rule("gone", f"PUT .*{FOLDER}/.*/{POINTER}")]
    with pytest.raises(IntentError, match="does not answer"):
        cached_run(s3_root, options=harmed, **NO_TABLE)
    proxy.rules = []
    assert cached_run(s3_root, options=harmed, **NO_TABLE).already_done
    check(s3_root)


@pytest.mark.rig
def test_t13_a_real_store_that_crashes_while_the_cache_learns(ceph, drawn):
    """Every daemon gets kill -9; the cache learns all of the run or nothing, and the next run learns the rest."""
    root = f"s3://runs/{uuid.uuid4().hex}"
    runs.write_log(open_store(f"{root}/in", ceph.options), files=2, messages=MESSAGES)
    caches.learn(cache_of(root, ceph.options), "before", {message: len(message) for message in KNOWN})
    cached = functools.partial(cached_run, root, options=ceph.options, **NO_TABLE)
    add = LabelCache.add

    def crash(*args):
        ceph.crash()
        ceph.restart()
        return add(*args)

    LabelCache.add = crash
    try:
        cached()
    except IntentError:
        LabelCache.add = add
        cached()
    finally:
        LabelCache.add = add
    runs.check_run(root, options=ceph.options)
    assert caches.look(cache_of(root, ceph.options), *MESSAGES) == [len(message) for message in MESSAGES]


def test_a_damaged_cache_is_ignored_with_a_warning_and_the_run_is_right(tmp_path):
    root, output = str(tmp_path), io.StringIO()
    prepare(root)
    cache = cache_of(root)
    key = cache.read().files[0].key
    cache.store.put(key, cache.store.read(key)[:-1])
    summary = cached_run(root, stream=output)
    assert (summary.cached, summary.classified) == (0, 100)
    assert f"is ignored as far as it is damaged: {cache.store.uri}/{key}: SHA-256" in output.getvalue()
    runs.check_run(root)
    assert caches.look(cache, *MESSAGES) == [len(message) for message in MESSAGES]


def test_a_run_drops_a_cache_that_its_engine_disagrees_with(tmp_path):
    root, output = str(tmp_path), io.StringIO()
    runs.write_log(open_store(f"{root}/in"), files=8, messages=[f"message {n}" for n in range(800)])
    runs.write_log(open_store(f"{root}/in"), files=1, messages=MESSAGES)
    cache = cache_of(root, sample=0.5)
    caches.learn(cache, "before", {f"message {n}": 1 for n in range(800)})
    epoch = cache.read().epoch
    engine = replace(runs.engine(cpus=0.1), cache=cache)
    summary = runs.run(root, [engine], rows_per_shard=10, stream=output, **NO_TABLE)
    runs.check_run(root)
    assert "the label cache is dropped and the run goes on without it: 0 of" in output.getvalue()
    assert summary.asked_again < 300 and summary.agreed == 0 and summary.cached < 300
    assert cache.read().epoch != epoch and caches.look(cache, "message 1") == [None]
    # The engine's labels since then are right, and the cache learns them.
    new_labels.learn(open_store(f"{root}/out"), [cache])
    assert caches.look(cache, "message 799") in ([None], [len("message 799")])
    assert set(filter(None, caches.look(cache, *MESSAGES))) <= {len(message) for message in MESSAGES}


def test_a_cache_whose_task_hangs_holds_no_job(tmp_path, monkeypatch, capsys):
    class Hanging(caching.Keeper):
        def tend(self) -> None:
            pass

        def learn(self, output) -> None:
            signal.pause()

    store = open_store(str(tmp_path))
    store.put(f"{new_labels.FOLDER}/scope/labels", b"x")
    monkeypatch.setattr(caching, "MOST_SECONDS", 0.5)
    monkeypatch.setattr(caching, "_caches", lambda *_: [None])
    monkeypatch.setattr(caching, "Keeper", Hanging)
    job = SimpleNamespace(options=StorageOptions(), config=SimpleNamespace(cluster=ClusterConfig()))
    with caching.tending(job, {}) as learn:
        learn(store.uri)
    printed = "".join(capsys.readouterr())
    assert "the label cache has not learned this run's labels; run the same command again" in printed
