"""Which files of a scope's cache count: a pointer that is replaced by one conditional put, and files that never change.

    cache/<scope>/pointer.json        the files that count, newest first, and those that no longer do
    cache/<scope>/files/<time>-<sha>  written before the pointer names them, deleted long after it stopped

Whoever dies leaves either no trace in the pointer or a whole one. A file that the pointer does not name is marked in the
pointer before it is deleted, and a writer whose files are marked or gone writes them again: so a pointer never names what
is not there, however long anybody sleeps.
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
# A night lists its files at its start: what stopped to count then is still there for its late actors.
KEPT_SECONDS = 3 * DAY_SECONDS
# What was written and never named, by a writer that died.
ORPHAN_SECONDS = DAY_SECONDS
NIGHTS = 400


@dataclass(frozen=True)
class Limits:
    """Of one scope: `bytes` of files, and `days` since the last use."""

    bytes: int = 8 << 30
    days: int = 30


@dataclass(frozen=True)
class File:
    """A piece of the cache in the store. `low` to `high`: its first and last hash, upper halves. `used`: entries by day."""

    key: str
    sha256: str
    bytes: int
    rows: int
    low: int
    high: int
    used: dict[str, int]


@dataclass(frozen=True)
class Pointer:
    """`epoch`: another one once everything was dropped. `retired`: since when a file does not count. `nights`: those that
    have been added, so that none is twice. `dropped`: when and why the last epoch ended.
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
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def depth(self) -> int:
        """Most files that one hash may be in."""
        edges = sorted([(file.low, -1) for file in self.files] + [(file.high, 1) for file in self.files])
        depth = most = 0
        for _, end in edges:
            depth -= end
            most = max(most, depth)
        return most


class _Unchanged(Exception):
    """Nothing is to be written."""


class Outdated(Exception):
    """The cache is no longer what was built on: read it and build again."""


@dataclass(frozen=True)
class LabelCache:
    """The cache of one scope. `store`: of its folder.

    A share `sample` of what is found in it is asked again; it is trusted while a share `agreement` of that agrees. `now`:
    Unix seconds.
    """

    store: Store
    scope: Scope
    limits: Limits = Limits()
    sample: float = 0.005
    agreement: float = 0.98
    now: Callable[[], float] = time.time

    @property
    def day(self) -> int:
        return int(self.now() // DAY_SECONDS)

    def read(self) -> Pointer:
        """The pointer; an empty one where there is none. Raises CorruptData for one that is damaged or of another version."""
        try:
            return _parse(self.store.read(POINTER), self.store.uri)
        except FileNotFoundError:
            return Pointer()

    def write(self, table: pa.Table) -> File:
        """Put a sorted table into a file, which counts once the pointer names it."""
        data = piece.dump(table)
        digest = sha256(data)
        # No two writers share a file: what one of them gives up the other may have named.
        key = f"{FILES}/{int(self.now())}-{digest[:16]}-{uuid.uuid4().hex[:8]}.arrow"
        self.store.put_if_absent(key, data)
        low, high = (table["high"][i].as_py() for i in (0, len(table) - 1))
        return File(key, digest, len(data), len(table), low, high, piece.days(table))

    def add(self, night: str, files: Sequence[File], epoch: str) -> None:
        """Name the files of a night, once. Raises Outdated where `epoch` has ended, or a file is no longer there."""

        def change(pointer: Pointer) -> Pointer:
            if night in pointer.nights:
                raise _Unchanged
            if pointer.epoch != epoch:
                raise Outdated
            self._require_there(files, pointer)
            nights = [*pointer.nights, night][-NIGHTS:]
            return replace(pointer, files=[*files, *pointer.files], nights=nights)

        self._update(change)

    def exchange(self, old: Sequence[File], new: Sequence[File]) -> bool:
        """Name `new` in the place of `old`, the oldest of the files; False where these are no longer what counts.

        Raises Outdated where a new file is no longer there.
        """
        keys, done = {file.key for file in old}, False

        def change(pointer: Pointer) -> Pointer:
            nonlocal done
            done = keys <= {file.key for file in pointer.files}
            if not done:
                raise _Unchanged
            self._require_there(new, pointer)
            kept = [file for file in pointer.files if file.key not in keys]
            return replace(pointer, files=[*kept, *new], retired={**pointer.retired, **dict.fromkeys(keys, self.now())})

        self._update(change)
        return done

    def drop(self, why: str, epoch: str | None = None) -> bool:
        """Forget every label; False where `epoch` (None: whichever there is) has ended already."""
        done = False

        def change(pointer: Pointer) -> Pointer:
            nonlocal done
            done = epoch in (None, pointer.epoch)
            if not done:
                raise _Unchanged
            retired = {**pointer.retired, **{file.key: self.now() for file in pointer.files}}
            said = f"{time.strftime('%Y-%m-%d', time.gmtime(self.now()))}: {why}"
            return replace(pointer, epoch=_new_epoch(), files=[], retired=retired, dropped=said)

        self._update(change)
        return done

    def collect(self) -> int:
        """Delete what stopped to count long ago, and mark what was never named. Returns how many files were deleted."""
        gone = [key for key, since in self.read().retired.items() if since < self.now() - KEPT_SECONDS]
        for key in gone:
            self.store.delete(key)
        found = [blob.key for blob in self.store.list(f"{FILES}/")]

        def change(pointer: Pointer) -> Pointer:
            named = {file.key for file in pointer.files} | set(pointer.retired)
            old = [key for key in found if key not in named and _written(key) < self.now() - ORPHAN_SECONDS]
            retired = {key: since for key, since in pointer.retired.items() if key not in gone}
            retired |= dict.fromkeys(old, self.now())
            if retired == pointer.retired:
                raise _Unchanged
            return replace(pointer, retired=retired)

        self._update(change)
        return len(gone)

    def delete(self) -> int:
        """Everything, at once. A run that reads goes on without. Returns how many files there were."""
        self.drop("deleted by hand")
        blobs = list(self.store.list())
        for blob in sorted(blobs, key=lambda blob: blob.key == POINTER):
            self.store.delete(blob.key)
        return len(blobs) - 1

    def begin(self) -> Pointer:
        """The pointer, made where there is none, or none that can be read."""

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
                # Begun anew: what it named is collected once it is old.
                pointer = Pointer()
            return _dump(change(pointer))

        try:
            self.store.update(POINTER, rewrite)
        except _Unchanged:
            return


def scopes(workspace: Store) -> Iterator[str]:
    """The names of all scopes that the workspace has a cache of."""
    blobs: Iterable = workspace.list(f"{FOLDER}/")
    yield from dict.fromkeys(blob.key.split("/")[1] for blob in blobs if blob.key.count("/") > 1)


def _new_epoch() -> str:
    return uuid.uuid4().hex[:12]


def _written(key: str) -> float:
    """When a file was written, by its name; long ago where the name does not say."""
    began = key.removeprefix(f"{FILES}/").split("-")[0]
    return float(began) if began.isdigit() else 0.0


def _dump(pointer: Pointer) -> bytes:
    return json.dumps(asdict(pointer)).encode()


def _parse(data: bytes, source: str) -> Pointer:
    try:
        found = json.loads(data)
        if found["version"] != VERSION:
            raise CorruptData(f"{source}/{POINTER}: is of version {found['version']!r}, not {VERSION}")
        return Pointer(**found | {"files": [File(**file) for file in found["files"]]})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptData(f"{source}/{POINTER}: is no pointer ({type(error).__name__})") from error
