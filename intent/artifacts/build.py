"""Build an artifact: write its files first and its record last, so that an artifact with a record is complete.

Several builders of one artifact may run at once, for example when Ray restarts a task after a network partition, and their
bytes may differ. Each writes its files to its own folder. The record, written with one conditional put, names the folder
of the first to finish.
"""

import json
import platform
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from intent.artifacts.content import file_sha256
from intent.artifacts.record import RECORD, Artifact, ArtifactRecord, artifact_uri, code_version, find, libraries, load
from intent.storage import StorageOptions, Store, open_store

ATTEMPT = "attempt-"


def make(
    parent: str,
    record: ArtifactRecord,
    build: Callable[[Path], Mapping | None],
    options: StorageOptions = StorageOptions(),
) -> Artifact:
    """Build the artifact in a scratch folder and publish it below `parent`, unless it exists. Returns the published artifact.

    `build` fills the given folder and returns metrics for the record, or None. If another builder's record came first, returns
    that builder's artifact.
    """
    uri = artifact_uri(parent, record)
    if existing := find(uri, options):
        return existing
    store, attempt = open_store(uri, options), f"{ATTEMPT}{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix="intent-") as scratch:
        folder = Path(scratch)
        metrics = build(folder) or {}
        try:
            files = {key: _publish(store, f"{attempt}/{key}", path) for key, path in _files(folder)}
        except BaseException:
            _discard(store, lambda key: key.startswith(f"{attempt}/"))
            raise
    complete = replace(
        record,
        code=code_version(),
        libraries=libraries(),
        machine=platform.processor(),
        files=files,
        metrics=dict(metrics),
        attempt=attempt,
    )
    if store.put_if_absent(RECORD, json.dumps(asdict(complete), indent=1, ensure_ascii=False).encode()):
        # The record is final, so the files of other builders are useless.
        _discard(store, lambda key: not key.startswith(f"{attempt}/"))
        return Artifact(uri, complete)
    _discard(store, lambda key: key.startswith(f"{attempt}/"))
    return load(uri, "another builder's record was deleted; run again", options)


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _publish(store: Store, key: str, path: Path) -> dict:
    store.put_file(key, path)
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _discard(store: Store, unwanted: Callable[[str], bool]) -> None:
    """Delete unwanted files of builders. Ignores errors, because a file that remains does no harm."""
    with suppress(Exception):
        for blob in list(store.list(ATTEMPT)):
            if unwanted(blob.key):
                store.delete(blob.key)
