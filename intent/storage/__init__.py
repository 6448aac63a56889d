"""Read and write objects in a local folder or an S3 bucket behind one interface, `Store`.

`interface.py` defines the interface. `local.py` has the local store and opens any store by its URI, `s3.py` has the S3 store,
and `table.py` reads a user's tables.

The package knows nothing of what the bytes mean. Credentials come from the environment or the instance role, never from
configuration. Keys are relative, with forward slashes. The commit protocol relies on `put_if_absent`: exactly one writer of
a key wins, and an object that exists is complete.
"""

from intent.storage.interface import Blob, StorageOptions, Store, sha256
from intent.storage.local import LocalStore, absolute, checked, inside, open_store, read_uri, split_uri

__all__ = [
    "Blob",
    "LocalStore",
    "StorageOptions",
    "Store",
    "absolute",
    "checked",
    "inside",
    "open_store",
    "read_uri",
    "sha256",
    "split_uri",
]
