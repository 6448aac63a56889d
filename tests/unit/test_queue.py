"""The queue: which shard an actor gets, retries, and speculative copies."""

import random
from dataclasses import replace

import pytest

from intent.run.driver import _describe
from intent.run.queue import Queue
from intent.run.shard import Shard
from intent.storage import Blob


def shards(objects: int = 1, each: int = 4, runs: int = 1) -> list[Shard]:
    positions = [(o, r, n) for o in range(objects) for r in range(runs) for n in range(each)]
    return [Shard(Blob(f"{o}", 1, "e"), 10 * (r * each + n), 10, r) for o, r, n in positions]


def test_an_actor_stays_in_its_row_group_and_another_takes_a_fresh_one():
    queue = Queue(shards(objects=2, each=3), attempts=3)
    mine, other = [queue.take("a", 0) for _ in range(3)], [queue.take("b", 0) for _ in range(3)]
    assert {shard.blob.key for shard in mine} == {"0"} and {shard.blob.key for shard in other} == {"1"}


def test_who_has_nothing_left_takes_the_far_end_of_the_largest_row_group():
    queue = Queue(shards(objects=1, each=5), attempts=3)
    assert queue.take("a", 0).start == 0
    assert queue.take("b", 0).start == 40


def test_a_dead_actors_shards_go_back_and_run_alone():
    queue = Queue(shards(each=5), attempts=3)
    held = [queue.take("a", 0), queue.take("a", 0)]
    assert queue.lost("a", "died") == held
    assert queue.take("b", 0) == held[0]
    assert queue.take("b", 0) is None
    queue.done(held[0], "b", 1)
    assert queue.take("b", 1) == held[1] and queue.retries == 2


def test_a_shard_that_failed_is_retried_by_another_actor_first():
    queue = Queue(shards(each=5), attempts=3)
    other, shard = queue.take("b", 0), queue.take("a", 0)
    queue.lost("a", "died")
    assert queue.take("a", 0) not in (shard, None)
    queue.done(other, "b", 1)
    assert queue.take("b", 1) == shard


def test_a_shard_that_kills_is_quarantined_after_its_attempts_and_the_innocent_are_not():
    everything = shards(each=6)
    queue, poison, now, deaths = Queue(everything, attempts=3), everything[1], 0.0, 0
    while queue.open:
        now += 1
        for _ in range(3):
            queue.take("a", now)
        held = queue.assigned("a")
        if poison in held:
            deaths += 1
            queue.lost("a", "killed its actor")
        else:
            for shard in held:
                queue.done(shard, "a", now)
    assert set(queue.failed) == {poison} and deaths == 3
    assert queue.failed[poison] == "killed its actor (tried 3 times)"


def test_a_lost_node_is_not_blamed_on_its_shards_but_not_forever():
    queue = Queue(shards(each=1), attempts=1)
    for _ in range(10):
        queue.lost("a", "node", free=bool(queue.take("a", 0)))
    assert queue.open
    queue.lost("a", "node", free=bool(queue.take("a", 0)))
    assert not queue.open and queue.failed


def test_an_error_that_is_final_is_not_tried_again():
    queue = Queue(shards(each=1), attempts=3)
    queue.fail(queue.take("a", 0), "a", "corrupt", final=True)
    assert list(queue.failed.values()) == ["corrupt"] and not queue.open


def test_at_the_end_a_fast_actor_takes_a_speculative_copy_of_a_slow_actors_shard():
    queue = Queue(shards(objects=2, each=4), attempts=3)
    slow = [queue.take("slow", 0.0) for _ in range(3)]
    now = 0.0
    while shard := queue.take("quick", now):
        if shard in slow:
            break
        now += 1.0
        queue.done(shard, "quick", now)
    assert shard == slow[-1]
    assert queue.done(shard, "quick", now + 1)
    assert not queue.done(shard, "slow", now + 50), "the speculative copy came first"


def test_no_speculative_copy_is_made_of_a_shard_that_its_holder_finishes_sooner():
    queue = Queue(shards(each=3), attempts=3)
    for now in (0.0, 10.0):
        shard = queue.take("a", now)
        queue.done(shard, "a", now + 10)
    last = queue.take("a", 20.0)
    assert last and queue.take("b", 25.0) is None


def paced(shards: list[Shard], **seconds: float) -> tuple[Queue, float]:
    """Return a queue in which each actor has done one shard, in the given number of seconds."""
    queue = Queue(shards, attempts=3)
    for actor, took in seconds.items():
        queue.done(queue.take(actor, 0.0), actor, took)
    return queue, max(seconds.values())


