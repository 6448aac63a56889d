"""The label cache: its key, files and pointer, merging, eviction, and damaged files."""

import json
import os

import caches
import numpy as np
import pyarrow as pa
import pytest
from caches import DAY, Clock, learn, look, write

from intent.engine.grouped import Grouped
from intent.errors import ConfigError, CorruptData
from intent.label_cache import Limits, Reader, Scope, find_secret, merge, node, piece, pointer, scopes
from intent.label_cache.pointer import KEPT_SECONDS, ORPHAN_SECONDS, Outdated
from intent.storage import open_store
from intent.task.catalog import normalize


@pytest.fixture(autouse=True)
def own_copies(tmp_path, monkeypatch):
    """Give the test its own folder for a node's copies."""
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setattr(node, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path, clock):
    return caches.cache(str(tmp_path), clock=clock)


def files(cache) -> list[str]:
    return [blob.key for blob in cache.store.list("files/")]


# The key.


@pytest.mark.parametrize("same", ["two  milks", " two milks ", "two\tmilks", "two mil\x00ks", "two milks\n"])
def test_messages_that_a_model_reads_alike_have_one_hash(same):
    scope = Scope.of(caches.FACTS, caches.SECRET)
    (one, other), _ = scope.hashes(pa.array(["two milks", same]))
    assert one == other


def test_a_message_that_a_model_reads_otherwise_has_another_hash():
    scope = Scope.of(caches.FACTS, caches.SECRET)
    messages = ["two milks", "Two milks", "two milk", "zwei Milch", "zwei Milch ", "٢ milks", "2 milks"]
    high, low = scope.hashes(pa.array(messages))
    assert len({*zip(high.tolist(), low.tolist(), strict=True)}) == len(messages) - 2, "٢ is 2, and one ends with a space"
    assert scope.hashes(pa.array([], pa.string()))[0].shape == (0,)


def test_a_hash_does_not_depend_on_the_other_messages():
    scope = Scope.of(caches.FACTS, caches.SECRET)
    messages = [
        "",
        "two milks",
        " ",
        " two milks",
        "two milks ",
        "",
        "~",
        "two  milks",
        "\x7f",
        "zwei Käse",
        " Käse",
        "٢",
        "!",
        "two\u00a0milks",
    ]
    for start in range(len(messages)):
        together = scope.hashes(pa.array(messages)[start:])
        alone = [scope.hashes(pa.array([normalize(message)])) for message in messages[start:]]
        assert [half.tolist() for half in together] == [[int(one[half][0]) for one in alone] for half in (0, 1)]


@pytest.mark.parametrize("other", [Scope.of({"model": "other"}, caches.SECRET), Scope.of(caches.FACTS, b"x" * 32)])
def test_hashes_of_another_scope_or_secret_cannot_be_compared(other):
    scope = Scope.of(caches.FACTS, caches.SECRET)
    texts = pa.array(["two milks"])
    assert scope.name != other.name and scope.hashes(texts)[0] != other.hashes(texts)[0]
    assert "secret" not in repr(scope) and repr(caches.SECRET) not in repr(scope)


