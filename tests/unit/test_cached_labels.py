"""Labels of a run with a cache: equal to the engine's, counted by source, learned once, and dropped when they disagree."""

from contextlib import suppress
from dataclasses import replace

import caches
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs

from intent.errors import IntentError
from intent.label_cache import Limits, Reader, node
from intent.label_cache.pointer import LabelCache
from intent.run import frequent, new_labels
from intent.run.cache_check import Trust
from intent.run.columns import Columns
from intent.run.part import Receipt
from intent.run.shard import Shard
from intent.run.worker import Worker
from intent.storage import Blob, open_store
from intent.task.catalog import normalize

MESSAGES = ["two milks", "hello", "two  milks", None, "refuse it", "", "three big milks", "hello"]


@pytest.fixture(autouse=True)
def own_copies(tmp_path, monkeypatch):
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setattr(node, "cache_folder", lambda: folder)


class Seeing(runs.RuleClassifier):
    """Normalizes messages as every engine does."""

    def classify(self, messages):
        self.seen = [*getattr(self, "seen", []), *messages]
        return [replace(runs.rule(normalize(message)), message=message) for message in messages]


class Changed(Seeing):
    """An engine whose answers have changed."""

    def classify(self, messages):
        return [replace(runs.rule(f"{message} more"), message=message) for message in messages]


def worker(cache: LabelCache | None, classifier=None, run: str = "run", abstain_below: float = 0.0) -> Worker:
    reader = Reader.open(cache, run) if cache else None
    return Worker(classifier or Seeing(), runs.CART, Columns(), run, abstain_below=abstain_below, reader=reader)


def label(worker: Worker, messages=MESSAGES, frequent_answers=None):
    rows = pa.table({"id": list(range(len(messages))), "message": pa.array(messages, pa.string())})
    return worker.label(Shard(Blob("log", 1, "e"), 0, len(messages)), rows, frequent_answers)


def table(part) -> pa.Table:
    return pq.read_table(pa.BufferReader(part.data)).replace_schema_metadata()


@pytest.fixture
def output(tmp_path):
    return open_store(str(tmp_path / "out"))


def taught(root, output, messages=MESSAGES, **kwargs) -> LabelCache:
    """Return a cache that has learned a run's labels of these messages."""
    cache = caches.cache(str(root), **kwargs)
    new_labels.keep(output, "part", label(worker(cache), messages).fresh)
    new_labels.learn(output, [cache])
    return cache


@pytest.mark.parametrize("abstain_below", [0.0, 0.85, 0.9, 0.91])
def test_a_label_from_the_cache_is_the_one_that_the_engine_gives(tmp_path, output, abstain_below):
    cache = taught(tmp_path, output)
    alone, cached = worker(None, abstain_below=abstain_below), worker(cache, abstain_below=abstain_below)
    one, other = label(alone), label(cached)
    assert table(one) == table(other) and one.rejected == other.rejected
    abstained = table(other).filter(pa.array([s == "abstained" for s in table(other)["status"].to_pylist()]))
    assert len(abstained) == {0.0: 0, 0.85: 2, 0.9: 2, 0.91: 5}[abstain_below] == other.receipt.abstained
    assert abstained["action"].null_count == len(abstained)
    # A rejection is not kept: the engine is asked each time.
    assert cached.classifier.seen == ["refuse it"]


class Lists(Seeing):
    """Answers with a list of items, each with its own confidence."""

    def classify(self, messages):
        self.seen = [*getattr(self, "seen", []), *messages]
        predictions = [runs.list_rule(normalize(message)) for message in messages]
        return [
            replace(p, slots=tuple(s / (2 + len(normalize(m))) for s in p.slots), message=m)
            for p, m in zip(predictions, messages, strict=True)
        ]


