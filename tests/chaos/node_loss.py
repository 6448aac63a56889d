"""T2, in a process of its own: all nodes of a run's cluster are killed one after the other. Later, new nodes join."""

import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import ray
import runs
from ray.cluster_utils import Cluster

from intent.storage import open_store


def parts(root: str) -> int:
    return sum(key.startswith("labelled/") for key in runs.snapshot(root))


def wait_for_parts(root: str, count: int) -> None:
    while parts(root) < count:
        time.sleep(0.1)


def preempt(node, notice: float) -> None:
    """Remove a node as a cloud preempts it: with a warning, then without a shutdown."""
    raylet = node.all_processes["raylet"][0].process
    if notice:
        raylet.terminate()
        time.sleep(notice)
    raylet.kill()


def main(root: str, seed: str, seconds_without_nodes: str) -> None:
    drawn = random.Random(seed)
    runs.write_log(open_store(f"{root}/in"), files=3, rows=200, messages=[f"message {n}" for n in range(1000)])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    first, second = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False)
    engine = runs.engine(actors=2, cpus=1, seconds=0.4)
    with ThreadPoolExecutor(1) as pool:
        # Ray starts nodes in the main thread only, so the run has a thread of its own.
        future = pool.submit(runs.run, root, [engine], rows_per_shard=20, frequent_messages=0)
        wait_for_parts(root, drawn.randrange(1, 6))
        preempt(first, notice=0)
        wait_for_parts(root, parts(root) + drawn.randrange(1, 6))
        preempt(second, notice=0.5)
        time.sleep(float(seconds_without_nodes))
        cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1)
        summary = future.result(100)
    runs.check_run(root)
    print(f"rows={summary.rows} retries={summary.retries}")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
