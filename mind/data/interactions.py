"""Users' interactions with items in columns, and the report about the files that they were read from.

This module knows nothing of files (`mind.data.clicks` reads them), of splits or of PaddleRec's formats.
"""

from dataclasses import dataclass

import numpy as np

from mind.data.columns import Float64, Mask
from mind.data.events import Kind
from mind.data.ids import KeyTable
from mind.data.line_count import LineCount
from mind.data.roles import ITEMS, TIMES, USERS
from mind.data.time_units import TimeUnit
from mind.events import EventRules, Role, Roles
from mind.sequences import Int64, Sequences

USUAL = (USERS[0], ITEMS[0], TIMES[0])
EXAMPLES = 5
"""Maximum number of lines that a `Finding` names."""


@dataclass(frozen=True)
class Interactions:
    """N interactions in columns.

    `user_id`, `item_id`: [N] int64. `timestamp`: [N] int64 or float64, of which only the order matters.
    """

    user_id: Int64
    item_id: Int64
    timestamp: Int64 | Float64
    user_keys: KeyTable | None = None
    """The text ids of at least the users here; None if ids are integers."""
    item_keys: KeyTable | None = None
    """The text ids of at least the items here; None if ids are integers."""
    code: Role | None = None
    """[N] uint8: the kind of each interaction as a position in `Report.kinds`, or its role if `roles` is set."""
    roles: Roles | None = None
    """The meaning of `code`, once every click has a role."""

    def __len__(self) -> int:
        """Return the number of interactions."""
        return len(self.user_id)

    def take(self, rows: Int64 | Mask) -> "Interactions":
        """Return the interactions at some positions, or where a mask is true."""
        columns = self.user_id[rows], self.item_id[rows], self.timestamp[rows]
        code = None if self.code is None else self.code[rows]
        return Interactions(*columns, self.user_keys, self.item_keys, code, self.roles)

    def sort(self) -> "Interactions":
        """Return the interactions sorted by user, then by time. Those of a user at the same time keep their order."""
        return self.take(np.lexsort((self.timestamp, self.user_id)))

    def sequences(self) -> Sequences:
        """Return the item sequences of the users, users ascending. The interactions must be sorted."""
        begins = np.flatnonzero(np.append(True, self.user_id[1:] != self.user_id[:-1])[: len(self)])
        role = self.code if self.roles else None
        return Sequences(self.user_id[begins], np.append(begins, len(self)), self.item_id, role, self.roles)


@dataclass(frozen=True)
class Finding:
    """One kind of problem in a file."""

    count: int
    """The number of rows that have the problem."""
    lines: tuple[int, ...]
    """The lines of the first few of these rows in their files."""
    texts: tuple[str, ...] = ()
    """What is wrong with each of `lines`, if that helps."""
    files: tuple[str, ...] = ()
    """The file of each of `lines`, if there are several files."""


@dataclass(frozen=True)
class Report:
    """What was found in the files, and what was done about it."""

    count: LineCount
    """How the lines of the file add up."""
    malformed: Finding
    """Rows that were skipped because they have a wrong number of columns, no id, or no time."""
    missing: Finding
    """Rows that were skipped because a value is empty."""
    duplicates: Finding
    """Rows that were skipped because an earlier row has the same user, item, time and kind."""
    unsorted: Finding
    """Rows that were moved because their time is before that of the user's previous row."""
    times: str = ""
    """The first and the last time, in words."""
    time_unit: TimeUnit | None = None
    """The unit of the times; None if they are not dates."""
    padded: int = 0
    """Number of ids whose leading zeros were dropped."""
    columns: tuple[str, str, str] = USUAL
    """The names of the columns of users, items and times."""
    texts: tuple[str, ...] = ()
    """The columns with text ids, each with an example, in words."""
    kinds: tuple[Kind, ...] = ()
    """The kinds of clicks; empty if no column of kinds was read."""
    rules: EventRules | None = None
    """The rules of the kinds to record in the prepared data."""

    @property
    def rows(self) -> int:
        """Return the number of rows in the file, without header and blank lines."""
        return self.count.rows

    @property
    def unit(self) -> str:
        """Return the unit of `Finding.lines`: "line" (counted from 1, with the header) or "row" for Parquet."""
        return self.count.unit

    def __str__(self) -> str:
        """Return a line about the file, and a line for each kind of problem in it."""
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
        if not finding.texts and not finding.files:
            return f"{self.unit} {', '.join([*map(str, finding.lines), *more])}"
        files = [f"{file} " for file in finding.files] or [""] * len(finding.lines)
        texts = [f": {text}" for text in finding.texts] or [""] * len(finding.lines)
        places = zip(files, finding.lines, texts, strict=True)
        return "; ".join([f"{file}{self.unit} {line}{text}" for file, line, text in places] + more)
