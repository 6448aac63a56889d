"""A node's copies of artifacts: each file is checked against its record before anything parses it."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from intent.artifacts.content import file_sha256, fingerprint
from intent.artifacts.record import Artifact
from intent.errors import CorruptData
from intent.storage import StorageOptions, Store, open_store


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
