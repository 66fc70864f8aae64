"""Reads interactions from CSV, JSON lines and Parquet, and cleans, counts and sorts them.

The files are read piece by piece and in whole columns: no Python code runs per row, and 100 million rows fit in 4 GB.
The type of a column (text or integers, dates or numbers) is guessed from the first piece. If the rest is different, all
is read once more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path

import numpy as np

from mind.data.columns import Float64, Mask
from mind.data.events import KindColumn
from mind.data.gathered import Clicks, Places, UInt32, give_back, in_parts
from mind.data.ids import IdColumn, IdKind
from mind.data.interactions import EXAMPLES, Finding, Interactions, Report
from mind.data.line_count import LineCount
from mind.data.quotes import Quote
from mind.data.roles import find_columns
from mind.data.sources import Files, find_files
from mind.data.tables import Columns, CsvOptions, read_pieces
from mind.data.text_blocks import shorten
from mind.data.time_column import TimeColumn
from mind.data.time_units import TimeUnit, show_range
from mind.errors import DataError
from mind.events import EventRules, Events, Role
from mind.sequences import Int64

NO_EVENTS = Events()

OnProgress = Callable[[int, int], None]
"""A callback with two arguments: the number of bytes of all files that were read, and the total; 0 if it is unknown."""


def read_interactions(
    path: Path | str,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    *,
    delimiter: str | None = None,
    header: Sequence[str] | None = None,
    quote: Quote | None = None,
    time_unit: TimeUnit | None = None,
    max_malformed: float = 0.01,
    ids: IdKind = IdKind.AUTO,
    events: Events = NO_EVENTS,
    rules: EventRules | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> tuple[Interactions, Report]:
    """Read a file, a directory, the files that a pattern matches, or a URL.

    Ids are integers of 64 bits, or text if they do not look like integers or begin with a zero. Times are integers,
    floats, or ISO 8601, which becomes microseconds since 1970 (UTC where no zone is given).

    Args:
        path: Parquet, or CSV or JSON lines in UTF-8, plain or compressed, as for `mind.data.sources.find_files`.
        user: name of the column of user ids. A header may add a type to it, as in `user_id:token`. None takes a column
            with a usual name (`mind.data.roles`), such as customer_id.
        item: name of the column of item ids, or None.
        time: name of the column of times, or None.
        delimiter: one character or several; detected if None.
        header: names of all columns of a CSV file that has no header.
        quote: what quotes mean in a CSV file; None for `Quote.AUTO` in a command that has no option for it.
        time_unit: unit of times that are numbers; detected if None.
        max_malformed: maximum share of rows, 0 to 1, that may be malformed or lack a value.
        ids: whether ids are integers or text.
        events: the column of kinds of clicks, if there is one, and what the kinds are for.
        rules: the rules of a model that the clicks are read for; None for the data of a model.
        on_progress: called with the progress, which may begin again.

    Returns:
        The interactions, sorted by user and time, without duplicates, and a report about them.

    Raises:
        DataError: a file or a column is missing, the format is another, too few rows are usable, a quote swallows
            lines, an id is spelt in two ways, times have two units, or a kind that is named does not occur.
    """
    files = find_files(path)
    options = CsvOptions(delimiter, header, quote)

    def choose(names: list[str]) -> list[str]:
        found = find_columns(Path(files.name), names, user, item, time)
        if events.column in found:
            raise DataError(f"{files.name}: --event names {events.column}, which has the users, the items or the times")
        return [*found, events.column] if events.column else found

    kinds = KindColumn(events, rules) if events.column else None
    columns: tuple[IdColumn, IdColumn, TimeColumn] | None = None
    while True:
        found = _Found(files, kinds)
        on_bytes = _told(on_progress, files.size)
        for piece in read_pieces(files, choose, options, on_bytes, may_be_lists=False):
            if columns is None:
                users, items, times = piece.table.column_names[:3]
                stray = max_malformed
                columns = IdColumn(users, ids, stray), IdColumn(items, ids, stray), TimeColumn(times, time_unit)
            found.add(piece, *columns)
        assert columns is not None  # noqa: S101 - there is at least one piece
        settled = [column.settle() for column in columns]
        if all(settled):
            return found.result(files.name, *columns, max_malformed)
        for column in columns:
            column.begin_again()
        if kinds:
            kinds.begin_again()


def _told(on_progress: OnProgress, total: int) -> Callable[[int], None]:
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    return on_bytes


@dataclass
class _Found:
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
        """Return all interactions in order, and the report. The pieces are used up."""
        unit = times.unit(where)
        settled = self.kinds.settled(where) if self.kinds else None
        give_back()
        (user_id, item_id, timestamp, code), duplicates, unsorted = _in_order(self.pieces)
        interactions = Interactions(user_id, item_id, timestamp, users.keys(where), items.keys(where), code)
        give_back()
        report = Report(
            count=self.count or LineCount(0),
            malformed=self._finding(
                self.malformed_rows,
                [(file, line) for file, line, _ in self.malformed],
                tuple(text for *_, text in self.malformed),
            ),
            missing=self._finding(self.missing_rows, self.missing),
            duplicates=self._finding(duplicates[0], map(self.places.of, duplicates[1])),
            unsorted=self._finding(unsorted[0], map(self.places.of, unsorted[1])),
            times=show_range(interactions.timestamp, unit),
            time_unit=unit,
            padded=users.padded + items.padded,
            columns=(users.name, items.name, times.name),
            texts=tuple(
                f"{column.name}: text ids, such as {column.example!r}" for column in (users, items) if column.is_text
            ),
            kinds=settled.kinds if settled else (),
            rules=settled.rules if settled else None,
        )
        _check_share(where, report, max_malformed)
        return interactions, report

    def _finding(self, count: int, places: object, texts: tuple[str, ...] = ()) -> Finding:
        found = list(places)  # type: ignore[call-overload]
        files = tuple(file for file, _ in found) if self.files.are_several else ()
        return Finding(count, tuple(line for _, line in found), texts, files)


def _check_share(where: str, report: Report, limit: float) -> None:
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


_Rows = tuple[int, list[int]]
"""A number of rows, and the row numbers of the first few."""


def _in_order(pieces: list[Clicks]) -> tuple[tuple[Int64, Int64, Int64 | Float64, Role | None], _Rows, _Rows]:
    """Sort user, item, time and kind by user and time, without repeats.

    Also return the rows that repeat and that moved.
    """
    total = sum(map(len, pieces))
    # Writing takes new pages from the system one by one, while those of the pieces are given back.
    user_id, item_id = np.empty(total, np.int64), np.empty(total, np.int64)
    timestamp: Int64 | Float64 = np.empty(total, pieces[0].timestamp.dtype if pieces else np.int64)
    code = np.empty(total, np.uint8) if pieces and pieces[0].code is not None else None
    end = 0
    duplicates, unsorted = (0, list[int]()), (0, list[int]())
    for part in in_parts(pieces):
        order = np.lexsort((part.timestamp, part.user_id))
        repeats = _duplicates(part, order)
        duplicates = _more(duplicates, part.row[repeats])
        if repeats.any():
            order = order[~repeats[order]]
        unsorted = _more(unsorted, part.row[_earlier_than_before(part, repeats)])
        start, end = end, end + len(order)
        user_id[start:end] = part.user_id[order]
        item_id[start:end] = part.item_id[order]
        timestamp[start:end] = part.timestamp[order]
        if code is not None and part.code is not None:
            code[start:end] = part.code[order]
    return (user_id[:end], item_id[:end], timestamp[:end], None if code is None else code[:end]), duplicates, unsorted


def _more(known: _Rows, rows: UInt32) -> _Rows:
    return known[0] + len(rows), nsmallest(EXAMPLES, [*known[1], *np.sort(rows)[:EXAMPLES].tolist()])


def _duplicates(clicks: Clicks, order: Int64) -> Mask:
    """Return a mask of the rows that equal an earlier row in user, item, time and kind: [N] bool.

    `order`: [N] int64, the rows by user and time, in their order where both are equal.
    """
    duplicate = np.zeros(len(clicks), np.bool_)
    user_id, timestamp = clicks.user_id[order], clicks.timestamp[order]
    same = (user_id[1:] == user_id[:-1]) & (timestamp[1:] == timestamp[:-1])
    if not same.any():
        return duplicate
    order = order[np.append(same, False) | np.append(False, same)]  # others have nothing to be compared with
    columns: tuple[Int64 | Float64 | Role, ...] = (clicks.item_id, clicks.timestamp, clicks.user_id)
    if clicks.code is not None:
        columns = (clicks.code, *columns)
    order = order[np.lexsort([column[order] for column in columns])]
    repeats = np.ones(len(order) - 1, np.bool_)
    for column in columns:
        ordered = column[order]
        repeats &= ordered[1:] == ordered[:-1]
    duplicate[order[1:][repeats]] = True
    return duplicate


def _earlier_than_before(clicks: Clicks, repeats: Mask) -> Int64:
    """Return the rows whose time is before that of the previous row of the same user; `repeats` do not count."""
    by_user = np.argsort(clicks.user_id, kind="stable")
    if repeats.any():
        by_user = by_user[~repeats[by_user]]
    user_id, timestamp = clicks.user_id[by_user], clicks.timestamp[by_user]
    earlier: Mask = (user_id[1:] == user_id[:-1]) & (timestamp[1:] < timestamp[:-1])
    return by_user[1:][earlier]
