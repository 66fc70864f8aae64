"""Users' interactions with items from any CSV or Parquet file, cleaned, counted and sorted.

Knows nothing of splits or of PaddleRec's formats. Works on whole columns: no Python code runs per row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mind.data.columns import Float64, Mask, parse_times
from mind.data.ids import IdKind, Ids, KeyTable, read_ids
from mind.data.line_count import LineCount
from mind.data.quotes import Quote
from mind.data.roles import ITEMS, TIMES, USERS, find_columns
from mind.data.tables import Columns, read_columns, shorten
from mind.data.time_units import TimeUnit, find_unit, show_range
from mind.errors import DataError
from mind.sequences import Int64, Sequences

USUAL = (USERS[0], ITEMS[0], TIMES[0])
EXAMPLES = 5
"""The most lines that a `Finding` names."""


@dataclass(frozen=True)
class Interactions:
    """N interactions in columns.

    `user_id`, `item_id`: [N] int64. `timestamp`: [N] int64 or float64; only its order matters.
    """

    user_id: Int64
    item_id: Int64
    timestamp: Int64 | Float64
    user_keys: KeyTable | None = None
    """The text ids of users, at least of those here; None where they are integers."""
    item_keys: KeyTable | None = None
    """The text ids of items, at least of those here; None where they are integers."""

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self.user_id)

    def take(self, rows: Int64 | Mask) -> "Interactions":
        """Interactions at these positions, or where a mask is true."""
        columns = self.user_id[rows], self.item_id[rows], self.timestamp[rows]
        return Interactions(*columns, self.user_keys, self.item_keys)

    def sort(self) -> "Interactions":
        """Sort by user, then by time; interactions of one user at one time keep their order."""
        return self.take(np.lexsort((self.timestamp, self.user_id)))

    def sequences(self) -> Sequences:
        """The item sequences of the users, ascending; the interactions must be sorted."""
        user_id, start = np.unique(self.user_id, return_index=True)
        return Sequences(user_id, np.append(start, len(self)), self.item_id)


@dataclass(frozen=True)
class Finding:
    """One kind of problem in a file."""

    count: int
    """The number of rows that have the problem."""
    lines: tuple[int, ...]
    """Where the first few of these rows stand in the file."""
    texts: tuple[str, ...] = ()
    """What is wrong with each of `lines`, where that helps."""


@dataclass(frozen=True)
class Report:
    """What was found in a file, and what became of it."""

    count: LineCount
    """How the lines of the file add up."""
    malformed: Finding
    """Rows that were skipped: a wrong number of columns, no id, or no time."""
    missing: Finding
    """Rows that were skipped because a value is empty."""
    duplicates: Finding
    """Rows that were skipped because an earlier row has the same user, item and time."""
    unsorted: Finding
    """Rows that were moved because their time is before that of the user's previous row."""
    times: str = ""
    """The first and the last time, in words."""
    time_unit: TimeUnit | None = None
    """What the times count; None for numbers that are no moments."""
    padded: int = 0
    """Ids whose leading zeros were dropped."""
    columns: tuple[str, str, str] = USUAL
    """The names of the columns of users, items and times."""
    texts: tuple[str, ...] = ()
    """The columns whose ids are text, each with an example, in words."""

    @property
    def rows(self) -> int:
        """Rows in the file, without header and blank lines."""
        return self.count.rows

    @property
    def unit(self) -> str:
        """What `Finding.lines` count, from 1: "line" (a header is line 1), or "row" in Parquet."""
        return self.count.unit

    def __str__(self) -> str:
        """One line for the file and one for each kind of problem in it."""
        skipped = self.malformed.count + self.missing.count + self.duplicates.count
        lines = [f"{self.rows - skipped:,} interactions in {self.rows:,} rows"]
        if self.unit == "line":
            lines.append(f"  {self.count}")
        if self.times:
            lines.append(f"  {self.times}")
        if self.columns != USUAL:
            lines.append("  users in {}, items in {}, times in {}".format(*self.columns))
        lines += [f"  {text}" for text in self.texts]
        if self.padded:
            lines.append(f"  ids with leading zeros, read without them: {self.padded:,}")
        for label, finding in (
            ("malformed, skipped", self.malformed),
            ("missing values, skipped", self.missing),
            ("duplicates, skipped", self.duplicates),
            ("unsorted, put in order", self.unsorted),
        ):
            if finding.count:
                lines.append(f"  {label}: {finding.count:,} ({self._examples(finding)})")
        return "\n".join(lines)

    def _examples(self, finding: Finding) -> str:
        more = ["..."] * (finding.count > len(finding.lines))
        if not finding.texts:
            return f"{self.unit} {', '.join([*map(str, finding.lines), *more])}"
        pairs = zip(finding.lines, finding.texts, strict=True)
        return "; ".join([f"{self.unit} {line}: {text}" for line, text in pairs] + more)


