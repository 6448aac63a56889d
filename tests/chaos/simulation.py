"""Simulate the commit protocol in memory: a store, drivers and workers, one store request at a time, in random order.

The ledger, the parts, the actor, the queue and the S3 client code are the real ones. Between any two requests a party may
be stalled or crash, with its request done, not done, or done later; a reply may be lost, so that the client asks again.
"""

import io
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
import runs
from botocore.exceptions import ClientError, ReadTimeoutError

from intent.errors import CorruptData, IntentError, ManifestLost
from intent.run.actor import Actor, RunContext
from intent.run.columns import Columns
from intent.run.ledger import LABELLED, MANIFEST, REJECTED, Ledger, part_key
from intent.run.part import Part, build_part, open_part
from intent.run.queue import Queue
from intent.run.shard import Plan, Shard
from intent.storage import Blob, StorageOptions
from intent.storage.s3 import S3Store

SHARDS = [Shard(Blob("log.parquet", 9, "e"), 4 * n, 4) for n in range(4)]
REWRITTEN = ("summary.json", "failed.json")


class Crash(BaseException):
    """The party's process is gone."""


@dataclass
class World:
    """Objects of one bucket, the turns of all parties, and the faults. One seed determines everything."""

    seed: int
    faults: bool = True
    conditional: bool = True
    objects: dict[str, tuple[bytes, dict]] = field(default_factory=dict)
    late: list = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.parties: list[Party] = []
        self.everyone: list[Party] = []
        self.now = 0.0

    def run(self, *starts) -> None:
        for start in starts:
            Party(self, start)
        while running := [party for party in self.parties if not party.ended]:
            self.now += 1
            assert self.now < 100_000, "the run does not end"
            awake = [party for party in running if party.stalled_until <= self.now] or running
            if self.late and self.random.random() < 0.05:
                self.late.pop(self.random.randrange(len(self.late)))()
            self.random.choice(awake).turn()
        for request in self.late:
            request()

    def put(self, key: str, data: bytes, absent: bool, metadata: dict) -> None:
        if absent and self.conditional and key in self.objects:
            raise _error(412)
        if key in self.objects and key not in REWRITTEN:
            self.broken.append(f"{key} was overwritten")
        if key.split("/")[0] in (LABELLED, REJECTED) and MANIFEST in self.objects:
            self.broken.append(f"{key} was written after the manifest")
        self.objects[key] = (data, metadata)


class Party:
    """One process, as a thread that runs only in its turn. A turn ends at the next request."""

    def __init__(self, world: World, start, owner: "Party | None" = None):
        self.world, self.owner = world, owner
        self.ended, self.doomed, self.stalled_until, self.result = False, False, 0.0, None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(start,), daemon=True)
        world.parties.append(self)
        world.everyone.append(self)
        self._thread.start()

    def turn(self) -> None:
        self._go.release()
        self._stopped.acquire()

    def wait(self) -> None:
        """End this turn. Continue in a later one, or crash."""
        self._stopped.release()
        self._go.acquire()
        if self.doomed or (self.owner and self.owner.ended and not isinstance(self.owner.result, str)):
            raise Crash
        if self.world.faults and self.world.random.random() < 0.02:
            self.stalled_until = self.world.now + self.world.random.randrange(200)

    def _run(self, start) -> None:
        self._go.acquire()
        try:
            self.result = start(self)
        except Crash as crash:
            self.result = crash
        except BaseException as error:
            self.result = error
        self.ended = True
        self._stopped.release()


class Client:
    """The S3 client of one party, with the faults of a network and of a dying process."""

    def __init__(self, world: World, party: Party):
        self.world, self.party = world, party

    def put_object(self, *, Key, Body, IfNoneMatch=None, Metadata=None, **_):
        self._send(f"PUT {Key}", lambda: self.world.put(Key, Body, IfNoneMatch == "*", Metadata or {}))

    def head_object(self, *, Key, **_):
        data, metadata = self._send(f"HEAD {Key}", lambda: self._get(Key))
        return {"ContentLength": len(data), "ETag": "e", "Metadata": metadata}

    def get_object(self, *, Key, **_):
        return {"Body": io.BytesIO(self._send(f"GET {Key}", lambda: self._get(Key))[0])}

    def delete_object(self, *, Key, **_):
        self._send(f"DELETE {Key}", lambda: self.world.objects.pop(Key, None))

    def get_paginator(self, _):
        return self

    def paginate(self, *, Prefix, **_):
        keys = self._send("LIST", lambda: sorted(key for key in self.world.objects if key.startswith(Prefix)))
        return [{"Contents": [{"Key": key, "Size": 1, "ETag": "e"} for key in keys]}]

    def _get(self, key: str):
        if key not in self.world.objects:
            raise _error(404)
        return self.world.objects[key]

    def _send(self, operation: str, request):
        self.party.wait()
        chance = self.world.random.random() if self.world.faults else 1.0
        self.world.trace.append(f"{self.party.world.parties.index(self.party)} {operation} {chance:.3f}")
        if chance < 0.01:
            raise Crash
        if chance < 0.02:
            _quietly(request)
            raise Crash
        if chance < 0.03:
            self.world.late.append(lambda: _quietly(request))
            raise Crash
        if chance < 0.06:
            # The reply is lost, and the client's own retry asks again.
            _quietly(request)
            self.party.wait()
        elif chance < 0.08:
            # The reply is lost for good: the caller cannot know.
            _quietly(request)
            raise ReadTimeoutError(endpoint_url="sim")
        return request()


