"""What a label is kept under: a scope, which is everything that decides labels beside the message, and a keyed hash of the
message. The cache never holds the message itself.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent.artifacts import fingerprint
from intent.errors import ConfigError
from intent.storage import Store
from intent.task.catalog import normalize

FILE, VARIABLE = "cache.key", "INTENT_CACHE_KEY"
KEY_BYTES, LEAST_BYTES, MOST_BYTES = 32, 16, 64
HASH_BYTES = 16
# What `normalize` leaves as it is: printable ASCII with single spaces.
NORMALIZED = r"^[!-~]+( [!-~]+)*$"


@dataclass(frozen=True)
class Scope:
    """`facts`: everything that decides a label but the message, by name. `secret`: the key of the hashes, which looking after
    a cache does not need."""

    name: str
    secret: bytes = field(default=b"", repr=False)
    facts: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, object], secret: bytes) -> "Scope":
        """Named after the facts and the secret: a new secret begins a new cache."""
        identity = hashlib.blake2b(b"intent", key=secret, digest_size=8).hexdigest()
        return cls(fingerprint([dict(facts), identity]), secret, facts)

    def hashes(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The upper and the lower 64 bits of each message's hash, which is of the normalized text. `texts` has no null."""
        plain = pc.match_substring_regex(texts, NORMALIZED).to_numpy(zero_copy_only=False)
        messages = texts.cast(pa.binary()).to_pylist()
        for i in np.flatnonzero(~plain).tolist():
            messages[i] = normalize(messages[i].decode()).encode()
        # The scope's name keeps equal messages of two scopes apart. A copy of a keyed hash costs half of a new one.
        begun = hashlib.blake2b(key=self.secret, person=self.name.encode()[:16], digest_size=HASH_BYTES)
        digests = bytearray()
        for message in messages:
            hashed = begun.copy()
            hashed.update(message)
            digests += hashed.digest()
        halves = np.frombuffer(bytes(digests), ">u8").reshape(-1, 2).astype(np.uint64)
        return halves[:, 0], halves[:, 1]


def find_secret(workspace: Store) -> bytes:
    """The key of the hashes: from the environment, or else the workspace's own, which is made at its first use.

    Raises ConfigError, without repeating the value, where it is no key.
    """
    if text := os.environ.get(VARIABLE):
        return _parse(VARIABLE, text)
    try:
        data = workspace.read(FILE)
    except FileNotFoundError:
        workspace.put_if_absent(FILE, secrets.token_hex(KEY_BYTES).encode())
        data = workspace.read(FILE)
    return _parse(f"{workspace.uri}/{FILE}", data.decode(errors="replace"))


def _parse(source: str, text: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        remedy = f"give {2 * LEAST_BYTES} to {2 * MOST_BYTES} hexadecimal digits, as `openssl rand -hex {KEY_BYTES}` does"
        raise ConfigError(source, "(hidden)", remedy)
    return key
