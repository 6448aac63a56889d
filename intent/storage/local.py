"""Store objects in a local folder, and open any store by its URI."""

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from intent.errors import ConfigError, StoreUnfit
from intent.storage.interface import NO_SECRETS, Blob, StorageOptions, Store, changed

_HIDDEN = "."
_ASIDE, _ASIDE_SECONDS = ".aside-", 24 * 3600
_COPIED = 1 << 20  # bytes at once
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(uri: str, options: StorageOptions = StorageOptions()) -> Store:
    """Open the store below a folder path, a `file://` or an `s3://bucket/prefix` URI.

    Takes the text after the scheme literally, since keys and paths are not URLs: `#`, `?` and `%` are ordinary characters, and
    `s3://bucket/a//` holds the keys that start with `a//`. Raises ConfigError for any other address.
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
    # A secret may contain a slash. The only bucket with a colon is the ARN of an access point.
    if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):
        raise ConfigError("uri", "(hidden)", NO_SECRETS)
    if any(part in (".", "..") for part in prefix.split("/")):
        raise ConfigError("uri", uri, "has a part '.' or '..', which a bucket treats as a name; write the prefix without it")
    from intent.storage.s3 import S3Store

    return S3Store(f"s3://{rest.removesuffix('/')}", options)


def _split_scheme(uri: str) -> tuple[str, str]:
    """Return (scheme in lower case, the rest as written). A path has no scheme."""
    match = _SCHEME.match(uri)
    return (match[1].lower(), uri[match.end() :]) if match else ("", uri)


def absolute(uri: str) -> str:
    """Make a local path absolute, so that it does not depend on the working directory. Returns any other URI unchanged.

    Raises ConfigError for a `file://` URI of another machine.
    """
    scheme, path = _split_scheme(uri)
    if not uri or scheme not in ("", "file"):
        return uri
    if scheme and not (path := path.removeprefix("localhost")).startswith("/"):
        raise ConfigError("uri", uri, "names another machine; write file:///PATH, or the path alone")
    return str(Path(path).absolute())


def inside(inner: Store, outer: Store) -> bool:
    """Return whether a listing of `outer` shows the objects of `inner`."""
    return f"{inner.uri}/".startswith(outer.uri if outer.uri == "/" else f"{outer.uri}/")


def split_uri(uri: str) -> tuple[str, str]:
    """Return (parent URI, last name)."""
    parent, slash, name = uri.removesuffix("/").rpartition("/")
    if not parent:
        return slash or ".", name
    # The parent of s3://bucket/a//b holds the keys that start with a//.
    return (f"{parent}/" if parent.endswith("/") else parent), name


def read_uri(uri: str, options: StorageOptions = StorageOptions()) -> bytes:
    """Return the bytes of the object at `uri`."""
    parent, name = split_uri(uri)
    return open_store(parent, options).read(name)


def checked(key: str) -> str:
    """Return the key. Raises ConfigError if it could leave its folder."""
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ConfigError("key", key, "a key is relative, without '..' or empty parts")
    return key


class LocalStore:
    """A local folder. Writes are atomic: write a temporary file, fsync, then rename or link it.

    Names that start with a dot are not listed.
    """

    parallel = 2

    def __init__(self, uri: str):
        self.uri = uri
        self.root = Path(uri)

    def list(self, prefix: str = "") -> Iterator[Blob]:
        """Yield the objects whose keys start with `prefix`.

        To leave nothing out silently, raises ConfigError for a folder without read permission, a link to a folder, a broken
        link, or a file that is not regular.
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
        """Return the object; None for a folder, because a bucket has only objects."""
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
            # A file server's lost reply makes the client retry and find its own file, which means success.
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

    def clean_up(self) -> None:
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
    """Raise the error, unless a file was removed during the listing."""
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