@pytest.mark.parametrize("helper", [{"b": 10.0}, {"b": 500.0}], ids=["equal", "slower"])
def test_an_idle_actor_copies_the_shard_of_a_late_one(helper):
    queue, now = paced(shards(objects=1, each=3), a=10.0, **helper)
    last = queue.take("a", now)
    assert queue.take("b", now + 9) is None
    assert queue.take("b", now + 11) == last
    assert queue.take("b", now + 12) is None, "a third does not help"


def test_a_speculative_copy_that_fails_leaves_the_shard_to_its_first_holder():
    queue, now = paced(shards(objects=1, each=3), a=10.0, b=10.0)
    last = queue.take("a", now)
    assert queue.take("b", now + 11) == last
    queue.fail(last, "b", "corrupt", final=True)
    assert queue.open and not queue.failed
    assert queue.take("b", now + 12) is None, "what it failed with it does not try again meanwhile"
    assert queue.done(last, "a", now + 13) and not queue.open and not queue.failed


def test_of_two_holders_that_fail_the_last_decides():
    everything = shards(objects=1, each=3)
    queue, now = paced(everything, a=10.0, b=10.0)
    last = queue.take("a", now)
    queue.take("b", now + 11)
    queue.lost("b", "died")
    queue.fail(last, "a", "failed")
    assert queue.open and queue.take("c", now + 12) == last
    queue.fail(last, "c", "failed")
    assert queue.failed == {last: "failed (tried 3 times)"}


def test_an_actor_that_hangs_is_found_and_its_shard_is_quarantined_in_the_end():
    queue, now = Queue(shards(objects=1, each=1), attempts=3), 0.0
    for actor in "abc":
        shard = queue.take(actor, now)
        assert queue.overdue(now + 1799) == []
        now += 1801
        assert queue.overdue(now) == [actor]
        queue.lost(actor, "it hung")
    assert queue.failed == {shard: "it hung (tried 3 times)"} and queue.overdue(now) == []


def test_an_actor_that_gets_on_or_is_slow_does_not_hang():
    hour, large = 3600.0, [Shard(Blob("log", 1, "e"), 2_000 * n, 2_000) for n in range(4)]
    queue = Queue(large, attempts=3)
    first, second = queue.take("a", 0.0), queue.take("a", 0.0)
    assert queue.overdue(0.5 * hour + 1) == [], "2,000 rows may take more than half an hour"
    queue.done(first, "a", 0.55 * hour)
    assert queue.overdue(1.0 * hour) == [], "it has done one of its two shards since"
    assert queue.overdue(11.5 * hour) == [] and queue.overdue(12.0 * hour) == ["a"], "20 times its pace"
    queue.done(second, "a", 12.0 * hour)
    assert queue.overdue(99.0 * hour) == [], "it has nothing to do"


@pytest.mark.parametrize("seed", range(30))
def test_every_shard_ends_done_or_failed_whatever_happens(seed):
    drawn = random.Random(seed)
    everything = shards(objects=3, each=5, runs=2)
    queue, done, now = Queue(everything, attempts=3), [], 0.0
    for _ in range(10_000):
        now += drawn.random()
        actor = drawn.choice("abc")
        queue.take(actor, now)
        if not (held := queue.assigned(actor)):
            if not queue.open:
                break
            continue
        fate, shard = drawn.random(), drawn.choice(held)
        if fate < 0.15:
            queue.lost(actor, "died", free=drawn.random() < 0.3)
        elif fate < 0.25:
            queue.fail(shard, actor, "failed")
        elif queue.done(shard, actor, now):
            done.append(shard)
    assert not queue.open and queue.waiting == 0
    assert sorted(done + list(queue.failed), key=everything.index) == everything


def test_the_message_about_failed_shards_names_the_remedy():
    damaged, crashed, unread = shards(objects=3, each=1)
    queue = Queue([damaged, crashed], attempts=1, failed={replace(unread, reason="not Parquet"): "not Parquet"})
    queue.fail(queue.take("a", 0), "a", "0: a page's checksum is wrong", final=True)
    queue.fail(queue.take("a", 0), "a", "RuntimeError: x")
    description = _describe(queue.failed, queue.final, 7, "out")
    assert "; run again for the others; 1 could not be read when they were planned: repair their objects" in description
    assert "1 fail again as they are: follow each one's reason, or repair their objects and start a new run" in description
    assert "; then run again:" in _describe({crashed: "RuntimeError: x (tried 1 times)"}, 0, 7, "out")
    assert "run again" not in _describe({damaged: "0: a page's checksum is wrong"}, 1, 7, "out")
