"""Name content: the SHA-256 of a file, and a short fingerprint of settings and of other fingerprints."""

import hashlib
import json
from pathlib import Path

from intent.storage import sha256


def fingerprint(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode())[:16]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
