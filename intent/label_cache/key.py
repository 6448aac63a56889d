"""Compute the key of a cached label: a scope and a keyed hash of the message.

The scope covers everything except the message that affects labels. The cache never stores a message.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from intent.artifacts import fingerprint
from intent.errors import ConfigError
from intent.storage import Store
from intent.task.catalog import normalize

FILE, VARIABLE = "cache.key", "INTENT_CACHE_KEY"
KEY_BYTES, LEAST_BYTES, MOST_BYTES = 32, 16, 64
HASH_BYTES = 16
SPACE, LAST_PRINTABLE = np.uint8(ord(" ")), np.uint8(ord("~"))


@dataclass(frozen=True)
class Scope:
    """Identify the cache of one set of facts.

    `facts`: by name, everything except the message that affects a label. `secret`: the key of the hashes. It is not needed to
    inspect, prune or delete a cache.
    """

    name: str
    secret: bytes = field(default=b"", repr=False)
    facts: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, object], secret: bytes) -> "Scope":
        """Build a scope whose name depends on the facts and the secret. A new secret starts a new cache."""
        identity = hashlib.blake2b(b"intent", key=secret, digest_size=8).hexdigest()
        return cls(fingerprint([dict(facts), identity]), secret, facts)

    def hashes(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Hash the normalized messages. Returns two uint64 arrays [messages]: the upper and the lower halves of the hashes.

        `texts` must not contain nulls.
        """
        binary = texts.cast(pa.binary())
        messages = binary.to_pylist()
        for i in _unusual(binary).tolist():
            messages[i] = normalize(messages[i].decode()).encode()
        # The scope's name gives equal messages of two scopes different hashes. Copying a keyed hash costs half as much as
        # creating one.
        keyed = hashlib.blake2b(key=self.secret, person=self.name.encode()[:16], digest_size=HASH_BYTES)
        digests = bytearray()
        for message in messages:
            hasher = keyed.copy()
            hasher.update(message)
            digests += hasher.digest()
        halves = np.frombuffer(bytes(digests), ">u8").reshape(-1, 2).astype(np.uint64)
        return halves[:, 0], halves[:, 1]


def find_secret(workspace: Store) -> bytes:
    """Read the key of the hashes from INTENT_CACHE_KEY, or from the workspace, where it is created at first use.

    Raises ConfigError for an invalid key, without repeating its value.
    """
    if text := os.environ.get(VARIABLE):
        return _parse(VARIABLE, text)
    try:
        data = workspace.read(FILE)
    except FileNotFoundError:
        workspace.put_if_absent(FILE, secrets.token_hex(KEY_BYTES).encode())
        data = workspace.read(FILE)
    return _parse(f"{workspace.uri}/{FILE}", data.decode(errors="replace"))


def _unusual(messages: pa.BinaryArray) -> np.ndarray:
    """Return the indices of the messages that `normalize` may change: all but printable ASCII with single spaces inside.

    Checks the bytes of all messages at once, because a regular expression takes twice as long.
    """
    edges = np.frombuffer(messages.buffers()[1], np.int32)[messages.offset : messages.offset + len(messages) + 1]
    if not len(messages) or edges[0] == edges[-1]:
        return np.zeros(0, np.int64)
    text = np.frombuffer(messages.buffers()[2], np.uint8)[edges[0] : edges[-1]]
    edges = edges - edges[0]
    is_space = text == SPACE
    # Bytes are unsigned, so those below SPACE become large.
    odd = np.flatnonzero(text - SPACE > LAST_PRINTABLE - SPACE)
    twice = np.flatnonzero(is_space[1:] & is_space[:-1])
    full = edges[:-1] < edges[1:]
    first, last = edges[:-1][full], edges[1:][full] - 1
    offsets = np.concatenate([odd, twice, first[is_space[first]], last[is_space[last]]])
    return np.unique(np.searchsorted(edges, offsets, "right") - 1)


def _parse(source: str, text: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        remedy = f"give {2 * LEAST_BYTES} to {2 * MOST_BYTES} hexadecimal digits, as `openssl rand -hex {KEY_BYTES}` does"
        raise ConfigError(source, "(hidden)", remedy)
    return key
