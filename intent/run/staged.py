"""Read the parts of a labelled run, and check each against the manifest. Knows ledger and store."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from intent.errors import CorruptData
from intent.run.ledger import LABELLED, Ledger, RunIdentity
from intent.storage import Store, sha256

T = TypeVar("T")
# The number of parts that are read ahead.
AHEAD = 64


class Staged:
    """A run that is labelled but not published. Raises FileNotFoundError if it does not exist, or no longer exists."""

    def __init__(self, store: Store):
        self.store = store
        self.ledger = Ledger(store, RunIdentity({}, "", "", ""))
        manifest = self.ledger.manifest()
        if manifest is None:
            raise FileNotFoundError(f"{store.uri}: has no manifest")
        self.ledger = Ledger(store, RunIdentity(**manifest["run"]))
        self.summary: dict = manifest["summary"]
        self.parts = {entry["shard"]: entry[LABELLED] for entry in manifest["parts"]}

    def map(self, function: Callable[[bytes, str], T]) -> Iterator[T]:
        """Yield `function(data, uri)` of every labelled part. Raises CorruptData if a part's SHA-256 differs from the
        manifest's.
        """

        def call(entry: dict) -> T:
            data, uri = self.store.read(entry["key"]), f"{self.store.uri}/{entry['key']}"
            if sha256(data) != entry["sha256"]:
                raise CorruptData(f"{uri}: SHA-256 differs from its manifest's; delete {self.store.uri} and run again")
            return function(data, uri)

        entries = [*self.parts.values()]
        with ThreadPoolExecutor(self.store.parallel) as pool:
            for start in range(0, len(entries), AHEAD):
                yield from pool.map(call, entries[start : start + AHEAD])
