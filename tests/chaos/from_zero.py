"""In a process of its own: a run starts on a cluster without a worker. The autoscaler sees its requests."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import ray
import runs
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.cluster_utils import Cluster

from intent import progress
from intent.run import survey
from intent.storage import open_store

survey.FOOTERS_PER_TASK, survey.ROWS_PER_TASK = 1, 200 + survey.ROWS_PER_SHARD
progress.LEAST_SECONDS = 1.0


def asked_for(cluster: Cluster) -> int:
    """Return the CPUs that pending tasks request, as the autoscaler counts them."""
    state = get_cluster_resource_state(GcsClient(address=cluster.address))
    return sum(request.count for request in state.pending_resource_requests)


def main(root: str) -> None:
    runs.write_log(open_store(f"{root}/in"), files=8, rows=200)
    cluster, output = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}), io.StringIO()
    ray.init(cluster.address, log_to_driver=False)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runs.run, root, [runs.engine()], rows_per_shard=200, stream=output)
        runs.wait_until(lambda: "0 of 8 objects" in output.getvalue() and "the cluster has no CPU yet" in output.getvalue())
        runs.wait_until(lambda: asked_for(cluster) == 8)
        cluster.add_node(num_cpus=1)
        summary = future.result(100)
    runs.check_run(root)
    print(f"rows={summary.rows}")
    print(output.getvalue())
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
