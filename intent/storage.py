"""Where bytes live: one interface over a local folder and (in `s3.py`) an S3 bucket, told apart by the URI.

Knows nothing of what the bytes mean. Credentials come from the environment or the instance role, never from config.
Keys are relative, with forward slashes. The commit protocol rests on `put_if_absent`: exactly one writer of a key wins,
and an object that exists is whole.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from intent.errors import ConfigError, CorruptData, StoreUnfit

_HIDDEN = "."
_ASIDE, _ASIDE_SECONDS = ".aside-", 24 * 3600
_COPIED = 1 << 20  # bytes at once
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_NO_SECRETS = "holds credentials; take them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an instance role"


@dataclass(frozen=True)
class StorageOptions:
    """Of S3 only: `endpoint` as a URL and `region`; None means the standard AWS variables and defaults."""

    endpoint: str | None = None
    region: str | None = None

    def __post_init__(self):
        if self.endpoint is not None:
            check_endpoint("storage.endpoint", self.endpoint)


def check_endpoint(field: str, url: str) -> None:
    """Raises ConfigError for what is no endpoint, without repeating one that may hold a secret."""
    # Anywhere: without its scheme all of `key:secret@host` is a path.
    if "@" in url:
        raise ConfigError(field, "(hidden)", _NO_SECRETS)
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
    """`parallel`: how many requests at once serve a reader best."""

    uri: str
    parallel: int

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

    def put_if_absent(self, key: str, data: bytes, notes: Mapping[str, str] = {}) -> bool:
        """Whole or not at all; False where the key already exists and this call did not make it.

        `notes` go into the object's metadata, where the store has such.
        """

    def put_file(self, key: str, path: Path) -> None:
        """The bytes of a file of any size, never all of them in memory. Whole or not at all; replaces."""

    def get_file(self, key: str, path: Path) -> None:
        """Write an object of any size to a file, never all of it in memory. Raises FileNotFoundError."""

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace an object by what `change` makes of its bytes (None where there is no object).

        Of concurrent updates none is lost: `change` is called again where another one came first.
        """

    def delete(self, key: str) -> None: ...

    def tidy(self) -> None:
        """Remove what writers that were killed a day ago or longer left beside the objects."""


def open_store(uri: str, options: StorageOptions = StorageOptions()) -> Store:
    """The store below a folder path, a `file://` or an `s3://bucket/prefix` URI.

    What follows the scheme is taken as it is written, since keys and paths are not URLs: `#`, `?` and `%` are characters like
    any other, and `s3://bucket/a//` holds the keys that start with `a//`. Raises ConfigError for any other address.
    """
    if not uri:
        raise ConfigError("uri", uri, "give a folder or an s3://bucket/prefix")
    scheme, rest = _split_scheme(uri)
    if scheme in ("", "file"):
        return LocalStore(absolute(uri))
    if scheme != "s3":
        raise ConfigError("uri", uri, "use a local path or s3://bucket/prefix")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise ConfigError("uri", uri, "name a bucket: s3://bucket/prefix")
    # A secret may hold a slash. The only bucket with a colon is the ARN of an access point.
    if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):
        raise ConfigError("uri", "(hidden)", _NO_SECRETS)
    if any(part in (".", "..") for part in prefix.split("/")):
        raise ConfigError("uri", uri, "has a part '.' or '..', which a bucket takes for a name; write the prefix without it")
    from intent.s3 import S3Store

    return S3Store(f"s3://{rest.removesuffix('/')}", options)


def _split_scheme(uri: str) -> tuple[str, str]:
    """(scheme in lower case, the rest as it is written); no scheme for a path."""
    found = _SCHEME.match(uri)
    return (found[1].lower(), uri[found.end() :]) if found else ("", uri)


def absolute(uri: str) -> str:
    """The same place from any working directory: a local one as an absolute path, any other as it is.

    Raises ConfigError for a `file://` URI of another machine.
    """
    scheme, path = _split_scheme(uri)
    if not uri or scheme not in ("", "file"):
        return uri
    if scheme and not (path := path.removeprefix("localhost")).startswith("/"):
        raise ConfigError("uri", uri, "names another machine; write file:///PATH, or the path alone")
    return str(Path(path).absolute())


def inside(inner: Store, outer: Store) -> bool:
    """Whether a listing of `outer` shows what lies in `inner`."""
    return f"{inner.uri}/".startswith(outer.uri if outer.uri == "/" else f"{outer.uri}/")


def split_uri(uri: str) -> tuple[str, str]:
    """(parent URI, last name)."""
    parent, slash, name = uri.removesuffix("/").rpartition("/")
    if not parent:
        return slash or ".", name
    # Of s3://bucket/a//b the parent holds the keys that start with a//.
    return (f"{parent}/" if parent.endswith("/") else parent), name


