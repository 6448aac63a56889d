"""What tests of servers share: a bucket's name, free ports, and waiting until one answers."""

import socket
import time
from urllib.error import URLError
from urllib.request import urlopen

BUCKET = "nights"


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
