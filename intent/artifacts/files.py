"""Read an artifact's files from its store. Ignores files that its record does not list."""

from intent.artifacts.record import Artifact
from intent.errors import CorruptData
from intent.storage import StorageOptions, open_store, sha256


class Files:
    """Read an artifact's files into memory, each checked against its SHA-256. For models use `fetch`."""

    def __init__(self, artifact: Artifact, options: StorageOptions = StorageOptions()):
        self.artifact, self.store = artifact, open_store(artifact.uri, options)
        self.uri = artifact.uri

    def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys of the files that start with `prefix`."""
        return sorted(key for key in self.artifact.record.files if key.startswith(prefix))

    def read(self, key: str) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError if the record does not list it, CorruptData if the bytes differ from
        the record.
        """
        entry = self.artifact.record.files.get(key)
        if entry is None:
            raise FileNotFoundError(f"{self.uri} has no {key}")
        try:
            data = self.store.read(self.artifact.path(key))
        except FileNotFoundError:
            raise damaged(self.artifact, key, "is missing") from None
        if sha256(data) != entry["sha256"]:
            raise damaged(self.artifact, key, f"SHA-256 is {sha256(data)}, not the record's {entry['sha256']}")
        return data


def damaged(artifact: Artifact, key: str, how: str) -> CorruptData:
    """Return the error of a damaged file, with its remedy."""
    return CorruptData(f"{artifact.files_uri}/{key}: {how}; delete {artifact.uri}/record.json and make the artifact again")
