"""Convert between two forms of the same labels: one row per message with a list of items, and one row per item.

Arrow kernels; knows nothing of stores, shards or models.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent.task.schema import CONFIDENCE, INTENTS, ITEM, ITEM_CONFIDENCE, IntentSchema


def explode(table: pa.Table, schema: IntentSchema) -> pa.Table:
    """Return one row per item, numbered from 1 in `item`, with all other columns of its message.

    A message without items has one row whose `item` and slots are null, so no id is lost.
    """
    lists = table[INTENTS].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    counts = lengths(lists)
    rows = np.repeat(np.arange(len(counts)), np.maximum(counts, 1))
    empty = counts[rows] == 0
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    numbers = pa.array(np.arange(len(rows)) - first[rows] + 1, pa.int32(), mask=empty)
    items = lists.flatten().take(pa.array(np.maximum(np.cumsum(~empty) - 1, 0), mask=empty))
    item_columns = {name: pc.struct_field(items, name) for name in (*schema.names, CONFIDENCE)}
    item_columns[ITEM_CONFIDENCE] = item_columns.pop(CONFIDENCE)
    at = table.column_names.index(INTENTS)
    spread = table.take(pa.array(rows))
    before, after = table.column_names[:at], table.column_names[at + 1 :]
    return pa.table({n: spread[n] for n in before} | {ITEM: numbers} | item_columns | {n: spread[n] for n in after})


def lengths(lists: pa.Array) -> np.ndarray:
    """Return the number of items of each list; 0 for null."""
    return pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def counts(exploded: pa.Table) -> pa.Table:
    """Return one row per message from a table with one row per item. Its `item` is the message's number of
    items, 0 for none.
    """
    numbers = exploded[ITEM].fill_null(0).to_numpy()
    last = np.append(numbers[1:] <= 1, True)[: len(numbers)]
    return exploded.filter(pa.array(last)).set_column(
        exploded.column_names.index(ITEM), ITEM, pa.array(numbers[last].astype(np.int32))
    )
