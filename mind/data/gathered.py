"""Collects interactions piece by piece, in 28 bytes each (29 with a kind), and then sorts them.

Sorting takes little more memory: it takes the users in parts, and memory of rows that are done is given back to the
system. This module knows nothing of files, besides the place of each row.
"""

import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mind.data.columns import Float64, Mask
from mind.errors import DataError
from mind.events import Role
from mind.sequences import Int64

PART_ROWS = 1 << 21
"""Approximate number of rows that are sorted at a time."""
_SAMPLED = 1 << 16
_MOST_ROWS = 2**32 - 1

UInt32 = npt.NDArray[np.uint32]
Array = TypeVar("Array", bound=npt.NDArray[Any])


@dataclass(frozen=True)
class Clicks:
    """N interactions in columns.

    `user_id`, `item_id`: [N] int64. `timestamp`: [N] int64 or float64. `row`: [N] uint32, the row number in the input.
    `code`: [N] uint8, the kind as a number; None if no column of kinds is read.
    """

    user_id: Int64
    item_id: Int64
    timestamp: Int64 | Float64
    row: UInt32
    code: Role | None = None

    def __len__(self) -> int:
        """Return the number of interactions."""
        return len(self.user_id)

    def take(self, rows: Int64 | Mask) -> "Clicks":
        """Return the interactions at some positions, or where a mask is true."""
        code = None if self.code is None else self.code[rows]
        return Clicks(self.user_id[rows], self.item_id[rows], self.timestamp[rows], self.row[rows], code)

    def kept(self) -> "Clicks":
        """Return a copy in memory that is given back to the system as soon as it is not needed."""
        code = None if self.code is None else _kept(self.code)
        return Clicks(_kept(self.user_id), _kept(self.item_id), _kept(self.timestamp), _kept(self.row), code)


class Places:
    """The places of the rows of an input: the file and the line of each."""

    def __init__(self) -> None:
        """Begin with no rows."""
        self._rows = 0
        self._first: list[int] = []
        self._files: list[str] = []
        self._runs: list[tuple[Int64, Int64]] = []

    def add(self, file: str, lines: Int64) -> UInt32:
        """Record the lines of the next rows, [n] int64 ascending. Return the numbers of these rows, [n] uint32.

        Raises:
            DataError: there are too many rows.
        """
        start, self._rows = self._rows, self._rows + len(lines)
        if self._rows > _MOST_ROWS:
            raise DataError(f"{file}: more than {_MOST_ROWS:,} rows in all; prepare them in parts")
        begins = np.flatnonzero(np.append(True, np.diff(lines) != 1)[: len(lines)])
        self._first.append(start)
        self._files.append(file)
        self._runs.append((begins, lines[begins]))  # within a run, each row stands on the next line
        return np.arange(start, self._rows, dtype=np.uint32)

    def of(self, row: int) -> tuple[str, int]:
        """Return the file and the line of a row."""
        piece = int(np.searchsorted(self._first, row, side="right")) - 1
        begins, lines = self._runs[piece]
        within = row - self._first[piece]
        run = int(np.searchsorted(begins, within, side="right")) - 1
        return self._files[piece], int(lines[run] + within - begins[run])


def give_back() -> None:
    """Give freed memory back to the system. Otherwise Arrow's pool and glibc's heap keep much of it."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def in_parts(pieces: list[Clicks]) -> Iterator[Clicks]:
    """Yield all interactions in parts.

    Users ascend from part to part, and rows within a user. The list becomes empty.
    """
    total = sum(map(len, pieces))
    for end in _borders(pieces, total):
        part = []
        for number, piece in enumerate(pieces):
            mine = piece.user_id < end if end is not None else np.ones(len(piece), np.bool_)
            part.append(piece.take(mine))
            pieces[number] = piece.take(~mine).kept()
        del piece
        codes = [one.code for one in part if one.code is not None]
        yield Clicks(
            np.concatenate([one.user_id for one in part]),
            np.concatenate([one.item_id for one in part]),
            np.concatenate([one.timestamp for one in part]),
            np.concatenate([one.row for one in part]),
            np.concatenate(codes) if codes else None,
        )
    pieces.clear()


def _borders(pieces: list[Clicks], total: int) -> list[int | None]:
    """Return the users at which parts end; None for the end of the last part."""
    parts = -(-total // PART_ROWS)
    if parts < 2:
        return [None] if pieces else []
    step = max(1, total // _SAMPLED)
    sample = np.sort(np.concatenate([piece.user_id[::step] for piece in pieces]))
    borders = np.unique(sample[np.arange(1, parts) * len(sample) // parts])
    return [*borders.tolist(), None]


def _kept(values: Array) -> Array:
    """Return a copy in its own pages, because memory that is freed elsewhere may stay with the process."""
    if not values.nbytes:
        return values.copy()
    copy = np.frombuffer(mmap.mmap(-1, values.nbytes), values.dtype)
    copy[:] = values
    return cast(Array, copy)
