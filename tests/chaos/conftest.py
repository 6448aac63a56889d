import os
import random
import uuid

import pytest
from hosts import Hosts
from rados import Rados
from s3_proxy import S3Proxy

from intent.storage import StorageOptions


@pytest.fixture(autouse=True)
def seed(request) -> int:
    """Return the seed of the test's faults. Every failing test prints it."""
    seed = request.config.option.seed
    print(f"\nseed {seed}; to repeat: pytest '{request.node.nodeid}' --runchaos --seed={seed}")
    return seed


@pytest.fixture
def drawn(seed) -> random.Random:
    return random.Random(seed)


@pytest.fixture(scope="session")
def as_root():
    if os.geteuid() != 0:
        pytest.fail("installs packages and makes network namespaces: run `make chaos` as root")


@pytest.fixture
def hosts(as_root, request):
    """A head and the hosts that the test names with `@pytest.mark.parametrize("hosts", [NAMES], indirect=True)`."""
    hosts = Hosts(*request.param)
    try:
        hosts.create()
        yield hosts
    finally:
        hosts.remove()


@pytest.fixture(scope="session")
def ceph(as_root, s3_endpoint):
    """A real Ceph store."""
    ceph = Rados()
    try:
        ceph.create()
        yield ceph
    finally:
        ceph.remove()


@pytest.fixture
def proxy(s3_endpoint, seed):
    proxy = S3Proxy(s3_endpoint, seed)
    yield proxy
    proxy.close()


@pytest.fixture
def harmed(proxy) -> StorageOptions:
    """Storage options that reach the S3 server through the proxy."""
    return StorageOptions(endpoint=proxy.endpoint, region="us-east-1")


@pytest.fixture
def s3_root(s3_endpoint) -> str:
    return f"s3://runs/{uuid.uuid4().hex}"


@pytest.fixture
def harm(tmp_path):
    """A folder of planned faults (see `runs.take_fault`)."""
    folder = tmp_path / "harm"
    folder.mkdir()

    class Harm(str):
        def add(self, kind: str, count: int = 1) -> None:
            for number in range(count):
                (folder / f"{kind}-{number}").touch()

        @property
        def left(self) -> list[str]:
            return sorted(path.name for path in folder.iterdir())

    return Harm(folder)