def read_interactions(
    path: Path,
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
) -> tuple[Interactions, Report]:
    """Read a CSV file (plain or compressed), a Parquet file or a directory of Parquet files.

    Ids are integers of 64 bits, or text if they do not look like integers or begin with a zero. Times are integers,
    floats, or ISO 8601, which becomes microseconds since 1970 (UTC where no zone is given).

    Args:
        path: Parquet, or text in UTF-8.
        user: name of the column of user ids; a header may add a type to it, as in `user_id:token`. None takes one with
            a usual name (`mind.data.roles`), such as customer_id.
        item: name of the column of item ids, or None.
        time: name of the column of times, or None.
        delimiter: one character; detected if None.
        header: names of all columns of a CSV file that does not name them itself.
        quote: what quotes mean in a CSV file; None for `Quote.AUTO` in a command that has no option for it.
        time_unit: of times that are numbers; found if None.
        max_malformed: largest share of rows, 0 to 1, that may be malformed or lack a value.
        ids: whether ids are integers or text.

    Returns:
        The interactions, sorted by user and time, without duplicates, and what was found.

    Raises:
        DataError: the file or a column is missing, the format is another, too few rows are usable, a quote swallows
            lines, an id is spelt in two ways, or times are of two units.
    """
    found = read_columns(path, lambda names: find_columns(path, names, user, item, time), delimiter, header, quote)
    user, item, time = found.table.column_names
    users, items = (read_ids(path, found, name, ids, max_malformed) for name in (user, item))
    timestamp, time_valid, dated = parse_times(found.table.column(2))
    usable = users.valid & items.valid & time_valid
    present = np.all([column.is_valid().to_numpy() for column in found.table.columns], axis=0)
    malformed = _malformed(found, (users, items), np.flatnonzero(present & ~usable))
    missing = _finding(found.lines[~present])
    whole = Interactions(users.values, items.values, timestamp, users.keys, items.keys)
    interactions, lines = whole.take(usable), found.lines[usable]
    told = TimeUnit.US if dated else time_unit or find_unit(path, time, interactions.timestamp, lines, found.unit)
    duplicate = _duplicates(interactions)
    interactions = interactions.take(~duplicate)
    unsorted = lines[~duplicate][_earlier_than_before(interactions)]
    report = Report(
        count=found.count,
        malformed=malformed,
        missing=missing,
        duplicates=_finding(lines[duplicate]),
        unsorted=_finding(unsorted),
        times=show_range(interactions.timestamp, told),
        time_unit=told,
        padded=users.padded + items.padded,
        columns=(user, item, time),
        texts=tuple(
            f"{name}: text ids, such as {example.as_py()!r}"
            for name, column in ((user, users), (item, items))
            if column.keys
            for example in found.table.column(name).drop_null()[:1]
        ),
    )
    _check_share(path, report, max_malformed)
    return interactions.sort(), report


def _finding(lines: Int64) -> Finding:
    return Finding(len(lines), tuple(lines[:EXAMPLES].tolist()))


def _malformed(found: Columns, ids: tuple[Ids, Ids], rows: Int64) -> Finding:
    faults = list(found.misfits)
    for row in rows[:EXAMPLES].tolist():
        column = next((index for index, read in enumerate(ids) if not read.valid[row]), 2)
        expected = "a time" if column == 2 else ids[column].expected
        name, value = found.table.column_names[column], found.table.column(column)[row].as_py()
        faults.append((int(found.lines[row]), f"{name} is {shorten(value)}, not {expected}"))
    faults = sorted(faults)[:EXAMPLES]
    return Finding(
        len(found.misfits) + len(rows), tuple(line for line, _ in faults), tuple(fault for _, fault in faults)
    )


def _check_share(path: Path, report: Report, limit: float) -> None:
    unusable = report.malformed.count + report.missing.count
    if not report.rows:
        raise DataError(f"{path}: no interactions")
    if unusable == report.rows or unusable > limit * report.rows:
        worst = max(report.malformed, report.missing, key=lambda finding: finding.count)
        text = f": {worst.texts[0]}" if worst.texts else ": a value is missing"
        raise DataError(
            f"{path}: {unusable:,} of {report.rows:,} rows are unusable ({unusable / report.rows:.1%}), the limit is "
            f"{limit:.1%}; {report.unit} {worst.lines[0]}{text}"
        )


def _duplicates(interactions: Interactions) -> Mask:
    """Which rows have the user, item and time of an earlier row: [N] bool."""
    columns = (interactions.item_id, interactions.timestamp, interactions.user_id)
    order = np.lexsort(columns)
    repeats = np.all([column[order[1:]] == column[order[:-1]] for column in columns], axis=0)
    duplicate = np.zeros(len(order), np.bool_)
    duplicate[order[1:][repeats]] = True
    return duplicate


def _earlier_than_before(interactions: Interactions) -> Int64:
    """Rows whose time is before that of the same user's previous row, ascending."""
    by_user = np.argsort(interactions.user_id, kind="stable")
    user_id, timestamp = interactions.user_id[by_user], interactions.timestamp[by_user]
    earlier = (user_id[1:] == user_id[:-1]) & (timestamp[1:] < timestamp[:-1])
    return np.sort(by_user[1:][earlier])
