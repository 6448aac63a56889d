"""List a run's input: the data objects and the objects left out, or the files of a version of a table.

As in Hive and Spark, keys with a part that starts with '.' or '_' are not data, except for a folder `_name=value`.

Knows stores and names, not Parquet.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from intent import lake
from intent.errors import ConfigError
from intent.lake import Snapshot
from intent.storage import Blob, LocalStore, StorageOptions, Store, open_store, split_uri

ENDINGS = (".parquet", ".parq", ".pq")
UNMATCHED = "does not match input_pattern"
# The places where table formats record which files, and which of their rows, count.
DELTA, HUDI, ICEBERG = "_delta_log/", ".hoodie/hoodie.properties", "metadata/"
ICEBERG_ENDING = ".metadata.json"
NAMED = 5
_REMEDIES = {
    "Delta": "name the table itself, or a partition of it",
    "Iceberg": "name it by its catalog: input=iceberg:CATALOG/NAMESPACE.TABLE",
    "Hudi": "export its rows as plain Parquet",
}


@dataclass(frozen=True)
class Listing:
    """The objects of an input, sorted by key. `left_out`: the reasons why other objects are not read, by key.

    An object with a Parquet name, or one that matches `pattern`, is data. Without `pattern`, the content of other objects
    decides.
    """

    store: Store | Snapshot
    blobs: list[Blob]
    pattern: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def table(self) -> tuple[str, int] | None:
        """Return (address, version) of the table that is read, or None."""
        return (self.store.uri, self.store.version) if isinstance(self.store, Snapshot) else None

    def is_named_data(self, key: str) -> bool:
        """Return whether the object's name makes it data. Then an unreadable object is a fault, and is not left out."""
        return self.pattern is not None or key.lower().endswith(ENDINGS)


def list_input(
    uri: str | Sequence[str],
    options: StorageOptions = StorageOptions(),
    pattern: str | None = None,
    version: int | None = None,
    begun: Mapping[str, int] = {},
) -> Listing:
    """List one file, all objects below one or more folders or prefixes, or the files of a table.

    `pattern`: a glob for the keys or names of the data. `version`: of the table; None: the version in `begun`, by the table's
    address, or else the current one. Raises ConfigError if there is no data, or if the files belong to a table that must be
    read by its format.
    """
    uris = [uri] if isinstance(uri, str) else uri
    if roots := [root for each in uris if (root := _table_root(each, options))]:
        if len({*roots}) > 1 or len(roots) < len(uris):
            raise ConfigError("input", uris[0], f"is in the table {roots[0]}, and {uris[-1]} is not; name parts of one table")
        return _list_table(roots[0], uris, options, pattern, version, begun)
    if version is not None:
        raise ConfigError("input_version", version, f"{uris[0]} is not a table and has no versions; use null")
    store, listed = _one(uris[0], options) if len(uris) == 1 else _several(uris, options)
    _refuse_tables([store.uri] if len(uris) == 1 else uris, store, listed, options)
    blobs = [blob for blob in sorted(listed, key=lambda blob: blob.key) if not _is_hidden(blob.key)]
    left_out = {blob.key: UNMATCHED for blob in blobs if pattern is not None and not _matches(blob.key, pattern)}
    blobs = [blob for blob in blobs if blob.key not in left_out]
    if not blobs and left_out:
        raise ConfigError("input_pattern", pattern, f"matches no object of {store.uri}, which has {named(left_out)}")
    if not blobs:
        span = uris[0] if len(uris) == 1 else f"{uris[0]} .. {uris[-1]}"
        raise ConfigError("input", span, "holds no object; name the folder or prefix of the query log")
    return Listing(store, blobs, pattern, left_out)


def _list_table(
    root: str,
    uris: Sequence[str],
    options: StorageOptions,
    pattern: str | None,
    version: int | None,
    begun: Mapping[str, int],
) -> Listing:
    if pattern is not None:
        raise ConfigError("input_pattern", pattern, f"the table {root} lists its own files; use null")
    partitions = [lake.split(uri.removeprefix(lake.DELTA), root)[1] for uri in uris]
    snapshot = lake.open_snapshot(root, partitions, begun.get(root) if version is None else version, options)
    if not (blobs := snapshot.files()):
        raise ConfigError("input", uris[0], f"the table has no rows there at version {snapshot.version}")
    return Listing(snapshot, blobs)


