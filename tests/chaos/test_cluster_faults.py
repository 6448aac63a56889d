"""T2: nodes that go away, and come."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.chaos
@pytest.mark.slow
def test_t2_a_night_survives_the_loss_of_every_node_and_goes_on_when_others_come(tmp_path):
    path = os.pathsep.join([str(HERE.parent.parent), str(HERE.parent), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, str(HERE / "node_loss.py"), str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (found := re.search(r"rows=600 retries=(\d+)", ended.stdout)), ended.stdout
    assert 2 <= int(found[1]) <= 20
