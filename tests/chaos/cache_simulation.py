"""The label cache in memory: runs that learn, mergers, readers and droppers take turns. Faults come between any two steps.

The store and the parties are those of `simulation.py`. The clock is simulated, so a stalled party may resume after its files
were deleted.
"""

import io
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache as memo
from pathlib import Path

import caches
import pyarrow as pa
from simulation import Client, Crash, Party, World, _error

from intent.errors import IntentError
from intent.label_cache import LabelCache, Limits, Scope, merge, piece
from intent.label_cache.pointer import KEPT_SECONDS, ORPHAN_SECONDS, POINTER, Pointer, _parse
from intent.run import new_labels
from intent.storage import StorageOptions, sha256
from intent.storage.s3 import S3Store

SCOPE = Scope.of({"model": "simulated"}, caches.SECRET)
# Unnamed files are old after 15 steps, and dropped files are kept for 45. A party that stalls for 200 steps finds neither.
STEP_SECONDS = ORPHAN_SECONDS / 15
START = 20_000 * piece.DAY_SECONDS
RUNS, MESSAGES = 4, 3
HERE = f"cache/{SCOPE.name}/"


@dataclass
class CacheWorld(World):
    """`reading`: for each active reader, the time when it read the pointer, and its files. `ended`: dropped epochs."""

    numbers: dict[str, int] = field(default_factory=dict)
    reading: dict[Party, tuple[float, set[str]]] = field(default_factory=dict)

    @property
    def time(self) -> float:
        return START + self.now * STEP_SECONDS

    def pointer(self) -> Pointer:
        blob = self.objects.get(HERE + POINTER)
        return _parse(blob[0], "sim") if blob else Pointer()

    def write(self, key: str, data: bytes, absent: bool, match: str | None, metadata: dict) -> None:
        if self.conditional and ((absent and key in self.objects) or (match and match != self.etag(key))):
            raise _error(412)
        self.objects[key] = (data, metadata)
        self.numbers[key] = self.numbers.get(key, 0) + 1
        if key == HERE + POINTER:
            named = {file.key for file in self.pointer().files}
            if gone := [name for name in named if HERE + name not in self.objects]:
                self.broken.append(f"the pointer names {gone}, which is not there")

    def remove(self, key: str) -> None:
        name = key.removeprefix(HERE)
        if key in self.objects and key.startswith(HERE):
            if name in {file.key for file in self.pointer().files}:
                self.broken.append(f"{name} was deleted while it counted")
            for began, names in self.reading.values():
                if name in names and self.time - began < KEPT_SECONDS:
                    self.broken.append(f"{name} was deleted under a reader")
        self.objects.pop(key, None)

    def etag(self, key: str) -> str:
        blob = self.objects.get(key)
        return f"{self.numbers[key]}-{sha256(blob[0])[:8]}" if blob else ""


class CacheClient(Client):
    world: CacheWorld

    def put_object(self, *, Key, Body, IfNoneMatch=None, IfMatch=None, Metadata=None, **_):
        self._send(f"PUT {Key}", lambda: self.world.write(Key, Body, IfNoneMatch == "*", IfMatch, Metadata or {}))

    def head_object(self, *, Key, **_):
        return super().head_object(Key=Key) | {"ETag": self.world.etag(Key)}

    def get_object(self, *, Key, IfMatch=None, **_):
        def get():
            data, _ = self._get(Key)
            if IfMatch and IfMatch != self.world.etag(Key):
                raise _error(412)
            return data

        return {"Body": io.BytesIO(self._send(f"GET {Key}", get))}

    def paginate(self, *, Prefix, **_):
        keys = self._send("LIST", lambda: sorted(key for key in self.world.objects if key.startswith(Prefix)))
        return [{"Contents": [{"Key": key, "Size": 1, "ETag": self.world.etag(key)} for key in keys]}]

    def delete_object(self, *, Key, **_):
        self._send(f"DELETE {Key}", lambda: self.world.remove(Key))


def store(world: CacheWorld, party: Party, prefix: str) -> S3Store:
    made = S3Store(f"s3://sim/{prefix}".removesuffix("/"), StorageOptions())
    made.parallel, made.client = 1, CacheClient(world, party)
    return made


def cache_of(world: CacheWorld, party: Party) -> LabelCache:
    return LabelCache(store(world, party, HERE), SCOPE, Limits(days=10_000), now=lambda: world.time)


@memo
def staged(messages: tuple[str, ...]) -> bytes:
    """Return a file of labels. The quantity of each is the message's length."""
    made = LabelCache(None, SCOPE, now=lambda: START)
    return piece.dump(piece.merge([caches.entries(made, {message: len(message) for message in messages})]))


@memo
def folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


def fetch(cache: LabelCache, file) -> piece.Piece:
    data = cache.store.read(file.key)
    assert sha256(data) == file.sha256, f"{file.key} is not what the pointer says"
    path = Path(folder().name, file.sha256)
    if not path.exists():
        path.write_bytes(data)
    return piece.Piece(path)