@pytest.mark.parametrize("explode", [False, True])
@pytest.mark.parametrize("abstain_below", [0.0, 0.85])
def test_a_list_from_the_cache_is_the_one_that_the_engine_gives_with_each_items_confidence(
    tmp_path, output, explode, abstain_below
):
    messages = ["milk and eggs and", "milk and more and some", "milk  and eggs and", "hello", None, "two milks", "refuse it"]
    cache = caches.cache(str(tmp_path))
    settings = (runs.BASKET, Columns(explode=explode), "run")
    new_labels.keep(output, "part", label(Worker(Lists(), *settings, reader=Reader.open(cache, "run")), messages).fresh)
    new_labels.learn(output, [cache])
    alone = Worker(Lists(), *settings, abstain_below=abstain_below)
    cached = replace(alone, classifier=Lists(), reader=Reader.open(cache, "run"))
    one, other = label(alone, messages), label(cached, messages)
    assert table(one) == table(other) and one.receipt.file_rows == other.receipt.file_rows
    assert cached.classifier.seen == ["refuse it"] and other.receipt.abstained == (abstain_below > 0)


def test_a_list_in_another_order_agrees_with_the_cached_one(tmp_path, output):
    class Turned(Lists):
        def classify(self, messages):
            predictions = super().classify(messages)
            return [p if not p.intent else replace(p, intent={"intents": p.intent["intents"][::-1]}) for p in predictions]

    cache = caches.cache(str(tmp_path), sample=1.0)
    settings = (runs.BASKET, Columns(), "run")
    new_labels.keep(output, "part", label(Worker(Lists(), *settings, reader=Reader.open(cache)), ["milk and eggs and"]).fresh)
    new_labels.learn(output, [cache])
    receipt = label(Worker(Turned(), *settings, reader=Reader.open(cache)), ["milk and eggs and"]).receipt
    assert (receipt.asked, receipt.agreed) == (1, 1)


def test_rows_are_counted_by_where_their_answers_came_from(tmp_path, output):
    cache = taught(tmp_path, output, ["two milks", "hello"])
    receipt = label(worker(cache)).receipt
    assert (receipt.rows, receipt.refused, receipt.cached, receipt.found) == (8, 2, 4, 3)
    # Only "three big milks" and the rejected message are left, and no duplicates.
    assert receipt.classified == 2 and receipt.rows - receipt.refused - receipt.cached - receipt.classified == 0
    assert (receipt.asked, receipt.agreed, receipt.cache) == (0, 0, f"{cache.scope.name}/{cache.read().epoch}")
    alone = label(worker(None)).receipt
    assert (alone.cached, alone.found, alone.asked, alone.cache) == (0, 0, 0, "")


def test_what_an_engine_abstains_from_by_itself_is_not_kept(tmp_path, output):
    cache = taught(tmp_path, output, ["unsure", "refuse it"])
    assert cache.read().rows == 0 and not list(output.list("fresh/"))


def test_a_sample_is_asked_again_and_gets_the_engines_answer(tmp_path, output):
    cache = taught(tmp_path, output, sample=1.0)
    same = label(worker(cache))
    assert (same.receipt.asked, same.receipt.agreed, same.receipt.cached) == (4, 4, 0)
    other = label(worker(cache, Changed()))
    # Both label "hello" as no intent.
    assert (other.receipt.asked, other.receipt.agreed) == (4, 1)
    assert table(other)["quantity"].to_pylist()[0] == len("two milks more")
    # The cache also learns it.
    new_labels.keep(output, "part", other.fresh)
    new_labels.learn(output, [cache])
    assert caches.look(cache, "two milks") == [len("two milks more")]


def test_one_that_the_engine_now_rejects_does_not_agree(tmp_path, output):
    cache = caches.cache(str(tmp_path), sample=1.0)
    caches.learn(cache, "one", {"refuse it": 1, "two milks": 9})
    receipt = label(worker(cache), ["refuse it", "two milks"]).receipt
    assert (receipt.asked, receipt.agreed, receipt.rejected) == (2, 1, 1)


