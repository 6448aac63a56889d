"""T8, in a process of its own on the head's host: the network to the worker's host is cut for a while during a run."""

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import ray
import runs
from node_loss import wait_for_parts

from intent.storage import open_store

CUT_SECONDS = 20


def cut(wire: str, seconds: float) -> None:
    subprocess.run(["ip", "link", "set", wire, "down"], check=True)
    time.sleep(seconds)
    subprocess.run(["ip", "link", "set", wire, "up"], check=True)


def main(root: str, seed: str, address: str, wire: str) -> None:
    drawn, nodes = random.Random(seed), set()
    runs.write_log(open_store(f"{root}/in"), files=5, rows=200, messages=[f"message {n}" for n in range(1000)])
    ray.init(address, log_to_driver=False)
    nodes = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    assert len(nodes) == 2, nodes
    engine = runs.engine(actors=2, cpus=1, seconds=1.5)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runs.run, root, [engine], rows_per_shard=20, frequent_messages=0)
        wait_for_parts(root, drawn.randrange(2, 8))
        cut(wire, CUT_SECONDS)
        summary = future.result(150)
    runs.check_run(root)
    print(f"rows={summary.rows} retries={summary.retries}")


if __name__ == "__main__":
    main(*sys.argv[1:])
