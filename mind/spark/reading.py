"""The task that reads one file of the input with the code of `mind.data`. Knows nothing of Spark.

It gives the usable clicks with their places, the text ids, and a summary of the file. The type of ids and times is
guessed before. The driver adds the summaries up, and reads all files again if the guess was wrong.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mind.data.columns import TimeCounts, TimeKind
from mind.data.found import Found
from mind.data.gathered import Places
from mind.data.id_counts import IdCounts
from mind.data.ids import IdColumn, IdKind, KeyTable
from mind.data.interactions import EXAMPLES
from mind.data.line_count import LineCount
from mind.data.sources import File, Files
from mind.data.tables import Columns, CsvOptions, read_pieces
from mind.data.time_column import TimeColumn
from mind.data.time_units import TimeUnit
from mind.errors import DataError, MindError
from mind.sequences import Int64
from mind.spark import rows


@dataclass(frozen=True)
class Guess:
    """The types of the columns."""

    users_are_text: bool
    items_are_text: bool
    time: TimeKind

    @property
    def time_is_float(self) -> bool:
        """Return whether times are read as float64."""
        return self.time is TimeKind.NUMBER


@dataclass
class Summary:
    """What a task found in a file, as plain data."""

    file: int
    error: str = ""
    """Why the file cannot be read; empty if it was read."""
    unit: str = "line"
    count: dict[str, Any] = field(default_factory=dict)
    malformed: list[list[Any]] = field(default_factory=list)
    missing: list[list[Any]] = field(default_factory=list)
    malformed_rows: int = 0
    missing_rows: int = 0
    users: dict[str, Any] = field(default_factory=dict)
    items: dict[str, Any] = field(default_factory=dict)
    examples: list[str] = field(default_factory=lambda: ["", ""])
    padded: int = 0
    times: dict[str, int] = field(default_factory=dict)
    units: dict[str, list[Any]] = field(default_factory=dict)
    """A place and a time for each unit that fits a time."""
    clicks: int = 0
    keys: int = 0
    first: float = 0
    last: float = 0


@dataclass(frozen=True)
class Reading:
    """What all tasks need to read their files."""

    files: Files
    names: tuple[str, str, str]
    """The columns of users, items and times."""
    options: CsvOptions
    schema: pa.Schema | None
    """The columns of all files in Parquet; None for other formats."""
    ids: IdKind
    time_unit: TimeUnit | None
    stray: float
    """Maximum share of ids that are not integers in a column of integers."""

    def columns(self, guess: Guess | None = None) -> tuple[IdColumn, IdColumn, TimeColumn]:
        """Return new columns, which are read as guessed."""
        users, items, times = self.names
        made = IdColumn(users, self.ids, self.stray), IdColumn(items, self.ids, self.stray)
        time = TimeColumn(times, self.time_unit)
        if guess:
            for column, is_text in zip(made, (guess.users_are_text, guess.items_are_text), strict=True):
                column.guess(is_text)
            time.guess(guess.time)
        return *made, time

    def pieces(self, number: int) -> Iterator[Columns]:
        """Read a file, piece by piece. Raises DataError."""
        one = Files(self.files.name, (self.file(number),), self.files.root)
        return read_pieces(one, self.names, self.options, may_be_lists=False, schema=self.schema)

    def file(self, number: int) -> File:
        """Return the file with a number."""
        return self.files.files[number]

    def guess(self) -> Guess:
        """Guess the types of the columns from the first rows of the first file. Raises DataError."""
        users, items, times = self.columns()
        for piece in self.pieces(0):
            for column in (users, items, times):
                column.read(piece)
            if len(piece.table):
                break
        return Guess(users.is_text, items.is_text, times.kind or TimeKind.INTEGER)


def read_files(reading: Reading, guess: Guess, numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Read the files with some numbers. Yield their clicks, keys and summaries."""
    for batch in numbers:
        for number in batch.column(0).to_pylist():
            try:
                yield from _read(reading, guess, number)
            except MindError as error:  # the driver raises it; Spark would try again, and print where it happened
                yield from _summary(Summary(number, str(error)), guess)


