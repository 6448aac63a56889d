"""T7, in a process of its own: the head of a run's cluster is killed in the middle of the run."""

import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_gcs_rpc_server_reconnect_timeout_s": "3"}

import ray
import runs

from intent.storage import open_store

LABEL = {"rows_per_shard": 20, "frequent_messages": 0}


def main(root: str, seed: str) -> None:
    parts = random.Random(seed).randrange(1, 9)
    runs.write_log(open_store(f"{root}/in"), files=2, rows=400, messages=[f"message {n}" for n in range(1000)])
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(runs.run, root, [runs.engine(actors=2, seconds=0.7)], **LABEL)
        while sum(key.startswith("labelled/") for key in runs.snapshot(root)) < parts:
            time.sleep(0.1)
        ray._private.worker._global_node.all_processes["gcs_server"][0].process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
