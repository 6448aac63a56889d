"""T4, T11, T13, T14, T19, T20 on real servers: Ceph's RADOS gateway, which keeps its promises, and s3rver, which does not."""

import shutil
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import boto3
import pyarrow as pa
import pytest
import runs
from s3_proxy import Rule, S3Proxy
from servers import BUCKET, free_port, wait_for

from intent.errors import ConfigError, IntentError, ManifestLost, StoreUnfit
from intent.storage import StorageOptions, open_store

pytestmark = [pytest.mark.chaos, pytest.mark.rig, pytest.mark.usefixtures("ray_cluster")]

NO_TABLE = {"rows_per_shard": 20, "frequent_messages": 0}


@pytest.fixture
def s3_root() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def parts(root: str, options: StorageOptions) -> dict[str, str]:
    return {key: etag for key, etag in runs.snapshot(root, options).items() if key.startswith("labelled/")}


def credentials(monkeypatch, key: str, secret: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    # It keeps the credentials that it found first.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def test_t4_of_two_drivers_at_once_one_writes_the_manifest(ceph, s3_root):
    runs.write_log(open_store(f"{s3_root}/in", ceph.options), messages=["milk", None, "unsure", "refuse"])

    def drive():
        try:
            return runs.run(s3_root, [runs.engine(cpus=0.1)], options=ceph.options, **NO_TABLE)
        except ManifestLost as lost:
            return lost

    with ThreadPoolExecutor(2) as pool:
        ends = [future.result(120) for future in (pool.submit(drive), pool.submit(drive))]
    lost = [end for end in ends if isinstance(end, ManifestLost) or end.already_done]
    assert len(lost) == 1
    runs.check_run(s3_root, options=ceph.options)


def test_t11_a_lost_reply_is_not_a_lost_race(ceph, s3_root, seed):
    runs.write_log(open_store(f"{s3_root}/in", ceph.options), messages=["milk", None])
    proxy = S3Proxy(ceph.options.endpoint, seed)
    proxy.rules = [Rule("lost", f"PUT .*/{key}", count=2) for key in ("plan", "labelled/", "rejected/", "manifest")]
    try:
        runs.run(s3_root, options=StorageOptions(proxy.endpoint, "us-east-1"))
        assert proxy.hits == 8
    finally:
        proxy.close()
    runs.check_run(s3_root, options=ceph.options)


def test_t13_exactly_the_parts_acknowledged_before_a_crash_are_counted(ceph, s3_root, drawn):
    messages = [f"message {n}" for n in range(1000)]
    runs.write_log(open_store(f"{s3_root}/in", ceph.options), files=5, rows=200, messages=messages)
    engine = runs.engine(actors=2, seconds=0.5)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runs.run, s3_root, [engine], options=ceph.options, **NO_TABLE)
        before: dict[str, str] = {}
        for _ in range(2):
            wanted = len(before) + drawn.randrange(1, 8)
            while len(before := parts(s3_root, ceph.options)) < wanted:
                time.sleep(0.1)
            ceph.crash()
            time.sleep(drawn.uniform(0, 5))
            ceph.restart()
            assert before.items() <= parts(s3_root, ceph.options).items()
        try:
            future.result(200)
        except IntentError:
            # The store was away for longer than the clients' patience: the next run goes on.
            runs.run(s3_root, options=ceph.options, **NO_TABLE)
    assert before.items() <= parts(s3_root, ceph.options).items()
    runs.check_run(s3_root, options=ceph.options)


def test_t19_a_newline_in_a_name_is_only_a_name(ceph, s3_root):
    source = open_store(f"{s3_root}/in", ceph.options)
    runs.put_table(source, "with\nnewline.parquet", pa.table({"id": ["1"], "message": ["milk"]}))
    runs.run(s3_root, options=ceph.options)
    runs.check_run(s3_root, options=ceph.options)


def test_t20_a_wrong_key_is_refused_before_any_write_and_never_shown(ceph, s3_root, monkeypatch):
    runs.write_log(open_store(f"{s3_root}/in", ceph.options))
    with monkeypatch.context() as patched:
        credentials(patched, "test", "canary-secret")
        with pytest.raises(ConfigError, match="access denied") as refused:
            runs.run(s3_root, options=ceph.options)
    assert refused.value.exit_code == 2 and "canary" not in str(refused.value)
    assert runs.snapshot(s3_root, ceph.options) == {}


@contextmanager
def s3rver(folder):
    if not shutil.which("npm"):
        subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "npm"], check=True)
    subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), "s3rver@3.7.1"], check=True)
    port = free_port()
    command = [str(folder / "node_modules/.bin/s3rver"), "-a", "127.0.0.1", "-p", str(port), "-d", str(folder / "data")]
    server = subprocess.Popen([*command, "--configure-bucket", BUCKET], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}")
        yield StorageOptions(f"http://127.0.0.1:{port}", "us-east-1")
    finally:
        server.kill()
        server.wait()


def test_t14_a_store_that_ignores_conditions_is_refused_at_start(tmp_path, s3_root, monkeypatch):
    # The only credentials that s3rver knows.
    credentials(monkeypatch, "S3RVER", "S3RVER")
    with s3rver(tmp_path) as options:
        runs.write_log(open_store(f"{s3_root}/in", options))
        with pytest.raises(StoreUnfit, match="conditional") as unfit:
            runs.run(s3_root, options=options)
        assert unfit.value.exit_code == 5
        assert runs.snapshot(s3_root, options) == {}
