"""The rows that the tasks of a job pass to each other and to the driver, as Arrow batches. Knows nothing of Spark.

One table has rows of several sorts, because a task gives one table: clicks, text ids, and summaries in JSON.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from mind.data.columns import Float64
from mind.sequences import Int64

CLICK, USER_KEY, ITEM_KEY, SUMMARY, ITEM = range(5)
"""The sorts of rows."""
BATCH_ROWS = 1 << 18
"""Maximum number of rows of a batch."""


def schema(time_is_float: bool) -> str:
    """Return the columns of the table of a task, in Spark's words."""
    time = "double" if time_is_float else "bigint"
    return f"sort tinyint, user_id bigint, item_id bigint, time {time}, file int, line bigint, text string"


def batches(sort: int, time_is_float: bool, **columns: Any) -> Iterator[pa.RecordBatch]:
    """Yield rows of a sort in batches. Columns that are not given are null.

    Args:
        sort: one of the sorts of rows.
        time_is_float: whether times are float64 in this job.
        columns: values of the same length, NumPy arrays or Arrow arrays.
    """
    types = {
        "user_id": pa.int64(),
        "item_id": pa.int64(),
        "time": pa.float64() if time_is_float else pa.int64(),
        "file": pa.int32(),
        "line": pa.int64(),
        "text": pa.string(),
    }
    total = len(next(iter(columns.values())))
    for start in range(0, total, BATCH_ROWS):
        count = min(BATCH_ROWS, total - start)
        made = [pa.array(np.full(count, sort, np.int8))]
        for name, kind in types.items():
            values = columns.get(name)
            made.append(pa.nulls(count, kind) if values is None else _column(values[start : start + count], kind))
        yield pa.record_batch(made, ["sort", *types])


def integers_of(found: Iterable[pa.RecordBatch], name: str) -> Int64:
    """Return a column of all batches, which has no nulls: [N] int64."""
    return np.concatenate([batch.column(name).to_numpy(zero_copy_only=False) for batch in found], dtype=np.int64)


def times_of(found: Iterable[pa.RecordBatch]) -> Int64 | Float64:
    """Return the times of all batches: [N] int64 or float64."""
    times: Int64 | Float64 = np.concatenate([batch.column("time").to_numpy(zero_copy_only=False) for batch in found])
    return times


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
