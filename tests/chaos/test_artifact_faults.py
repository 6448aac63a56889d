"""T4, T8, T10 to T12 for artifacts and the workspace's pointers: faults of the store, and second builders."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_proxy import Rule

from intent import artifacts
from intent.artifacts import Artifact, ArtifactRecord
from intent.errors import IntentError
from intent.storage import StorageOptions, open_store, s3

pytestmark = pytest.mark.chaos

RECORD = ArtifactRecord("variant-gptq", {}, {})
PART = 5 << 20


def write(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(os.urandom(2 * PART + 1))
    (folder / "config.json").write_text(os.urandom(8).hex())


def appended(number: int):
    return lambda data: json.dumps([*json.loads(data or b"[]"), number]).encode()


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.setattr(s3, "PART_BYTES", PART)


def check(made: Artifact, options: StorageOptions = StorageOptions()) -> None:
    """Check that the artifact is whole, and that nothing else is in its folder."""
    store = open_store(made.uri, options)
    assert {"config.json", "model.safetensors"} == made.record.files.keys()
    assert {blob.key for blob in store.list()} == {"record.json", *map(made.path, made.record.files)}
    artifacts.fetch(made, options)
    uploads = store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", [])
    assert not [upload for upload in uploads if upload["Key"].startswith(store.prefix)]


def test_t11_a_lost_reply_costs_no_artifact_and_no_update(proxy, harmed, s3_root, parts):
    proxy.rules = [Rule("lost", pattern, count=1) for pattern in ("PUT .*record.json", "PUT .*partNumber=2", "PUT .*list.json")]
    check(artifacts.make(s3_root, RECORD, write, harmed), harmed)
    store = open_store(s3_root, harmed)
    for number in range(3):
        store.update("list.json", appended(number))
    assert json.loads(store.read("list.json")) == [0, 1, 2] and proxy.hits == 3


def test_t10_throttling_and_t12_cut_replies_only_slow_a_build_and_a_download(proxy, harmed, s3_root, parts):
    proxy.rules = [Rule("slowdown", share=0.3), Rule("cut", "GET .*model.safetensors", count=2)]
    check(artifacts.make(s3_root, RECORD, write, harmed), harmed)
    assert proxy.hits > 3


def test_t10_a_store_that_takes_no_part_leaves_no_artifact_and_no_upload(proxy, harmed, s3_root, parts, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.rules = [Rule("slowdown", "PUT .*partNumber=2")]
    with pytest.raises(IntentError, match="keeps answering SlowDown"):
        artifacts.make(s3_root, RECORD, write, harmed)
    assert list(open_store(s3_root).list()) == []
    proxy.rules = []
    check(artifacts.make(s3_root, RECORD, write, harmed), harmed)


@pytest.mark.rig
def test_t4_of_builders_and_publishers_at_once_on_a_real_store_none_does_harm(ceph, s3_root, parts):
    barrier = threading.Barrier(4)

    def together(folder: Path) -> None:
        write(folder)
        barrier.wait()

    def run(number: int) -> Artifact:
        made = artifacts.make(s3_root, RECORD, together, ceph.options)
        open_store(s3_root, ceph.options).update("list.json", appended(number))
        return made

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(run, range(4)))
    assert len({each.fingerprint for each in made}) == 1
    check(made[0], ceph.options)
    assert sorted(json.loads(open_store(s3_root, ceph.options).read("list.json"))) == [0, 1, 2, 3]