def test_the_secret_is_made_once_beside_the_models_and_the_environment_goes_before_it(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    monkeypatch.delenv("INTENT_CACHE_KEY", raising=False)
    made = find_secret(store)
    assert len(made) == 32 and find_secret(store) == made == bytes.fromhex(store.read("cache.key").decode())
    monkeypatch.setenv("INTENT_CACHE_KEY", "ab" * 16)
    assert find_secret(store) == b"\xab" * 16
    for bad in ("ab" * 15, "ab" * 65, "no hexadecimal digits, and secret"):
        monkeypatch.setenv("INTENT_CACHE_KEY", bad)
        with pytest.raises(ConfigError, match="INTENT_CACHE_KEY") as refused:
            find_secret(store)
        assert bad not in str(refused.value)


# Files.


def test_an_answer_of_any_shape_is_kept_as_the_engine_gave_it(cache):
    from intent.engine import Prediction

    intents = [
        {"action": "none", "product": None},
        {"action": "add", "product": ["Käse", "Brot"]},
        {"items": [{"a": 1}, {"a": 2}]},
    ]
    predictions = [Prediction(intent, 0.1 * n, (0.5, n / 8), variant="svm" if n else "") for n, intent in enumerate(intents)]
    table = piece.load(
        piece.dump(piece.merge([piece.entries(np.array([3, 1, 2]), np.zeros(3), Grouped.of(predictions), "gguf", DAY)])), "here"
    )
    rows = {row["high"]: row for row in table.to_pylist()}
    assert [json.loads(rows[n]["answer"]) for n in (3, 1, 2)] == [
        [intents[0], "gguf"],
        [intents[1], "svm"],
        [intents[2], "svm"],
    ]
    assert [rows[n]["confidence"] for n in (3, 1, 2)] == [0.0, 0.1, 0.2] and rows[2]["slots"] == [0.5, 0.25]
    assert [row["high"] for row in table.to_pylist()] == [1, 2, 3]


def test_hashes_that_share_their_upper_half_are_distinguished(cache, tmp_path):
    from intent.engine import Prediction

    low = np.array([9, 2, 7, 2**64 - 1], np.uint64)
    predictions = [Prediction({"q": int(n) % 10}, 0.5) for n in low]
    (tmp_path / "piece").write_bytes(
        piece.dump(piece.merge([piece.entries(np.full(4, 5, np.uint64), low, Grouped.of(predictions), "v", DAY)]))
    )
    opened = piece.Piece(tmp_path / "piece")
    rows = opened.find(np.full(5, 5, np.uint64), np.array([7, 3, 2**64 - 1, 9, 2], np.uint64))
    answers, indices, _, _ = opened.labels(rows[rows >= 0])
    assert [json.loads(answers[index])[0]["q"] for index in indices] == [7, 5, 9, 2] and rows[1] == -1


def test_learned_messages_are_found_and_no_others(cache):
    learn(cache, "run", {"two milks": 2, "three milks": 3})
    assert look(cache, "four milks", "three  milks", "two milks", "") == [None, 3, 2, None]
    assert look(cache) == []


def test_confidences_are_kept_before_any_threshold_and_exactly(cache):
    learn(cache, "run", {"two milks": 2}, confidence=0.1 + 0.2)
    assert Reader.open(cache).look(pa.array(["two milks"])).confidence.tolist() == [0.1 + 0.2]


def test_no_file_holds_a_message(cache):
    learn(cache, "run", {"a very secret wish": 2})
    assert not any(b"secret" in cache.store.read(blob.key) for blob in cache.store.list())


# Damaged files, half-written files, other versions.


def flip(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    "harm", [flip, lambda data: data[:-9], lambda data: b"", None], ids=["flipped", "short", "empty", "gone"]
)
def test_a_damaged_file_is_ignored_with_a_word_and_the_others_are_read(cache, harm):
    learn(cache, "one", {"two milks": 2})
    learn(cache, "two", {"three milks": 3})
    key = cache.read().files[0].key
    data = cache.store.read(key)
    cache.store.put(key, harm(data)) if harm else cache.store.delete(key)
    reader = Reader.open(cache)
    assert reader.look(pa.array(["two milks", "three milks"])).hit.tolist() == [True, False]
    (note,) = reader.notes
    assert key in note
    assert [key in line for line in merge.verify(cache)] == [True]
    assert merge.compact(cache) and merge.verify(cache) == [] and look(cache, "two milks", "three milks") == [2, None]


def test_a_nodes_damaged_copy_is_fetched_again(cache, own_copies):
    learn(cache, "one", {"two milks": 2})
    assert look(cache, "two milks") == [2]
    (copy,) = own_copies.rglob("*.arrow")
    copy.write_bytes(flip(copy.read_bytes()))
    assert look(cache, "two milks") == [2]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"version": 2}', b'{"version": 1, "files": [{"key": 1}]}', b"\xff"]
)
def test_a_damaged_pointer_or_one_of_another_version_is_ignored_and_replaced(cache, data):
    learn(cache, "one", {"two milks": 2})
    cache.store.put("pointer.json", data)
    reader = Reader.open(cache)
    assert len(reader.notes) == 1 and not reader.look(pa.array(["two milks"])).hit.any()
    assert merge.verify(cache) != []
    learn(cache, "two", {"three milks": 3})
    assert look(cache, "two milks", "three milks") == [None, 3]


def test_a_file_of_another_version_is_refused(cache, monkeypatch):
    monkeypatch.setattr(piece, "VERSION", b"2")
    data = piece.dump(piece.merge([caches.entries(cache, {"two milks": 2})]))
    monkeypatch.undo()
    with pytest.raises(CorruptData, match="not a label cache file of version 1"):
        piece.load(data, "here")


