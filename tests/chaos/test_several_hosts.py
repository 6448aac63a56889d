"""A head, two workers of different speeds and a store, each on its own host and address. `make multihost` runs it."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from scripts import PATH, run
from test_cluster_faults import SOON

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.rig]
S3_PORT = 5055
SERVER = Path(__file__).parents[1] / "moto_server.py"


@pytest.fixture
def environment(hosts):
    """Yield the environment that reaches the store and the cluster. The store answers during the block."""
    command = hosts.on("store", [sys.executable, str(SERVER), "-H", "0.0.0.0", "-p", str(S3_PORT)])
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield {
        **SOON,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,
        "AWS_ENDPOINT_URL_S3": f"http://{hosts.addresses['store']}:{S3_PORT}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.kill()
    server.wait()


@pytest.mark.parametrize("hosts", [["store", "fast", "slow"]], indirect=True)
def test_a_run_succeeds_though_a_host_joins_late_and_another_is_cut_off(tmp_path, hosts, environment, seed):
    env = {**os.environ, **environment, "PYTHONPATH": PATH}
    address = hosts.start_head(env, "--num-cpus=0")
    hosts.join("slow", {**env, "HOST": "slow", "SECONDS_A_CALL": "2.0"})
    arguments = (seed, address, hosts.wires["slow"], json.dumps(hosts.joining("fast")))
    code, output = run(tmp_path, "several_hosts.py", *arguments, by=hosts.on_head, env=environment)
    assert code == 0, output
    seen = json.loads(output.splitlines()[-1])
    assert seen["rows"] == 1400 and 1 <= seen["retries"] <= 20
    assert seen["by"]["fast"] > seen["by"]["slow"] > 0
