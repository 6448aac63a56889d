"""Keep the labels of earlier runs in the workspace, so that a run asks its engines only about new messages.

`key.py` computes the keys, `piece.py` defines the file format, `pointer.py` records which files are in use, `merge.py` merges
and evicts, `node.py` keeps a node's copies, and `reader.py` looks messages up. A missing, damaged or outdated cache costs time
and is never an error. This package knows stores and Arrow. It knows nothing of engines, shards or Ray.
"""

from intent.label_cache.key import Scope, find_secret
from intent.label_cache.pointer import LabelCache, Limits, scopes
from intent.label_cache.reader import Lookup, Reader

__all__ = ["LabelCache", "Limits", "Lookup", "Reader", "Scope", "find_secret", "scopes"]
