"""T20, in a process of its own: a run with recognizable credentials. Neither the output nor Ray's logs may hold them."""

import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"AWS_SECRET_ACCESS_KEY": "canary-" + "s" * 33, "AWS_SESSION_TOKEN": "canary-" + "t" * 33}

import ray
import runs
from s3_proxy import Rule, S3Proxy

from intent.errors import IntentError
from intent.storage import StorageOptions, open_store


def main(folder: str, root: str) -> None:
    # A short path: Ray's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="ray-") as logs:
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=True, _temp_dir=logs)
        runs.write_log(open_store(f"{root}/in"), files=1)
        harmed = S3Proxy(os.environ["AWS_ENDPOINT_URL_S3"])
        harmed.rules = [Rule("deny", "PUT .*labelled")]
        options = StorageOptions(harmed.endpoint, "us-east-1")
        try:
            runs.run(root, attempts=1, options=options)
        except IntentError as error:
            print(f"{type(error).__name__}: {error}")
        harmed.rules = []
        summary = runs.run(root, options=options)
        ray.shutdown()
        files = [path for path in Path(logs).rglob("*") if path.is_file()]
        leaks = [str(path) for path in files if b"canary-" in path.read_bytes()]
    out = open_store(f"{root}/out")
    leaks += [blob.key for blob in out.list() if b"canary-" in out.read(blob.key)]
    assert len(files) > 10 and not leaks, leaks
    runs.check_run(root)
    print(f"rows={summary.rows}")


if __name__ == "__main__":
    main(*sys.argv[1:])