# The pointer.


def test_a_run_is_added_once(cache):
    learn(cache, "run", {"two milks": 2})
    learn(cache, "run", {"three milks": 3})
    assert look(cache, "two milks", "three milks") == [2, None] and cache.read().rows == 1


def test_what_was_built_on_a_cache_that_was_dropped_is_not_added(cache):
    learn(cache, "one", {"two milks": 2})
    epoch, late = cache.read().epoch, write(cache, {"three milks": 3})
    assert cache.drop("it disagrees", epoch) and not cache.drop("again", epoch)
    with pytest.raises(Outdated):
        cache.add("two", [late], epoch)
    assert look(cache, "two milks") == [None] and "it disagrees" in cache.read().dropped


def test_a_file_that_stopped_to_count_is_kept_until_no_run_reads_it(cache, clock):
    learn(cache, "one", {"two milks": 2})
    learn(cache, "two", {"three milks": 3})
    early, before = Reader.open(cache), set(files(cache))
    assert merge.compact(cache)
    cache.collect()
    assert before < set(files(cache)) and early.look(pa.array(["two milks"])).hit.all()
    clock.day += KEPT_SECONDS / piece.DAY_SECONDS + 0.01
    assert cache.collect() == 2 and not before & set(files(cache))
    assert cache.collect() == 0 and cache.read().retired == {} and look(cache, "two milks", "three milks") == [2, 3]


def test_a_file_that_was_never_named_is_marked_before_it_is_deleted_and_can_then_not_be_named(cache, clock):
    learn(cache, "one", {"two milks": 2})
    orphan, epoch = write(cache, {"three milks": 3}), cache.read().epoch
    cache.collect()
    assert cache.read().retired == {}
    clock.day += ORPHAN_SECONDS / piece.DAY_SECONDS + 0.01
    cache.collect()
    assert list(cache.read().retired) == [orphan.key] and orphan.key in files(cache)
    with pytest.raises(Outdated):
        cache.add("late", [orphan], epoch)
    clock.day += KEPT_SECONDS / piece.DAY_SECONDS + 0.01
    cache.collect()
    assert orphan.key not in files(cache)
    with pytest.raises(Outdated):
        cache.add("late", [orphan], epoch)


def test_deleted_is_deleted_at_once(cache, tmp_path):
    learn(cache, "one", {"two milks": 2})
    epoch = cache.read().epoch
    assert list(scopes(open_store(str(tmp_path)))) == [cache.scope.name]
    assert cache.delete() == 1 and list(cache.store.list()) == []
    assert cache.begin().epoch != epoch and look(cache, "two milks") == [None]


# Merging and eviction.


def test_merging_keeps_one_entry_a_hash_the_newest(cache):
    learn(cache, "one", {"two milks": 2, "three milks": 3})
    learn(cache, "two", {"three milks": 33, "four milks": 4})
    assert look(cache, "two milks", "three milks", "four milks") == [2, 33, 4]
    assert merge.compact(cache)
    assert (cache.read().rows, cache.read().depth) == (3, 1)
    assert look(cache, "two milks", "three milks", "four milks") == [2, 33, 4]


