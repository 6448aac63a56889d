"""Record the plan and the commits of a run. The store alone holds them, so any driver can continue a run.

The output gets `plan.json` first, then one `labelled/part-<shard>.parquet` per shard (and its `rejected/` copy), and
`manifest.json` last. Each is created once, by one conditional write. Knows nothing of engines, actors or Ray.
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
from intent.run.part import Committed, Part, open_part
from intent.run.shard import Plan, Shard
from intent.storage import Blob, Store, sha256

PLAN, MANIFEST, SUMMARY, FAILED = "plan.json", "manifest.json", "summary.json", "failed.json"
LABELLED, REJECTED = "labelled", "rejected"
COUNTS = ("rows", "labelled", "abstained", "rejected")
RACERS, ROUNDS = 8, 3
PROBE, PROBE_SECONDS = "probe-", 24 * 3600
T = TypeVar("T")


@dataclass(frozen=True)
class RunIdentity:
    """Everything that determines a run's labels. `models`: variant -> fingerprint; the other fields are fingerprints.

    The run itself fills in `input` and `columns`.
    """

    models: Mapping[str, str]
    prompt: str
    schema: str
    catalog: str
    input: str = ""
    columns: str = ""

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of all fields, which names the run."""
        return fingerprint(asdict(self))

    def differences(self, other: "RunIdentity") -> list[str]:
        """Describe each field in which `other`, the run in the store, differs from this one."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{name} ({theirs[name]} there, {mine[name]} here)" for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True)
class Ledger:
    """The ledger of one run. Many processes may use it at once."""

    store: Store
    run: RunIdentity

    def plan(self, cut: Callable[[], Plan]) -> Plan:
        """Return the run's plan. Writes the result of `cut()` if there is none.

        Raises RunMismatch with the differences if the plan is of another run, StoreUnfit if the store loses the plan.
        """
        stored = self._read(PLAN)
        if stored is None:
            self.store.put_if_absent(PLAN, _dump({"run": asdict(self.run), **_packed(cut())}))
            stored = self._read(PLAN)
        if stored is None:
            raise StoreUnfit(f"{self.store.uri}: {PLAN} is missing after it was written; use a consistent store")
        self._require_same(stored)
        if "left_out" not in stored:
            raise RunMismatch(
                "output", self.store.uri, "holds the plan of an older version of intent; delete it, or name a new output"
            )
        return _unpacked(stored)

    def planned(self) -> tuple[RunIdentity, Plan] | None:
        """Return the identity and plan of the run in the store, whichever run it is."""
        stored = self._read(PLAN)
        return None if stored is None else (RunIdentity(**stored["run"]), _unpacked(stored))

    def require_same(self) -> None:
        """Raise RunMismatch if the output holds another run. Writes nothing."""
        if stored := self._read(PLAN):
            self._require_same(stored)

    def manifest(self) -> dict | None:
        """Return the manifest, or None if the run is not finished."""
        return self._read(MANIFEST)

    def committed_ids(self) -> set[str]:
        """Return the ids of the shards whose parts are in the store."""
        return {blob.key.split("part-")[-1].removesuffix(".parquet") for blob in self.store.list(f"{LABELLED}/")}

    def holds(self, shard: Shard) -> bool:
        """Return whether the shard is committed."""
        return self.store.stat(part_key(LABELLED, shard.id)) is not None

    def publish(self, part: Part) -> Committed:
        """Commit a shard's part. If the shard is committed already, discards the part and returns the committed one."""
        key = part_key(LABELLED, part.receipt.shard)
        notes = {name: str(getattr(part.receipt, name)) for name in (*COUNTS, "fingerprint")}
        if not self.store.put_if_absent(key, part.data, notes):
            return self.committed(part.receipt.shard)
        self._copy_rejected(part)
        return Committed(part.receipt, len(part.data), sha256(part.data))

    def committed(self, shard_id: str) -> Committed:
        """Read and verify the part of a committed shard, and copy its rejected rows if a crash prevented that.

        Raises CorruptData if the part is damaged or of another shard or run.
        """
        key = part_key(LABELLED, shard_id)
        data = self.store.read(key)
        part = open_part(data, f"{self.store.uri}/{key}")
        if part.receipt.shard != shard_id or part.receipt.fingerprint != self.run.fingerprint:
            raise CorruptData(f"{self.store.uri}/{key}: is of another shard or run; delete it and run again")
        self._copy_rejected(part)
        return Committed(part.receipt, len(data), sha256(data))

    def all_committed(self, shard_ids: Iterable[str]) -> Iterator[Committed]:
        """Yield `committed` of each shard, in order, with several reads at a time."""
        with ThreadPoolExecutor(self.store.parallel) as pool:
            yield from pool.map(self.committed, shard_ids)

    def commit(self, plan: Plan, parts: Mapping[str, Committed], summary: dict) -> None:
        """Write the manifest, after all parts. Raises ManifestLost if another driver's manifest exists."""
        totals = {name: sum(getattr(part.receipt, name) for part in parts.values()) for name in COUNTS}
        head = {"fingerprint": self.run.fingerprint, "run": asdict(self.run), **totals, "summary": summary}
        entries = [_entry(shard, parts[shard.id]) for shard in plan.shards]
        table = {"table": {"uri": plan.table[0], "version": plan.table[1]}} if plan.table else {}
        manifest = {**head, **table, "left_out": dict(plan.left_out), "parts": entries}
        if not self.store.put_if_absent(MANIFEST, _dump(manifest)):
            raise ManifestLost(f"{self.store.uri}/{MANIFEST}: another driver finished this run first; its labels stand")
        self.close(summary)

    def close(self, summary: dict) -> None:
        """Write the summary and delete the list of failed shards, once the manifest exists. May be repeated."""
        self.store.put_if_absent(SUMMARY, _dump(summary))
        if self.store.stat(FAILED):
            self.store.delete(FAILED)

    def record_failed(self, failed: Mapping[Shard, str]) -> None:
        """List for the operator the shards that prevent the manifest, and why. Does nothing if the manifest exists."""
        entries = [{"object": s.blob.key, "start": s.start, "rows": s.counted, "reason": why} for s, why in failed.items()]
        if self.store.stat(MANIFEST) is None:
            self.store.put(FAILED, _dump(entries))

    def failed(self) -> list[dict]:
        """Return the entries that `record_failed` wrote."""
        return list(self._read(FAILED) or [])

    def verify(self) -> dict:
        """Check every file of a finished run against its manifest. Returns the manifest; raises CorruptData."""
        manifest = self.manifest()
        if manifest is None:
            raise CorruptData(f"{self.store.uri}: has no {MANIFEST}; the run is not finished, run it again")
        faults = self.strays(manifest) + [fault for faults, _ in self.examine(manifest, lambda part: None) for fault in faults]
        if faults:
            raise CorruptData("; ".join(faults[:5]))
        return manifest

    def examine(self, manifest: dict, look: Callable[[Part], T]) -> Iterator[tuple[list[str], T | None]]:
        """For each entry of the manifest, yield the faults of its files and, if there are none, `look(part)`.

        Calls `look` from several threads. Changes nothing.
        """
        with ThreadPoolExecutor(self.store.parallel) as pool:
            yield from pool.map(lambda entry: self._examine(entry, manifest["fingerprint"], look), manifest["parts"])

    def strays(self, manifest: dict) -> list[str]:
        """Return the faults of the manifest as a whole: wrong totals, and files that it does not list."""
        entries, uri = manifest["parts"], f"{self.store.uri}/{MANIFEST}"
        counts = [_entry_counts(entry) for entry in entries]
        sums = {name: sum(count[name] for count in counts) for name in COUNTS}
        faults = [
            f"{uri}: {name} is {manifest[name]}, but its parts have {total}"
            for name, total in sums.items()
            if manifest[name] != total
        ]
        listed = {entry[kind]["key"] for entry in entries for kind in (LABELLED, REJECTED) if entry[kind]}
        present = {blob.key for kind in (LABELLED, REJECTED) for blob in self.store.list(f"{kind}/")}
        return faults + [f"{self.store.uri}/{key}: is not in {MANIFEST}" for key in sorted(present - listed)]

    def _examine(self, entry: dict, run: str, look: Callable[[Part], T]) -> tuple[list[str], T | None]:
        files = [file for kind in (LABELLED, REJECTED) if (file := entry[kind])]
        faults, data = [], b""
        for file in reversed(files):
            try:
                data = self.store.read(file["key"])
                digest = sha256(data)
            except FileNotFoundError:
                digest = "missing"
            if digest != file["sha256"]:
                faults.append(f"{self.store.uri}/{file['key']}: SHA-256 is {digest}, not the manifest's {file['sha256']}")
        if faults:
            return faults, None
        part = open_part(data, f"{self.store.uri}/{files[0]['key']}")
        listed = {"fingerprint": run, "shard": entry["shard"], **_entry_counts(entry)}
        for name, expected in listed.items():
            if (actual := getattr(part.receipt, name)) != expected:
                faults.append(f"{self.store.uri}/{files[0]['key']}: {name} is {actual}, not the manifest's {expected}")
        return faults, None if faults else look(part)

    def _copy_rejected(self, part: Part) -> None:
        if part.rejected is not None:
            self.store.put_if_absent(part_key(REJECTED, part.receipt.shard), part.rejected)

    def _require_same(self, stored: dict) -> None:
        try:
            differs = self.run.differences(RunIdentity(**stored["run"]))
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


