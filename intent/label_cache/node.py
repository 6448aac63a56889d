"""Keep a node's copies of a cache's files in its temp folder.

All processes of the node share a copy. Its SHA-256 is checked before each use.
"""

import fcntl
import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from intent.artifacts import file_sha256
from intent.artifacts.cache import cache_folder
from intent.errors import CorruptData
from intent.label_cache.piece import DAY_SECONDS, Piece
from intent.label_cache.pointer import File, LabelCache


def fetch(cache: LabelCache, file: File) -> Piece:
    """Download a file unless the node has it, and map it. Raises CorruptData if it is damaged or missing."""
    folder = cache_folder() / f"labels-{cache.scope.name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{file.sha256}.arrow"
    with open(folder / ".lock", "ab") as lock:
        if not _intact(path, file.sha256):
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Another process may have downloaded it while this one waited for the lock.
            if not _intact(path, file.sha256):
                _download(cache, file, path)
        os.utime(path)
    return Piece(path)


def clean_up(cache: LabelCache, named: Collection[str]) -> None:
    """Delete copies that were not opened for two days. `named`: the SHA-256 of files to keep because the pointer names them."""
    folder = cache_folder() / f"labels-{cache.scope.name}"
    for path in folder.glob("*.arrow"):
        with suppress(FileNotFoundError):
            if path.stem not in named and path.stat().st_mtime < time.time() - 2 * DAY_SECONDS:
                path.unlink()


def _download(cache: LabelCache, file: File, path: Path) -> None:
    part = path.with_suffix(".part")
    try:
        cache.store.get_file(file.key, part)
        if not _intact(part, file.sha256):
            raise CorruptData(f"{cache.store.uri}/{file.key}: SHA-256 is not the pointer's")
        os.replace(part, path)
    except FileNotFoundError:
        raise CorruptData(f"{cache.store.uri}/{file.key}: does not exist") from None
    finally:
        part.unlink(missing_ok=True)


def _intact(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except FileNotFoundError:
        return False
