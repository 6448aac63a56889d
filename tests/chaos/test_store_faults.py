"""T10 to T12, T14, T20: how faults of a store, a network or a key affect a run."""

import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
import runs
from s3_proxy import Rule

from intent.errors import ConfigError, IntentError, ShardsFailed, StoreUnfit
from intent.run.columns import Columns
from intent.run.listing import list_input
from intent.run.rows import ShardReader
from intent.run.shard import plan_shards
from intent.storage import StorageOptions, open_store, s3

pytestmark = pytest.mark.chaos


def test_t10_a_store_that_throttles_a_third_of_the_requests_only_slows_the_run(ray_cluster, proxy, harmed, s3_root):
    runs.write_log(open_store(f"{s3_root}/in"), files=1)
    proxy.rules = [Rule("slowdown", share=0.3)]
    runs.run(s3_root, rows_per_shard=100, options=harmed)
    runs.check_run(s3_root)
    assert proxy.hits > 5


def test_t10_a_store_that_throttles_all_is_a_clean_failure_and_the_next_run_goes_on(
    ray_cluster, proxy, harmed, s3_root, monkeypatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    runs.write_log(open_store(f"{s3_root}/in"), files=1)
    proxy.rules = [Rule("slowdown", "PUT .*/labelled/")]
    with pytest.raises(ShardsFailed, match="keeps answering SlowDown") as failed:
        engine = runs.engine(env_vars={"AWS_MAX_ATTEMPTS": "2"})
        runs.run(s3_root, [engine], rows_per_shard=100, options=harmed, attempts=2)
    assert failed.value.exit_code == 3
    assert "manifest.json" not in runs.snapshot(s3_root)
    proxy.rules = [Rule("slowdown")]
    with pytest.raises(IntentError, match="keeps answering SlowDown"):
        runs.run(s3_root, options=harmed)
    proxy.rules = []
    runs.run(s3_root, options=harmed)
    runs.check_run(s3_root)
    assert "failed.json" not in runs.snapshot(s3_root)


@pytest.mark.rig
def test_t10_a_store_that_throttles_all_for_two_minutes_is_asked_less_and_less_and_then_given_up(
    ray_cluster, proxy, harmed, s3_root
):
    runs.write_log(open_store(f"{s3_root}/in"), messages=[f"message {n}" for n in range(1000)])
    engine = runs.engine(actors=2, seconds=0.5)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runs.run, s3_root, [engine], 20, attempts=1, options=harmed, frequent_messages=0)
        while sum(key.startswith("labelled/") for key in runs.snapshot(s3_root)) < 3:
            time.sleep(0.1)
        proxy.rules = [Rule("slowdown")]
        time.sleep(120)
        proxy.rules = []
        with pytest.raises(ShardsFailed, match="keeps answering SlowDown") as failed:
            future.result(120)
    assert failed.value.exit_code == 3
    # Two actors with three shards each, whose clients wait up to 20 seconds between attempts.
    assert 10 < proxy.hits < 300
    runs.run(s3_root, options=harmed)
    runs.check_run(s3_root)


def test_t11_a_lost_reply_is_not_a_lost_race(ray_cluster, proxy, harmed, s3_root):
    runs.write_log(open_store(f"{s3_root}/in"), messages=["milk", None])
    proxy.rules = [Rule("lost", f"PUT .*/{key}", count=2) for key in ("plan", "labelled/", "rejected/", "manifest")]
    # Not every store honours conditions on a multipart upload's completion: there is none.
    proxy.rules += [Rule("deny", r"POST .*\?upload")]
    runs.run(s3_root, options=harmed)
    runs.check_run(s3_root)
    assert proxy.hits == 8


def test_t12_a_hanging_or_broken_reply_is_asked_for_again(proxy, harmed, s3_root, monkeypatch):
    monkeypatch.setattr(s3, "READ_SECONDS", 1)
    runs.write_log(open_store(f"{s3_root}/in"), files=1, rows=2000)
    listing = list_input(f"{s3_root}/in", harmed)
    [shard] = plan_shards(listing, Columns(), 2000).shards
    proxy.rules = [Rule("hang", "GET .*log", count=1), Rule("cut", "GET .*log", count=1)]
    assert ShardReader(listing.store, ["id"]).read(shard)["id"].to_pylist() == [f"0-{row}" for row in range(2000)]
    assert proxy.hits == 2
    proxy.rules = [Rule("cut", "GET .*log")]
    with pytest.raises(IntentError, match="broke off 5 times"):
        listing.store.read(listing.blobs[0].key)


def test_t13_only_parts_that_a_crashed_store_acknowledged_are_counted(ray_cluster, proxy, harmed, s3_root):
    runs.write_log(open_store(f"{s3_root}/in"), files=2)
    # The gateway is gone for some requests of every kind: none of them is done.
    proxy.rules = [Rule("gone", "labelled/", count=4), Rule("gone", "GET .*log", count=4), Rule("gone", "manifest", count=2)]
    runs.run(s3_root, options=harmed)
    runs.check_run(s3_root)
    assert proxy.hits >= 8


@pytest.mark.parametrize("rule", [Rule("unconditional", "PUT"), Rule("unsupported", "PUT"), Rule("stale", "GET .*list-type")])
def test_t14_an_unfit_store_is_refused_before_anything_is_planned(proxy, harmed, s3_root, rule):
    runs.write_log(open_store(f"{s3_root}/in"), files=2)
    proxy.rules = [rule]
    with pytest.raises(StoreUnfit) as unfit:
        runs.run(s3_root, options=harmed)
    assert unfit.value.exit_code == 5
    assert runs.snapshot(s3_root) == {}


def test_t20_a_wrong_key_is_refused_before_any_write_and_never_shown(proxy, harmed, s3_root, monkeypatch):
    runs.write_log(open_store(f"{s3_root}/in"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    # boto3's own session keeps the key that it found first.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    proxy.rules = [Rule("deny")]
    with pytest.raises(ConfigError, match="access denied") as refused:
        runs.run(s3_root, options=harmed)
    assert refused.value.exit_code == 2
    assert runs.snapshot(s3_root) == {}
    assert "canary" not in str(refused.value)


def test_t20_a_token_that_expires_during_planning_quarantines_no_object(proxy, harmed, s3_root):
    runs.write_log(open_store(f"{s3_root}/in"))
    proxy.rules = [Rule("deny", "GET .*log-1")]
    with pytest.raises(ConfigError, match="access denied"):
        runs.run(s3_root, options=harmed)
    assert proxy.hits and runs.snapshot(s3_root) == {}


def test_an_unreadable_table_of_frequent_messages_only_slows_the_run(ray_cluster, proxy, harmed, s3_root):
    runs.write_log(open_store(f"{s3_root}/in"))
    proxy.rules = [Rule("deny", r"GET [^?]*/answers-")]
    summary = runs.run(s3_root, options=harmed)
    runs.check_run(s3_root)
    assert proxy.hits and summary.retries == 0


@pytest.mark.parametrize("where", ["uri", "endpoint"])
def test_t20_credentials_in_an_address_are_refused_and_not_repeated(where):
    with pytest.raises(ConfigError) as refused:
        if where == "uri":
            open_store("s3://canary-key:canary-secret@runs/out")
        else:
            StorageOptions(endpoint="http://canary-key:canary-secret@127.0.0.1:9000")
    assert "canary" not in str(refused.value)
