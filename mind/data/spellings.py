"""Ids written with leading zeros: two spellings of one number, such as 0101 and 101, must not become one id.

An id is an integer of 64 bits. Zeros in front of it are dropped, which is told; it is refused where the same number
also occurs without them, or with another number of them, because these may be two things.
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
        """Ascending: the ids that occur with leading zeros."""
        self.padded = 0
        """How many values have leading zeros."""
        self._first: dict[int, tuple[str, str]] = {}

    def begin_again(self) -> None:
        """Read the same column once more, now that the suspects are known."""
        self.padded, self._first = 0, {}

    def read(
        self, file: Path | str, name: str, column: pa.ChunkedArray, ids: Int64, lines: Int64, unit: str = "line"
    ) -> None:
        """Look at a piece of the column.

        Args:
            file: for the message.
            name: the column's.
            column: [N] as the file has it; only text can have leading zeros.
            ids: [N] int64, what it was read as; 0 where it is none.
            lines: [N] int64, where each row stands.
            unit: what `lines` counts.

        Raises:
            DataError: an id occurs in two spellings. What stands before the first id with leading zeros is not looked
                at, unless the column is read again.
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
    """Count the ids of a whole column that have leading zeros; see `Spellings.read`. Raises DataError."""
    found = Spellings()
    found.read(path, name, column, ids, lines, unit)
    return found.padded
