"""Hosts as network namespaces. Their links meet in the head's namespace and can be cut. They share the disk. Needs root."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--disable-usage-stats"]
NETWORK, PORT = "10.213.0", 6399
HEAD = f"{NETWORK}.1"


class Hosts:
    """The head's host and `others`, by name. `wires`: the head's ends of their links, each a port of its bridge."""

    def __init__(self, *others: str):
        self.head = f"h{os.getpid()}"
        self.names = {name: f"{name}{os.getpid()}" for name in others}
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(others, 2)}
        self.wires = {name: f"v{inside}" for name, inside in self.names.items()}
        # Not Ray's usual folder, where the next `ray.init` on this machine would find this cluster and join it.
        self.folder = tempfile.mkdtemp(prefix="hosts-")

    def create(self) -> None:
        if not shutil.which("ip"):
            _run("apt-get", "update", "-qq")
            _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "iproute2")
        self._add(self.head)
        _run("ip", "-n", self.head, "link", "add", "lan", "type", "bridge")
        self._address(self.head, "lan", HEAD)
        for name, inside in self.names.items():
            self._add(inside)
            wire, end = self.wires[name], f"e{inside}"
            _run("ip", "link", "add", wire, "netns", self.head, "type", "veth", "peer", "name", end, "netns", inside)
            _run("ip", "-n", self.head, "link", "set", wire, "master", "lan", "up")
            self._address(inside, end, self.addresses[name])

    def _add(self, inside: str) -> None:
        _run("ip", "netns", "add", inside)
        _run("ip", "-n", inside, "link", "set", "lo", "up")

    def _address(self, inside: str, link: str, address: str) -> None:
        _run("ip", "-n", inside, "address", "add", f"{address}/24", "dev", link)
        _run("ip", "-n", inside, "link", "set", link, "up")

    def start_head(self, env: dict, *options: str) -> str:
        """Start the head and return the cluster's address."""
        start = [*RAY, "--head", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        start += [f"--port={PORT}", f"--node-ip-address={HEAD}", *options]
        _run(*self.on_head(start), env=env)
        return f"{HEAD}:{PORT}"

    def joining(self, name: str) -> list[str]:
        """Return the command with which a host's node joins the cluster."""
        return self.on(name, [*RAY, f"--address={HEAD}:{PORT}", f"--node-ip-address={self.addresses[name]}"])

    def join(self, name: str, env: dict) -> None:
        _run(*self.joining(name), env=env)

    def on_head(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.head, *command]

    def on(self, name: str, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.names[name], *command]

    def remove(self) -> None:
        for name in (self.head, *self.names.values()):
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
            for pid in map(int, pids.split()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _run(*command: str, env: dict | None = None) -> None:
    done = subprocess.run([*command], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
