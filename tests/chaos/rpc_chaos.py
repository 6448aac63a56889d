"""T9, in a process of its own: Ray's own fault injection drops requests and replies between its processes."""

import json
import os
import random
import sys

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_testing_rpc_failure"] = json.dumps(  # noqa: SIM112
    {
        method: {"num_failures": 8, "req_failure_prob": 20, "resp_failure_prob": 20}
        for method in ("CoreWorkerService.grpc_client.PushTask", "NodeManagerService.grpc_client.RequestWorkerLease")
    }
)

import ray
import runs

from intent.storage import open_store


def main(root: str, seed: str) -> None:
    messages = random.Random(seed).choices(["milk", None, "unsure", "two eggs"], k=50)
    runs.write_log(open_store(f"{root}/in"), files=3, rows=200, messages=messages)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    summary = runs.run(root, [runs.engine(actors=2)], rows_per_shard=20)
    runs.check_run(root)
    print(f"rows={summary.rows} retries={summary.retries}")
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
