"""Columns of a file as ids and times. Works on whole columns: no Python code runs per row."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mind.sequences import Int64

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_INTEGER = r"^-?[0-9]{1,19}$"
_NUMBER = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_HOUR = "([01][0-9]|2[0-3])"
_ZONE = rf"(Z| ?UTC|[+-]{_HOUR}(:?[0-5][0-9])?)"
_DATE = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_HOUR}:[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?{_ZONE}?)?$"
_ZONED = r":.*[Z+-]"


def parse_ids(column: pa.ChunkedArray) -> tuple[Int64, Mask]:
    """Read a column as integers of 64 bits. A list is not an integer.

    Returns:
        values: [N] int64; 0 if the value is null or not such an integer.
        valid: [N] bool, whether the value is such an integer.
    """
    if pa.types.is_signed_integer(column.type):
        return column.fill_null(0).cast(pa.int64()).to_numpy(), column.is_valid().to_numpy()
    if pa.types.is_list(column.type):
        return np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_)
    matches = pc.match_substring_regex(column, _INTEGER).fill_null(False)
    # 19 digits always fit into 64 bits without a sign, so this cast cannot fail.
    magnitude = pc.if_else(matches, pc.utf8_ltrim(column, "-"), "0").cast(pa.uint64()).to_numpy()
    negative = pc.starts_with(column, "-").fill_null(False).to_numpy()
    valid = matches.to_numpy() & (magnitude <= np.uint64(2**63 - 1) + negative)
    return np.where(valid, np.where(negative, -magnitude, magnitude), 0).view(np.int64), valid


class TimeKind(StrEnum):
    """The format of a column of times."""

    INTEGER = "integer"
    NUMBER = "number"
    DATE = "date"


@dataclass(frozen=True)
class TimeCounts:
    """The number of values of a column that are times, by kind. An integer also counts as a number."""

    integers: int = 0
    numbers: int = 0
    dates: int = 0

    def __add__(self, other: "TimeCounts") -> "TimeCounts":
        """Return the sum of the counts of two pieces of a column."""
        return TimeCounts(self.integers + other.integers, self.numbers + other.numbers, self.dates + other.dates)

    @property
    def kind(self) -> TimeKind:
        """Return the kind of most values, which decides which values are valid."""
        if self.dates > self.numbers:
            return TimeKind.DATE
        return TimeKind.INTEGER if self.integers == self.numbers else TimeKind.NUMBER


def count_times(column: pa.ChunkedArray) -> TimeCounts:
    """Count the kinds of times in a column."""
    if pa.types.is_list(column.type):
        return TimeCounts()
    integers = int(parse_ids(column)[1].sum())
    if integers + column.null_count == len(column):
        return TimeCounts(integers, integers)
    numbers = pc.sum(pc.match_substring_regex(column, _NUMBER)).as_py() or 0
    dates = pc.sum(pc.match_substring_regex(column, _DATE)).as_py() or 0
    return TimeCounts(integers, numbers, dates)


def parse_times(column: pa.ChunkedArray, kind: TimeKind) -> tuple[Int64 | Float64, Mask]:
    """Read a column of times: integers, floats, or ISO 8601 in microseconds since 1970 (UTC if no zone is given).

    Returns:
        values: [N] int64, or float64 for numbers; 0 if the value is null or no time.
        valid: [N] bool, whether the value is a time of this kind.
    """
    if kind is TimeKind.INTEGER or pa.types.is_list(column.type):
        return parse_ids(column)
    text = column.cast(pa.string())
    if kind is TimeKind.DATE:
        return _parse_dates(text, pc.match_substring_regex(text, _DATE).fill_null(False))
    numbers = pc.match_substring_regex(text, _NUMBER).fill_null(False)
    floats = pc.if_else(numbers, text, "0").cast(pa.float64()).to_numpy()
    return floats, numbers.to_numpy() & np.isfinite(floats)


def parse_numbers(column: pa.ChunkedArray) -> tuple[Float64, Mask]:
    """Read a column of numbers.

    Returns:
        values: [N] float64; 0 if the value is null or not a finite number.
        valid: [N] bool, whether the value is a finite number.
    """
    if pa.types.is_integer(column.type):
        return column.fill_null(0).cast(pa.float64()).to_numpy(), column.is_valid().to_numpy()
    numbers = pc.match_substring_regex(column, _NUMBER).fill_null(False)
    values = pc.if_else(numbers, column, "0").cast(pa.float64()).to_numpy()
    valid = numbers.to_numpy() & np.isfinite(values)
    return np.where(valid, values, 0.0), valid


def _parse_dates(text: pa.ChunkedArray, matches: pa.ChunkedArray) -> tuple[Int64, Mask]:
    day = pc.utf8_slice_codeunits(text, 0, 10)
    in_calendar = [value for value in pc.unique(pc.filter(day, matches)).to_pylist() if _is_date(value)]
    valid = pc.and_(matches, pc.is_in(day, pa.array(in_calendar, pa.string())))
    text = pc.replace_substring_regex(text, " ?UTC$", "Z")
    zoned = pc.match_substring_regex(text, _ZONED).fill_null(False)
    text = pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")
    with_zone = pc.if_else(pc.and_(valid, zoned), text, None).cast(pa.timestamp("us", "UTC"))
    without = pc.if_else(pc.and_not(valid, zoned), text, None).cast(pa.timestamp("us"))
    values = pc.coalesce(with_zone.cast(pa.int64()), without.cast(pa.int64()), 0)
    return values.to_numpy(), valid.to_numpy()


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
