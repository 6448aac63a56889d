"""Store artifacts and find them again: records, fingerprints, builds, a node's cache, the registry, selections.

Knows stores and configurations. Knows nothing of Ray or of how an artifact is computed.
"""

from intent.artifacts.build import make
from intent.artifacts.cache import fetch
from intent.artifacts.content import file_sha256, fingerprint
from intent.artifacts.files import Files
from intent.artifacts.record import Artifact, ArtifactRecord, artifact_uri, code_version, find, libraries, load

__all__ = [
    "Artifact",
    "ArtifactRecord",
    "Files",
    "artifact_uri",
    "code_version",
    "fetch",
    "file_sha256",
    "find",
    "fingerprint",
    "libraries",
    "load",
    "make",
]
