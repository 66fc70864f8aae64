"""The task that sorts the text ids of all files, and the files that have them. Knows nothing of Spark.

Text ids ascend by their integers from range to range, so that all keys with the same integer are in one range.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mind.data.files import replacing
from mind.data.ids import KeyTable, distinct_keys, write_keys
from mind.data.prepared import ITEM_KEYS, USER_KEYS
from mind.errors import MindError
from mind.sequences import Int64
from mind.spark import rows

_FILES = {rows.USER_KEY: USER_KEYS, rows.ITEM_KEY: ITEM_KEYS}


def write_key_parts(
    directory: Path, names: tuple[str, str], where: str, found: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Write the different text ids of a range of integers. Yield a summary, which is an error or empty.

    Args:
        directory: the directory for the files.
        names: the columns of users and items, for messages.
        where: the input, for messages.
        found: keys of users and items.
    """
    batches = list(found)
    if not batches:
        return
    table = pa.Table.from_batches(batches).combine_chunks()
    part, error = table.column("part")[0].as_py(), ""
    try:
        for (sort, file), name in zip(_FILES.items(), names, strict=True):
            some = table.filter(pc.equal(table.column("sort"), pa.scalar(sort, pa.int8())))
            if len(some):
                keys = some.column("text").cast(pa.large_string()).combine_chunks()
                keys = keys if isinstance(keys, pa.Array) else pa.concat_arrays(keys.chunks)
                distinct = distinct_keys(f"{where}: {name}", some.column("user_id").to_numpy(), keys)
                with replacing(_part(directory, file, part)) as path:
                    write_keys(path, distinct)
    except MindError as fault:
        error = str(fault)
    yield from rows.batches(rows.SUMMARY, False, text=pa.array([error]))


def join_key_parts(directory: Path, file: str) -> None:
    """Join the files of all ranges to one file, without holding all keys in memory. Raises DataError."""
    schema = pa.schema([("id", pa.int64()), ("key", pa.large_string())])
    with replacing(directory / file) as path, pq.ParquetWriter(path, schema) as writer:
        for part in sorted((directory / "keys" / file).glob("part-*.parquet")):
            for batch in pq.ParquetFile(part).iter_batches():
                writer.write_batch(batch.cast(schema))


def keys_of(file: Path, wanted: Int64) -> KeyTable:
    """Read the keys of some ids from a file of all keys, one group of rows at a time.

    `wanted`: [N] int64 ascending.
    """
    ids, keys = [np.zeros(0, np.int64)], [pa.array([], pa.large_string())]
    stored = pq.ParquetFile(file)
    for group in range(stored.num_row_groups):
        edges = stored.metadata.row_group(group).column(0).statistics
        if not len(wanted) or (edges and (edges.max < wanted[0] or edges.min > wanted[-1])):
            continue
        table = stored.read_row_group(group, ["id", "key"])
        here = table.column("id").to_numpy()
        among = np.isin(here, wanted)
        ids.append(here[among])
        keys += table.column("key").filter(pa.array(among)).cast(pa.large_string()).chunks
    return KeyTable(np.concatenate(ids), pa.concat_arrays(keys))


def _part(directory: Path, file: str, part: int) -> Path:
    return directory / "keys" / file / f"part-{part:05}.parquet"
