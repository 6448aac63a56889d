"""Keep a node's copies of artifacts: one folder each, with exactly the files of the record, checked before they are parsed.

The copies are in this user's folder below the temp folder. Files of a local store are linked, not copied.
"""

import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from intent.artifacts.content import file_sha256, fingerprint
from intent.artifacts.files import damaged
from intent.artifacts.record import Artifact
from intent.errors import ConfigError
from intent.storage import LocalStore, StorageOptions, Store, checked, open_store

logger = logging.getLogger(__name__)


def fetch(artifact: Artifact, options: StorageOptions = StorageOptions()) -> Path:
    """Return a local folder with exactly the files that the record lists, each with the record's SHA-256.

    One process of a node downloads while the others wait. Downloads a damaged copy again. Raises CorruptData, naming the file,
    if the file in the store is damaged.
    """
    store, files = open_store(artifact.uri, options), artifact.record.files
    target = cache_folder() / _name(artifact, store)
    with _locked(target, fcntl.LOCK_SH):
        if target.exists() and not _wrong(target, files) and not _unlisted(target, files):
            return target
    with _locked(target, fcntl.LOCK_EX):
        target.mkdir(exist_ok=True)
        for path in _unlisted(target, files):
            path.unlink()
        try:
            for key in _wrong(target, files):
                if (target / key).is_file() and not (target / key).is_symlink():
                    logger.warning("%s: this node's copy is damaged; it is fetched again", target / key)
                _place(artifact, store, key, target)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return target


def cache_folder() -> Path:
    """Create the cache folder. Raises ConfigError if it belongs to another user or others may write to it."""
    folder = Path(tempfile.gettempdir()) / f"intent-artifacts-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        remedy = f"{folder} is not a folder that only this user can write to; delete it, or set another temp folder"
        raise ConfigError("TMPDIR", tempfile.gettempdir(), remedy)
    return folder


def _name(artifact: Artifact, store: Store) -> str:
    # Links depend on the store that they point to. Copies are the same for every store.
    suffix = f"-{fingerprint(store.uri)}" if isinstance(store, LocalStore) else ""
    return f"{artifact.record.kind}-{artifact.fingerprint}{suffix}"


def _wrong(target: Path, files: Mapping[str, Mapping]) -> list[str]:
    """Return the listed files that are missing, damaged or unreadable."""
    return [key for key, entry in files.items() if not _is(target / checked(key), entry["sha256"])]


def _is(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False


def _unlisted(target: Path, files: Mapping[str, Mapping]) -> list[Path]:
    listed = {target / key for key in files}
    return [path for path in target.rglob("*") if path not in listed and (path.is_symlink() or not path.is_dir())]


def _place(artifact: Artifact, store: Store, key: str, target: Path) -> None:
    """Put one checked file into `target`, completely or not at all."""
    path, part = target / key, target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        if isinstance(store, LocalStore):
            part.symlink_to(store.root / checked(artifact.path(key)))
        else:
            store.get_file(artifact.path(key), part)
        actual, expected = file_sha256(part), artifact.record.files[key]["sha256"]
        if actual != expected:
            raise damaged(artifact, key, f"SHA-256 is {actual}, not the record's {expected}")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, path)
    except FileNotFoundError:
        raise damaged(artifact, key, "is missing, or not on this node") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _locked(target: Path, kind: int) -> Iterator[None]:
    with open(target.with_name(f"{target.name}.lock"), "ab") as lock:
        fcntl.flock(lock, kind)
        yield
