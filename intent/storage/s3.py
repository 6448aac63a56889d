"""Access an S3 bucket as a `Store`, through boto3. Credentials come from the environment or the instance role."""

import io
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from intent.errors import ConfigError, CorruptData, IntentError, StoreUnfit
from intent.storage.interface import Blob, StorageOptions, changed, check_endpoint, sha256

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
OWNER, SHA256 = "intent-owner", "intent-sha256"
CONNECT_SECONDS, READ_SECONDS = 10, 60
BODY_ATTEMPTS, CONFLICT_ATTEMPTS, UPDATE_ATTEMPTS = 5, 6, 30
# Larger files are sent in parts of this size, because one PUT accepts at most 5 GiB.
PART_BYTES = 64 << 20


class S3Store:
    """A prefix of a bucket. `put_if_absent` is one PUT with `If-None-Match: *`."""

    parallel = 16

    def __init__(self, uri: str, options: StorageOptions):
        """`uri`: `s3://bucket` or `s3://bucket/prefix`, without the slash that ends the prefix."""
        self.uri, self.options = uri, options
        self.bucket, slash, prefix = uri.removeprefix("s3://").partition("/")
        self.prefix = prefix + slash

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "client"}

    @cached_property
    def client(self):
        """Return boto3's client, made on first use in each process."""
        import boto3
        from botocore.config import Config

        for name in ENDPOINTS:
            if url := os.environ.get(name):
                check_endpoint(name, url)
        config = Config(
            retries={"mode": "standard", "max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", 10))},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=32,
            request_checksum_calculation="when_required",
        )
        return boto3.client("s3", endpoint_url=self.options.endpoint, region_name=self.options.region, config=config)

    def list(self, prefix: str = "") -> Iterator[Blob]:
        """Yield the objects, without the empty objects that stand for folders."""
        with self._named():
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for entry in page.get("Contents", []):
                    if entry["Size"] or not entry["Key"].endswith("/"):
                        yield Blob(entry["Key"][len(self.prefix) :], entry["Size"], entry["ETag"])

    def stat(self, key: str) -> Blob | None:
        head = self._head(key)
        return Blob(key, head["ContentLength"], head["ETag"]) if head else None

    def read(self, key: str) -> bytes:
        return self.get(key)

    def get(self, key: str, **conditions: str) -> bytes:
        """Return the object's bytes. `conditions`: arguments of GetObject, such as Range and IfMatch."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        for attempt in range(BODY_ATTEMPTS):
            reply = self._call("get_object", key, **conditions)
            try:
                return reply["Body"].read()
            except (IncompleteReadError, HTTPClientError) as error:
                # The client retries requests, but not a reply that breaks off while it is read.
                if attempt == BODY_ATTEMPTS - 1:
                    raise IntentError(
                        f"{self.uri}/{key}: the store's reply broke off {BODY_ATTEMPTS} times: {error}"
                    ) from error
        raise AssertionError("unreachable")

    def read_tail(self, blob: Blob, length: int) -> bytes:
        first = max(0, blob.size - length)
        data = self.get(blob.key, Range=f"bytes={first}-", IfMatch=blob.etag)
        return _whole(self.uri, blob.key, data, blob.size - first)

    def open(self, key: str, version: Blob | None = None) -> pa.NativeFile:
        version = version or self.stat(key)
        if version is None:
            raise FileNotFoundError(f"{self.uri}/{key}")
        return pa.PythonFile(io.BufferedReader(_Ranges(self, version), 1 << 20), mode="r")

    def put(self, key: str, data: bytes) -> None:
        self._call("put_object", key, Body=data)

    def put_if_absent(self, key: str, data: bytes, notes: Mapping[str, str] = {}) -> bool:
        from botocore.exceptions import ClientError

        owner = uuid.uuid4().hex
        metadata = {**{f"intent-{name}": value for name, value in notes.items()}, OWNER: owner, SHA256: sha256(data)}
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                self._call("put_object", key, Body=data, IfNoneMatch="*", Metadata=metadata)
                return True
            except ClientError as error:
                if _status(error) not in (409, 412):
                    raise
                # A lost reply makes the client retry and find its own object, which means success.
                if head := self._head(key):
                    return head["Metadata"].get(OWNER) == owner
                # After a 409, the other write may still fail. After a 412, the object was deleted again. Try again.
                time.sleep(0.05 * 2**attempt)
        raise IntentError(f"{self.uri}/{key}: conditional writes keep conflicting; run again")

    def put_file(self, key: str, path: Path) -> None:
        """Write the file. A large one is a multipart upload, which is aborted if it fails."""
        with self._named(), self._transfers() as transfers:
            transfers.upload(str(path), self.bucket, self._key(key)).result()

    def get_file(self, key: str, path: Path) -> None:
        from botocore.exceptions import ClientError
        from s3transfer.exceptions import RetriesExceededError

        try:
            with self._named(), self._transfers() as transfers:
                transfers.download(self.bucket, self._key(key), str(path)).result()
        except ClientError as error:
            if _status(error) == 404:
                raise FileNotFoundError(f"{self.uri}/{key}") from None
            raise changed(self.uri, key) if _status(error) == 412 else error from None
        except RetriesExceededError as error:
            why = f"the store's reply broke off {BODY_ATTEMPTS} times: {error.last_exception}"
            raise IntentError(f"{self.uri}/{key}: {why}") from error

    def _transfers(self):
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        parts = TransferConfig(PART_BYTES, multipart_chunksize=PART_BYTES, preferred_transfer_client="classic")
        return create_transfer_manager(self.client, parts)

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace the object by one PUT with `If-Match`, or with `If-None-Match: *` if there is none."""
        for attempt in range(UPDATE_ATTEMPTS):
            version = self.stat(key)
            try:
                before = self.get(key, IfMatch=version.etag) if version else None
            except (CorruptData, FileNotFoundError):
                continue
            data = change(before)
            if self._put_if_match(key, data, version) if version else self.put_if_absent(key, data):
                return
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))
        raise IntentError(f"{self.uri}/{key}: other writers keep changing it; run again")

    def _put_if_match(self, key: str, data: bytes, version: Blob) -> bool:
        from botocore.exceptions import ClientError

        owner = uuid.uuid4().hex
        try:
            # AWS accepts an ETag without its quotes. Ceph accepts nothing else.
            self._call("put_object", key, Body=data, IfMatch=version.etag.strip('"'), Metadata={OWNER: owner})
            return True
        except (CorruptData, FileNotFoundError):
            # As in put_if_absent, the client's retry after a lost reply finds its own object.
            head = self._head(key)
            return head is not None and head["Metadata"].get(OWNER) == owner
        except ClientError as error:
            if _status(error) != 409:
                raise
            return False

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def clean_up(self) -> None:
        """Do nothing, because a bucket's objects are whole. Its lifecycle rule removes the parts of killed uploads."""

    def _head(self, key: str) -> dict | None:
        try:
            return self._call("head_object", key)
        except FileNotFoundError:
            return None

    def _call(self, operation: str, key: str, **arguments) -> dict:
        """Send one request about one object. Raises FileNotFoundError, CorruptData if the object changed, or a named error."""
        from botocore.exceptions import ClientError

        try:
            with self._named():
                return getattr(self.client, operation)(Bucket=self.bucket, Key=self._key(key), **arguments)
        except ClientError as error:
            if _status(error) == 404:
                raise FileNotFoundError(f"{self.uri}/{key}") from None
            if _status(error) in (412, 416) and "IfMatch" in arguments:
                raise changed(self.uri, key) from None
            raise

    @contextmanager
    def _named(self):
        """Turn the client's errors into named errors with a remedy."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            EndpointConnectionError,
            HTTPClientError,
            NoCredentialsError,
            ParamValidationError,
        )

        try:
            yield
        except NoCredentialsError as error:
            raise ConfigError("uri", self.uri, "no credentials; set the AWS variables or use an instance role") from error
        except ParamValidationError as error:
            raise ConfigError("uri", self.uri, "is not a valid bucket name; use letters, digits, - and .") from error
        except EndpointConnectionError as error:
            raise IntentError(f"{self.uri}: {error}; check storage.endpoint and the network") from error
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "NoSuchBucket":
                raise ConfigError("uri", self.uri, "there is no such bucket; create it or correct the name") from error
            if _status(error) in (401, 403) or code == "ExpiredToken":
                raise ConfigError("uri", self.uri, f"access denied ({code}); check the credentials and their policy") from error
            if _status(error) == 501:
                raise StoreUnfit(
                    f"{self.uri}: lacks conditional writes ({code}, If-None-Match), which commits need; use another store"
                ) from error
            if _status(error) >= 500:
                raise IntentError(f"{self.uri}: the store keeps answering {code or _status(error)}; run again later") from error
            raise
        except (ConnectionError, HTTPClientError) as error:
            why = f"the store does not answer ({type(error).__name__})"
            raise IntentError(f"{self.uri}: {why}; check storage.endpoint and the network, or run again later") from error
        except (BotoCoreError, ValueError) as error:
            # For example, half a pair of keys, a missing role or profile, or an invalid region or host.
            remedy = "correct storage, the AWS variables or the instance role"
            raise ConfigError("uri", self.uri, f"{str(error).rstrip('.')}; {remedy}") from error

    def _key(self, key: str) -> str:
        """Return the key with the store's prefix. Refuses keys with parts that a client or a proxy could resolve as a path."""
        if not key or any(part in (".", "..") for part in key.split("/")):
            raise ConfigError("key", key, "a key has no part '.' or '..'; rename the object")
        return self.prefix + key


class _Ranges(io.RawIOBase):
    """Random access to one version of an object. Reads every range with If-Match."""

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
        _whole(self._store.uri, self._blob.key, data, stop - self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _whole(uri: str, key: str, data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise IntentError(f"{uri}/{key}: the store sent {len(data)} bytes of {length}; try again")
    return data


def _status(error) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
