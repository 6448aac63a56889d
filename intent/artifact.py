"""What a produced thing is and where it came from: a folder of files with a record, written last.

The fingerprint of kind, config and inputs names the folder, so the same inputs give the same path and are made once.
"""

import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import intent
from intent.errors import CorruptData, MissingArtifact
from intent.storage import StorageOptions, Store, open_store, sha256

RECORD = "record.json"
LIBRARIES = ("ray", "torch", "transformers", "peft", "bitsandbytes", "gptqmodel", "llama-cpp-python", "pyarrow")


@dataclass(frozen=True)
class ArtifactRecord:
    """`config` and `inputs` (name -> fingerprint or SHA-256) decide the fingerprint; the rest says how it went."""

    kind: str
    config: dict
    inputs: dict
    files: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    code: str = ""
    libraries: dict = field(default_factory=dict)
    machine: str = ""

    @property
    def fingerprint(self) -> str:
        return fingerprint({"kind": self.kind, "config": self.config, "inputs": self.inputs})


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its URI and its record."""

    uri: str
    record: ArtifactRecord

    @property
    def fingerprint(self) -> str:
        return self.record.fingerprint


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, the first 16 hex digits."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode())[:16]


def find(uri: str, options: StorageOptions = StorageOptions()) -> Artifact | None:
    """The artifact at `uri`, or None where it is absent or unfinished."""
    try:
        return Artifact(uri, ArtifactRecord(**json.loads(open_store(uri, options).read(RECORD))))
    except FileNotFoundError:
        return None


def load(uri: str, remedy: str, options: StorageOptions = StorageOptions()) -> Artifact:
    """`find` that raises MissingArtifact with `remedy`."""
    artifact = find(uri, options)
    if artifact is None:
        raise MissingArtifact(f"nothing finished at {uri}: {remedy}")
    return artifact


def make(
    parent: str,
    record: ArtifactRecord,
    build: Callable[[Path], Mapping | None],
    options: StorageOptions = StorageOptions(),
) -> Artifact:
    """Build into a scratch folder, publish below `parent`, write the record last; or find it already made.

    `build` fills the folder it is given and returns metrics for the record, or None.
    """
    uri = artifact_uri(parent, record)
    if made := find(uri, options):
        return made
    with tempfile.TemporaryDirectory(prefix="intent-") as scratch:
        folder = Path(scratch)
        metrics = build(folder) or {}
        store = open_store(uri, options)
        files = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            key, data = path.relative_to(folder).as_posix(), path.read_bytes()
            store.put(key, data)
            files[key] = {"sha256": sha256(data), "bytes": len(data)}
    how = {"code": code_version(), "libraries": libraries(), "machine": platform.processor()}
    done = replace(record, files=files, metrics=dict(metrics), **how)
    store.put(RECORD, json.dumps(asdict(done), indent=1, ensure_ascii=False).encode())
    return Artifact(uri, done)


def artifact_uri(parent: str, record: ArtifactRecord) -> str:
    return f"{parent.rstrip('/')}/{record.kind}-{record.fingerprint}"


def fetch(artifact: Artifact, options: StorageOptions = StorageOptions()) -> Path:
    """A local folder with the artifact's files, each checked against its SHA-256 before anything parses it.

    Raises CorruptData, naming the file.
    """
    store = open_store(artifact.uri, options)
    local = Path(artifact.uri) if "://" not in artifact.uri else _cached(artifact, store)
    for key, entry in artifact.record.files.items():
        found = file_sha256(local / key)
        if found != entry["sha256"]:
            raise CorruptData(
                f"{artifact.uri}/{key}: SHA-256 is {found}, not the record's {entry['sha256']}; delete it, make it again"
            )
    return local


def _cached(artifact: Artifact, store: Store) -> Path:
    # By its bytes too: GPTQ made again of the same inputs is not the same.
    name = f"{artifact.record.kind}-{artifact.fingerprint}-{fingerprint(artifact.record.files)}"
    target = Path(tempfile.gettempdir()) / "intent-artifacts" / name

    def whole() -> bool:
        return all((target / key).exists() for key in artifact.record.files)

    if whole():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        for key in artifact.record.files:
            path = aside / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(key))
        # Another actor of this node may have put the same files there, and be at reading them.
        if not whole():
            shutil.rmtree(target, ignore_errors=True)
            with suppress(OSError):
                aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def file_sha256(path: Path) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_version(package: Path = Path(intent.__file__).parent) -> str:
    """The version with the git commit of the clone that the package is in, or else with a hash of its sources."""
    clone = package.parent
    if (clone / ".git").exists():
        with suppress(OSError, subprocess.CalledProcessError):
            describe = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
            found = subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
            return f"{intent.__version__}, commit {found}"
    sources = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".yaml"))
    return f"{intent.__version__}, sources {fingerprint([file_sha256(path) for path in sources])}"


def libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
