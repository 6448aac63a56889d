"""Where bytes live: one interface over a local folder and an S3 bucket, told apart by the URI.

Knows nothing of what the bytes mean. Credentials come from the environment or the instance role, never from config.
Keys are relative, with forward slashes. The commit protocol rests on `put_if_absent`: exactly one writer of a key wins,
and an object that exists is whole.
"""

import hashlib
import io
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from intent.errors import ConfigError, CorruptData

OWNER = "intent-owner"
_HIDDEN = "."


@dataclass(frozen=True)
class StorageOptions:
    """Of S3 only: `endpoint` as a URL and `region`; None means the standard AWS variables and defaults."""

    endpoint: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class Blob:
    """A stored object: its key, its size in bytes, and an ETag that changes when its bytes do."""

    key: str
    size: int
    etag: str


class Store(Protocol):
    uri: str

    def list(self, prefix: str = "") -> Iterator[Blob]:
        """All objects whose key starts with `prefix`, in the order of their keys."""

    def stat(self, key: str) -> Blob | None: ...

    def read(self, key: str) -> bytes:
        """Raises FileNotFoundError."""

    def read_tail(self, blob: Blob, length: int) -> bytes:
        """The last `length` bytes, or all. Raises CorruptData where the object is no longer that one."""

    def open(self, key: str, version: Blob | None = None) -> pa.NativeFile:
        """Random access, for Parquet. With `version`, raises CorruptData where the object is no longer that one."""

    def put(self, key: str, data: bytes) -> None:
        """Whole or not at all; replaces."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Whole or not at all; False where the key already exists and this call did not make it."""

    def delete(self, key: str) -> None: ...


def open_store(uri: str, options: StorageOptions = StorageOptions()) -> Store:
    """The store below a folder path, a `file://` or an `s3://bucket/prefix` URI."""
    if not uri:
        raise ConfigError("uri", uri, "give a folder or an s3://bucket/prefix")
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise ConfigError("uri", uri, "name a bucket: s3://bucket/prefix")
        return S3Store(uri.rstrip("/"), options)
    if parts.scheme == "file" or "://" not in uri:
        return LocalStore(str(Path(parts.path if parts.scheme == "file" else uri).absolute()))
    raise ConfigError("uri", uri, "use a local path or s3://bucket/prefix")


