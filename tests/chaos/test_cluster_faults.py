"""T2 and T7 to T9: nodes that leave and join, a lost head, a cut network, lost calls."""

import os
import re

import pytest
import runs
from head_loss import LABEL
from scripts import PATH, run

# Ray detects a lost node in seconds instead of half a minute.
SOON = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


@pytest.mark.parametrize("seconds_without_nodes", [5, pytest.param(60, marks=pytest.mark.rig)])
def test_t2_a_run_survives_the_loss_of_every_node_and_continues_on_new_nodes(tmp_path, seed, seconds_without_nodes):
    code, output = run(tmp_path, "node_loss.py", seed, seconds_without_nodes, env=SOON)
    assert code == 0, output
    assert (match := re.search(r"rows=600 retries=(\d+)", output)), output
    assert 2 <= int(match[1]) <= 20


def test_a_node_that_joins_during_a_run_gets_actors(tmp_path):
    code, output = run(tmp_path, "node_joins.py", env=SOON)
    assert code == 0 and "rows=600" in output, output
    # At once, or one as soon as Ray counts its CPU, and then the other.
    assert sum(map(int, re.findall(r"room for (\d+) more actors: they join", output))) == 2, output


def test_a_cluster_without_a_worker_is_asked_for_as_much_as_there_is_to_do(tmp_path):
    code, output = run(tmp_path, "from_zero.py", env=SOON)
    assert code == 0 and "rows=1600" in output, output


def test_t7_a_fresh_cluster_goes_on_where_one_lost_its_head(tmp_path, ray_cluster, seed):
    root = str(tmp_path)
    code, output = run(tmp_path, "head_loss.py", seed)
    assert code != 0, output
    before = {key: etag for key, etag in runs.snapshot(root).items() if key.startswith("labelled/")}
    assert 1 <= len(before) < 40 and "manifest.json" not in runs.snapshot(root)
    runs.run(root, **LABEL)
    runs.check_run(root)
    assert before.items() <= runs.snapshot(root).items()


@pytest.mark.rig
@pytest.mark.parametrize("hosts", [["w"]], indirect=True)
def test_t8_a_worker_that_is_cut_off_commits_nothing_twice(tmp_path, hosts, seed):
    env = {**os.environ, **SOON, "PYTHONPATH": PATH}
    address = hosts.start_head(env)
    hosts.join("w", env)
    code, output = run(tmp_path, "partition.py", seed, address, hosts.wires["w"], by=hosts.on_head, env=SOON)
    assert code == 0, output
    assert (match := re.search(r"rows=1000 retries=(\d+)", output)), output
    assert 1 <= int(match[1]) <= 20


def test_t9_calls_that_are_lost_between_rays_processes_lose_no_row(tmp_path, seed):
    code, output = run(tmp_path, "rpc_chaos.py", seed)
    assert code == 0, output
    assert (match := re.search(r"rows=600 retries=(\d+)", output)), output
    # Lost calls of shards count as retries. The output reports lost calls of tasks and of new actors.
    assert int(match[1]) > 0 or "will be retried" in output or "ActorUnavailableError" in output, output