def messages_of(run: int) -> tuple[str, ...]:
    """The messages of a run. The last one is also the first of the next run."""
    return tuple(f"message {n}" for n in range(run * MESSAGES, run * MESSAGES + MESSAGES + 1))


def stage(world: CacheWorld, run: int) -> None:
    """Write what a run's actors leave for its driver: new labels, and copies of cache entries."""
    base = f"out-{run}/{new_labels.FOLDER}/{SCOPE.name}"
    world.write(f"{base}/one.arrow", staged(messages_of(run)[:2]), False, None, {})
    world.write(f"{base}/two.arrow", staged(messages_of(run)[2:]), False, None, {})
    if epoch := world.pointer().epoch:
        world.write(f"{base}/one-{epoch}.copy", staged((f"copy {run} of {epoch}",)), False, None, {})


def labelling_run(number: int):
    def learn(party: Party) -> str:
        output = store(party.world, party, f"out-{number}/")
        new_labels.learn(output, [cache_of(party.world, party)])
        return "learned"

    return learn


def merger(party: Party) -> str:
    cache, did = cache_of(party.world, party), "merged"
    for _ in range(3):
        if not merge.compact(cache, fetch):
            did = "idle"
        cache.collect()
    return did


def collector(party: Party) -> str:
    cache_of(party.world, party).collect()
    return "collected"


def janitor(party: Party) -> str:
    """Collect garbage repeatedly, as successive jobs do. A file is marked first and deleted later."""
    for _ in range(8):
        cache_of(party.world, party).collect()
        for _ in range(12):
            party.wait()
    return "collected"


def dropper(party: Party) -> str:
    cache = cache_of(party.world, party)
    return "dropped" if cache.drop("it disagrees", cache.read().epoch) else "late"


def reader(party: Party) -> str:
    """Read the pointer and, later, the files that it names, as an actor does that gets its node late."""
    world, cache = party.world, cache_of(party.world, party)
    began = world.time
    pointer = cache.read()
    world.reading[party] = (began, {file.key for file in pointer.files})
    try:
        for file in pointer.files:
            party.wait()
            try:
                fetch(cache, file)
            except FileNotFoundError:
                assert world.time - began >= KEPT_SECONDS, f"{file.key} is gone"
                return "late"
        return "read"
    finally:
        del world.reading[party]


def simulate(seed: int, conditional: bool = True) -> Counter:
    """Some runs one after the other, each with mergers, readers and perhaps a dropper beside it, under faults; then each
    once more without. Returns how each party ended. Raises AssertionError.
    """
    world = CacheWorld(seed, conditional=conditional)
    for number in range(RUNS):
        stage(world, number)
        parties = [labelling_run(number)] * world.random.choice((1, 1, 2)) + [merger] * world.random.randrange(3)
        parties += [reader] * world.random.randrange(2) + [dropper] * (world.random.random() < 0.15)
        parties += [janitor] * (world.random.random() < 0.3)
        world.parties = []
        world.run(*parties)
    world.faults, world.late, world.reading = False, [], {}
    for number in range(RUNS):
        world.parties = []
        world.run(labelling_run(number))
    check(world)
    ends = [party.result for party in world.everyone]
    for end in ends:
        assert isinstance(end, str | Crash | IntentError | FileNotFoundError), repr(end)
    return Counter(end if isinstance(end, str) else type(end).__name__ for end in ends)


def check(world: CacheWorld) -> None:
    assert not world.broken, world.broken
    assert not [key for key in world.objects if key.startswith("out-")], (
        "a run has not deleted the labels that the cache has learned"
    )
    # Much later and after all parties ended: merging and collection leave only the files that the pointer names.
    for party in (merger, collector, collector):
        world.parties, world.now = [], world.now + 1_000
        world.run(party)
    pointer = world.pointer()
    there, named = {key.removeprefix(HERE) for key in world.objects}, {POINTER, *(file.key for file in pointer.files)}
    assert there == named, f"never collected: {there - named}; gone: {named - there}"
    assert not world.broken, world.broken
    cached: list[str] = []
    known = {message: n for n in range(RUNS) for message in messages_of(n)} | {
        f"copy {n} of {pointer.epoch}": n for n in range(RUNS)
    }
    texts = list(known)
    high, low = SCOPE.hashes(pa.array(texts))
    names = dict(zip(zip(high.tolist(), low.tolist(), strict=True), texts, strict=True))
    for file in pointer.files:
        table = piece.load(world.objects[HERE + file.key][0], file.key)
        cached += [names.get((row["high"], row["low"]), "a copy of what was dropped") for row in table.to_pylist()]
        quantities = {
            names.get((row["high"], row["low"])): json.loads(row["answer"])[0]["quantity"] for row in table.to_pylist()
        }
        assert all(quantity == len(name) for name, quantity in quantities.items() if name), (
            f"another message's label: {quantities}"
        )
    assert len(cached) == len(set(cached)), f"duplicated: {cached}"
    assert "a copy of what was dropped" not in cached, "a copy of what was dropped is back"
    lost = {message for n in range(RUNS) for message in messages_of(n)} - set(cached)
    assert not lost or pointer.dropped, f"lost: {lost}"
