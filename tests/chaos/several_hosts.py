"""A run with its store on a host of its own and its driver on the head's. A worker joins late, then another is cut off."""

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import ray
import runs
from node_loss import parts, wait_for_parts
from partition import CUT_SECONDS, cut
from servers import BUCKET, wait_for

from intent.run.actor_pool import EngineSpec
from intent.storage import open_store


def load() -> runs.RuleClassifier:
    """Load an engine with the host's speed and name, so that the labels show the host that made them."""
    return runs.RuleClassifier(os.environ["HOST"], seconds=float(os.environ["SECONDS_A_CALL"]))


def main(seed: str, address: str, wire: str, late: str) -> None:
    drawn, root = random.Random(seed), f"s3://{BUCKET}/several"
    wait_for(f"{os.environ['AWS_ENDPOINT_URL_S3']}/moto-api/")
    open_store(root).client.create_bucket(Bucket=BUCKET)
    runs.write_log(open_store(f"{root}/in"), files=5, rows=280, messages=[f"message {n}" for n in range(1000)])
    ray.init(address, log_to_driver=False)
    with ThreadPoolExecutor(1) as pool:
        engine = EngineSpec("rule", "stub", load, actors=2, cpus=1)
        future = pool.submit(runs.run, root, [engine], rows_per_shard=20, frequent_messages=0)
        wait_for_parts(root, drawn.randrange(2, 6))
        command = json.loads(late)
        subprocess.run(command, env={**os.environ, "HOST": "fast", "SECONDS_A_CALL": "0.5"}, check=True)
        wait_for_parts(root, parts(root) + drawn.randrange(8, 14))
        cut(wire, CUT_SECONDS)
        summary = future.result(150)
    runs.check_run(root)
    rows = {name: entry["rows"] for name, entry in summary.variants.items()}
    print(json.dumps({"rows": summary.rows, "retries": summary.retries, "by": rows}))


if __name__ == "__main__":
    main(*sys.argv[2:])
