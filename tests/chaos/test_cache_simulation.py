"""Simulate hundreds of caches in memory, or thousands, each with its own faults. `--seed` is the first cache's seed."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cache_simulation import simulate

from intent.label_cache import LabelCache
from intent.label_cache.pointer import FILES
from intent.run import new_labels
from intent.storage import s3


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Skip the wait between two attempts of an update, because the other parties have their turns anyway.

    Only `s3` gets another clock. If `time.sleep` itself returned at once, every thread in this process that polls would spin,
    for example the one that gptqmodel's log starts, and each of the simulation's many changes of threads would wait for it.
    """
    monkeypatch.setattr(s3, "time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.mark.parametrize("worlds", [200, pytest.param(6_000, marks=pytest.mark.rig)])
def test_no_fault_loses_or_duplicates_a_label_or_breaks_a_reader(seed, worlds):
    ends: Counter = Counter()
    for number in range(seed, seed + worlds):
        try:
            ends += simulate(number)
        except Exception as error:
            raise AssertionError(f"world {number} (repeat it with --seed={number}): {error!r}") from error
    assert min(ends[end] for end in ("learned", "merged", "idle", "read", "dropped", "Crash")) > 10, ends


def assert_detected(match: str, worlds: int = 200) -> None:
    with pytest.raises(AssertionError, match=match):
        for seed in range(worlds):
            simulate(seed)


def test_the_simulation_detects_a_pointer_that_names_deleted_files(monkeypatch):
    monkeypatch.setattr(LabelCache, "_require_there", lambda *args: None)
    assert_detected("which is not there")


def test_the_simulation_finds_files_that_are_not_kept_for_readers(monkeypatch):
    monkeypatch.setattr("intent.label_cache.pointer.KEPT_SECONDS", 0)
    assert_detected("deleted under a reader|is gone")


def test_the_simulation_finds_an_update_without_a_condition():
    with pytest.raises(AssertionError):
        for seed in range(200):
            simulate(seed, conditional=False)


def test_the_simulation_detects_copies_of_dropped_labels(monkeypatch):
    def add(cache, run, files, epoch):
        cache._update(lambda pointer: replace(pointer, files=[*files, *pointer.files], nights=[*pointer.nights, run]))

    monkeypatch.setattr(LabelCache, "add", add)
    assert_detected("a copy of what was dropped|duplicated|not there")


def test_the_simulation_detects_a_run_that_deletes_new_labels_before_the_cache_has_them(monkeypatch):
    learn = new_labels._add

    def hasty(output, blobs, cache):
        for blob in blobs[1:]:
            output.delete(blob.key)
        return learn(output, blobs, cache)

    monkeypatch.setattr(new_labels, "_add", hasty)
    assert_detected("lost")


def test_the_simulation_detects_a_merger_that_replaces_files_it_has_not_read(monkeypatch):
    def exchange(cache, old, new):
        cache._update(lambda pointer: replace(pointer, files=list(new)))
        return True

    monkeypatch.setattr(LabelCache, "exchange", exchange)
    assert_detected("lost|which is not there|duplicated|dropped")


def test_the_simulation_finds_a_deletion_without_a_mark(monkeypatch):
    def collect(cache):
        named = {file.key for file in cache.read().files}
        for blob in list(cache.store.list(f"{FILES}/")):
            if blob.key not in named:
                cache.store.delete(blob.key)
        return 0

    monkeypatch.setattr(LabelCache, "collect", collect)
    assert_detected("which is not there|deleted under a reader|deleted while it counted|is gone")
