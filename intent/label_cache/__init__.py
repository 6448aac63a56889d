"""Labels that earlier nights have made, in the workspace, so that a night asks its engines only about new messages.

`key.py` says what a label is kept under, `piece.py` is the file format, `pointer.py` says which files count, `merge.py`
makes many files one, `node.py` keeps a node's copies, and `reader.py` looks messages up. A cache can be missing, damaged or
old: that costs time and is no error. Knows stores and Arrow; nothing of engines, shards or Ray.
"""

from intent.label_cache.key import Scope, find_secret
from intent.label_cache.pointer import LabelCache, Limits, scopes
from intent.label_cache.reader import Found, Reader

__all__ = ["Found", "LabelCache", "Limits", "Reader", "Scope", "find_secret", "scopes"]
