"""What a night has planned and what it has committed, in the store alone: any driver can go on from here.

Below the output: `plan.json` first, then one `labelled/part-<shard>.parquet` a shard (and its `rejected/` copy), then
`manifest.json`, last. Each is made once, by one conditional write. Knows nothing of engines, actors or Ray.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TypeVar

import pyarrow as pa

from intent.artifacts import fingerprint
from intent.errors import CorruptData, ManifestLost, RunMismatch, StoreUnfit
from intent.night.part import Committed, Part, open_part
from intent.night.shard import Plan, Shard
from intent.storage import Blob, Store, sha256

PLAN, MANIFEST, SUMMARY, FAILED = "plan.json", "manifest.json", "summary.json", "failed.json"
LABELLED, REJECTED = "labelled", "rejected"
COUNTS = ("rows", "labelled", "abstained", "rejected")
RACERS, ROUNDS = 8, 3
PROBE, PROBE_SECONDS = "probe-", 24 * 3600
T = TypeVar("T")


@dataclass(frozen=True)
class RunIdentity:
    """Everything that decides a night's labels. `models`: variant -> fingerprint; the others are fingerprints.

    `input` and `columns` are filled in by the night itself.
    """

    models: Mapping[str, str]
    prompt: str
    schema: str
    catalog: str
    input: str = ""
    columns: str = ""

    @property
    def fingerprint(self) -> str:
        return fingerprint(asdict(self))

    def differences(self, other: "RunIdentity") -> list[str]:
        mine, theirs = asdict(self), asdict(other)
        return [f"{name} ({theirs[name]} there, {mine[name]} here)" for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True)
class Ledger:
    """One run's ledger. Safe to use from many processes at once."""

    store: Store
    run: RunIdentity

    def plan(self, cut: Callable[[], Plan]) -> Plan:
        """The run's plan: the one made before, or else `cut()`. Raises RunMismatch, naming what differs."""
        found = self._read(PLAN)
        if found is None:
            self.store.put_if_absent(PLAN, _dump({"run": asdict(self.run), **_packed(cut())}))
            found = self._read(PLAN)
        if found is None:
            raise StoreUnfit(f"{self.store.uri}: {PLAN} is not there after it was written; use a consistent store")
        self._require_same(found)
        if "left_out" not in found:
            raise RunMismatch(
                "output", self.store.uri, "holds the plan of an older version of intent; delete it, or name a new output"
            )
        return _unpacked(found)

    def planned(self) -> tuple[RunIdentity, Plan] | None:
        """What is planned there, of whichever run."""
        found = self._read(PLAN)
        return None if found is None else (RunIdentity(**found["run"]), _unpacked(found))

    def require_same(self) -> None:
        """Raises RunMismatch where the output already holds another run, without writing anything."""
        if found := self._read(PLAN):
            self._require_same(found)

    def manifest(self) -> dict | None:
        return self._read(MANIFEST)

    def committed_ids(self) -> set[str]:
        """The ids of the shards whose parts are in the store."""
        return {blob.key.split("part-")[-1].removesuffix(".parquet") for blob in self.store.list(f"{LABELLED}/")}

    def holds(self, shard: Shard) -> bool:
        return self.store.stat(part_key(LABELLED, shard.id)) is not None

    def publish(self, part: Part) -> Committed:
        """Commit a shard, or find it committed: the first part wins, and what the loser made is dropped."""
        key = part_key(LABELLED, part.receipt.shard)
        notes = {name: str(getattr(part.receipt, name)) for name in (*COUNTS, "fingerprint")}
        if not self.store.put_if_absent(key, part.data, notes):
            return self.committed(part.receipt.shard)
        self._copy_rejected(part)
        return Committed(part.receipt, len(part.data), sha256(part.data))

    def committed(self, shard_id: str) -> Committed:
        """The part of a committed shard, read back and verified, its rejected copy made where a crash left it out."""
        key = part_key(LABELLED, shard_id)
        data = self.store.read(key)
        part = open_part(data, f"{self.store.uri}/{key}")
        if part.receipt.shard != shard_id or part.receipt.fingerprint != self.run.fingerprint:
            raise CorruptData(f"{self.store.uri}/{key}: is of another shard or run; delete it and run again")
        self._copy_rejected(part)
        return Committed(part.receipt, len(data), sha256(data))

    def all_committed(self, shard_ids: Iterable[str]) -> Iterator[Committed]:
        with ThreadPoolExecutor(self.store.parallel) as pool:
            yield from pool.map(self.committed, shard_ids)

    def commit(self, plan: Plan, parts: Mapping[str, Committed], summary: dict) -> None:
        """Write the manifest, last. Raises ManifestLost where another driver's is there."""
        totals = {name: sum(getattr(part.receipt, name) for part in parts.values()) for name in COUNTS}
        head = {"fingerprint": self.run.fingerprint, "run": asdict(self.run), **totals, "summary": summary}
        entries = [_entry(shard, parts[shard.id]) for shard in plan.shards]
        table = {"table": {"uri": plan.table[0], "version": plan.table[1]}} if plan.table else {}
        manifest = {**head, **table, "left_out": dict(plan.left_out), "parts": entries}
        if not self.store.put_if_absent(MANIFEST, _dump(manifest)):
            raise ManifestLost(f"{self.store.uri}/{MANIFEST}: another driver finished this night first; its labels stand")
        self.close(summary)

    def close(self, summary: dict) -> None:
        """What is left to do once the manifest is there. Changes nothing where it was done before."""
        self.store.put_if_absent(SUMMARY, _dump(summary))
        if self.store.stat(FAILED):
            self.store.delete(FAILED)

    def record_failed(self, failed: Mapping[Shard, str]) -> None:
        """For the operator: the shards that keep the night from its manifest, and why."""
        entries = [{"object": s.blob.key, "start": s.start, "rows": s.counted, "reason": why} for s, why in failed.items()]
        if self.store.stat(MANIFEST) is None:
            self.store.put(FAILED, _dump(entries))

    def failed(self) -> list[dict]:
        """What `record_failed` left for the operator."""
        return list(self._read(FAILED) or [])

    def verify(self) -> dict:
        """Check every file of a finished night against its manifest. Returns the manifest; raises CorruptData."""
        manifest = self.manifest()
        if manifest is None:
            raise CorruptData(f"{self.store.uri}: has no {MANIFEST}; the night is not finished, run it again")
        faults = self.strays(manifest) + [fault for found, _ in self.examine(manifest, lambda part: None) for fault in found]
        if faults:
            raise CorruptData("; ".join(faults[:5]))
        return manifest

    def examine(self, manifest: dict, look: Callable[[Part], T]) -> Iterator[tuple[list[str], T | None]]:
        """Of each entry of the manifest: what of its files is not as it says and, where nothing is, `look` of its part.

        `look` is called from several threads. Changes nothing.
        """
        with ThreadPoolExecutor(self.store.parallel) as pool:
            yield from pool.map(lambda entry: self._examine(entry, manifest["fingerprint"], look), manifest["parts"])

    def strays(self, manifest: dict) -> list[str]:
        """How the manifest as a whole differs from the store and from its own entries."""
        entries, uri = manifest["parts"], f"{self.store.uri}/{MANIFEST}"
        counts = [_entry_counts(entry) for entry in entries]
        sums = {name: sum(count[name] for count in counts) for name in COUNTS}
        faults = [
            f"{uri}: {name} is {manifest[name]}, but its parts have {total}"
            for name, total in sums.items()
            if manifest[name] != total
        ]
        listed = {entry[kind]["key"] for entry in entries for kind in (LABELLED, REJECTED) if entry[kind]}
        found = {blob.key for kind in (LABELLED, REJECTED) for blob in self.store.list(f"{kind}/")}
        return faults + [f"{self.store.uri}/{key}: is not in {MANIFEST}" for key in sorted(found - listed)]

    def _examine(self, entry: dict, run: str, look: Callable[[Part], T]) -> tuple[list[str], T | None]:
        files = [file for kind in (LABELLED, REJECTED) if (file := entry[kind])]
        faults, data = [], b""
        for file in reversed(files):
            try:
                data = self.store.read(file["key"])
                found = sha256(data)
            except FileNotFoundError:
                found = "missing"
            if found != file["sha256"]:
                faults.append(f"{self.store.uri}/{file['key']}: SHA-256 is {found}, not the manifest's {file['sha256']}")
        if faults:
            return faults, None
        part = open_part(data, f"{self.store.uri}/{files[0]['key']}")
        noted = {"fingerprint": run, "shard": entry["shard"], **_entry_counts(entry)}
        for name, found in noted.items():
            if (said := getattr(part.receipt, name)) != found:
                faults.append(f"{self.store.uri}/{files[0]['key']}: {name} is {said}, not the manifest's {found}")
        return faults, None if faults else look(part)

    def _copy_rejected(self, part: Part) -> None:
        if part.rejected is not None:
            self.store.put_if_absent(part_key(REJECTED, part.receipt.shard), part.rejected)

    def _require_same(self, found: dict) -> None:
        try:
            differs = self.run.differences(RunIdentity(**found["run"]))
        except (KeyError, TypeError):
            raise RunMismatch("output", self.store.uri, "holds a run of another version of intent; name a new output") from None
        if differs:
            raise RunMismatch("output", self.store.uri, f"holds a run of other {', '.join(differs)}; name a new output")

    def _read(self, key: str) -> dict | None:
        try:
            return json.loads(self.store.read(key))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CorruptData(f"{self.store.uri}/{key}: not JSON ({error}); name a new output") from error


