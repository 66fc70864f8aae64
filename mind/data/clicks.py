"""Reads interactions from CSV, JSON lines and Parquet, and cleans, counts and sorts them.

The files are read piece by piece and in whole columns: no Python code runs per row, and 100 million rows fit in 4 GB.
The type of a column (text or integers, dates or numbers) is guessed from the first piece. If the rest is different, all
is read once more.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from mind.data.events import KindColumn
from mind.data.found import Found
from mind.data.ids import IdColumn, IdKind
from mind.data.interactions import Interactions, Report
from mind.data.quotes import Quote
from mind.data.roles import find_columns
from mind.data.sources import find_files
from mind.data.tables import CsvOptions, read_pieces
from mind.data.time_column import TimeColumn
from mind.data.time_units import TimeUnit
from mind.errors import DataError
from mind.events import EventRules, Events

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
    choose = chooser(files.name, user, item, time, events.column)
    kinds = KindColumn(events, rules) if events.column else None
    columns: tuple[IdColumn, IdColumn, TimeColumn] | None = None
    while True:
        found = Found(files, kinds)
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


def chooser(
    where: str, user: str | None, item: str | None, time: str | None, event: str | None = None
) -> Callable[[list[str]], list[str]]:
    """Return a function that chooses the columns of users, items, times and kinds among the columns of a file.

    Args:
        where: the input, for messages.
        user, item, time: columns that the caller names; None for a column to find.
        event: the column of kinds; None for none.
    """

    def choose(names: list[str]) -> list[str]:
        found = find_columns(Path(where), names, user, item, time)
        if event in found:
            raise DataError(f"{where}: --event names {event}, which has the users, the items or the times")
        return [*found, event] if event else found

    return choose


def _told(on_progress: OnProgress, total: int) -> Callable[[int], None]:
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    return on_bytes
