"""Record which files of a scope's cache are in use.

    cache/<scope>/pointer.json        the files in use, newest first, and the retired files
    cache/<scope>/files/<time>-<sha>  immutable; written before the pointer names them, deleted days after they are retired

Each change of the pointer is one conditional write, so a process that dies leaves it unchanged or completely changed.
Garbage collection marks a file as retired in the pointer before it deletes the file. A writer whose files are retired or
missing writes them again. So the pointer never names a missing file, no matter how long a writer is paused.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import pyarrow as pa

from intent.errors import CorruptData
from intent.label_cache import piece
from intent.label_cache.key import Scope
from intent.label_cache.piece import DAY_SECONDS
from intent.storage import Store, sha256

FOLDER, POINTER, FILES = "cache", "pointer.json", "files"
VERSION = 1
# Actors that started before a file was retired may still read it.
KEPT_SECONDS = 3 * DAY_SECONDS
# A file that the pointer does not name after this time is from a writer that died.
ORPHAN_SECONDS = DAY_SECONDS
# The pointer remembers this many runs.
MOST_RUNS = 400


@dataclass(frozen=True)
class Limits:
    """Limit the cache of one scope: `bytes` of files, and `days` since an entry's last use."""

    bytes: int = 8 << 30
    days: int = 30


@dataclass(frozen=True)
class File:
    """Describe a file of the cache in the store.

    `low`, `high`: the upper halves of its first and last hash. `used`: the number of entries by day of last use.
    """

    key: str
    sha256: str
    bytes: int
    rows: int
    low: int
    high: int
    used: dict[str, int]