def begun_versions(places: Iterable[Store]) -> dict[str, int]:
    """The version of each table, by its address, that a run in one of `places` was planned with: it goes on with that one."""
    found = {}
    for place in places:
        with suppress(FileNotFoundError, ValueError, AttributeError):
            if table := json.loads(place.read(PLAN)).get("table"):
                found.setdefault(*table)
    return found


def probe(store: Store) -> None:
    """Refuse, by StoreUnfit, a store without the guarantees that the ledger rests on.

    Those are: of many conditional writes of a key one wins, whole, and a listing shows what is written and nothing else.
    """
    _forget_probes(store)
    for _ in range(ROUNDS):
        key = f"{PROBE}{int(time.time())}-{uuid.uuid4().hex}"
        try:
            _probe_race(store, key)
        finally:
            store.delete(key)
        if key in {blob.key for blob in store.list(PROBE)}:
            raise StoreUnfit(f"{store.uri}: a listing still shows an object that was deleted; use a consistent store")


def _forget_probes(store: Store) -> None:
    """Delete what drivers that were killed a day ago or longer left; another driver may be probing now."""
    for blob in list(store.list(PROBE)):
        began = blob.key.split("-")[1]
        if began.isdigit() and int(began) < time.time() - PROBE_SECONDS:
            store.delete(blob.key)