def _quietly(request) -> None:
    try:
        request()
    except ClientError:
        return


def _error(status: int) -> ClientError:
    return ClientError({"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": str(status)}}, "op")


@cache
def made(index: int, engine: str) -> Part:
    """Return an engine's part of a shard. The engines disagree about labels and about rejections."""
    shard = SHARDS[index]
    ids = list(range(shard.start, shard.start + shard.rows))
    refused = {"a": ids[:1] if index % 2 else [], "b": ids[2:] if index else []}[engine]
    kept = [i for i in ids if i not in refused]
    counts = {"labelled": len(kept), "abstained": 0, "rejected": len(refused), "variants": {engine: len(kept)}}
    labelled = pa.table({"id": pa.array(kept, pa.int64()), "variant": [engine] * len(kept)})
    rejected = pa.table({"id": pa.array(refused, pa.int64()), "reason": ["no"] * len(refused)})
    return build_part({"shard": shard.id, "fingerprint": runs.IDENTITY.fingerprint, "rows": 4, **counts}, labelled, rejected)


class FakeWorker:
    """A worker that labels without reading or computing."""

    def __init__(self, engine: str):
        self.engine = engine

    def read(self, shard: Shard) -> None:
        return None

    def label(self, shard: Shard, rows, frequent_answers) -> Part:
        return made(SHARDS.index(shard), self.engine)


def ledger(world: World, party: Party) -> Ledger:
    store = S3Store("s3://sim", StorageOptions())
    store.parallel, store.client = 1, Client(world, party)
    return Ledger(store, runs.IDENTITY)


def driver(party: Party) -> str:
    """Run the stages of a run, with threads instead of Ray actors."""
    world, book = party.world, ledger(party.world, party)
    if manifest := book.manifest():
        book.close(manifest["summary"])
        return "already done"
    shards = book.plan(lambda: Plan(SHARDS)).shards
    done = book.committed_ids()
    parts = {part.receipt.shard: part for part in book.all_committed(s.id for s in shards if s.id in done)}
    queue = Queue([shard for shard in shards if shard.id not in parts], attempts=1000)
    for engine in "ab":
        Party(world, lambda worker, engine=engine: work(worker, engine, queue, parts), owner=party)
    while queue.open:
        party.wait()
    try:
        book.commit(Plan(shards), parts, {"by": world.everyone.index(party)})
    except ManifestLost:
        return "lost"
    return "won"


def work(party: Party, engine: str, queue: Queue, parts: dict) -> None:
    world = party.world
    actor = Actor(RunContext(None, ledger(world, party), runs.CART, Columns()))
    actor.reader = actor.worker = FakeWorker(engine)
    while queue.open:
        shard = queue.take(party, world.now)
        try:
            if shard is None:
                party.wait()
                continue
            outcome = actor.label(shard, None)
        except Crash:
            queue.lost(party, "crash", free=False)
            if not party.owner.ended:
                Party(world, lambda heir: work(heir, engine, queue, parts), owner=party.owner)
            raise
        if outcome.reason:
            queue.fail(shard, party, outcome.reason, outcome.final)
        elif queue.done(shard, party, world.now):
            parts[shard.id] = outcome.part


def simulate(seed: int, conditional: bool = True) -> Counter:
    """Simulate a run with up to three drivers under faults, then a driver without faults. Return how each driver ended.

    Raises AssertionError if the run breaks an invariant.
    """
    world = World(seed, conditional=conditional)
    count = 1 + world.random.randrange(3)
    world.run(*[driver] * count)
    world.faults, world.late = False, []
    world.parties = []
    world.run(driver)
    assert not world.broken, world.broken
    check_ends(world, check(world)["summary"]["by"])
    results = [party.result for party in world.everyone if party.owner is None]
    return Counter(result if isinstance(result, str) else type(result).__name__ for result in results)


def check_ends(world: World, writer: int) -> None:
    """Check that a fault explains every error, and that exactly the writer of the manifest reports it."""
    for party in world.everyone:
        expected = isinstance(party.result, str | Crash | IntentError) and not isinstance(party.result, CorruptData)
        assert expected or (party.owner and party.result is None), repr(party.result)
    ends = {world.everyone.index(party): party.result for party in world.everyone if party.owner is None}
    assert {index for index, end in ends.items() if end == "won"} <= {writer}, (ends, writer)
    assert ends[writer] != "lost" and list(ends.values())[-1] in ("won", "already done"), (ends, writer)


def check(world: World) -> dict:
    """Check that every row is rejected or labelled once. Return the manifest, which must match the store."""
    book = ledger(world, Party.__new__(Party))
    book.store.client._send = lambda operation, request: request()
    manifest = book.verify()
    assert manifest["rows"] == 16 == manifest["labelled"] + manifest["abstained"] + manifest["rejected"]
    ids: list[int] = []
    for shard in SHARDS:
        part = open_part(world.objects[part_key(LABELLED, shard.id)][0], "part")
        ids += pq.read_table(io.BytesIO(part.data))["id"].to_pylist()
        copy = world.objects.get(part_key(REJECTED, shard.id))
        assert (copy[0] if copy else None) == part.rejected
        ids += pq.read_table(io.BytesIO(copy[0]))["id"].to_pylist() if copy else []
    assert sorted(ids) == list(range(16)), ids
    return manifest
