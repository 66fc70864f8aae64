"""What one reading of the files of an input found: the usable clicks, the other rows, and the report about them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from mind.data.columns import Float64, Mask
from mind.data.events import KindColumn, Kinds
from mind.data.gathered import Clicks, Places, give_back
from mind.data.ids import IdColumn
from mind.data.interactions import EXAMPLES, Finding, Interactions, Report
from mind.data.line_count import LineCount
from mind.data.ordering import in_order
from mind.data.sources import Files
from mind.data.tables import Columns
from mind.data.text_blocks import shorten
from mind.data.time_column import TimeColumn
from mind.data.time_units import show_range
from mind.errors import DataError
from mind.sequences import Int64


@dataclass
class Found:
    """The result of one reading of all files."""

    files: Files
    kinds: KindColumn | None
    """The column of kinds; None if there is none."""
    pieces: list[Clicks] = field(default_factory=list)
    places: Places = field(default_factory=Places)
    count: LineCount | None = None
    unit: str = "line"
    malformed: list[tuple[str, int, str]] = field(default_factory=list)
    """File, line and fault of the first malformed rows."""
    missing: list[tuple[str, int]] = field(default_factory=list)
    """File and line of the first rows that lack a value."""
    malformed_rows: int = 0
    missing_rows: int = 0

    def add(self, piece: Columns, users: IdColumn, items: IdColumn, times: TimeColumn) -> None:
        """Add the rows of a piece."""
        self.count = piece.count if self.count is None else self.count + piece.count
        self.unit = piece.unit
        user_id, user_valid = users.read(piece)
        item_id, item_valid = items.read(piece)
        timestamp, time_valid = times.read(piece)
        usable = user_valid & item_valid & time_valid
        faults = [(users.expected, user_valid), (items.expected, item_valid), ("a time", time_valid)]
        code = None
        if self.kinds:
            code, kind_valid = self.kinds.read(piece)
            usable &= kind_valid
            faults.append((self.kinds.expected, kind_valid))
        present = np.all([column.is_valid().to_numpy() for column in piece.table.columns], axis=0)
        self._add_malformed(piece, faults, np.flatnonzero(present & ~usable))
        lacking = np.flatnonzero(~present)
        self.missing_rows += len(lacking)
        wanted = lacking[: EXAMPLES - len(self.missing)]
        self.missing += [(piece.file, int(line)) for line in piece.lines[wanted]]
        times.note(timestamp[usable], piece.lines[usable], piece.unit)
        row = self.places.add(piece.file, piece.lines)
        if usable.any():
            self.pieces.append(Clicks(user_id, item_id, timestamp, row, code).take(usable).kept())

    def _add_malformed(self, piece: Columns, faults: list[tuple[str, Mask]], rows: Int64) -> None:
        self.malformed_rows += len(piece.misfits) + len(rows)
        wanted = EXAMPLES - len(self.malformed)
        found = [(piece.file, line, fault) for line, fault in piece.misfits[:wanted]]
        for row in rows[:wanted].tolist():
            column = next(index for index, (_, valid) in enumerate(faults) if not valid[row])
            name, value = piece.table.column_names[column], piece.table.column(column)[row].as_py()
            text = f"{name} is {shorten(str(value)) if isinstance(value, list) else shorten(value)}"
            found.append((piece.file, int(piece.lines[row]), f"{text}, not {faults[column][0]}"))
        self.malformed += sorted(found, key=lambda one: one[1])[: max(wanted, 0)]

    def result(
        self, where: str, users: IdColumn, items: IdColumn, times: TimeColumn, max_malformed: float
    ) -> tuple[Interactions, Report]:
        """Return all interactions in order, and the report. The pieces are used up.

        Raises:
            DataError: times have two units, two keys have the same id, a kind that is named does not occur, or too few
                rows are usable.
        """
        times.unit(where)  # before the work of sorting
        settled = self.kinds.settled(where) if self.kinds else None
        give_back()
        (user_id, item_id, timestamp, code), duplicates, unsorted = in_order(self.pieces)
        interactions = Interactions(user_id, item_id, timestamp, users.keys(where), items.keys(where), code)
        give_back()
        report = self.report(where, (users, items, times), interactions.timestamp, settled)
        report = replace(
            report,
            duplicates=self.finding(duplicates[0], map(self.places.of, duplicates[1])),
            unsorted=self.finding(unsorted[0], map(self.places.of, unsorted[1])),
        )
        check_share(where, report, max_malformed)
        return interactions, report

    def report(
        self,
        where: str,
        columns: tuple[IdColumn, IdColumn, TimeColumn],
        timestamp: Int64 | Float64,
        kinds: Kinds | None = None,
    ) -> Report:
        """Return the report about the rows, which has no repeats and no rows out of order yet.

        Args:
            where: the input, for messages.
            columns: the columns of users, items and times.
            timestamp: the times, at least the first and the last one.
            kinds: the kinds of the clicks; None without them.
        """
        users, items, times = columns
        unit = times.unit(where)
        return Report(
            count=self.count or LineCount(0),
            malformed=self.finding(
                self.malformed_rows,
                [(file, line) for file, line, _ in self.malformed],
                tuple(text for *_, text in self.malformed),
            ),
            missing=self.finding(self.missing_rows, self.missing),
            duplicates=Finding(0, ()),
            unsorted=Finding(0, ()),
            times=show_range(timestamp, unit),
            time_unit=unit,
            padded=users.padded + items.padded,
            columns=(users.name, items.name, times.name),
            texts=tuple(
                f"{column.name}: text ids, such as {column.example!r}" for column in (users, items) if column.is_text
            ),
            kinds=kinds.kinds if kinds else (),
            rules=kinds.rules if kinds else None,
        )

    def finding(self, count: int, places: Iterable[tuple[str, int]], texts: tuple[str, ...] = ()) -> Finding:
        """Return a finding with the file and the line of its first rows."""
        found = list(places)
        files = tuple(file for file, _ in found) if self.files.are_several else ()
        return Finding(count, tuple(line for _, line in found), texts, files)


def check_share(where: str, report: Report, limit: float) -> None:
    """Raise DataError if more than a share of the rows are unusable, or all of them."""
    unusable = report.malformed.count + report.missing.count
    if not report.rows:
        raise DataError(f"{where}: no interactions")
    if unusable == report.rows or unusable > limit * report.rows:
        worst = max(report.malformed, report.missing, key=lambda finding: finding.count)
        text = f": {worst.texts[0]}" if worst.texts else ": a value is missing"
        file = f"{worst.files[0]} " if worst.files else ""
        raise DataError(
            f"{where}: {unusable:,} of {report.rows:,} rows are unusable ({unusable / report.rows:.1%}), the limit is "
            f"{limit:.1%}; {file}{report.unit} {worst.lines[0]}{text}"
        )
