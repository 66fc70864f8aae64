"""Users' interactions with items: in columns, and what was found where they were read.

Knows nothing of files (`mind.data.clicks` reads them), of splits or of PaddleRec's formats.
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
    code: Role | None = None
    """[N] uint8: the kind of each as a position in `Report.kinds`, or its role once `roles` are known."""
    roles: Roles | None = None
    """What `code` stands for, once it is known what every click is for."""

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self.user_id)

    def take(self, rows: Int64 | Mask) -> "Interactions":
        """Interactions at these positions, or where a mask is true."""
        columns = self.user_id[rows], self.item_id[rows], self.timestamp[rows]
        code = None if self.code is None else self.code[rows]
        return Interactions(*columns, self.user_keys, self.item_keys, code, self.roles)

    def sort(self) -> "Interactions":
        """Sort by user, then by time; interactions of one user at one time keep their order."""
        return self.take(np.lexsort((self.timestamp, self.user_id)))

    def sequences(self) -> Sequences:
        """The item sequences of the users, ascending; the interactions must be sorted."""
        begins = np.flatnonzero(np.append(True, self.user_id[1:] != self.user_id[:-1])[: len(self)])
        role = self.code if self.roles else None
        return Sequences(self.user_id[begins], np.append(begins, len(self)), self.item_id, role, self.roles)


@dataclass(frozen=True)
class Finding:
    """One kind of problem in a file."""

    count: int
    """The number of rows that have the problem."""
    lines: tuple[int, ...]
    """Where the first few of these rows stand in the file."""
    texts: tuple[str, ...] = ()
    """What is wrong with each of `lines`, where that helps."""
    files: tuple[str, ...] = ()
    """The file of each of `lines`, where there are several."""


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
    """Rows that were skipped because an earlier row has the same user, item, time and kind."""
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
    kinds: tuple[Kind, ...] = ()
    """The kinds of clicks; empty if no column of kinds was asked for."""
    rules: EventRules | None = None
    """What is to be remembered of the kinds."""

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
        if not finding.texts and not finding.files:
            return f"{self.unit} {', '.join([*map(str, finding.lines), *more])}"
        files = [f"{file} " for file in finding.files] or [""] * len(finding.lines)
        texts = [f": {text}" for text in finding.texts] or [""] * len(finding.lines)
        places = zip(files, finding.lines, texts, strict=True)
        return "; ".join([f"{file}{self.unit} {line}{text}" for file, line, text in places] + more)
