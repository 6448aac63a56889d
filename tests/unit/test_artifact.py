"""An artifact has one record, and a node fetches exactly the files that the record lists."""

import json
import os
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from intent import artifacts
from intent.artifacts import ArtifactRecord, Files
from intent.dataset import dataset
from intent.errors import ConfigError, CorruptData
from intent.storage import StorageOptions, open_store
from intent.storage.s3 import S3Store

RECORD = ArtifactRecord("variant-gptq", {}, {})


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def write(**files: str):
    def build(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).write_text(text)

    return build


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_variant_made_again_with_other_bytes_is_fetched_again_and_is_another(root):
    """GPTQ's files differ between two builds with the same fingerprint."""
    made = []
    for text in ("once", "again"):
        made.append(artifacts.make(root, RECORD, write(model=text)))
        assert (artifacts.fetch(made[-1]) / "model").read_text() == text
        open_store(made[-1].uri).delete("record.json")
    assert made[0].uri == made[1].uri and made[0].fingerprint != made[1].fingerprint
    assert [blob.key for blob in open_store(made[1].uri).list()] == [made[1].path("model")]


def test_of_two_builders_with_other_bytes_one_wins_with_its_own_files(root):
    """After a network partition, Ray runs the task again while the first one still runs."""
    barrier = threading.Barrier(4)

    def build(number: int):
        def build(folder: Path) -> None:
            for name in ("a", "b"):
                (folder / name).write_text(f"{name} of {number}")
            barrier.wait()

        return artifacts.make(root, RECORD, build)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(build, range(4)))
    assert len({each.fingerprint for each in made}) == 1, "all have the winner's"
    folder = artifacts.fetch(artifacts.find(made[0].uri))
    assert (folder / "a").read_text()[1:] == (folder / "b").read_text()[1:]
    assert len(list(open_store(made[0].uri).list())) == 3, "losers leave nothing"


def test_a_build_that_fails_leaves_nothing_and_is_made_by_the_next(root, monkeypatch):
    kind = S3Store if root.startswith("s3://") else type(open_store(root))
    put_file, put = kind.put_file, []

    def full(self, key, path):
        put.append(key)
        if len(put) == 2:
            raise OSError("No space left on device")
        put_file(self, key, path)

    monkeypatch.setattr(kind, "put_file", full)
    with pytest.raises(OSError, match="No space"):
        artifacts.make(root, RECORD, write(a="1", b="2"))
    assert list(open_store(root).list()) == []
    assert names(artifacts.fetch(artifacts.make(root, RECORD, write(a="1", b="2")))) == ["a", "b"]


def test_files_that_no_record_lists_are_not_there(root):
    """transformers applies an adapter whose configuration is in a checkpoint's folder."""
    made = artifacts.make(root, RECORD, write(model="weights"))
    store = open_store(made.files_uri)
    for dropped in ("adapter_config.json", "calibration.json", "more/model.safetensors", "train-00001.parquet"):
        store.put(dropped, b"dropped in")
    folder = artifacts.fetch(made)
    assert names(folder) == ["model"]
    (folder / "calibration.json").write_text("dropped into the cache")
    assert names(artifacts.fetch(made)) == ["model"]
    assert Files(made).keys() == ["model"] and Files(made).read("model") == b"weights"
    with pytest.raises(FileNotFoundError, match="calibration"):
        Files(made).read("calibration.json")
    with pytest.raises(Exception, match=r"no train-\*\.parquet"):
        dataset.read_split(Files(made), "train")


def test_a_file_that_was_changed_or_is_gone_is_named_with_the_remedy(root):
    made = artifacts.make(root, RECORD, write(model="weights"))
    store = open_store(made.files_uri)
    for change, expected in (
        (lambda: store.put("model", b"other"), "SHA-256 is"),
        (lambda: store.delete("model"), "is missing"),
    ):
        change()
        for read in (lambda: artifacts.fetch(made), lambda: Files(made).read("model")):
            with pytest.raises(CorruptData, match=rf"{made.files_uri}/model: {expected}.*delete .*record\.json"):
                read()


