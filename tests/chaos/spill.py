"""T18, in a process of its own: Ray has little memory for objects, and the disk that it spills them to is full."""

import sys

import ray
import runs

from intent.storage import open_store

OBJECT_STORE_BYTES = 80 << 20
# The counted messages of the log are some 200 MB, which Ray's tasks pass on.
FILES, ROWS = 8, 60_000


def main(root: str, spill: str, size: str) -> None:
    log = open_store(f"{root}/in")
    if not list(log.list()):
        runs.write_log(log, files=FILES, rows=ROWS, messages=[f"{'milk ' * 80}{n}" for n in range(ROWS)])
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        object_spilling_directory=spill,
    )
    summary = runs.run(root, [runs.engine(actors=2)], rows_per_shard=ROWS // 2, frequent_messages=int(size))
    runs.check_run(root)
    print(f"rows={summary.rows} classified={summary.classified}")
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