def test_a_cache_that_is_not_trusted_answers_nothing_also_not_by_the_frequent_messages(tmp_path, output):
    cache = taught(tmp_path, output, ["two milks"])
    frequent.publish_messages(output, pa.array(["two milks", "hello"]))
    (chunk,) = frequent.chunks(output)
    receipt = frequent.label(output, worker(cache), chunk)
    assert (receipt.rows, receipt.found, receipt.classified) == (0, 1, 1) and frequent.answered(output) == [(2, receipt)]
    known = frequent.load(output)
    trusting = worker(cache)
    part = label(trusting, ["two milks", "hello", "two milks"], known)
    assert (part.receipt.cached, part.receipt.found, part.receipt.classified) == (2, 0, 0)
    trusting.reader.forget()
    part = label(trusting, ["two milks", "hello", "two milks"], known)
    assert (part.receipt.cached, part.receipt.classified, trusting.classifier.seen) == (0, 1, ["two milks"])


@pytest.mark.parametrize("abstain_below", [0.85, 0.9, 0.91])
def test_a_frequent_message_is_abstained_from_like_any_other(tmp_path, output, abstain_below):
    messages = ["two milks", "hello"]
    frequent.publish_messages(output, pa.array(messages))
    (chunk,) = frequent.chunks(output)
    asked = worker(None, abstain_below=abstain_below)
    frequent.label(output, asked, chunk)
    assert table(label(asked, messages, frequent.load(output))) == table(label(asked, messages))


def test_frequent_messages_that_were_labelled_before_there_was_a_cache_are_known(tmp_path, output):
    frequent.publish_messages(output, pa.array(["two milks", "hello"]))
    (chunk,) = frequent.chunks(output)
    frequent.label(output, worker(None), chunk)
    (blob,) = output.list("frequent/answers-")
    old = pq.read_table(pa.BufferReader(output.read(blob.key))).drop_columns(["intent.cached"]).replace_schema_metadata()
    runs.put_table(output, blob.key, old)
    assert frequent.answered(output) == [(2, None)]
    assert label(worker(caches.cache(str(tmp_path))), frequent_answers=frequent.load(output)).receipt.classified == 3


def test_stale_entries_get_todays_date_unless_the_cache_was_dropped(tmp_path, output):
    clock = caches.Clock()
    cache = caches.cache(str(tmp_path), clock=clock)
    caches.learn(cache, "one", {"two milks": 9, "three milks": 11})
    clock.day += 4
    reading = worker(cache)
    part = label(reading, ["two milks", "two eggs"])
    new_labels.keep(output, "part", part.fresh)
    assert new_labels.learn(output, [cache]) == 2 and cache.read().files[0].used == {str(clock.day): 2}
    clock.day += 4
    part = label(worker(cache), ["two milks", "new"])
    cache.drop("it disagrees")
    new_labels.keep(output, "part", part.fresh)
    assert new_labels.learn(output, [cache]) == 1
    assert caches.look(cache, "two milks", "new") == [None, 3]


def left(output, cache, parts: int = 3) -> None:
    for number in range(parts):
        new_labels.keep(output, f"part-{number}", label(worker(cache), [f"message {number} {n}" for n in range(5)]).fresh)


def test_learning_may_stop_at_any_request_and_is_done_once(tmp_path, monkeypatch):
    """The process dies at every request to the store in turn, before or after it."""

    class Gone(BaseException):
        pass

    def dying(at: int):
        count = iter(range(1000))

        def wrap(method):
            def call(*args, **kwargs):
                if next(count) == at:
                    raise Gone
                result = method(*args, **kwargs)
                if next(count) == at:
                    raise Gone
                return result

            return call

        return wrap

    for at in range(200):
        root = tmp_path / str(at)
        output, cache = open_store(str(root / "out")), caches.cache(str(root))
        left(output, cache)
        with monkeypatch.context() as patch:
            wrap = dying(at)
            for name in ("put_if_absent", "update", "delete", "read"):
                patch.setattr(type(output), name, wrap(getattr(type(output), name)))
            # The dead process adds nothing more. The next call belongs to the next run.
            with suppress(Gone):
                new_labels.learn(output, [cache])
                break
        new_labels.learn(output, [cache])
        assert cache.read().rows == 15 and not list(output.list("fresh/")), at
        assert len(cache.read().nights) == 1
    assert at > 20


