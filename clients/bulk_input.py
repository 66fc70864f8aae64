"""The input of a bulk run: users and their histories from a Parquet file.

This module knows nothing of the service. It has one batch of rows in memory, however large the file is.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clients.ids import ItemIds
from clients.user_files import FileError

Int64 = npt.NDArray[np.int64]

EXCLUDE_COLUMN = "exclude_item_ids"
"""The column of exclusions, which is read if the input has it."""

_LIST = "list<int64> or list<string>"
_INTEGER_BYTES = 10
"""Most bytes that an integer takes in a request."""
_FRAME_BYTES = 3
"""Bytes that a text id takes in a request besides its text."""
_READ_BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class IdLists:
    """Item ids of N users: those of user i are `values[starts[i]:ends[i]]`."""

    values: Any
    """[V] int64, or text as objects."""
    offsets: Int64
    """[V + 1] int64: most bytes that all ids before each id take in a request."""
    starts: Int64
    """[N] int64, the first id of each user."""
    ends: Int64
    """[N] int64, the end of the ids of each user."""

    @classmethod
    def from_arrow(cls, column: Any) -> Self:
        """Return the ids of a list column [N]. A null list is empty, a null in a list is left out."""
        if pa.types.is_null(column.type):
            return cls(np.zeros(0, np.int64), np.zeros(1, np.int64), *np.zeros((2, len(column)), np.int64))
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        values = column.flatten()
        if values.null_count:
            ends = np.concatenate([[0], np.cumsum(values.is_valid().to_numpy(zero_copy_only=False))])[ends]
            values = values.drop_null()
        if is_text(values.type):
            sizes = pc.binary_length(values).to_numpy().astype(np.int64) + _FRAME_BYTES
            values = values.to_numpy(zero_copy_only=False)
        else:
            sizes = np.full(len(values), _INTEGER_BYTES, np.int64)
            values = values.cast(pa.int64()).to_numpy()
        return cls(values, np.concatenate([[0], np.cumsum(sizes)]), ends[:-1], ends[1:])

    @property
    def sizes(self) -> Int64:
        """[N] int64: most bytes that the ids of each user take in a request."""
        return self.offsets[self.ends] - self.offsets[self.starts]

    def last(self, limit: int) -> "IdLists":
        """Return at most `limit` ids of each user, the last ones."""
        return replace(self, starts=np.maximum(self.starts, self.ends - limit))

    def of(self, user: int) -> ItemIds:
        """Return the ids of one user."""
        ids: ItemIds = self.values[self.starts[user] : self.ends[user]].tolist()
        return ids


@dataclass(frozen=True)
class UserRows:
    """Some rows of the input."""

    user_ids: Any
    """[N] Arrow array, as in the file."""
    hist_item: IdLists
    """[N] histories, oldest first."""
    exclude_item_ids: IdLists
    """[N] lists, empty ones where the file has no such column."""

    def names(self) -> list[str]:
        """User ids as the service knows them: text, an integer as its decimal text; empty for null."""
        return ["" if user_id is None else str(user_id) for user_id in self.user_ids.to_pylist()]


@dataclass(frozen=True)
class Histories:
    """A Parquet file of users, checked by `open_histories`."""

    path: Path
    user_column: str
    history_column: str
    exclude_column: str | None
    user_type: Any
    """Arrow type of the user ids."""
    id_types: Mapping[str, Any]
    """Arrow types of the item ids in the other columns; null where a column has no value."""
    rows: int
    """Users in the file."""

    def check_ids(self, text: bool) -> None:
        """Compare the item ids with those of the release. Raises FileError for a column of the other kind."""
        for name, found in self.id_types.items():
            if not pa.types.is_null(found) and is_text(found) != text:
                expected, kind = ("list<string>", "text") if text else ("list<int64>", "integer")
                raise FileError(
                    f"{self.path}: column {name!r} is list<{found}>, must be {expected}: this release has {kind} ids"
                )

    def read(self, start: int, batch_rows: int) -> Generator[UserRows]:
        """Yield the rows from number `start` on, in order, at most `batch_rows` at a time.

        Raises:
            FileError: the file is damaged, or its compression is not supported.
        """
        columns = [name for name in (self.user_column, self.history_column, self.exclude_column) if name]
        try:
            # With this, pages are read when they are needed, not all columns of a row group at once.
            with pq.ParquetFile(self.path, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False) as file:
                groups, skip = _groups_from(file.metadata, start)
                for batch in file.iter_batches(batch_rows, row_groups=groups, columns=columns):
                    if skip < batch.num_rows:
                        yield self._rows(batch.slice(skip))
                    skip = max(0, skip - batch.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise FileError(f"{self.path}: cannot be read: {' '.join(str(error).split())}") from error

    def _rows(self, batch: Any) -> UserRows:
        exclude = batch.column(self.exclude_column) if self.exclude_column else pa.nulls(batch.num_rows)
        return UserRows(
            user_ids=batch.column(self.user_column),
            hist_item=IdLists.from_arrow(batch.column(self.history_column)),
            exclude_item_ids=IdLists.from_arrow(exclude),
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies this input, as plain data."""
        stat = self.path.stat()
        return {
            "input_rows": self.rows,
            "input_bytes": stat.st_size,
            "input_modified": datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(),
            "user_column": self.user_column,
            "history_column": self.history_column,
            "exclude_column": self.exclude_column,
        }


def open_histories(path: Path, user_column: str, history_column: str, exclude_column: str | None) -> Histories:
    """Open a Parquet file and check its columns.

    Args:
        path: the file.
        user_column: int64 or string.
        history_column: lists of integers or of text, oldest first.
        exclude_column: the same; None takes `EXCLUDE_COLUMN` if the file has it.

    Raises:
        FileError: it is no Parquet file, has no rows, or a column is missing or of another type.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from error
    if exclude_column is None and EXCLUDE_COLUMN in schema.names:
        exclude_column = EXCLUDE_COLUMN
    _check_column(path, schema, user_column, _is_user_id, "int64 or string")
    id_columns = [column for column in (history_column, exclude_column) if column is not None]
    for column in id_columns:
        _check_column(path, schema, column, _is_id_list, _LIST)
    if not rows:
        raise FileError(f"{path} has no users")
    id_types = {column: getattr(schema.field(column).type, "value_type", pa.null()) for column in id_columns}
    return Histories(path, user_column, history_column, exclude_column, schema.field(user_column).type, id_types, rows)


def _groups_from(metadata: Any, start: int) -> tuple[list[int], int]:
    """Return the row groups that hold row `start` and the rows after it, and how many of their rows come before it."""
    ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
    first = int(np.searchsorted(ends, start, side="right"))
    return list(range(first, len(ends))), start - (int(ends[first - 1]) if first else 0)


def _check_column(path: Path, schema: Any, name: str, fits: Callable[[Any], bool], expected: str) -> None:
    if name not in schema.names:
        raise FileError(f"{path}: no column {name!r}; there are: {', '.join(schema.names)}")
    found = schema.field(name).type
    if not fits(found):
        raise FileError(f"{path}: column {name!r} is {found}, must be {expected}")


def is_text(type_: Any) -> bool:
    """Whether an Arrow type is text."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _is_user_id(type_: Any) -> bool:
    return is_text(type_) or bool(pa.types.is_integer(type_))


def _is_id_list(type_: Any) -> bool:
    """Whether it is a list of signed integers or of text. Writers also use null for a column without any value."""
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        type_ = type_.value_type
        return bool(pa.types.is_signed_integer(type_) or pa.types.is_null(type_) or is_text(type_))
    return bool(pa.types.is_null(type_))