def _probe_race(store: Store, key: str) -> None:
    barrier = threading.Barrier(RACERS)

    def race(data: bytes) -> bool:
        barrier.wait()
        return store.put_if_absent(key, data)

    entries = [uuid.uuid4().bytes for _ in range(RACERS)]
    with ThreadPoolExecutor(RACERS) as pool:
        wins = list(pool.map(race, entries))
    if wins.count(True) != 1 or store.put_if_absent(key, b"late"):
        raise StoreUnfit(f"{store.uri}: ignores conditional writes (If-None-Match); use a store that honours them")
    if store.read(key) != entries[wins.index(True)]:
        raise StoreUnfit(f"{store.uri}: a conditional write that was refused changed the object; use another store")
    if key not in {blob.key for blob in store.list(PROBE)}:
        raise StoreUnfit(f"{store.uri}: a listing lacks an object that was written; use a store with consistent listing")


def part_key(kind: str, shard_id: str) -> str:
    return f"{kind}/part-{shard_id}.parquet"


def _packed(plan: Plan) -> dict:
    types = None if plan.types is None else base64.b64encode(plan.types.serialize().to_pybytes()).decode()
    shards = [_flat(shard) for shard in plan.shards]
    return {"types": types, "left_out": dict(plan.left_out), "table": plan.table, "shards": shards}


def _unpacked(found: dict) -> Plan:
    types = None if found["types"] is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(found["types"])))
    shards = [Shard(Blob(key, size, etag), *rest) for key, size, etag, *rest in found["shards"]]
    return Plan(shards, types, found["left_out"], tuple(found["table"]) if found.get("table") else None)


def _flat(shard: Shard) -> list:
    return [shard.blob.key, shard.blob.size, shard.blob.etag, shard.start, shard.rows, shard.run, shard.reason]


def _entry(shard: Shard, part: Committed) -> dict:
    receipt = part.receipt
    labelled = {"key": part_key(LABELLED, shard.id), "rows": receipt.file_rows}
    rejected = {"key": part_key(REJECTED, shard.id), "rows": receipt.rejected, "sha256": receipt.rejected_sha256}
    return {
        "shard": shard.id,
        "object": shard.blob.key,
        "etag": shard.blob.etag,
        "start": shard.start,
        **{name: getattr(receipt, name) for name in COUNTS},
        LABELLED: {**labelled, "sha256": part.sha256, "bytes": part.bytes},
        REJECTED: rejected if receipt.rejected else None,
    }


def _entry_counts(entry: dict) -> dict[str, int]:
    """COUNTS of a manifest's entry, which names the files `labelled` and `rejected`."""
    rows, abstained = entry["rows"], entry["abstained"]
    rejected = entry[REJECTED]["rows"] if entry[REJECTED] else 0
    return {"rows": rows, "labelled": rows - abstained - rejected, "abstained": abstained, "rejected": rejected}


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()
