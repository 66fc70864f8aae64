"""Reads titles of items from a file, for people who look at candidates. This module knows nothing of the service.

`mind.data.titles` reads the same files for the report of an evaluation; a test compares the two.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clients.ids import MAX_KEY_BYTES
from clients.user_files import FileError, is_int64

TITLE = "title"
ITEM_IDS = (
    "item_id", "item", "iid", "sku", "product_id", "product", "asin", "parent_asin", "article_id", "article",
    "movie_id", "book_id", "track_id", "song_id", "video_id", "listing_id", "variant_id", "stock_code", "content_id",
)  # fmt: skip
"""Usual names of a column of item ids, which are those of `mind.data.roles`. The first one in a file counts."""
DELIMITERS = ",\t;|"
"""The delimiters that are recognised in a CSV file."""
_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_PARQUET = b"PAR1"


def read_titles(path: Path, text: bool = False, id_column: str | None = None) -> dict[Any, str]:
    """Titles by item id from a CSV or Parquet file with a column `title`; empty titles are left out.

    A CSV file whose first cell is an integer has no header: then they are its first two columns.

    Args:
        path: the file.
        text: whether ids are text, and so the keys of what is returned; else they are integers.
        id_column: name of the column of ids; None for one with a usual name, such as sku.

    Raises:
        FileError: it is not such a file, a column is missing, or an id is no integer of 64 bits or no text of 1 to 256
            bytes.
    """
    with path.open("rb") as file:
        parquet = file.read(len(_PARQUET)) == _PARQUET
    titles = {}
    read = _text if text else _integer
    for place, item_id, title in (_parquet_rows if parquet else _csv_rows)(path, id_column):
        key = read("" if item_id is None else str(item_id).strip(), f"{path}: {place}")
        if title is not None and str(title).strip():
            titles[key] = str(title).strip()
    return titles


def _integer(text: str, place: str) -> int:
    if not _INTEGER.fullmatch(text) or not is_int64(int(text)):
        raise FileError(f"{place} is {text[:50]!r}, not an integer of 64 bits")
    return int(text)


def _text(text: str, place: str) -> str:
    if not 1 <= len(text.encode()) <= MAX_KEY_BYTES:
        raise FileError(f"{place} is {text[:50]!r}, not text of 1 to {MAX_KEY_BYTES} bytes")
    return text


def _csv_rows(path: Path, id_column: str | None) -> Iterator[tuple[str, Any, Any]]:
    """Where the id of a row stands, the id, and the title."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        delimiter = max(DELIMITERS, key=file.readline().count)
        file.seek(0)
        rows = csv.reader(file, delimiter=delimiter)
        try:
            yield from _titled(path, rows, id_column)
        except csv.Error as error:
            raise FileError(f"{path}: line {rows.line_num}: {error}") from error


def _titled(path: Path, rows: Any, id_column: str | None) -> Iterator[tuple[str, Any, Any]]:
    """The same of the rows of a csv.reader."""
    first: list[str] = next(rows, [])
    width, (item_id, title), name = len(first), (0, 1), ITEM_IDS[0]
    if not first or not _INTEGER.fullmatch(first[0].strip()):
        item_id, title, name = _positions(path, first, id_column)
    elif width < 2:
        raise FileError(f"{path}: line 1: must be {name},{TITLE}; is {first[0]!r}")
    else:
        yield f"line 1: {name}", first[item_id], first[title]
    for row in rows:
        if row and len(row) != width:
            raise FileError(f"{path}: line {rows.line_num}: expected {width} columns, found {len(row)}")
        if row:
            yield f"line {rows.line_num}: {name}", row[item_id], row[title]


def _parquet_rows(path: Path, id_column: str | None) -> Iterator[tuple[str, Any, Any]]:
    """Where the id of a row stands, the id, and the title."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise FileError(f"{path}: a Parquet file needs pyarrow: pip install 'mind-recall[bulk]'") from error
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            *positions, id_name = _positions(path, names, id_column)
            columns = [file.read([names[position]]).column(0).to_pylist() for position in positions]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from error
    for number, (item_id, title) in enumerate(zip(*columns, strict=True), start=1):
        yield f"row {number}: {id_name}", item_id, title


def _positions(path: Path, found: Iterable[str], id_column: str | None) -> tuple[int, int, str]:
    """Where the columns of ids and titles stand, and the name of the first.

    A name may have a type behind it, as in `item_id:token` (RecBole).
    """
    names = [name.strip().partition(":")[0] for name in found]
    wanted = id_column or _usual_name(path, names)
    for name in (wanted, TITLE):
        if name not in names:
            raise FileError(f"{path}: no column {name!r}; there are: {', '.join(names)}")
    return names.index(wanted), names.index(TITLE), wanted


def _usual_name(path: Path, names: list[str]) -> str:
    plain = {_plain(name): name for name in reversed(names)}
    for usual in ITEM_IDS:
        if (name := plain.get(_plain(usual))) is not None:
            return name
    raise FileError(
        f"{path}: no column is called {ITEM_IDS[0]} or alike; say with --titles-id-column which one holds the items; "
        f"there are: {', '.join(names)}"
    )


def _plain(name: str) -> str:
    """The letters and digits of a name, which may be spelt itemId, ITEM_ID or item-id."""
    return re.sub(r"[\W_]", "", name.lower())
