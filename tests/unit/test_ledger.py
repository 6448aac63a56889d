"""The ledger refuses other runs, changed parts, and stores with other content."""

import json
import time
from dataclasses import asdict, replace

import pyarrow as pa
import pytest
import runs

from intent.errors import CorruptData, ManifestLost, RunMismatch
from intent.run.ledger import LABELLED, Ledger, part_key, probe
from intent.run.part import build_part
from intent.run.shard import Plan, Shard
from intent.storage import Blob

SHARDS = [Shard(Blob(f"log-{n}", 1, "e"), 0, 3) for n in range(2)]
PLAN = Plan(SHARDS, pa.schema([("id", pa.int64()), ("when", pa.timestamp("us", "UTC"))]), {"notes.txt": "not a Parquet file"})


def part(shard: Shard, label: str = "add"):
    counts = {"shard": shard.id, "fingerprint": runs.IDENTITY.fingerprint, "rows": 3}
    labelled, rejected = pa.table({"id": [1, 2], "action": [label] * 2}), pa.table({"id": [3], "reason": ["null message"]})
    return build_part({**counts, "labelled": 2, "abstained": 0, "rejected": 1}, labelled, rejected)


def finished(store) -> Ledger:
    ledger = Ledger(store, runs.IDENTITY)
    ledger.plan(lambda: PLAN)
    parts = {shard.id: ledger.publish(part(shard)) for shard in SHARDS}
    ledger.commit(PLAN, parts, {"rows": 6})
    return ledger


def test_a_finished_run_matches_its_manifest(store):
    manifest = finished(store).verify()
    assert (manifest["rows"], manifest["labelled"], manifest["rejected"]) == (6, 4, 2)
    assert manifest["left_out"] == {"notes.txt": "not a Parquet file"}
    assert {blob.key for blob in store.list("rejected/")} == {entry["rejected"]["key"] for entry in manifest["parts"]}


def test_the_plan_is_the_first_drivers(store):
    ledger = Ledger(store, runs.IDENTITY)
    assert ledger.plan(lambda: PLAN) == PLAN
    assert ledger.plan(lambda: Plan(SHARDS[:1])) == PLAN


def test_a_plan_of_an_older_version_is_refused_by_name(store):
    store.put("plan.json", json.dumps({"run": asdict(runs.IDENTITY), "shards": []}).encode())
    with pytest.raises(RunMismatch, match="holds the plan of an older version of intent; delete it, or name a new output"):
        Ledger(store, runs.IDENTITY).plan(lambda: PLAN)


def test_every_difference_to_the_run_that_is_there_is_named(store):
    finished(store)
    other = replace(runs.IDENTITY, models={"gguf-Q4_0": "2"}, prompt="other", catalog="other")
    with pytest.raises(RunMismatch) as refused:
        Ledger(store, other).require_same()
    for name in ("other models ({'rule': '1'} there, {'gguf-Q4_0': '2'} here)", "prompt (p there, other here)", "catalog ("):
        assert name in str(refused.value)
    assert "schema" not in str(refused.value) and refused.value.exit_code == 2


@pytest.mark.parametrize("run", [{"models": {}, "prompt": "p"}, {**vars(runs.IDENTITY), "colour": "blue"}, None])
def test_a_run_of_another_version_is_refused_by_name(store, run):
    store.put("plan.json", json.dumps({"run": run, "shards": []}).encode())
    with pytest.raises(RunMismatch, match="of another version of intent; name a new output"):
        Ledger(store, runs.IDENTITY).require_same()


def test_what_killed_drivers_left_of_their_probes_is_removed_after_a_day(store):
    recent = f"probe-{int(time.time())}-b"
    for key in ("probe-1700000000-a", recent):
        store.put(key, b"")
    probe(store)
    assert [blob.key for blob in store.list()] == [recent]


def test_the_part_that_was_first_stands(store):
    ledger = Ledger(store, runs.IDENTITY)
    first = ledger.publish(part(SHARDS[0], "add"))
    assert ledger.publish(part(SHARDS[0], "remove")) == first


def test_a_second_manifest_is_lost(store):
    ledger = finished(store)
    parts = {shard.id: ledger.committed(shard.id) for shard in SHARDS}
    with pytest.raises(ManifestLost):
        ledger.commit(PLAN, parts, {"rows": 6})


@pytest.mark.parametrize("harm", ["flipped", "missing", "more"])
def test_a_store_that_differs_from_the_manifest_is_named(store, harm):
    ledger, key = finished(store), part_key(LABELLED, SHARDS[0].id)
    data = bytearray(store.read(key))
    data[20] ^= 1
    store.delete(key)
    if harm == "flipped":
        store.put(key, bytes(data))
    if harm == "more":
        store.put(key, part(SHARDS[0]).data)
        key = part_key(LABELLED, "ffff")
        store.put(key, b"")
    with pytest.raises(CorruptData, match=key):
        ledger.verify()


def test_a_part_of_another_run_is_not_taken_for_done(store):
    finished(store)
    with pytest.raises(CorruptData, match="of another shard or run"):
        Ledger(store, replace(runs.IDENTITY, prompt="other")).committed(SHARDS[0].id)


def test_a_broken_part_is_detected_when_a_run_is_resumed(store):
    ledger, key = finished(store), part_key(LABELLED, SHARDS[0].id)
    data = bytearray(store.read(key))
    data[30] ^= 4
    store.put(key, bytes(data))
    with pytest.raises(CorruptData, match=f"{key}.*delete it and run again"):
        list(ledger.all_committed(shard.id for shard in SHARDS))


def test_a_plan_that_is_not_json_is_named(store):
    store.put("plan.json", b"{")
    with pytest.raises(CorruptData, match=r"plan\.json: not JSON"):
        Ledger(store, runs.IDENTITY).plan(lambda: PLAN)


def test_failed_shards_are_listed_until_the_run_is_finished(store):
    ledger = Ledger(store, runs.IDENTITY)
    ledger.record_failed({Shard(Blob("bad", 1, "e"), 0, -1, reason="is empty"): "is empty"})
    [entry] = json.loads(store.read("failed.json"))
    assert entry == {"object": "bad", "start": 0, "rows": "unknown", "reason": "is empty"}
    finished(store)
    assert store.stat("failed.json") is None
    ledger.record_failed({SHARDS[0]: "a driver that woke up late"})
    assert store.stat("failed.json") is None