def read_uri(uri: str, options: StorageOptions = StorageOptions()) -> bytes:
    parent, name = split_uri(uri)
    return open_store(parent, options).read(name)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checked(key: str) -> str:
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ConfigError("key", key, "a key is relative, without '..' or empty parts")
    return key


class LocalStore:
    """A folder. Atomic by writing aside, fsync and rename or link; files that start with a dot are not listed."""

    parallel = 2

    def __init__(self, uri: str):
        self.uri = uri
        self.root = Path(uri)

    def list(self, prefix: str = "") -> Iterator[Blob]:
        """Raises ConfigError for what cannot be listed, so that nothing is left out silently: a folder that may not be read,
        a link to a folder, a broken link, a file that is not a regular one.
        """
        try:
            if self.root.is_file():
                raise ConfigError("uri", self.uri, "is a file; name its folder")
            for key in sorted(self._keys(prefix)):
                if blob := self.stat(key):
                    yield blob
                elif os.path.lexists(path := self._path(key)):
                    raise ConfigError(
                        "uri", str(path), "is a broken link or not a regular file; restore its file, or remove it"
                    )
        except PermissionError as error:
            remedy = "may not be read; change its permissions or the user"
            raise ConfigError("uri", error.filename or self.uri, remedy) from error

    def _keys(self, prefix: str) -> Iterator[str]:
        for folder, folders, names in os.walk(self.root, onerror=_unless_gone):
            base = Path(folder).relative_to(self.root).as_posix()
            base = "" if base == "." else f"{base}/"
            visible = [name for name in folders if not name.startswith(_HIDDEN)]
            folders[:] = [name for name in visible if _overlap(f"{base}{name}/", prefix)]
            for path in (os.path.join(folder, name) for name in folders):
                if os.path.islink(path):
                    raise ConfigError("uri", path, "is a link to a folder, which is not followed; name the folder itself")
            keys = (f"{base}{name}" for name in names if not name.startswith(_HIDDEN))
            yield from (key for key in keys if key.startswith(prefix))

    def stat(self, key: str) -> Blob | None:
        """None for a folder too: in a bucket there are only objects."""
        try:
            info = os.stat(self._path(key))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        return _blob(key, info) if stat.S_ISREG(info.st_mode) else None

    def read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def read_tail(self, blob: Blob, length: int) -> bytes:
        with open(self._path(blob.key), "rb") as file:
            if _blob(blob.key, os.fstat(file.fileno())) != blob:
                raise changed(self.uri, blob.key)
            file.seek(max(0, blob.size - length))
            return file.read()

    def open(self, key: str, version: Blob | None = None) -> pa.NativeFile:
        file = pa.OSFile(str(self._path(key)))
        if version is not None and self.stat(key) != version:
            file.close()
            raise changed(self.uri, key)
        return file

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        aside = self._write_aside(path, data)
        os.replace(aside, path)
        _sync_folder(path.parent)

    def put_if_absent(self, key: str, data: bytes, notes: Mapping[str, str] = {}) -> bool:
        path = self._path(key)
        if path.exists():
            return False
        aside = self._write_aside(path, data)
        try:
            os.link(aside, path)
        except FileExistsError:
            # A file server's reply that was lost makes the client's own retry see its own file: that is a success.
            if not os.path.samefile(aside, path):
                return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise StoreUnfit(
                    f"{self.uri}: has no hard links ({error.strerror}); use another file system or s3://"
                ) from error
            raise
        finally:
            os.unlink(aside)
        _sync_folder(path.parent)
        return True

    def put_file(self, key: str, path: Path) -> None:
        target = self._path(key)
        with open(path, "rb") as file:
            aside = self._write_aside(target, file)
        os.replace(aside, target)
        _sync_folder(target.parent)

    def get_file(self, key: str, path: Path) -> None:
        shutil.copyfile(self._path(key), path)

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(f"{_HIDDEN}{path.name}.lock"), "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise StoreUnfit(f"{self.uri}: has no locks ({error.strerror}); use another file system or s3://") from error
            self.put(key, change(path.read_bytes() if path.exists() else None))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def tidy(self) -> None:
        for folder, _, names in os.walk(self.root):
            for path in (Path(folder, name) for name in names if name.startswith(_ASIDE)):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < time.time() - _ASIDE_SECONDS:
                        path.unlink()

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    def _write_aside(self, path: Path, data: bytes | BinaryIO) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=_ASIDE, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data) if isinstance(data, bytes) else shutil.copyfileobj(data, file, _COPIED)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(aside, 0o644)
        except BaseException:
            os.unlink(aside)
            raise
        return aside


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _unless_gone(error: OSError) -> None:
    """What is removed while it is listed is not there; all else must not look like that."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _blob(key: str, info: os.stat_result) -> Blob:
    return Blob(key, info.st_size, f"{info.st_size:x}-{info.st_mtime_ns:x}")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def changed(uri: str, key: str) -> CorruptData:
    return CorruptData(f"{uri}/{key} changed since it was planned; start a new run with a new output")