def _table_root(uri: str, options: StorageOptions) -> str:
    """Return the address of the Delta or Iceberg table that contains `uri`, or "" if there is none."""
    if uri.startswith(lake.ICEBERG):
        return lake.split(uri)[0]
    for folder in _folders_above(uri.removeprefix(lake.DELTA), options):
        # Without permission to list, the format cannot be known.
        with suppress(ConfigError):
            if next(open_store(f"{folder}/", options).list(DELTA), None):
                return folder
    if uri.startswith(lake.DELTA):
        raise ConfigError("input", uri, "holds no Delta table; name its folder, or a partition of it")
    return ""


def named(keys: Iterable[str]) -> str:
    """Return the first keys as text, followed by the number of the others."""
    listed = list(keys)
    more = f" and {len(listed) - NAMED:,} more" if len(listed) > NAMED else ""
    return ", ".join(map(repr, listed[:NAMED])) + more


def _one(uri: str, options: StorageOptions) -> tuple[Store, list[Blob]]:
    store = open_store(uri, options)
    is_file = isinstance(store, LocalStore) and store.root.is_file()
    below = [] if is_file else list(store.list())
    alone = _object(uri, options)
    # Some tools create an empty object with the folder's name to mark a folder.
    if alone is None or (below and not alone[1].size):
        return store, below
    if below:
        raise ConfigError("input", uri, f"is an object and a prefix; name the prefix as {uri}/, or move the object")
    return alone[0], [alone[1]]


def _object(uri: str, options: StorageOptions) -> tuple[Store, Blob] | None:
    """Return the object at `uri` with its store, or None if there is none or the user may only read folders."""
    if not uri.endswith("/"):
        parent, name = split_uri(uri)
        with suppress(ConfigError):
            store = open_store(parent, options)
            if blob := store.stat(name):
                return store, blob
    return None


def _several(uris: Sequence[str], options: StorageOptions) -> tuple[Store, list[Blob]]:
    """List the objects below each of `uris`, or the object at it. Keys are relative to the folder that all `uris` share."""
    paths = [open_store(uri, options).uri.split("/") for uri in uris]
    shared = next(at for at, parts in enumerate(zip(*paths, strict=True)) if len({*parts}) > 1)
    store = open_store("/".join(paths[0][:shared]) + "/", options)
    blobs = []
    for path in paths:
        key = "/".join(path[shared:])
        blobs += list(store.list(f"{key}/")) or [blob for blob in [store.stat(key)] if blob]
    return store, blobs


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in key.split("/"))


def _matches(key: str, pattern: str) -> bool:
    return fnmatchcase(key, pattern) or fnmatchcase(key.rpartition("/")[2], pattern)


def _refuse_tables(uris: Sequence[str], store: Store, blobs: Iterable[Blob], options: StorageOptions) -> None:
    tables = {
        f"{store.uri}/{folder}".rstrip("/"): kind for folder, kind in map(_table_of, (blob.key for blob in blobs)) if kind
    }
    for root in {folder for uri in uris for folder in _folders_above(uri, options)}:
        # Without permission to list, the format cannot be known.
        with suppress(ConfigError):
            if kind := _table_at(open_store(f"{root}/", options)):
                tables[root] = kind
    for root, kind in tables.items():
        raise ConfigError(
            "input", uris[0], f"{root} is a {kind} table, whose files may hold rows that were deleted; {_REMEDIES[kind]}"
        )


def _table_of(key: str) -> tuple[str, str]:
    """Return (folder, format) of the table that has this key among its metadata; ("", "") if there is none."""
    for mark, kind in ((DELTA, "Delta"), (HUDI, "Hudi"), (ICEBERG, "Iceberg")):
        folder, separator, name = f"/{key}".rpartition(f"/{mark}")
        if separator and (mark != ICEBERG or ("/" not in name and name.endswith(ICEBERG_ENDING))):
            return folder.removeprefix("/"), kind
    return "", ""


def _table_at(store: Store) -> str:
    if store.stat(HUDI):
        return "Hudi"
    if next(store.list(DELTA), None):
        return "Delta"
    return "Iceberg" if any(blob.key.endswith(ICEBERG_ENDING) for blob in store.list(ICEBERG)) else ""


def _folders_above(uri: str, options: StorageOptions) -> Iterator[str]:
    """Yield the folder at `uri`, and the folders above it as long as the one below may be a partition."""
    folder = open_store(uri, options).uri
    while folder:
        yield folder
        folder, _, name = folder.rpartition("/")
        if "=" not in name and name != "data":
            return
