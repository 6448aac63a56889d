"""Local folders and S3 behave the same."""

import errno
import filecmp
import json
import os
import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import BUCKET

from intent.errors import ConfigError, CorruptData, StoreUnfit
from intent.run.ledger import probe
from intent.storage import LocalStore, StorageOptions, inside, open_store, read_uri


def test_objects_are_put_listed_read_and_deleted(store):
    store.put("b/2", b"two")
    store.put("a/1", b"one")
    store.put("b/2", b"second")
    assert [blob.key for blob in store.list()] == ["a/1", "b/2"]
    assert [(blob.key, blob.size) for blob in store.list("b/")] == [("b/2", 6)]
    assert store.read("b/2") == b"second" and read_uri(f"{store.uri}/a/1") == b"one"
    store.delete("a/1")
    store.delete("a/1")
    assert store.stat("a/1") is None
    with pytest.raises(FileNotFoundError, match="a/1"):
        store.read("a/1")


def test_an_etag_changes_with_the_bytes(store):
    store.put("a", b"one")
    before = store.stat("a")
    store.put("a", b"two")
    assert store.stat("a").etag != before.etag


def test_one_of_many_writers_wins_and_its_object_stays(store):
    barrier = threading.Barrier(8)

    def write(data: bytes) -> bool:
        barrier.wait()
        return store.put_if_absent("key", data)

    entries = [bytes([65 + n]) * 1000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(write, entries))
    assert wins.count(True) == 1
    assert store.read("key") == entries[wins.index(True)]
    assert not store.put_if_absent("key", b"late") and store.read("key") == entries[wins.index(True)]


def test_random_access_reads_the_version_that_was_planned(store):
    store.put("a", bytes(range(256)) * 100)
    version = store.stat("a")
    with store.open("a", version) as file:
        file.seek(25_500)
        assert file.read(200) == bytes(range(156, 256))
        file.seek(-3, 2)
        assert file.read() == bytes([253, 254, 255])
    assert store.read_tail(version, 2) == bytes([254, 255])
    assert len(store.read_tail(version, 1 << 20)) == 25_600
    store.put("a", b"other")
    for read in (lambda: store.open("a", version).read(1), lambda: store.read_tail(version, 2)):
        with pytest.raises(CorruptData, match="changed since it was planned"):
            read()


def test_a_large_file_goes_in_parts_from_disk_and_comes_back_whole(store, tmp_path, monkeypatch):
    """One PUT takes at most 5 GiB; here, 5 MiB."""
    part = 5 << 20
    monkeypatch.setattr("intent.storage.s3.PART_BYTES", part)
    sent = []
    if hasattr(store, "client"):
        events = store.client.meta.events
        events.register("before-send.s3", lambda request, **_: sent.append(int(request.headers.get("Content-Length", 0))))
    (tmp_path / "file").write_bytes(os.urandom(part * 2 + 1))
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("whole in memory"))
    store.put_file("a/b", tmp_path / "file")
    assert all(length <= part for length in sent)
    store.get_file("a/b", tmp_path / "copy")
    assert filecmp.cmp(tmp_path / "file", tmp_path / "copy", shallow=False)
    with pytest.raises(FileNotFoundError, match="none"):
        store.get_file("none", tmp_path / "copy")


def test_no_update_of_many_at_once_is_lost(store):
    def add(number: int) -> None:
        store.update("list.json", lambda data: json.dumps(sorted([*json.loads(data or b"[]"), number])).encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(16)))
    assert json.loads(store.read("list.json")) == list(range(16))
    assert [blob.key for blob in store.list()] == ["list.json"]


def test_a_store_goes_to_other_processes(store):
    store.put("a", b"one")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"one"


def test_a_fit_store_passes_the_probe_and_is_left_as_it_was(store):
    probe(store)
    assert list(store.list()) == []


