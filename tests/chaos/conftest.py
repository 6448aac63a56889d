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
    """What the test's faults are drawn from; printed with every test that fails."""
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
    """A head and the hosts that the test names by `@pytest.mark.parametrize("hosts", [NAMES], indirect=True)`."""
    hosts = Hosts(*request.param)
    try:
        hosts.create()
        yield hosts
    finally:
        hosts.remove()


@pytest.fixture(scope="session")
def ceph(as_root, s3_endpoint):
    """A real store."""
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
    """The S3 server as it is seen through the proxy."""
    return StorageOptions(endpoint=proxy.endpoint, region="us-east-1")


@pytest.fixture
def s3_root(s3_endpoint) -> str:
    return f"s3://runs/{uuid.uuid4().hex}"


@pytest.fixture
def harm(tmp_path):
    """A folder of wounds: see runs.wound."""
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
