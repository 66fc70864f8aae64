"""What the demo runs on: MovieLens-100K, or a user's own files of clicks and items."""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mind.data.paddlerec import read_eval
from mind.data.prepared import TEST_USERS, item_keys, user_keys
from mind.data.roles import find_column
from mind.data.tables import read_table
from mind.sequences import Int64

TITLES = ("title", "name", "product_name", "product_title", "item_name")
"""Usual names of the column of titles."""


@dataclass(frozen=True)
class Items:
    """A file of items."""

    file: Path
    id_column: str = "item_id"
    title: str | None = "title"
    """Its column of titles; None without one."""
    multi_valued: list[str] = field(default_factory=list)
    """Its text columns that hold several values, separated by `|`."""
    filter: str = ""
    """A filter that some of the items match."""

    def titles(self) -> dict[str, str]:
        """Titles by id, both as text. Raises DataError."""
        if self.title is None:
            return {}
        table, _ = read_table(self.file, self.id_column)
        ids, titles = (table.column(name).cast(pa.string()).to_pylist() for name in (self.id_column, self.title))
        return {str(item).strip(): title for item, title in zip(ids, titles, strict=True) if title is not None}


@dataclass(frozen=True)
class DemoData:
    """Clicks, and the items that they are about."""

    clicks: str
    """A file of clicks, or the name of data that `mind.prepare` knows."""
    prepared: Path
    """Where the prepared data go."""
    columns: tuple[str, ...] = ()
    """The columns of users, items and times; empty for those with usual names."""

    @property
    def test(self) -> Path:
        """The test users with their later clicks."""
        return self.prepared / "test"

    @property
    def users(self) -> Path:
        """The test users as `recall-client` reads them."""
        own = self.prepared / TEST_USERS
        return own if own.exists() else self.test / "test.txt"


@dataclass(frozen=True)
class Case:
    """A test user."""

    name: str
    history: list[int] | list[str]


def cases_of(data: DemoData, users: list[int]) -> list[Case]:
    """The test users at some positions, in their own ids. Raises DataError."""
    cases = read_eval(data.test)
    items, names = item_keys(data.test), user_keys(data.test)

    def own(ids: Int64) -> Any:
        return items.of(ids).at(np.arange(len(ids))) if items else ids.tolist()

    return [
        Case(
            names.name(int(cases.history.user_id[user])) if names else str(cases.history.user_id[user]),
            own(cases.history[user]),
        )
        for user in users
    ]


def own_items(file: Path) -> Items:
    """Find out what a file of items has: its ids, titles, lists and something to filter by. Raises DataError."""
    table, _ = read_table(file)
    id_column = find_column(file, table.column_names, "item")
    title = next((name for usual in TITLES for name in table.column_names if name.lower() == usual), None)
    rest = [name for name in table.column_names if name not in (id_column, title)]
    several = [name for name in rest if _is_text(table, name) and _any(pc.match_substring(table.column(name), "|"))]
    return Items(file, id_column, title, several, _filter(table, [name for name in rest if name not in several]))


def write_titles(titles: dict[str, str], path: Path) -> None:
    """Write titles as the other commands read them: the columns item_id and title."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title"])
        writer.writerows(titles.items())


def _filter(table: pa.Table, names: list[str]) -> str:
    """A filter that about half of the items match, by the first column of numbers; empty without such a column."""
    for name in names:
        try:
            numbers = table.column(name).cast(pa.float64()).drop_null()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        if len(numbers):
            return f"{name} <= {pc.quantile(numbers, 0.5, interpolation='lower')[0].as_py():g}"
    return ""


def _is_text(table: pa.Table, name: str) -> bool:
    kind = table.schema.field(name).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _any(mask: pa.ChunkedArray) -> bool:
    return bool(pc.any(mask).as_py())
