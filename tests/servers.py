"""Helpers for tests with servers: a bucket's name, free ports, waiting for an answer, and a Ray head."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

BUCKET = "runs"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urlopen(url, timeout=1).close()
            return
        except (URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class RayHead:
    """A head with token authentication, as a user starts one; `env` is the environment that reaches it."""

    def __init__(self, folder: Path, **variables: str):
        self.dashboard, self.metrics = free_port(), free_port()
        # Ray's sockets need a short path.
        self.session = Path(os.path.realpath("/tmp")) / f"ray-{uuid.uuid4().hex[:8]}"
        token = folder / "token"
        token.write_text(uuid.uuid4().hex * 2)
        token.chmod(0o600)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.env = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": path} | variables
        self.env |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.dashboard}"}

    def start(self) -> None:
        port = free_port()
        options = [f"--port={port}", f"--dashboard-port={self.dashboard}", f"--metrics-export-port={self.metrics}"]
        # The default port is fixed. A second cluster may hold it, and then no agent takes jobs.
        options.append(f"--dashboard-agent-listen-port={free_port()}")
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=2", "--dashboard-host=127.0.0.1"]
        command = [*start, *options, f"--temp-dir={self.session}", "--disable-usage-stats"]
        begun = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=180)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        self.address = f"127.0.0.1:{port}"

    def stop(self) -> None:
        for process in psutil.process_iter(["pid", "cmdline"]):
            if str(self.session) in " ".join(process.info["cmdline"] or ()):
                process.kill()
        shutil.rmtree(self.session, ignore_errors=True)