def test_many_runs_are_merged_into_files_by_hash_range_without_loss(cache, monkeypatch):
    monkeypatch.setattr(merge, "PIECE_ROWS", 100)
    for run in range(6):
        learn(cache, str(run), {f"message {n}": run + 1 for n in range(100 * run, 100 * run + 150)})
    assert merge.due(cache, cache.read()) and cache.read().depth == 6
    assert merge.compact(cache) and not merge.due(cache, cache.read())
    pointer = cache.read()
    assert pointer.rows == 650 and pointer.depth == 1 and len(pointer.files) == 9
    assert look(cache, *[f"message {n}" for n in range(650)]) == [min(6, n // 100 + 1) for n in range(650)]


def test_two_that_merge_at_once_lose_nothing(cache):
    learn(cache, "one", {"two milks": 2})
    old = cache.read()
    mine = merge._merged(cache, old, node.fetch)
    learn(cache, "two", {"three milks": 3})
    assert merge.compact(cache)
    assert not cache.exchange(old.files, mine)
    assert look(cache, "two milks", "three milks") == [2, 3]


def test_files_added_during_a_merge_stay_beside_the_merged_ones(cache):
    learn(cache, "one", {"two milks": 2})
    old = cache.read()
    mine = merge._merged(cache, old, node.fetch)
    learn(cache, "two", {"two milks": 22})
    assert cache.exchange(old.files, mine) and look(cache, "two milks") == [22]


def test_unused_entries_are_evicted_and_used_ones_are_kept_longer(tmp_path, clock):
    cache = caches.cache(str(tmp_path), clock=clock, limits=Limits(days=10))
    learn(cache, "one", {"two milks": 2, "three milks": 3})
    clock.day += 5
    result = Reader.open(cache).look(pa.array(["two milks", "four milks"]))
    cache.add("two", [cache.write(piece.merge(result.stale))], cache.read().epoch)
    clock.day += 8
    assert merge.due(cache, cache.read()) and merge.compact(cache)
    assert look(cache, "two milks", "three milks") == [2, None]
    clock.day += 8
    merge.compact(cache)
    assert cache.read().files == [] and look(cache, "two milks") == [None]


def test_an_entry_that_every_run_uses_is_not_written_by_every_run(cache, clock):
    learn(cache, "one", {"two milks": 2})
    texts = pa.array(["two milks"])
    for _ in range(3):
        clock.day += 1
        assert Reader.open(cache).look(texts).stale == []
    clock.day += 1
    (renewed,) = Reader.open(cache).look(texts).stale
    assert renewed["used"].to_pylist() == [DAY + 4]


@pytest.mark.parametrize("count", [1, 4])
def test_the_limit_in_bytes_is_kept_and_the_latest_used_stay(tmp_path, clock, count):
    cache = caches.cache(str(tmp_path), clock=clock, limits=Limits(bytes=40_000))
    for run in range(count):
        clock.day += 1
        learn(cache, str(run), {f"message {run} {n}": 1 for n in range(4_000 // count)})
    assert cache.read().bytes > 40_000 and merge.due(cache, cache.read())
    merge.compact(cache)
    assert 20_000 < cache.read().bytes <= 40_000 and not merge.due(cache, cache.read())
    assert set(cache.read().files[0].used) <= {str(DAY + count), str(DAY + count - 1)}


def test_a_cache_that_no_run_has_used_for_its_days_is_deleted(cache, clock):
    assert not merge.expire(cache)
    learn(cache, "one", {"two milks": 2})
    clock.day += 30
    assert not merge.expire(cache) and look(cache, "two milks") == [2]
    clock.day += 1
    assert merge.expire(cache) and not list(cache.store.list())


def test_each_run_asks_another_sample_of_the_cached_messages_again(tmp_path):
    cache = caches.cache(str(tmp_path), sample=0.05)
    messages = [f"message {n}" for n in range(4_000)]
    learn(cache, "one", dict.fromkeys(messages, 1))
    drawn = [Reader.open(cache, run).look(pa.array(messages)).again for run in ("aaaaaaaa", "bbbbbbbb", "aaaaaaaa")]
    assert all(140 < again.sum() < 260 for again in drawn)
    assert (drawn[0] == drawn[2]).all() and (drawn[0] & drawn[1]).sum() < 40
    none = caches.cache(str(tmp_path), sample=0.0)
    assert not Reader.open(none).look(pa.array(messages)).again.any()


def test_old_copies_on_a_node_are_deleted(cache, own_copies):
    learn(cache, "one", {"two milks": 2})
    look(cache, "two milks")
    (copy,) = own_copies.rglob("*.arrow")
    cache.drop("over")
    look(cache, "two milks")
    assert copy.exists()
    os.utime(copy, (0, 0))
    look(cache, "two milks")
    assert not copy.exists()


def test_how_deep_a_pointer_is(cache):
    def file(low, high):
        return pointer.File(f"{low}", "", 1, 1, low, high, {})

    assert pointer.Pointer().depth == 0
    assert pointer.Pointer(files=[file(0, 4), file(5, 9), file(10, 12)]).depth == 1
    assert pointer.Pointer(files=[file(0, 9), file(5, 9), file(9, 12)]).depth == 3


def test_hashes_are_sorted_by_both_halves_and_equal_ones_stay_in_their_order():
    high, low = (np.array(values, np.uint64) for values in ([7, 2, 7, 7, 1], [5, 9, 3, 5, 0]))
    assert piece.order_of(high, low).tolist() == [4, 1, 2, 0, 3]
    assert piece.order_of(high[[0, 1, 4]], low[[0, 1, 4]]).tolist() == [2, 1, 0]
