"""Simulate hundreds of runs in memory, or thousands, each with its own faults. `--seed` is the first run's."""

from collections import Counter

import pytest
from botocore.exceptions import ClientError
from simulation import simulate

from intent.errors import CorruptData
from intent.run.ledger import LABELLED, Ledger, part_key
from intent.run.part import Committed, Part
from intent.storage import sha256
from intent.storage.s3 import S3Store


@pytest.mark.parametrize("count", [200, pytest.param(6_000, marks=pytest.mark.rig)])
def test_no_fault_loses_a_row_or_counts_one_twice(seed, count):
    ends: Counter = Counter()
    for number in range(seed, seed + count):
        try:
            ends += simulate(number)
        except Exception as error:
            raise AssertionError(f"run {number} (repeat it with --seed={number}): {error}") from error
    # The faults were real: drivers crashed, lost the manifest and found a finished run.
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


def test_the_simulation_finds_a_driver_that_takes_its_own_manifest_for_anothers(monkeypatch):
    def forgetful(store: S3Store, key: str, data: bytes, notes=None) -> bool:
        try:
            store._call("put_object", key, Body=data, IfNoneMatch="*", Metadata={})
        except ClientError:
            return False
        return True

    monkeypatch.setattr(S3Store, "put_if_absent", forgetful)
    with pytest.raises(AssertionError, match="'lost'"):
        for seed in range(200):
            simulate(seed)
