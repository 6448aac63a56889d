"""Two hosts, as network namespaces joined by a wire that can be cut. They share the disk. Needs root."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--disable-usage-stats"]
ADDRESSES = ("10.213.0.1", "10.213.0.2")
PORT = 6399


class Hosts:
    """The head's host and a worker's; `wire` is the head's end of what joins them."""

    def __init__(self):
        self.names = [f"{role}{os.getpid()}" for role in ("h", "w")]
        self.ends = [f"v{name}" for name in self.names]
        self.wire = self.ends[0]
        # Apart from Ray's usual folder, where the next `ray.init` on this machine would find this cluster and join it.
        self.folder = tempfile.mkdtemp(prefix="hosts-")

    def create(self) -> None:
        if not shutil.which("ip"):
            _run("apt-get", "update", "-qq")
            _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "iproute2")
        for name in self.names:
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1])
        for name, end, address in zip(self.names, self.ends, ADDRESSES, strict=True):
            _run("ip", "link", "set", end, "netns", name)
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", end)
            _run("ip", "-n", name, "link", "set", end, "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")

    def start_ray(self, env: dict) -> str:
        """One node on each host; returns the cluster's address."""
        head, worker = ADDRESSES
        start = [*RAY, "--head", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        start += [f"--port={PORT}", f"--node-ip-address={head}"]
        _run(*self.on_head(start), env=env)
        join = [*RAY, f"--address={head}:{PORT}", f"--node-ip-address={worker}"]
        _run("ip", "netns", "exec", self.names[1], *join, env=env)
        return f"{head}:{PORT}"

    def on_head(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.names[0], *command]

    def remove(self) -> None:
        for name in self.names:
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
            for pid in map(int, found.split()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _run(*command: str, env: dict | None = None) -> None:
    done = subprocess.run([*command], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
