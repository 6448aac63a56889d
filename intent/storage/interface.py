"""Define the interface of a store, its options and its objects.

`local.py` has the local store and opens any store. `s3.py` has the S3 store.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from intent.errors import ConfigError, CorruptData

NO_SECRETS = "holds credentials; take them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an instance role"


@dataclass(frozen=True)
class StorageOptions:
    """Settings of S3: `endpoint` as a URL, and `region`. None means the standard AWS variables and defaults."""

    endpoint: str | None = None
    region: str | None = None

    def __post_init__(self):
        if self.endpoint is not None:
            check_endpoint("storage.endpoint", self.endpoint)


def check_endpoint(field: str, url: str) -> None:
    """Raise ConfigError for an invalid endpoint, without repeating one that may contain a secret."""
    # Look at the whole URL, because `key:secret@host` without a scheme parses as a path.
    if "@" in url:
        raise ConfigError(field, "(hidden)", NO_SECRETS)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(field, url, "give a URL, such as https://HOST or http://HOST:PORT")


@dataclass(frozen=True)
class Blob:
    """A stored object: its key, its size in bytes, and an ETag that changes when its bytes do."""

    key: str
    size: int
    etag: str


class Store(Protocol):
    """A place for objects. `parallel`: the number of concurrent requests at which readers are fastest."""

    uri: str
    parallel: int

    def list(self, prefix: str = "") -> Iterator[Blob]:
        """Yield all objects whose key starts with `prefix`, in the order of their keys."""

    def stat(self, key: str) -> Blob | None:
        """Return the object's size and ETag, or None if it does not exist."""

    def read(self, key: str) -> bytes:
        """Return the object's bytes. Raises FileNotFoundError if it does not exist."""

    def read_tail(self, blob: Blob, length: int) -> bytes:
        """Return the last `length` bytes, or all. Raises CorruptData if the object has changed."""

    def open(self, key: str, version: Blob | None = None) -> pa.NativeFile:
        """Open the object for random access. With `version`, raises CorruptData if the object has changed since."""

    def put(self, key: str, data: bytes) -> None:
        """Write the object whole or not at all. Replaces an existing one."""

    def put_if_absent(self, key: str, data: bytes, notes: Mapping[str, str] = {}) -> bool:
        """Write the object whole or not at all. Returns False if the key already exists and this call did not write it.

        `notes` go into the object's metadata if the store supports it.
        """

    def put_file(self, key: str, path: Path) -> None:
        """Write a file whole or not at all, without holding it in memory. Replaces an existing object."""

    def get_file(self, key: str, path: Path) -> None:
        """Read an object into a file, without holding it in memory. Raises FileNotFoundError if it does not exist."""

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace an object by the result of `change` on its bytes (None if there is no object).

        Loses no concurrent update: calls `change` again if another update came first.
        """

    def delete(self, key: str) -> None:
        """Delete the object if it exists."""

    def clean_up(self) -> None:
        """Remove temporary files that killed writers left at least a day ago."""


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def changed(uri: str, key: str) -> CorruptData:
    """Return the error of an object that changed after it was planned."""
    return CorruptData(f"{uri}/{key} changed since it was planned; start a new run with a new output")
