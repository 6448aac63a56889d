"""T20, in a process of its own: a cluster that requires a token, and a job without one or with a wrong one."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from servers import free_port

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--include-dashboard=false", "--disable-usage-stats"]


def main(root: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        token = Path(folder, "token")
        token.write_text(secrets.token_hex(32))
        head = [*RAY, "--head", f"--port={address.split(':')[1]}", "--num-cpus=1", f"--temp-dir={folder}", "--block"]
        safe = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        cluster = subprocess.Popen(head, env=safe, stdout=subprocess.DEVNULL)
        try:
            wait_for_port(address)
            for token in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
                attach(root, {**os.environ, "RAY_ADDRESS": address, **token})
        finally:
            cluster.terminate()
            cluster.wait()


def attach(root: str, env: dict[str, str]) -> None:
    job = [sys.executable, "-m", "jobs.classify", "cluster=attach", f"input={root}/in", f"output={root}/out"]
    job += [f"workspace={root}/w", f"catalog={Path(__file__).parents[2]}/conf/catalogs/grocery.csv"]
    done = subprocess.run(job, env=env, capture_output=True, text=True, timeout=120)
    print(done.stderr[-2000:])
    print(f"refused with {done.returncode}")


def wait_for_port(address: str, seconds: float = 60.0) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"no cluster at {address}")


if __name__ == "__main__":
    main(*sys.argv[1:])
