"""T18: the output's disk is full in the middle of a night. Needs the right to mount; `make chaos` has it."""

import subprocess
from pathlib import Path

import nights
import pytest

from intent.errors import ShardsFailed
from intent.storage import open_store

pytestmark = pytest.mark.chaos


@pytest.fixture
def small_disk(tmp_path):
    """A mount of 256 KiB, and how to make it larger."""
    folder = tmp_path / "out"
    folder.mkdir()

    def mount(option: str) -> int:
        return subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)], capture_output=True).returncode

    try:
        if mount("size=256k"):
            pytest.skip("not allowed to mount a small disk")
    except FileNotFoundError:
        pytest.skip("no mount on this machine")
    yield lambda: mount("remount,size=64m")
    subprocess.run(["umount", str(folder)], check=True)


def test_t18_a_full_disk_is_a_clear_failure_and_a_larger_one_is_enough_to_go_on(ray_cluster, tmp_path, small_disk):
    root = str(tmp_path)
    nights.write_log(open_store(f"{root}/in"), files=40, rows=1000, messages=[f"message {n}" for n in range(1000)])
    with pytest.raises(ShardsFailed, match="No space left on device"):
        nights.run(root, rows_per_shard=1000, frequent_messages=0, attempts=1)
    done = {key: etag for key, etag in nights.snapshot(root).items() if key.startswith("labelled/")}
    assert 0 < len(done) < 40 and not Path(root, "out", "manifest.json").exists()
    assert small_disk() == 0
    nights.run(root, rows_per_shard=1000, frequent_messages=0)
    nights.check_night(root)
    assert done.items() <= nights.snapshot(root).items()