def test_a_record_that_is_none_is_named(root):
    made = artifacts.make(root, RECORD, write(model="weights"))
    for text in ("{", '{"kind": "x"}', '{"kind": "x", "config": {}, "inputs": {}, "unknown": 1}'):
        open_store(made.uri).put("record.json", text.encode())
        with pytest.raises(CorruptData, match=r"record\.json: is not a record"):
            artifacts.find(made.uri)


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """Collect the keys of all downloads."""
    calls, get_file = [], S3Store.get_file

    def counted(self, key: str, path: Path) -> None:
        calls.append(key.rpartition("/")[2])
        get_file(self, key, path)

    monkeypatch.setattr(S3Store, "get_file", counted)
    return calls


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_all_actors_of_a_node_share_one_download(root, downloads):
    made = artifacts.make(root, RECORD, write(a="1", b="2"))
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: artifacts.fetch(made), range(8)))
    assert len(folders) == 1 and sorted(downloads) == ["a", "b"]


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_a_copy_that_was_damaged_on_the_node_is_fetched_again_once(root, downloads, caplog):
    made = artifacts.make(root, RECORD, write(a="1", b="2"))
    folder = artifacts.fetch(made)
    (folder / "a").write_text("flipped")
    assert (artifacts.fetch(made) / "a").read_text() == "1"
    assert downloads == ["a", "b", "a"]
    assert str(folder / "a") in caplog.text and "s3://" not in caplog.text, "the node's copy is to blame, not the store"


@pytest.mark.parametrize("kind", ["link", "open to all", "a file"])
def test_a_cache_that_another_user_can_write_to_is_refused(tmp_path, kind):
    folder = tmp_path / "tmp" / f"intent-artifacts-{os.getuid()}"
    if kind == "link":
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    elif kind == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    made = artifacts.make(str(tmp_path), RECORD, write(a="1"))
    with pytest.raises(ConfigError, match=rf"TMPDIR=.*{folder}.*delete it, or set another temp folder"):
        artifacts.fetch(made)


def test_the_cache_is_of_this_user_alone(tmp_path):
    folder = artifacts.fetch(artifacts.make(str(tmp_path), RECORD, write(a="1")))
    assert folder.parent.name == f"intent-artifacts-{os.getuid()}" and folder.parent.stat().st_mode & 0o777 == 0o700


def test_an_artifact_of_an_older_version_is_read_where_its_files_lie(tmp_path):
    made = artifacts.make(str(tmp_path), RECORD, write(model="weights"))
    record = json.loads((Path(made.uri) / "record.json").read_text())
    Path(made.files_uri, "model").rename(Path(made.uri) / "model")
    del record["attempt"]
    (Path(made.uri) / "record.json").write_text(json.dumps(record))
    assert (artifacts.fetch(artifacts.load(made.uri, "", StorageOptions())) / "model").read_text() == "weights"


def test_the_code_is_named_by_its_commit_or_by_a_hash_of_its_sources(tmp_path):
    (package := tmp_path / "here" / "intent").mkdir(parents=True)
    (package / "a.py").write_text("1")
    seen = {artifacts.code_version(package)}
    assert re.fullmatch(r"[\d.]+, sources [0-9a-f]{16}", *seen)
    for name in ("a.py", "languages.yaml", "products.tsv", "page.html.j2"):
        (package / name).write_text("2")
        artifacts.code_version.cache_clear()
        assert artifacts.code_version(package) not in seen, name
        seen.add(artifacts.code_version(package))
    git = ["git", "-C", str(package.parent), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    artifacts.code_version.cache_clear()
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert artifacts.code_version(package).endswith(f", commit {head[:12]}")
    artifacts.code_version.cache_clear()
