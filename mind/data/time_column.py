"""A column of times that is read piece by piece, with the type of its values and their unit."""

from pathlib import Path

from mind.data.columns import Float64, Mask, TimeCounts, TimeKind, count_times, parse_times
from mind.data.tables import Columns
from mind.data.time_units import TimeUnit, UnitsSeen
from mind.sequences import Int64


class TimeColumn:
    """A column of times. The type of most values decides how all are read, and is guessed from the first piece."""

    def __init__(self, name: str, unit: TimeUnit | None) -> None:
        """Begin with no values. `unit` is the unit of times that are numbers; detected if None."""
        self.name = name
        self._given = unit
        self.kind: TimeKind | None = None
        self.counts = TimeCounts()
        self.units = UnitsSeen()

    def read(self, found: Columns) -> tuple[Int64 | Float64, Mask]:
        """Read a piece. Return the times, [N] int64, or float64 for numbers, and whether a row has a time, [N] bool."""
        column = found.table.column(self.name)
        self.counts += count_times(column)
        if self.kind is None and len(column):
            self.kind = self.counts.kind
        return parse_times(column, self.kind or TimeKind.INTEGER)

    def note(self, times: Int64 | Float64, lines: Int64, unit: str) -> None:
        """Record the usable times of a piece, with their lines or rows."""
        if self._given is None and self.kind is not TimeKind.DATE:
            self.units.read(times, lines, unit)

    def guess(self, kind: TimeKind) -> None:
        """Read the column as times of a kind, without a guess from its first piece."""
        self.kind = kind

    def settle(self) -> bool:
        """Return whether the guess was right. If not, call `begin_again` and read the column once more."""
        is_right = self.kind in (None, self.counts.kind)
        self.kind = self.counts.kind
        return is_right

    def begin_again(self) -> None:
        """Forget the values that were read."""
        self.counts, self.units = TimeCounts(), UnitsSeen()

    def unit(self, where: Path | str) -> TimeUnit | None:
        """Return the unit of the times; None for numbers that are not dates.

        Raises DataError if there are two units.
        """
        if self.kind is TimeKind.DATE:
            return TimeUnit.US
        return self._given or self.units.only(where, self.name)