def test_damaged_new_labels_are_skipped_and_the_others_are_learned(tmp_path, output):
    cache = caches.cache(str(tmp_path))
    left(output, cache)
    keys = [blob.key for blob in output.list("fresh/")]
    output.put(keys[0], b"ARROW1")
    output.put(keys[1], output.read(keys[1])[:-40])
    assert new_labels.learn(output, [cache]) == 5 and not list(output.list("fresh/"))


def test_new_labels_of_another_run_with_other_variants_are_deleted_and_not_learned(tmp_path, output):
    cache, other = caches.cache(str(tmp_path)), caches.cache(str(tmp_path), {"model": "other"})
    left(output, other)
    assert new_labels.learn(output, [cache]) == 0 and not list(output.list()) and cache.read().rows == 0


def test_many_new_labels_are_learned_in_files_of_bounded_size(tmp_path, output, monkeypatch):
    monkeypatch.setattr("intent.label_cache.merge.PIECE_ROWS", 12)
    cache = caches.cache(str(tmp_path))
    left(output, cache, parts=6)
    assert new_labels.learn(output, [cache]) == 30 and [file.rows for file in cache.read().files] == [10, 10, 10]


# Trust.


def receipt(cache: LabelCache, asked: int, agreed: int) -> Receipt:
    return Receipt("s", "f", 0, 0, 0, 0, asked=asked, agreed=agreed, cache=f"{cache.scope.name}/{cache.read().epoch}")


@pytest.mark.parametrize(
    ("samples", "dropped", "at_the_end"),
    [
        ([(1000, 990)], False, False),
        ([(1000, 980)], False, False),
        # During a run, repeated checks allow for chance. At the end, the agreement counts as it is.
        ([(1000, 975)], False, True),
        ([(1000, 960)], True, True),
        ([(500, 490), (500, 470)], True, True),
        ([(49, 0)], False, False),
        ([(50, 40)], True, True),
        ([(10, 5)] * 5, True, True),
        ([], False, False),
    ],
)
def test_a_cache_that_agrees_too_seldom_is_dropped(tmp_path, samples, dropped, at_the_end):
    cache, warnings = caches.cache(str(tmp_path)), []
    caches.learn(cache, "one", {"two milks": 2})
    trust, before = Trust([cache], warnings.append), cache.read().epoch
    receipts = [receipt(cache, *sample) for sample in samples]
    for each in [None, *receipts]:
        trust.weigh(each)
    assert (bool(trust.distrusted), cache.read().epoch != before) == (dropped, dropped)
    trust.close()
    assert (bool(trust.distrusted), cache.read().epoch != before) == (at_the_end, at_the_end)
    assert len(warnings) == at_the_end and all("goes on without it" in line for line in warnings)
    assert caches.look(cache, "two milks") == [None if at_the_end else 2]


def test_a_sample_of_an_epoch_that_has_ended_drops_no_later_one(tmp_path):
    cache = caches.cache(str(tmp_path))
    caches.learn(cache, "one", {"two milks": 2})
    old = receipt(cache, 100, 0)
    cache.drop("by hand")
    caches.learn(cache, "two", {"two milks": 3})
    Trust([cache], lambda line: None).weigh(old)
    assert caches.look(cache, "two milks") == [3]


def test_a_cache_that_cannot_be_dropped_is_not_used_all_the_same(tmp_path, monkeypatch):
    cache, warnings = caches.cache(str(tmp_path)), []
    caches.learn(cache, "one", {"two milks": 2})
    bad = receipt(cache, 100, 0)

    def refuse(*args):
        raise IntentError("the store does not answer")

    monkeypatch.setattr(LabelCache, "drop", refuse)
    trust = Trust([cache], warnings.append)
    trust.weigh(bad)
    assert trust.distrusted == {bad.cache} and "the store does not answer" in warnings[0]


def test_limits_are_of_the_configuration():
    from intent.label_cache.config import CacheConfig
    from jobs.caching import limits

    assert limits(CacheConfig(gigabytes=0.5, days=7)) == Limits(500_000_000, 7)
