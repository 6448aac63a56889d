"""Read one version of a Delta or Iceberg table as input, and write a run's labels as one commit of a table.

    delta:s3://shop/log            a Delta table by its folder; as an input it is recognized without `delta:`
    iceberg:prod/shop.log          the table `log` of the namespace `shop`, in the catalog that PyIceberg knows as `prod`
    iceberg:prod/shop.log/dt=7     as an input: only these rows; likewise below a Delta table's folder

The optional libraries deltalake and pyiceberg decide which files, and which of their rows, belong to a version. Knows stores
and Arrow; nothing of runs, shards or labels.
"""

from collections.abc import Sequence

from intent.lake.snapshot import DELTA, HIVE_NULL, ICEBERG, Snapshot, Where, is_table, split
from intent.lake.target import Labels, Target
from intent.storage import StorageOptions

__all__ = [
    "DELTA",
    "HIVE_NULL",
    "ICEBERG",
    "Labels",
    "Snapshot",
    "Target",
    "Where",
    "is_table",
    "open_snapshot",
    "open_target",
    "split",
]


def open_snapshot(uri: str, wheres: Sequence[Where], version: int | None, options: StorageOptions) -> Snapshot:
    """Open the table at `uri` at a version; None: the current one. With `wheres`, open only rows that match any of them.

    Raises ConfigError if the table, the version, or a feature that the table requires of its readers is missing.
    """
    if uri.startswith(ICEBERG):
        from intent.lake.iceberg import IcebergSnapshot

        return IcebergSnapshot.open(uri, wheres, version, options)
    from intent.lake.delta import DeltaSnapshot

    return DeltaSnapshot.open(uri, wheres, version, options)


def open_target(uri: str, partition_by: Sequence[str], options: StorageOptions) -> Target:
    """Open the table or folder at `uri` to publish labels. `partition_by`: the columns of a new table's partitions."""
    if uri.startswith(ICEBERG):
        from intent.lake.iceberg_target import IcebergTarget

        return IcebergTarget(split(uri)[0], tuple(partition_by), options)
    if uri.startswith(DELTA):
        from intent.lake.delta_target import DeltaTarget

        return DeltaTarget(uri.removeprefix(DELTA), tuple(partition_by), options)
    from intent.lake.folder_target import FolderTarget

    return FolderTarget(uri, tuple(partition_by), options)
