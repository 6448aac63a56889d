import uuid

import pytest
from s3_proxy import S3Proxy

from intent.storage import StorageOptions


@pytest.fixture
def proxy(s3_endpoint):
    proxy = S3Proxy(s3_endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def harmed(proxy) -> StorageOptions:
    """The S3 server as it is seen through the proxy."""
    return StorageOptions(endpoint=proxy.endpoint, region="us-east-1")


@pytest.fixture
def s3_root(s3_endpoint) -> str:
    return f"s3://nights/{uuid.uuid4().hex}"


@pytest.fixture
def harm(tmp_path):
    """A folder of wounds: see nights.wound."""
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
