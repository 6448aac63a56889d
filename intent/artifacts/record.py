"""Record the identity and origin of an artifact, a folder of files whose record is written last.

The fingerprint of kind, config and inputs names the folder, so that the same inputs give the same path and an artifact is made
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
    """A record. `kind`, `config` and `inputs` (name -> fingerprint or SHA-256) determine the fingerprint.

    The other fields describe the build. `attempt`: the subfolder with the `files`; "": the artifact's own folder.
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
        """Return the format of the model's answers, or "". Older records name it codec."""
        codec = self.config.get("codec", "")
        return self.config.get("output_format", "entity_first" if codec == "pointing" else codec)

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of kind, config and inputs."""
        return fingerprint({"kind": self.kind, "config": self.config, "inputs": self.inputs})


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its URI and its record."""

    uri: str
    record: ArtifactRecord

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of record and files, since GPTQ and training can make other bytes from the same inputs."""
        return fingerprint([self.record.fingerprint, {key: entry["sha256"] for key, entry in self.record.files.items()}])

    @property
    def files_uri(self) -> str:
        """Return the URI of the files' folder. `Files` and `fetch` check the files that they read."""
        return f"{self.uri}/{self.record.attempt}".rstrip("/")

    def path(self, key: str) -> str:
        """Return a file's key in the store at `uri`."""
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
        raise CorruptData(f"{uri}/{RECORD}: is not a record ({error}); delete it and make the artifact again") from error


def load(uri: str, remedy: str, options: StorageOptions = StorageOptions()) -> Artifact:
    """Return the artifact at `uri`. Raises MissingArtifact, with `remedy`, if there is none."""
    artifact = find(uri, options)
    if artifact is None:
        raise MissingArtifact(f"no finished artifact at {uri}: {remedy}")
    return artifact


def artifact_uri(parent: str, record: ArtifactRecord) -> str:
    """Return the URI of the artifact below `parent`."""
    return f"{parent.rstrip('/')}/{record.kind}-{record.fingerprint}"


@cache
def code_version(package: Path = Path(intent.__file__).parent) -> str:
    """Return the version with the git commit of the clone that holds the package, or else with a hash of its sources."""
    clone = package.parent
    if (clone / ".git").exists():
        with suppress(OSError, subprocess.CalledProcessError):
            describe = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
            described = subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
            return f"{intent.__version__}, commit {described}"
    sources = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".yaml", ".tsv", ".j2"))
    return f"{intent.__version__}, sources {fingerprint([file_sha256(path) for path in sources])}"


def libraries() -> dict[str, str]:
    """Return the versions of the installed libraries among LIBRARIES."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
