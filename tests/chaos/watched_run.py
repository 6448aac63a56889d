"""Run in a process of its own on the cluster of RAY_ADDRESS, as a job does. The test watches it from outside."""

import sys
from dataclasses import replace

import caches
import runs

from intent.errors import ShardsFailed
from intent.run.config import ClusterConfig, ClusterMode
from intent.run.metrics import report_end
from intent.storage import open_store
from jobs.app import LogLines, cluster, for_machines

CANARY = "canary message 7f3a"


def main(root: str, frequent_messages: str) -> None:
    source, config = open_store(f"{root}/in"), ClusterConfig(ClusterMode.attach)
    runs.write_log(source, files=3, rows=200, messages=[f"{CANARY} {n}" for n in range(200)])
    runs.write_log(source, files=1, rows=20, messages=[f"raise {CANARY}", "refuse", None], key="odd-{}.parquet")
    # Half of the messages are known, and some of these are asked again.
    cache = caches.cache(root, sample=0.2)
    caches.learn(cache, "before", {f"{CANARY} {n}": len(f"{CANARY} {n}") for n in range(0, 200, 2)})
    engines = [replace(runs.engine(name, cpus=1, seconds=1.0), prices={"cpu": 3.6}, cache=cache) for name in ("gptq", "gguf")]
    assert for_machines(config)
    with cluster(config):
        try:
            runs.run(root, engines, rows_per_shard=20, attempts=2, stream=LogLines(), frequent_messages=int(frequent_messages))
        except ShardsFailed as error:
            print(error)
            report_end("2026-11-23", error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
