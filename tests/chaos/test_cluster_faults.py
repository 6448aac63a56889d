"""T2, T7 and T9: nodes that go away and come, a head that is lost, calls that are."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import nights
import pytest
from head_loss import LABEL

HERE = Path(__file__).parent

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


def run(script: str, root: Path) -> tuple[int, str]:
    """(exit code, output) of a script, of which no process is left behind."""
    path = os.pathsep.join([str(HERE.parent.parent), str(HERE.parent), str(HERE)])
    command = [sys.executable, str(HERE / script), str(root)]
    with open(root / "output", "w+") as output:
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(timeout=120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read()


def test_t2_a_night_survives_the_loss_of_every_node_and_goes_on_when_others_come(tmp_path):
    code, output = run("node_loss.py", tmp_path)
    assert code == 0, output
    assert (found := re.search(r"rows=600 retries=(\d+)", output)), output
    assert 2 <= int(found[1]) <= 20


def test_t7_a_fresh_cluster_goes_on_where_one_lost_its_head(tmp_path, ray_cluster):
    root = str(tmp_path)
    code, output = run("head_loss.py", tmp_path)
    assert code != 0, output
    before = {key: etag for key, etag in nights.snapshot(root).items() if key.startswith("labelled/")}
    assert 3 <= len(before) < 20 and "manifest.json" not in nights.snapshot(root)
    nights.run(root, **LABEL)
    nights.check_night(root)
    assert before.items() <= nights.snapshot(root).items()


def test_t9_calls_that_are_lost_between_rays_processes_lose_no_row(tmp_path):
    code, output = run("rpc_chaos.py", tmp_path)
    assert code == 0, output
    assert (found := re.search(r"rows=600 retries=(\d+)", output)), output
    assert int(found[1]) > 0
