"""CSV and Parquet files, read for training, evaluation and the indexer. Knows nothing of what their columns mean.

`read_table` and `read_batches` are for files of which every row counts; every cell of a CSV file is text there.
`read_columns` takes some columns of a file that people exported: it finds the delimiter, and tells on which line every
row stands and which lines are malformed. All of them tell how the lines of the file add up. Two formats stay where they
are known: PaddleRec's training lines (`mind.data.paddlerec`), and the Parquet files of our clients
(`clients/bulk_input.py`), which import nothing of this package.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mind.data.csv_stream import count_csv, header_of, read_csv_batches
from mind.data.csv_text import open_csv, shorten
from mind.data.line_count import LineCount
from mind.data.parquet import count_parquet_rows, is_parquet, parquet_names, read_parquet, read_parquet_batches
from mind.data.quotes import Quote
from mind.errors import DataError
from mind.sequences import Int64

__all__ = ["Columns", "column_names", "count_rows", "read_batches", "read_columns", "read_table", "shorten"]


@dataclass(frozen=True)
class Columns:
    """Some columns of a file, and where each row stands in it."""

    table: pa.Table
    """N rows under the wanted names: signed integers, lists of text, or trimmed text; null where a value is missing."""
    lines: Int64
    """[N] int64: where each row stands in the file, from 1."""
    unit: str
    """What `lines` counts: "line" of a CSV file, its header included, or "row" of a Parquet file."""
    misfits: list[tuple[int, str]]
    """Line and fault of every line that has too many or too few columns."""
    count: LineCount
    """How the lines of the file add up."""


def column_names(path: Path, quote: Quote | None = None) -> list[str]:
    """The columns of a file that ends in .csv, with a header line, or .parquet, or of a directory of Parquet files.

    Raises:
        DataError: it cannot be read, or ends otherwise.
    """
    if _is_parquet_by_name(path):
        return parquet_names(path)
    with _reading(path):
        return header_of(path, quote)


def read_table(path: Path, key: str = "", quote: Quote | None = None) -> tuple[pa.Table, LineCount]:
    """Read a whole file that ends in .csv, with a header, or .parquet, or a directory of Parquet files.

    Args:
        path: what to read. Cells of a CSV file are text, null if empty.
        key: a column of ids, by which lines that a misplaced quote swallows are known.
        quote: see `read_columns`.

    Raises:
        DataError: it cannot be read, ends otherwise, or a row has too many or too few columns.
    """
    if _is_parquet_by_name(path):
        table = read_parquet(path)
        return table, LineCount(len(table), unit="row")
    with _reading(path):
        text = open_csv(path, ",", None, quote)
        position = text.names.index(key) if key in text.names else None
        rows = text.rows(range(len(text.names)), position, pa.large_string(), [""])
    if rows.misfits:
        line, fault = rows.misfits[0]
        raise DataError(f"{path}: line {line}: {fault}")
    return rows.table.rename_columns(text.names), rows.count


def count_rows(path: Path, key: str, quote: Quote | None = None) -> LineCount:
    """Count the rows of such a file, which may be larger than memory; see `read_table`. Raises DataError."""
    if _is_parquet_by_name(path):
        return LineCount(count_parquet_rows(path), unit="row")
    with _reading(path):
        return count_csv(path, key, quote)


def read_batches(path: Path, batch_rows: int, quote: Quote | None = None) -> Iterator[pa.RecordBatch]:
    """Read such a file at most `batch_rows` rows at a time, so that it may be larger than memory. Raises DataError."""
    if _is_parquet_by_name(path):
        yield from read_parquet_batches(path, batch_rows)
        return
    with _reading(path):
        yield from read_csv_batches(path, batch_rows, quote)


def read_columns(
    path: Path,
    wanted: Sequence[str] | Callable[[list[str]], list[str]],
    delimiter: str | None = None,
    header: Sequence[str] | None = None,
    quote: Quote | None = None,
) -> Columns:
    """Read some columns of a CSV file (plain or compressed), a Parquet file or a directory of Parquet files.

    The text of a CSV file is in memory once, besides its wanted columns. Blank lines are left out.

    Args:
        path: Parquet, or text in UTF-8.
        wanted: names of columns, the first one of ids, or a function that finds them among those of the file. The file
            may add a type to a name, as in `user_id:token` (RecBole).
        delimiter: one character; detected if None.
        header: names of all columns of a CSV file that does not name them itself.
        quote: what quotes mean in a CSV file; None for `Quote.AUTO` in a command that has no option for it.

    Raises:
        DataError: the file or a column is missing, the format is another, or a quote swallows lines.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise DataError(f"{path}: the delimiter is {delimiter!r}, it must be one character")
    with _reading(path):
        parquet = is_parquet(path)
    if parquet:
        return _parquet_columns(path, wanted)
    with _reading(path, " as CSV"):
        text = open_csv(path, delimiter, header, quote)
        names = wanted(text.names) if callable(wanted) else wanted
        positions = _positions(path, names, text.names)
        rows = text.rows(positions, positions[0])
    del text  # before columns are copied
    columns = [_tidy(path, name, column) for name, column in zip(names, rows.table.columns, strict=True)]
    return Columns(pa.table(columns, list(names)), rows.lines, "line", rows.misfits, rows.count)


def _parquet_columns(path: Path, wanted: Sequence[str] | Callable[[list[str]], list[str]]) -> Columns:
    found = parquet_names(path)
    names = wanted(found) if callable(wanted) else wanted
    spelt = [found[position] for position in _positions(path, names, found)]
    table = read_parquet(path, spelt)
    columns = [_tidy(path, name, table.column(name)) for name in spelt]
    count = LineCount(len(table), unit="row")
    return Columns(pa.table(columns, list(names)), np.arange(1, len(table) + 1), "row", [], count)


def _positions(path: Path, names: Sequence[str], found: list[str]) -> list[int]:
    untyped = [name.strip().partition(":")[0] for name in found]
    for name in names:
        if name not in found and name not in untyped:
            raise DataError(f"{path}: no column {name!r}; there are: {', '.join(found)}")
    return [found.index(name) if name in found else untyped.index(name) for name in names]


def _tidy(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Leave signed integers, make lists of text of lists, and text of anything else; null where a value is missing."""
    if pa.types.is_signed_integer(column.type):
        return column
    try:
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            return column.cast(pa.list_(pa.string()))
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        column = column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{path}: column {name} is {column.type}; a column may hold numbers, texts, times, or lists of numbers or "
            "texts; write it again as one of these"
        ) from error
    text = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(text, ""), None, text)


def _is_parquet_by_name(path: Path) -> bool:
    if path.is_dir():
        return True
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(f"{path}: expected a file that ends in .csv or .parquet, or a directory of Parquet files")
    return path.suffix == ".parquet"


@contextmanager
def _reading(path: Path, kind: str = "") -> Iterator[None]:
    """Raise DataError where a file cannot be read."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read{kind}: {' '.join(str(error).split())}") from error
