"""Building an artifact: its files first, its record last, so that an artifact with a record is whole."""

import json
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from intent.artifacts.record import RECORD, Artifact, ArtifactRecord, artifact_uri, code_version, find, libraries
from intent.storage import StorageOptions, open_store, sha256


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
