"""T18: a disk fills up in the middle of a run: the output's, the one for temporary files, the one that Ray spills to.

Needs the right to mount; `make chaos` has it.
"""

import functools
import re
import subprocess
from pathlib import Path

import pytest
import runs
from scripts import run

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.errors import ShardsFailed
from intent.storage import open_store

pytestmark = pytest.mark.chaos


@pytest.fixture
def small_disk(tmp_path):
    """A mount of 256 KiB, and a function that makes it larger."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(option: str) -> int:
        return subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)], capture_output=True).returncode

    try:
        if mount("size=256k"):
            pytest.skip("not allowed to mount a small disk")
    except FileNotFoundError:
        pytest.skip("no mount on this machine")
    yield folder, lambda: mount("remount,size=64m")
    subprocess.run(["umount", str(folder)], check=True)


def test_t18_a_full_disk_is_a_clear_failure_and_a_larger_one_is_enough_to_go_on(ray_cluster, tmp_path, small_disk):
    root, (folder, enlarge) = str(tmp_path), small_disk
    (tmp_path / "out").symlink_to(folder)
    runs.write_log(open_store(f"{root}/in"), files=40, rows=1000, messages=[f"message {n}" for n in range(1000)])
    with pytest.raises(ShardsFailed, match="No space left on device"):
        runs.run(root, rows_per_shard=1000, frequent_messages=0, attempts=1)
    done = {key: etag for key, etag in runs.snapshot(root).items() if key.startswith("labelled/")}
    assert 0 < len(done) < 40 and not Path(root, "out", "manifest.json").exists()
    assert enlarge() == 0
    runs.run(root, rows_per_shard=1000, frequent_messages=0)
    runs.check_run(root)
    assert done.items() <= runs.snapshot(root).items()


def test_t18_a_model_that_does_not_fit_on_the_disk_is_named_and_leaves_no_files(ray_cluster, tmp_path, s3_root, small_disk):
    folder, enlarge = small_disk

    def build(scratch: Path) -> None:
        (scratch / "a.gguf").write_bytes(b"a" * (100 << 10))
        (scratch / "b.gguf").write_bytes(b"b" * (900 << 10))

    model = artifacts.make(f"{s3_root}/models", ArtifactRecord("model", {}, {}), build)
    runs.write_log(open_store(f"{s3_root}/in"))
    engine = runs.engine(before=functools.partial(artifacts.fetch, model), env_vars={"TMPDIR": str(folder)})
    with pytest.raises(ShardsFailed, match="no engine is left.*No space left on device"):
        runs.run(s3_root, [engine], attempts=1)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) == 0
    assert enlarge() == 0
    runs.run(s3_root, [engine])
    runs.check_run(s3_root)


@pytest.mark.rig
def test_t18_a_full_disk_for_spilled_objects_costs_the_table_of_frequent_messages_and_no_row(tmp_path, small_disk):
    folder, _ = small_disk
    code, output = run(tmp_path, "spill.py", folder, 60_000)
    assert code == 0, output
    assert re.search(r"rows=480000 classified=\d+", output), output