def split_uri(uri: str) -> tuple[str, str]:
    """(parent URI, last name)."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    return parent or ("/" if uri.startswith("/") else "."), name


def read_uri(uri: str, options: StorageOptions = StorageOptions()) -> bytes:
    parent, name = split_uri(uri)
    return open_store(parent, options).read(name)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checked(key: str) -> str:
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ConfigError("key", key, "a key is relative, without '..' or empty parts")
    return key


class LocalStore:
    """A folder. Atomic by writing aside, fsync and rename or link; files that start with a dot are not listed."""

    def __init__(self, uri: str):
        self.uri = uri
        self.root = Path(uri)

    def list(self, prefix: str = "") -> Iterator[Blob]:
        if self.root.is_file():
            raise ConfigError("uri", self.uri, "is a file; name its folder")
        found = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
            base = Path(folder).relative_to(self.root).as_posix()
            found += [name if base == "." else f"{base}/{name}" for name in names if not name.startswith(_HIDDEN)]
        for key in sorted(found):
            if key.startswith(prefix) and (blob := self.stat(key)):
                yield blob

    def stat(self, key: str) -> Blob | None:
        try:
            info = self._path(key).stat()
        except FileNotFoundError:
            return None
        return Blob(key, info.st_size, f"{info.st_size:x}-{info.st_mtime_ns:x}")

    def read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def read_tail(self, blob: Blob, length: int) -> bytes:
        with self.open(blob.key, blob) as file:
            file.seek(max(0, blob.size - length))
            return file.read()

    def open(self, key: str, version: Blob | None = None) -> pa.NativeFile:
        file = pa.OSFile(str(self._path(key)))
        if version is not None and self.stat(key) != version:
            file.close()
            raise _changed(self.uri, key)
        return file

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        aside = self._write_aside(path, data)
        os.replace(aside, path)
        _sync_folder(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        if path.exists():
            return False
        aside = self._write_aside(path, data)
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(aside)
        _sync_folder(path.parent)
        return True

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / _checked(key)

    def _write_aside(self, path: Path, data: bytes) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=".aside-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(aside, 0o644)
        except BaseException:
            os.unlink(aside)
            raise
        return aside


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class S3Store:
    """A prefix of a bucket, over boto3. `put_if_absent` is one PUT with `If-None-Match: *`."""

    def __init__(self, uri: str, options: StorageOptions):
        parts = urlsplit(uri)
        self.uri, self.options = uri, options
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "client"}

    @cached_property
    def client(self):
        import boto3
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "max_attempts": 10},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=32,
            request_checksum_calculation="when_required",
        )
        return boto3.client("s3", endpoint_url=self.options.endpoint, region_name=self.options.region, config=config)

    def list(self, prefix: str = "") -> Iterator[Blob]:
        base = f"{self.prefix}/" if self.prefix else ""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=base + prefix):
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):
                    yield Blob(entry["Key"][len(base) :], entry["Size"], entry["ETag"])

    def stat(self, key: str) -> Blob | None:
        head = self._head(key)
        return Blob(key, head["ContentLength"], head["ETag"]) if head else None

    def read(self, key: str) -> bytes:
        return self.get(key)

    def get(self, key: str, **conditions: str) -> bytes:
        """The object's bytes. `conditions` are of GetObject: Range, IfMatch."""
        from botocore.exceptions import ClientError

        try:
            return self.client.get_object(Bucket=self.bucket, Key=self._key(key), **conditions)["Body"].read()
        except ClientError as error:
            if _status(error) == 404:
                raise FileNotFoundError(f"{self.uri}/{key}") from None
            if _status(error) == 412:
                raise _changed(self.uri, key) from None
            raise

    def read_tail(self, blob: Blob, length: int) -> bytes:
        return self.get(blob.key, Range=f"bytes={max(0, blob.size - length)}-", IfMatch=blob.etag)

    def open(self, key: str, version: Blob | None = None) -> pa.NativeFile:
        version = version or self.stat(key)
        if version is None:
            raise FileNotFoundError(f"{self.uri}/{key}")
        return pa.PythonFile(io.BufferedReader(_Ranges(self, version), 1 << 20), mode="r")

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        owner = uuid.uuid4().hex
        try:
            self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*", Metadata={OWNER: owner})
        except ClientError as error:
            if _status(error) not in (409, 412):
                raise
            # A reply lost on the way makes the client's own retry see its own object: that is a success.
            head = self._head(key)
            return bool(head) and head["Metadata"].get(OWNER) == owner
        return True

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def _head(self, key: str) -> dict | None:
        from botocore.exceptions import ClientError

        try:
            return self.client.head_object(Bucket=self.bucket, Key=self._key(key))
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{_checked(key)}" if self.prefix else _checked(key)


class _Ranges(io.RawIOBase):
    """Random access to one version of an object: every range is read with If-Match."""

    def __init__(self, store: S3Store, blob: Blob):
        self._store, self._blob, self._at = store, blob, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._blob.size)[whence]
        return self._at

    def readinto(self, buffer) -> int:
        stop = min(self._at + len(buffer), self._blob.size)
        if stop <= self._at:
            return 0
        data = self._store.get(self._blob.key, Range=f"bytes={self._at}-{stop - 1}", IfMatch=self._blob.etag)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _changed(uri: str, key: str) -> CorruptData:
    return CorruptData(f"{uri}/{key} changed since it was planned; start a new run with a new output")


def _status(error) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
