"""In a process of its own: a node that joins the cluster in the middle of a run gets actors."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ray
import runs
from node_loss import wait_for_parts
from ray.cluster_utils import Cluster

from intent.run import actor_pool
from intent.storage import open_store

actor_pool.GROW_SECONDS = 1.0


def main(root: str) -> None:
    runs.write_log(open_store(f"{root}/in"), files=3, rows=200, messages=[f"message {n}" for n in range(1000)])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False)
    output, engine = io.StringIO(), runs.engine(cpus=1, seconds=1.0)
    engine = replace(engine, grows=True)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runs.run, root, [engine], rows_per_shard=20, frequent_messages=0, stream=output)
        wait_for_parts(root, 2)
        assert "they join" not in output.getvalue()
        cluster.add_node(num_cpus=2)
        summary = future.result(100)
    runs.check_run(root)
    print(f"rows={summary.rows} seconds={summary.seconds}")
    print(output.getvalue())
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