@dataclass(frozen=True)
class Pointer:
    """Hold the state of one scope's cache.

    `epoch`: a random id that changes when the cache is dropped. `facts`: the scope's. `files`: in use, newest first. `retired`:
    by key, the Unix seconds since when a file is no longer in use. `nights`: the runs that have been added, by the name in
    stored pointers, so that none is added twice. `dropped`: when and why the last epoch ended.
    """

    epoch: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    files: Sequence[File] = ()
    retired: Mapping[str, float] = field(default_factory=dict)
    nights: Sequence[str] = ()
    dropped: str = ""
    version: int = VERSION

    @property
    def rows(self) -> int:
        """Return the number of entries in all files."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def depth(self) -> int:
        """Return the largest number of files that one hash can be in."""
        edges = sorted([(file.low, -1) for file in self.files] + [(file.high, 1) for file in self.files])
        depth = most = 0
        for _, end in edges:
            depth -= end
            most = max(most, depth)
        return most


class _Unchanged(Exception):
    """Cancel an update that has nothing to write."""


class Outdated(Exception):
    """The cache changed after the new files were built. Read it and build them again."""


@dataclass(frozen=True)
class LabelCache:
    """Read and change the cache of one scope.

    `store`: the scope's folder. `sample`: the share of cached messages that the engines label again. `agreement`: the smallest
    share of the sample that must get the same intent. `now`: returns Unix seconds.
    """

    store: Store
    scope: Scope
    limits: Limits = Limits()
    sample: float = 0.005
    agreement: float = 0.98
    now: Callable[[], float] = time.time

    @property
    def day(self) -> int:
        """Return today's UTC day, in days since 1970."""
        return int(self.now() // DAY_SECONDS)

    def read(self) -> Pointer:
        """Read the pointer, or return an empty one if none exists. Raises CorruptData for a damaged one or another version."""
        try:
            return _parse(self.store.read(POINTER), self.store.uri)
        except FileNotFoundError:
            return Pointer()

    def write(self, table: pa.Table) -> File:
        """Write a sorted, non-empty table to a new file. The file is not in use until the pointer names it."""
        data = piece.dump(table)
        digest = sha256(data)
        # Each writer has files of its own. One writer could retire a shared file that the other has just named.
        key = f"{FILES}/{int(self.now())}-{digest[:16]}-{uuid.uuid4().hex[:8]}.arrow"
        self.store.put_if_absent(key, data)
        low, high = (table["high"][i].as_py() for i in (0, len(table) - 1))
        return File(key, digest, len(data), len(table), low, high, piece.days(table))

    def add(self, run: str, files: Sequence[File], epoch: str) -> None:
        """Add the files of a run to the pointer. Does nothing if the run was added before.

        Raises Outdated if `epoch` has ended or a file no longer exists.
        """

        def change(pointer: Pointer) -> Pointer:
            if run in pointer.nights:
                raise _Unchanged
            if pointer.epoch != epoch:
                raise Outdated
            self._require_there(files, pointer)
            runs = [*pointer.nights, run][-MOST_RUNS:]
            return replace(pointer, files=[*files, *pointer.files], nights=runs)

        self._update(change)

    def exchange(self, old: Sequence[File], new: Sequence[File]) -> bool:
        """Replace the files `old`, the oldest ones, by `new`. Returns False if one of `old` is no longer in use.

        Raises Outdated if a new file no longer exists.
        """
        keys, done = {file.key for file in old}, False

        def change(pointer: Pointer) -> Pointer:
            nonlocal done
            done = keys <= {file.key for file in pointer.files}
            if not done:
                raise _Unchanged
            self._require_there(new, pointer)
            unchanged = [file for file in pointer.files if file.key not in keys]
            return replace(pointer, files=[*unchanged, *new], retired={**pointer.retired, **dict.fromkeys(keys, self.now())})

        self._update(change)
        return done

    def drop(self, why: str, epoch: str | None = None) -> bool:
        """Start a new epoch without any labels. `epoch`: the one to end; None ends the current one.

        Returns False if `epoch` has already ended.
        """
        done = False

        def change(pointer: Pointer) -> Pointer:
            nonlocal done
            done = epoch in (None, pointer.epoch)
            if not done:
                raise _Unchanged
            retired = {**pointer.retired, **{file.key: self.now() for file in pointer.files}}
            dropped = f"{time.strftime('%Y-%m-%d', time.gmtime(self.now()))}: {why}"
            return replace(pointer, epoch=_new_epoch(), files=[], retired=retired, dropped=dropped)

        self._update(change)
        return done

    def collect(self) -> int:
        """Delete files that were retired long ago, and retire orphans. Returns the number of deleted files."""
        gone = [key for key, since in self.read().retired.items() if since < self.now() - KEPT_SECONDS]
        for key in gone:
            self.store.delete(key)
        stored = [blob.key for blob in self.store.list(f"{FILES}/")]

        def change(pointer: Pointer) -> Pointer:
            named = {file.key for file in pointer.files} | set(pointer.retired)
            orphans = [key for key in stored if key not in named and _written(key) < self.now() - ORPHAN_SECONDS]
            retired = {key: since for key, since in pointer.retired.items() if key not in gone}
            retired |= dict.fromkeys(orphans, self.now())
            if retired == pointer.retired:
                raise _Unchanged
            return replace(pointer, retired=retired)

        self._update(change)
        return len(gone)

    def delete(self) -> int:
        """Delete the pointer and all files at once. A run in progress continues without the cache.

        Returns the number of deleted files.
        """
        self.drop("deleted by hand")
        blobs = list(self.store.list())
        for blob in sorted(blobs, key=lambda blob: blob.key == POINTER):
            self.store.delete(blob.key)
        return len(blobs) - 1

    def begin(self) -> Pointer:
        """Read the pointer. Creates it if it does not exist, and replaces an unreadable one."""

        def change(pointer: Pointer) -> Pointer:
            if pointer.epoch and pointer.facts:
                raise _Unchanged
            return replace(pointer, epoch=pointer.epoch or _new_epoch(), facts=dict(self.scope.facts))

        self._update(change)
        return self.read()

    def _require_there(self, files: Sequence[File], pointer: Pointer) -> None:
        if any(file.key in pointer.retired or self.store.stat(file.key) is None for file in files):
            raise Outdated

    def _update(self, change: Callable[[Pointer], Pointer]) -> None:
        def rewrite(data: bytes | None) -> bytes:
            try:
                pointer = _parse(data, self.store.uri) if data is not None else Pointer()
            except CorruptData:
                # `collect` deletes the files that the unreadable pointer named, once they are old.
                pointer = Pointer()
            return _dump(change(pointer))

        try:
            self.store.update(POINTER, rewrite)
        except _Unchanged:
            return


def scopes(workspace: Store) -> Iterator[str]:
    """Yield the names of all scopes that have a cache in the workspace."""
    blobs: Iterable = workspace.list(f"{FOLDER}/")
    yield from dict.fromkeys(blob.key.split("/")[1] for blob in blobs if blob.key.count("/") > 1)


def _new_epoch() -> str:
    return uuid.uuid4().hex[:12]


def _written(key: str) -> float:
    """Parse the Unix seconds at which a file was written from its key. Returns 0 if the key has no time."""
    began = key.removeprefix(f"{FILES}/").split("-")[0]
    return float(began) if began.isdigit() else 0.0


def _dump(pointer: Pointer) -> bytes:
    return json.dumps(asdict(pointer)).encode()


def _parse(data: bytes, source: str) -> Pointer:
    try:
        values = json.loads(data)
        if values["version"] != VERSION:
            raise CorruptData(f"{source}/{POINTER}: has version {values['version']!r}, not {VERSION}")
        return Pointer(**values | {"files": [File(**file) for file in values["files"]]})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptData(f"{source}/{POINTER}: is not a label cache pointer ({type(error).__name__})") from error