@pytest.mark.parametrize("key", ["", "../a", "a/../b", "./a", "a/."])
def test_a_key_that_leaves_the_store_is_refused(store, key):
    with pytest.raises(ConfigError, match=r"key="):
        store.put(key, b"")


@pytest.mark.parametrize("key", ["/a", "a//b"])
def test_a_path_that_the_disk_takes_for_another_is_refused(tmp_path, key):
    with pytest.raises(ConfigError, match=r"key="):
        open_store(str(tmp_path)).put(key, b"")


ODD = [
    "week#2",
    "what?x=1&y=2",
    "two  spaces",
    "a+b",
    "100%",
    "%2e%2e%2f",
    "dt=2026-11-23",
    "Grüße 🥛",
    "a;b,c:d@e",
    "tab\there",
]


@pytest.mark.parametrize("name", ODD)
def test_a_key_is_no_url(store, name):
    """This holds for a store's address and for a key. If a part were cut off, it would name another object."""
    below, other = open_store(f"{store.uri}/{name}/log"), open_store(f"{store.uri}/{name[:-1]}")
    below.put(f"a {name}/{name}", b"one")
    assert [blob.key for blob in below.list()] == [f"a {name}/{name}"] and not list(other.list())
    assert [blob.key for blob in store.list()] == [f"{name}/log/a {name}/{name}"]
    assert below.read(f"a {name}/{name}") == read_uri(f"{below.uri}/a {name}/{name}") == b"one"
    assert below.put_if_absent("b", b"two") and not below.put_if_absent("b", b"three") and below.stat("b").size == 3
    assert not below.uri.startswith("/") or open_store(f"file://{below.uri}").uri == below.uri


def test_slashes_of_a_bucket_are_part_of_its_keys(s3_endpoint):
    base = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    for uri, data in ((f"{base}/a", b"one"), (f"{base}/a/", b"one"), (f"{base}/a//", b"two"), (f"{base}//a", b"three")):
        open_store(uri).put("x", data)
    keys = {blob.key: open_store(base).read(blob.key) for blob in open_store(base).list()}
    assert keys == {"a/x": b"one", "a//x": b"two", "/a/x": b"three"}
    assert read_uri(f"{base}/a//x") == b"two" and read_uri(f"{base}//a/x") == b"three"
    assert not inside(open_store(f"{base}//a"), open_store(f"{base}/a")) and inside(
        open_store(f"{base}/a//"), open_store(f"{base}/a")
    )
    assert open_store(f"s3://{BUCKET}").uri == open_store(f"s3://{BUCKET}/").uri != open_store(f"s3://{BUCKET}//").uri


@pytest.mark.parametrize("uri", ["", "s3://", "ftp://host/x", "hdfs://host/x", "file://host/x", "s3://shop/a/../b"])
def test_an_address_of_nothing_we_know_is_refused(uri):
    with pytest.raises(ConfigError, match="uri="):
        open_store(uri)


@pytest.mark.parametrize("uri", ["s3://canary:canary@shop/log", "s3://canary:can/ary@shop/log"])
def test_an_address_with_credentials_is_refused_and_not_repeated(uri):
    with pytest.raises(ConfigError, match="take them out") as refused:
        open_store(uri)
    assert "canary" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_named(s3_endpoint):
    with pytest.raises(ConfigError, match="no-such-bucket.*there is no such bucket"):
        list(open_store("s3://no-such-bucket/in").list())


def test_a_crash_while_writing_leaves_nothing_that_is_listed(tmp_path, monkeypatch):
    store = LocalStore(str(tmp_path))

    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for put in (store.put, store.put_if_absent):
        with pytest.raises(OSError, match="No space left"):
            put("a", b"one")
    assert list(store.list()) == [] and list(tmp_path.iterdir()) == []