def begun_versions(stores: Iterable[Store]) -> dict[str, int]:
    """Return the table versions of the plans in `stores`, by table address. A run that continues keeps its version."""
    versions = {}
    for store in stores:
        with suppress(FileNotFoundError, ValueError, AttributeError):
            if table := json.loads(store.read(PLAN)).get("table"):
                versions.setdefault(*table)
    return versions


def probe(store: Store) -> None:
    """Raise StoreUnfit if the store lacks the guarantees that the ledger needs.

    Of many conditional writes of one key, exactly one must win and be stored whole. A listing must show every object that was
    written, and no object that was deleted.
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
    """Delete the probes that killed drivers left. Younger probes stay, because another driver may be using them."""
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
        raise StoreUnfit(f"{store.uri}: ignores conditional writes (If-None-Match); use a store that honors them")
    if store.read(key) != entries[wins.index(True)]:
        raise StoreUnfit(f"{store.uri}: a conditional write that was refused changed the object; use another store")
    if key not in {blob.key for blob in store.list(PROBE)}:
        raise StoreUnfit(f"{store.uri}: a listing lacks an object that was written; use a store with consistent listing")


def part_key(kind: str, shard_id: str) -> str:
    """Return the key of a shard's file. `kind`: LABELLED or REJECTED."""
    return f"{kind}/part-{shard_id}.parquet"


def _packed(plan: Plan) -> dict:
    types = None if plan.types is None else base64.b64encode(plan.types.serialize().to_pybytes()).decode()
    shards = [_flat(shard) for shard in plan.shards]
    return {"types": types, "left_out": dict(plan.left_out), "table": plan.table, "shards": shards}


def _unpacked(fields: dict) -> Plan:
    types = None if fields["types"] is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(fields["types"])))
    shards = [Shard(Blob(key, size, etag), *rest) for key, size, etag, *rest in fields["shards"]]
    return Plan(shards, types, fields["left_out"], tuple(fields["table"]) if fields.get("table") else None)


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
    """Return the COUNTS of a manifest's entry. Its keys `labelled` and `rejected` hold files, so both counts are computed."""
    rows, abstained = entry["rows"], entry["abstained"]
    rejected = entry[REJECTED]["rows"] if entry[REJECTED] else 0
    return {"rows": rows, "labelled": rows - abstained - rejected, "abstained": abstained, "rejected": rejected}


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()
