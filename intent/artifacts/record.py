"""Record what an artifact is and where it came from. An artifact is a folder of files with a record, written last.

The fingerprint of kind, config and inputs names the folder. So the same inputs give the same path, and an artifact is made
once.
"""

import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import intent
from intent.artifacts.content import file_sha256, fingerprint
from intent.errors import CorruptData, MissingArtifact
from intent.storage import StorageOptions, open_store

RECORD = "record.json"
LIBRARIES = ("ray", "torch", "transformers", "peft", "bitsandbytes", "gptqmodel", "llama-cpp-python", "pyarrow", "faiss-cpu")


@dataclass(frozen=True)
class ArtifactRecord:
    """A record. `config` and `inputs` (name -> fingerprint or SHA-256) determine the fingerprint. The rest says how it was
    made.

    `attempt`: the subfolder into which one builder put the `files`; "": the artifact's own folder.
    """

    kind: str
    config: dict
    inputs: dict
    files: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    code: str = ""
    libraries: dict = field(default_factory=dict)
    machine: str = ""
    attempt: str = ""

    @property
    def output_format(self) -> str:
        """The format in which its model answers, or "". Older records call it the codec."""
        codec = self.config.get("codec", "")
        return self.config.get("output_format", "entity_first" if codec == "pointing" else codec)

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
        """The fingerprint of the record's fingerprint and the files: the same inputs can give other bytes (GPTQ, training)."""
        return fingerprint([self.record.fingerprint, {key: entry["sha256"] for key, entry in self.record.files.items()}])

    @property
    def files_uri(self) -> str:
        """The folder of the files. Read them with `Files` or `fetch`, which check them."""
        return f"{self.uri}/{self.record.attempt}".rstrip("/")

    def path(self, key: str) -> str:
        """Return the key of one of the files in the store at `uri`."""
        return f"{self.record.attempt}/{key}".lstrip("/")


def find(uri: str, options: StorageOptions = StorageOptions()) -> Artifact | None:
    """Return the artifact at `uri`, or None if it is absent or unfinished. Raises CorruptData if its record is invalid."""
    try:
        data = open_store(uri, options).read(RECORD)
    except FileNotFoundError:
        return None
    try:
        return Artifact(uri, ArtifactRecord(**json.loads(data)))
    except (ValueError, TypeError) as error:
        raise CorruptData(f"{uri}/{RECORD}: is no record ({error}); delete it and make the artifact again") from error


def load(uri: str, remedy: str, options: StorageOptions = StorageOptions()) -> Artifact:
    """Return the artifact at `uri`. Raises MissingArtifact, with `remedy`, if there is none."""
    artifact = find(uri, options)
    if artifact is None:
        raise MissingArtifact(f"nothing finished at {uri}: {remedy}")
    return artifact


def artifact_uri(parent: str, record: ArtifactRecord) -> str:
    return f"{parent.rstrip('/')}/{record.kind}-{record.fingerprint}"


@cache
def code_version(package: Path = Path(intent.__file__).parent) -> str:
    """Return the version with the git commit of the clone that holds the package, or else with a hash of its sources."""
    clone = package.parent
    if (clone / ".git").exists():
        with suppress(OSError, subprocess.CalledProcessError):
            describe = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
            found = subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
            return f"{intent.__version__}, commit {found}"
    sources = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".yaml", ".tsv", ".j2"))
    return f"{intent.__version__}, sources {fingerprint([file_sha256(path) for path in sources])}"


def libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
