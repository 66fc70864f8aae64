"""A column of times that is read piece by piece: what its values are, and which unit they count in."""

from pathlib import Path

from mind.data.columns import Float64, Mask, TimeCounts, TimeKind, count_times, parse_times
from mind.data.tables import Columns
from mind.data.time_units import TimeUnit, UnitsSeen
from mind.sequences import Int64


class TimeColumn:
    """What most of the values are decides how all of them are read; the first piece gives a guess."""

    def __init__(self, name: str, unit: TimeUnit | None) -> None:
        """Begin with no values. `unit`: of times that are numbers; found if None."""
        self.name = name
        self._given = unit
        self._kind: TimeKind | None = None
        self._counts = TimeCounts()
        self._units = UnitsSeen()

    def read(self, found: Columns) -> tuple[Int64 | Float64, Mask]:
        """Read a piece: [N] int64, or float64 of numbers, and [N] bool where there is a time."""
        column = found.table.column(self.name)
        self._counts += count_times(column)
        if self._kind is None and len(column):
            self._kind = self._counts.kind
        return parse_times(column, self._kind or TimeKind.INTEGER)

    def note(self, times: Int64 | Float64, lines: Int64, unit: str) -> None:
        """Note the usable times of a piece, and where they stand."""
        if self._given is None and self._kind is not TimeKind.DATE:
            self._units.read(times, lines, unit)

    def settle(self) -> bool:
        """Whether all has been read as it should be; else the same is to be read once more, after `begin_again`."""
        is_right = self._kind in (None, self._counts.kind)
        self._kind = self._counts.kind
        return is_right

    def begin_again(self) -> None:
        """Forget the values that were read."""
        self._counts, self._units = TimeCounts(), UnitsSeen()

    def unit(self, where: Path | str) -> TimeUnit | None:
        """What the times count; None for numbers that are no moments. Raises DataError if they are of two units."""
        if self._kind is TimeKind.DATE:
            return TimeUnit.US
        return self._given or self._units.only(where, self.name)
