"""Thousands of nights in memory, each with its own faults. INTENT_SEEDS="first:stop" repeats or extends them."""

import os
from collections import Counter

import pytest
from simulation import simulate

from intent.errors import CorruptData
from intent.night.ledger import LABELLED, Ledger, part_key
from intent.night.part import Committed, Part
from intent.storage import sha256

FIRST, STOP = map(int, os.environ.get("INTENT_SEEDS", "0:2000").split(":"))


def test_no_fault_loses_a_row_or_counts_one_twice():
    ends: Counter = Counter()
    for seed in range(FIRST, STOP):
        try:
            ends += simulate(seed)
        except BaseException as error:
            raise AssertionError(f"seed {seed} (repeat it: INTENT_SEEDS={seed}:{seed + 1}): {error}") from error
    # The faults were real: drivers crashed, lost the manifest and found the night done.
    if STOP - FIRST >= 1000:
        assert min(ends[end] for end in ("won", "lost", "Crash", "already done")) > 10, ends


def test_the_simulation_finds_a_store_that_ignores_conditions():
    with pytest.raises(AssertionError, match="overwritten"):
        for seed in range(200):
            simulate(seed, conditional=False)


def test_the_simulation_finds_a_worker_that_trusts_its_own_part_after_losing_the_race(monkeypatch):
    def publish(ledger: Ledger, part: Part) -> Committed:
        ledger.store.put_if_absent(part_key(LABELLED, part.receipt.shard), part.data)
        return Committed(part.receipt, len(part.data), sha256(part.data))

    monkeypatch.setattr(Ledger, "publish", publish)
    with pytest.raises((AssertionError, CorruptData)):
        for seed in range(200):
            simulate(seed)


def test_the_simulation_finds_rejected_rows_that_are_written_before_the_commit(monkeypatch):
    publish = Ledger.publish

    def early(ledger: Ledger, part: Part) -> Committed:
        ledger._copy_rejected(part)
        return publish(ledger, part)

    monkeypatch.setattr(Ledger, "publish", early)
    with pytest.raises((AssertionError, CorruptData)):
        for seed in range(200):
            simulate(seed)
