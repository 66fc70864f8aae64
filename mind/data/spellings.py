"""Finds ids that are written with leading zeros.

Two spellings of one number, such as 0101 and 101, must not become one id.

An id is an integer of 64 bits. Its leading zeros are dropped, and the user is told. An id is refused if the same number
also occurs without zeros or with another number of them, because these may be two things.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mind.errors import DataError
from mind.sequences import Int64

_NUMBER = re.compile("-?[0-9]+")


class Spellings:
    """The spellings of the ids of one column, piece by piece."""

    def __init__(self) -> None:
        """Begin with no ids."""
        self.suspects = np.zeros(0, np.int64)
        """The ids that occur with leading zeros, ascending."""
        self.padded = 0
        """Number of values that have leading zeros."""
        self._first: dict[int, tuple[str, str]] = {}

    def begin_again(self) -> None:
        """Prepare to read the same column once more, now that the suspects are known."""
        self.padded, self._first = 0, {}

    def read(
        self, file: Path | str, name: str, column: pa.ChunkedArray, ids: Int64, lines: Int64, unit: str = "line"
    ) -> None:
        """Check a piece of the column.

        Args:
            file: the file, for messages.
            name: the name of the column.
            column: [N], the values in the file. Only text can have leading zeros.
            ids: [N] int64, the ids that were read; 0 where a value is not an id.
            lines: [N] int64, the line or row of each value.
            unit: the unit of `lines`, such as "line".

        Raises:
            DataError: an id occurs in two spellings. Values before the first id with leading zeros are not checked
                until the column is read again.
        """
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            self._find_zeros(column, ids)
        if len(self.suspects):
            self._compare(file, name, column, ids, lines, unit)

    def _find_zeros(self, column: pa.ChunkedArray, ids: Int64) -> None:
        padded = pc.or_(pc.starts_with(column, "0"), pc.starts_with(column, "-0")).fill_null(False).to_numpy()
        if padded.any():
            zeros = pc.match_substring_regex(column.filter(pa.array(padded)), "^(-?0[0-9]+|-0)$").to_numpy()
            self.padded += int(zeros.sum())
            self.suspects = np.union1d(self.suspects, ids[padded][zeros])

    def _compare(
        self, file: Path | str, name: str, column: pa.ChunkedArray, ids: Int64, lines: Int64, unit: str
    ) -> None:
        among = np.isin(ids, self.suspects)
        texts, lines = column.filter(pa.array(among)).cast(pa.string()), lines[among]
        for text in pc.unique(texts).to_pylist():
            if text is None or not _NUMBER.fullmatch(text):
                continue
            here = f"{unit} {lines[pc.index(texts, text).as_py()]}"
            spelling, there = self._first.setdefault(int(text), (text, here))
            if spelling != text:
                raise DataError(
                    f"{file}: {name} {int(text)} is spelt {spelling!r} in {there} and {text!r} in {here}; ids are "
                    "integers, so both would be one: spell it one way, or give each an integer of its own"
                )


def refuse_two_spellings(
    path: Path | str, name: str, column: pa.ChunkedArray, ids: Int64, lines: Int64, unit: str = "line"
) -> int:
    """Count the ids of a whole column that have leading zeros. See `Spellings.read`. Raises DataError."""
    found = Spellings()
    found.read(path, name, column, ids, lines, unit)
    return found.padded
