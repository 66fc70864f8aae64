"""Finds the unit of times that are numbers, counted since 1970, and shows the range of the times.

A unit fits a number if the number is a date between 1990 and 2100 in this unit. Other numbers, such as 0, 1, 2, are
valid too: only their order matters to a model.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mind.errors import DataError
from mind.events import SPAN
from mind.sequences import Int64


class TimeUnit(StrEnum):
    """The unit of a time that is a number."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"

    @property
    def word(self) -> str:
        """Return the full name of the unit."""
        return _WORDS[self]

    @property
    def per_second(self) -> int:
        """Return the number of these units in a second."""
        return int(1000 ** list(TimeUnit).index(self))


_WORDS = {
    TimeUnit.S: "seconds",
    TimeUnit.MS: "milliseconds",
    TimeUnit.US: "microseconds",
    TimeUnit.NS: "nanoseconds",
}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_EARLIEST, _LATEST = 631_152_000, 4_102_444_800
"""1990 and 2100 in seconds since 1970."""


class UnitsSeen:
    """The units that fit the times of a column, collected piece by piece."""

    def __init__(self) -> None:
        """Begin without units."""
        self.first: dict[TimeUnit, tuple[str, float]] = {}

    def read(self, times: Int64 | npt.NDArray[np.float64], lines: Int64, unit: str = "line") -> None:
        """Read a piece. `times`: [N]; `lines`: [N], the line or row of each time; `unit`: the unit of `lines`."""
        for one in set(TimeUnit) - set(self.first):
            among = (times >= _EARLIEST * one.per_second) & (times < _LATEST * one.per_second)
            if among.any():
                row = int(among.argmax())
                self.first[one] = (f"{unit} {lines[row]}", times[row])

    def only(self, path: Path | str, name: str) -> TimeUnit | None:
        """Return the unit that fits the times; None if no time fits a unit.

        Raises:
            DataError: the times have two units. `path` and `name` are the file and the column, for the message.
        """
        found = [(unit, *self.first[unit]) for unit in TimeUnit if unit in self.first]
        if len(found) > 1:
            (one, line, time), (other, other_line, other_time) = found[:2]
            raise DataError(
                f"{path}: {name} has times of two units: {line} has {time}, which is {_moment(time, one)} in "
                f"{one.word}, and {other_line} has {other_time}, which is {_moment(other_time, other)} in "
                f"{other.word}; convert them to one unit, or say with --time-unit which one all of them have"
            )
        return found[0][0] if found else None


def moment_of(text: str, unit: TimeUnit | None) -> float:
    """Convert a date or a time in ISO 8601 (UTC if no zone is given) to a number in a unit.

    Raises:
        DataError: the text is not a date, or the times of the data have no unit.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{text!r} is not a date such as 2014-06-01, or a moment such as 2014-06-01T12:00") from error
    if unit is None:
        raise DataError(f"{text}: the times of the data are no dates, so a date means nothing; give --time-unit")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * unit.per_second)


def start_of(since: str, newest: float, unit: TimeUnit | None) -> float:
    """Return the first time of a window that ends at the newest time, in the unit of the times.

    Args:
        since: the length of the window, such as 90d, 12h or 30m; or its first date, as for `moment_of`.
        newest: the last time of the data.
        unit: the unit of the times; None if they are not dates.

    Raises:
        DataError: the text is neither, or the times have no unit.
    """
    length = SPAN.fullmatch(since)
    if length is None:
        return moment_of(since, unit)
    if unit is None:
        raise DataError(f"{since}: the times of the data are no dates, so a window means nothing; give --time-unit")
    return newest - int(length[1]) * _SECONDS[length[2]] * unit.per_second


def span_of(text: str, unit: TimeUnit | None) -> int:
    """Convert a span such as 30m, 12h or 2d to the unit of the times.

    Raises:
        DataError: the text is not a span, or the times have no unit.
    """
    length = SPAN.fullmatch(text)
    if length is None:
        raise DataError(f"{text!r} is not a span such as 30m: a number of s, m, h, d or w")
    if unit is None:
        raise DataError(f"{text}: the times of the data are no dates, so a span means nothing; give --time-unit")
    return int(length[1]) * _SECONDS[length[2]] * unit.per_second


def show_range(times: Int64 | npt.NDArray[np.float64], unit: TimeUnit | None) -> str:
    """Return the first and the last time as text."""
    if not len(times):
        return ""
    first, last = times.min(), times.max()
    if unit is None:
        return f"times from {first} to {last}"
    return f"times from {_moment(first, unit)} to {_moment(last, unit)}"


def _moment(time: float, unit: TimeUnit) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(time) / unit.per_second)
    except OverflowError:
        return f"{time} {unit.word}"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