def _read(reading: Reading, guess: Guess, number: int) -> Iterator[pa.RecordBatch]:
    users, items, times = columns = reading.columns(guess)
    found = Found(reading.files, None, places=_Lines())
    told = Summary(number)
    edges = []
    for piece in reading.pieces(number):
        found.add(piece, *columns)
        for clicks in found.pieces:
            told.clicks += len(clicks)
            edges += [clicks.timestamp.min(), clicks.timestamp.max()]
            yield from rows.batches(
                rows.CLICK,
                guess.time_is_float,
                user_id=clicks.user_id,
                item_id=clicks.item_id,
                time=clicks.timestamp,
                file=np.full(len(clicks), number),
                line=clicks.row,
            )
        found.pieces.clear()
    name = reading.file(number).name
    for sort, table in ((rows.USER_KEY, users.keys(name)), (rows.ITEM_KEY, items.keys(name))):
        if table is not None:
            told.keys += len(table.ids)
            yield from key_rows(sort, table, guess)
    if edges:
        told.first, told.last = np.min(edges).item(), np.max(edges).item()
    told.unit, told.count = found.unit, asdict(found.count or LineCount(0))
    told.malformed, told.malformed_rows = [list(one) for one in found.malformed], found.malformed_rows
    told.missing, told.missing_rows = [list(one) for one in found.missing], found.missing_rows
    told.users, told.items = asdict(users.counts), asdict(items.counts)
    told.examples, told.padded = [users.example, items.example], users.padded + items.padded
    told.times = asdict(times.counts)
    told.units = {unit: [place, np.asarray(time).item()] for unit, (place, time) in times.units.first.items()}
    yield from _summary(told, guess)


def key_rows(sort: int, table: KeyTable, guess: Guess) -> Iterator[pa.RecordBatch]:
    """Yield the text ids of users or items."""
    yield from rows.batches(sort, guess.time_is_float, user_id=table.ids, text=table.keys)


def _summary(told: Summary, guess: Guess) -> Iterator[pa.RecordBatch]:
    return rows.batches(rows.SUMMARY, guess.time_is_float, text=pa.array([json.dumps(asdict(told))]))


class _Lines(Places):
    """Gives the line of each row in place of its number in the input."""

    def add(self, file: str, lines: Int64) -> npt.NDArray[np.uint32]:
        if len(lines) and lines[-1] > np.iinfo(np.uint32).max:
            raise DataError(f"{file}: more than {np.iinfo(np.uint32).max:,} lines; write several files")
        return lines.astype(np.uint32)


@dataclass
class Read:
    """The summaries of all files together."""

    found: Found
    columns: tuple[IdColumn, IdColumn, TimeColumn]
    is_right: bool
    """Whether the guess was right."""
    guess: Guess
    """The types of the columns by all files."""
    clicks: int
    keys: int
    edges: list[float]
    """The first and the last time; empty without clicks."""


def together(reading: Reading, guess: Guess, texts: list[str]) -> Read:
    """Add up the summaries of all files.

    Raises:
        DataError: a file cannot be read, ids are decimal numbers, or integer ids have leading zeros.
    """
    summaries = sorted((Summary(**json.loads(text)) for text in texts), key=lambda one: one.file)
    found = Found(reading.files, None)
    users, items, times = columns = reading.columns(guess)
    edges: list[float] = []
    for one in summaries:
        if one.error:
            raise DataError(one.error)
        count = LineCount(**one.count)
        found.count, found.unit = count if found.count is None else found.count + count, one.unit
        found.malformed = [*found.malformed, *((file, line, text) for file, line, text in one.malformed)][:EXAMPLES]
        found.missing = [*found.missing, *((file, line) for file, line in one.missing)][:EXAMPLES]
        found.malformed_rows += one.malformed_rows
        found.missing_rows += one.missing_rows
        for column, counts, example in zip((users, items), (one.users, one.items), one.examples, strict=True):
            column.counts += IdCounts(**counts)
            column.example = column.example or example
        times.counts += TimeCounts(**one.times)
        for unit, (place, time) in one.units.items():
            times.units.first.setdefault(TimeUnit(unit), (place, time))
        edges += [one.first, one.last] * (one.clicks > 0)
    settled = [column.settle() for column in columns]
    right = Guess(users.is_text, items.is_text, times.kind or TimeKind.INTEGER)
    if all(settled) and (padded := sum(one.padded for one in summaries)):
        raise DataError(
            f"{reading.files.name}: {padded:,} integer ids have leading zeros or are -0; with --engine spark give "
            "--ids text to take them as they are, or write them without"
        )
    clicks, keys = (sum(getattr(one, name) for one in summaries) for name in ("clicks", "keys"))
    return Read(found, columns, all(settled), right, clicks, keys, [min(edges), max(edges)] if edges else [])
