"""Reads titles of items from a file, for the report of an evaluation.

`clients.titles` reads the same files, because clients import nothing of this package. A test compares the two.
"""

import csv
import re
from pathlib import Path

from mind.data.csv_text import DELIMITERS
from mind.data.ids import IdKind, strict_ids
from mind.data.roles import find_column
from mind.data.tables import read_columns
from mind.errors import DataError

COLUMNS = ("item_id", "title")
_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)


def read_titles(
    path: Path, kind: IdKind = IdKind.INTEGER, id_column: str | None = None, option: str = "--titles-id-column"
) -> dict[int, str]:
    """Read titles by item id from a CSV or Parquet file with a column `title`. Empty titles are left out.

    A CSV file whose first cell is an integer has no header: then ids and titles are its first two columns.

    Args:
        path: the file.
        kind: whether ids are integers or text.
        id_column: column that holds the item id, in a file with a header; None for one with a usual name, such as sku.
        option: the option that names this column, for messages.

    Raises:
        DataError: the file or a column is missing, a line is malformed, or an id is invalid.
    """
    header = _header(path)

    def wanted(names: list[str]) -> list[str]:
        return header[:2] if header else [id_column or find_column(path, names, "item", option), "title"]

    columns = read_columns(path, wanted, header=header)
    ids = strict_ids(path, columns, columns.table.column_names[0], kind=kind)
    titles = columns.table.column("title").to_pylist()
    return {item: str(title) for item, title in zip(ids.values.tolist(), titles, strict=True) if title is not None}


def _header(path: Path) -> list[str] | None:
    """Return the names of all columns of a CSV file that has no header; None for any other file."""
    if path.is_dir():
        return None
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = file.readline()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    delimiter = max(DELIMITERS, key=line.count)
    first = next(csv.reader([line], delimiter=delimiter), [])
    if not first or not _INTEGER.fullmatch(first[0].strip()):
        return None
    if len(first) < len(COLUMNS):
        raise DataError(f"{path}: line 1: must be item_id,title; is {first[0]!r}")
    return [*COLUMNS, *(f"column {number}" for number in range(3, len(first) + 1))]
