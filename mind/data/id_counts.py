"""Counts the values of a column of ids by their form, which decides whether the ids are integers or text."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mind.data.columns import parse_ids
from mind.data.tables import Columns
from mind.errors import DataError

_ZEROS = "^-?0[0-9]"
_DECIMAL = r"^-?[0-9]+\.[0-9]*$"


@dataclass(frozen=True)
class IdCounts:
    """The values of a column of ids, or of a piece of it, by their form."""

    rows: int = 0
    others: int = 0
    """Number of values that are not integers of 64 bits."""
    has_zeros: bool = False
    """Whether a value has leading zeros."""
    only_decimals: bool = True
    """Whether all of the others are decimal numbers."""
    first_other: str = ""
    """The place and the value of the first of the others, in words."""

    def __add__(self, other: "IdCounts") -> "IdCounts":
        """Return the counts of two pieces of a column."""
        return IdCounts(
            self.rows + other.rows,
            self.others + other.others,
            self.has_zeros or other.has_zeros,
            self.only_decimals and other.only_decimals,
            self.first_other or other.first_other,
        )

    def are_text(self, stray: float, is_all: bool = False) -> bool:
        """Return whether the column is text.

        Args:
            stray: maximum share of values, 0 to 1, that are not integers in a column of integers.
            is_all: whether all values were counted.

        Raises:
            DataError: ids are decimal numbers.
        """
        if self.has_zeros:
            return True
        if self.others <= stray * self.rows:
            return False
        if self.only_decimals and is_all:
            raise DataError(
                f"{self.first_other}, a decimal number; ids are integers or text. Write integers (pandas makes decimal "
                "numbers of them where a value is missing), or give --ids text to take them as they are"
            )
        return True


def count_ids(found: Columns, name: str) -> IdCounts:
    """Count the values of a piece of a column."""
    column = found.table.column(name)
    if pa.types.is_integer(column.type):
        return IdCounts(len(column))
    has_zeros = bool(pc.any(pc.match_substring_regex(column, _ZEROS)).as_py())
    others = ~parse_ids(column)[1] & column.is_valid().to_numpy()
    if not others.any():
        return IdCounts(len(column), has_zeros=has_zeros)
    row = int(others.argmax())
    texts = column.filter(pa.array(others))
    only_decimals = _are_decimals(texts[:1]) and _are_decimals(texts)  # one is enough to know that text ids are none
    first = f"{found.file}: {found.unit} {found.lines[row]}: {name} is {column[row]}"
    return IdCounts(len(column), int(others.sum()), has_zeros, only_decimals, first)


def _are_decimals(texts: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, _DECIMAL)).as_py())
