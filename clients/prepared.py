"""The text ids that `mind.prepare` keeps beside its files: those hold integers, which nobody outside should see."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.user_files import FileError


@dataclass(frozen=True)
class KeyTable:
    """The text ids of integers, out of a file."""

    path: Path
    ids: Any
    """[N] int64 NumPy array, ascending."""
    keys: Any
    """[N] Arrow array of strings."""

    def of(self, ids: Sequence[int]) -> list[str]:
        """The text of each integer. Raises FileError if one has none."""
        import numpy as np
        import pyarrow as pa

        wanted = np.array(ids, np.int64)
        positions = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        missing = np.flatnonzero(self.ids[positions] != wanted)
        if len(missing):
            raise FileError(f"{self.path} has no text for id {wanted[missing[0]]}; prepare the data again")
        found: list[str] = self.keys.take(pa.array(positions)).to_pylist()
        return found


@dataclass(frozen=True)
class PreparedKeys:
    """The text ids of users and items; None where they are integers."""

    users: KeyTable | None = None
    items: KeyTable | None = None


def prepared_keys(path: Path) -> PreparedKeys:
    """The text ids of a file such as data/mine/test/test.txt: data/mine/user_keys.parquet and item_keys.parquet.

    Raises FileError if one is there and cannot be read.
    """
    users, items = (path.resolve().parent.parent / f"{name}_keys.parquet" for name in ("user", "item"))
    return PreparedKeys(*(_read(each) if each.is_file() else None for each in (users, items)))


def _read(path: Path) -> KeyTable:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise FileError(f"{path}: a Parquet file needs pyarrow: pip install 'mind-recall[bulk]'") from error
    try:
        table = pq.read_table(path, columns=["id", "key"])
        ids, keys = table.column("id").cast(pa.int64()), table.column("key").cast(pa.large_string())
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not len(ids):
        raise FileError(f"{path} has no ids; prepare the data again")
    return KeyTable(path, ids.to_numpy(), keys.combine_chunks())