def test_a_link_whose_reply_is_lost_is_not_a_lost_race(tmp_path, monkeypatch):
    store, link = LocalStore(str(tmp_path)), os.link

    def late(source, target):
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", late)
    assert store.put_if_absent("a", b"one") and store.read("a") == b"one"
    assert not store.put_if_absent("a", b"two") and store.read("a") == b"one"


def test_a_folder_is_no_object(store):
    store.put("a/b", b"one")
    assert store.stat("a") is None and store.stat("a/b/c") is None


@pytest.fixture
def scanning(tmp_path, monkeypatch):
    """A store of two folders with one object each. Listing the folder `odd` raises the given error."""
    store, scandir = LocalStore(str(tmp_path)), os.scandir
    for key in ("even/a", "odd/a"):
        store.put(key, b"one")

    def raising(kind: type, number: int) -> LocalStore:
        def scan(folder):
            if folder.endswith("odd"):
                raise kind(number, os.strerror(number), folder)
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", scan)
        return store

    return raising


def test_a_folder_that_cannot_be_listed_is_never_left_out_silently(scanning):
    with pytest.raises(ConfigError, match="uri='.*/odd': may not be read; change its permissions"):
        list(scanning(PermissionError, errno.EACCES).list())
    with pytest.raises(OSError, match="Input/output error"):
        list(scanning(OSError, errno.EIO).list())
    assert [blob.key for blob in scanning(FileNotFoundError, errno.ENOENT).list()] == ["even/a"]


def test_a_link_to_a_folder_is_refused_and_one_to_a_file_followed(tmp_path):
    store, elsewhere = LocalStore(str(tmp_path / "in")), LocalStore(str(tmp_path / "elsewhere"))
    for key in ("a", ".hidden/a"):
        elsewhere.put(key, b"one")
    store.put("day/b", b"two")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    assert [blob.key for blob in store.list()] == ["a", "day/b"]
    (tmp_path / "in" / "day" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="uri='.*/day/more': is a link to a folder, which is not followed"):
        list(store.list())


@pytest.mark.parametrize("kind", ["broken link", "link to itself", "pipe"])
def test_a_name_without_a_regular_file_is_refused_and_not_left_out(tmp_path, kind):
    store, path = LocalStore(str(tmp_path)), tmp_path / "day" / "b"
    for key in ("day/a", "run/a"):
        store.put(key, b"one")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "link to itself" else tmp_path / "gone")
    with pytest.raises(ConfigError, match="uri='.*/day/b': is a broken link or not a regular file; restore"):
        list(store.list())
    assert [blob.key for blob in store.list("run/")] == ["run/a"] and store.stat("day/b") is None


def test_an_object_with_bytes_is_listed_whatever_its_name(s3_endpoint):
    store = open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    store.put("folder/", b"")
    store.put("rows/", b"PAR1")
    assert [blob.key for blob in store.list()] == ["rows/"]


@pytest.mark.parametrize("endpoint", ["localhost:9000", "", "s3://store", "//store", "https://"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint):
    with pytest.raises(ConfigError, match=f"storage.endpoint='{endpoint}': give a URL, such as https://HOST"):
        StorageOptions(endpoint=endpoint)


@pytest.mark.parametrize("endpoint", ["https://canary-key:canary@store", "canary-key:canary@store:9000"])
def test_an_endpoint_with_credentials_is_refused_and_not_repeated(endpoint):
    with pytest.raises(ConfigError, match="take them out") as refused:
        StorageOptions(endpoint=endpoint)
    assert "canary" not in str(refused.value)


def test_what_killed_writers_left_is_removed_after_a_day(tmp_path):
    store = LocalStore(str(tmp_path))
    store.put("labelled/a", b"one")
    old, new = tmp_path / "labelled" / ".aside-old", tmp_path / ".aside-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.clean_up()
    assert new.exists() and not old.exists() and store.read("labelled/a") == b"one"


def test_a_file_system_without_hard_links_is_unfit(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreUnfit, match="has no hard links"):
        probe(LocalStore(str(tmp_path)))
