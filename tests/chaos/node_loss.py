"""T2, in a process of its own: all nodes of a night's cluster are killed one after the other, and later others come."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

os.environ |= {f"RAY_health_check_{name}": "1000" for name in ("period_ms", "timeout_ms")}
os.environ |= {"RAY_health_check_failure_threshold": "3", "RAY_AUTH_MODE": "disabled"}

import nights
import ray
from ray.cluster_utils import Cluster

from intent.storage import open_store


def parts(root: str) -> int:
    return sum(key.startswith("labelled/") for key in nights.snapshot(root))


def wait_for_parts(root: str, count: int) -> None:
    while parts(root) < count:
        time.sleep(0.1)


def kill(node) -> None:
    """As a pre-empted machine goes: nothing of it is left to say goodbye."""
    node.all_processes["raylet"][0].process.kill()


def main(root: str) -> None:
    nights.write_log(open_store(f"{root}/in"), files=3, rows=200, messages=[f"message {n}" for n in range(1000)])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    first, second = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False)
    engine = nights.engine(actors=2, cpus=1, seconds=0.4)
    with ThreadPoolExecutor(1) as pool:
        # Ray starts nodes in the main thread only, so the night runs in another.
        night = pool.submit(nights.run, root, [engine], rows_per_shard=20, frequent_messages=0)
        wait_for_parts(root, 3)
        kill(first)
        wait_for_parts(root, 6)
        kill(second)
        time.sleep(6)
        cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1)
        summary = night.result(100)
    nights.check_night(root)
    print(f"rows={summary.rows} retries={summary.retries}")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
