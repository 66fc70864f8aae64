"""Reads CSV, JSON lines and Parquet for training, evaluation and the indexer. Knows nothing of the meaning of columns.

An input is a file, a directory, a pattern or a URL (`mind.data.sources`), and is read piece by piece. `read_table` and
`read_batches` are for files of which every row counts; their CSV cells are text. `read_pieces` reads some columns of
files that users exported: it detects the delimiter, the line of every row, and malformed lines. `read_columns` joins
the pieces. All of them count the lines of the files. Two formats are read elsewhere: PaddleRec's training lines
(`mind.data.paddlerec`), and the Parquet files of our clients (`clients/bulk_input.py`), which import nothing of this
package.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mind.data.csv_text import Rows, check_delimiter, open_csv
from mind.data.json_lines import json_rows, open_json_lines
from mind.data.line_count import LineCount
from mind.data.parquet import parquet_batches, parquet_schema
from mind.data.quotes import Quote
from mind.data.sources import File, Files, Format, OnBytes, find_files, is_url
from mind.errors import DataError
from mind.sequences import Int64

Wanted = Sequence[str] | Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class Columns:
    """Some columns of an input or of a piece of it, with the place of each row."""

    table: pa.Table
    """N rows under the wanted names: signed integers, lists of text, or trimmed text; null where a value is missing."""
    lines: Int64
    """[N] int64: the line or row of each row in the file, from 1."""
    unit: str
    """The unit of `lines`: "line" for text, including the header, or "row" for Parquet."""
    misfits: list[tuple[int, str]]
    """Line and fault of every line that is not a row, such as one with too many or too few columns."""
    count: LineCount
    """The count of the lines by what they are."""
    file: str = ""
    """The name of the file in messages."""


@dataclass(frozen=True)
class CsvOptions:
    """The options of a command for CSV files."""

    delimiter: str | None = None
    """One character or several; detected if None."""
    header: Sequence[str] | None = None
    """The names of all columns of a file that has no header."""
    quote: Quote | None = None
    """The meaning of quotes; None for `Quote.AUTO` in a command that has no option for it."""


def _nothing(count: int) -> None:
    """Ignore the number of bytes that were read."""


def column_names(path: Path | str, quote: Quote | None = None) -> list[str]:
    """Return the columns of an input. See `read_table`. Raises DataError."""
    files = _strict(path)
    if files.format is Format.PARQUET:
        return list(parquet_schema(files).names)
    with _reading(files.files[0].name):
        stream = files.files[0].text()
        if files.format is Format.JSON_LINES:
            return open_json_lines(files.files[0].name, stream)[0]
        return open_csv(files.files[0].name, stream, ",", None, quote)[0].names


def read_table(path: Path | str, key: str = "", quote: Quote | None = None) -> tuple[pa.Table, LineCount]:
    """Read a whole input: CSV with a header and commas (.csv, .csv.gz), JSON lines (.jsonl) or Parquet, or a directory.

    Args:
        path: the input. Cells of a CSV file are text, null if empty.
        key: a column of ids, by which lines that a misplaced quote swallows are detected.
        quote: as in `CsvOptions`.

    Raises:
        DataError: the input cannot be read, its name has another ending, or a line is malformed.
    """
    pieces = list(_strict_pieces(path, key, quote))
    table = _together([piece.table for piece in pieces])
    kinds = [_kind(field.type) for field in table.schema]
    return table.cast(pa.schema(zip(table.column_names, kinds, strict=True))), reduce(
        add, (one.count for one in pieces)
    )


def count_rows(path: Path | str, key: str, quote: Quote | None = None) -> LineCount:
    """Count the rows of an input, which may be larger than memory. See `read_table`. Raises DataError."""
    return reduce(add, (piece.count for piece in _strict_pieces(path, key, quote)))


def read_batches(
    path: Path | str, batch_rows: int, key: str = "", quote: Quote | None = None
) -> Iterator[pa.RecordBatch]:
    """Read an input in batches of at most `batch_rows` rows, so that it may be larger than memory. Raises DataError."""
    for piece in _strict_pieces(path, key, quote):
        yield from piece.table.combine_chunks().to_batches(batch_rows)


def read_columns(
    path: Path | str,
    wanted: Wanted,
    delimiter: str | None = None,
    header: Sequence[str] | None = None,
    quote: Quote | None = None,
) -> Columns:
    """Read some columns of a whole input. See `read_pieces`.

    Raises:
        DataError: a file or a column is missing, the format is another, or a quote swallows lines.
    """
    pieces = list(read_pieces(find_files(path), wanted, CsvOptions(delimiter, header, quote)))
    return Columns(
        _together([piece.table for piece in pieces]),
        np.concatenate([piece.lines for piece in pieces]),
        pieces[0].unit,
        [misfit for piece in pieces for misfit in piece.misfits],
        reduce(add, (piece.count for piece in pieces)),
        str(path),
    )


def read_pieces(
    files: Files,
    wanted: Wanted,
    options: CsvOptions = CsvOptions(),
    on_bytes: OnBytes = _nothing,
    may_be_lists: bool = True,
    schema: pa.Schema | None = None,
) -> Iterator[Columns]:
    """Read some columns of an input piece by piece, at least one piece of every file. Blank lines are left out.

    Args:
        files: Parquet, or text in UTF-8.
        wanted: names of columns, first the column of ids, or a function that finds them among those of the first file.
            A file may add a type to a name, as in `user_id:token` (RecBole).
        options: options for CSV files.
        on_bytes: called with the number of bytes that were read.
        may_be_lists: whether a list is a valid value in JSON lines. Otherwise it makes a line malformed.
        schema: for some of the files of an input in Parquet: the columns of the whole input; None for a whole input.

    Raises:
        DataError: a file or a column is missing, the format is another, or a quote swallows lines.
    """
    check_delimiter(files.name, options.delimiter)
    if files.format is Format.PARQUET:
        yield from _parquet_pieces(files, wanted, on_bytes, schema or parquet_schema(files))
        return
    for file in files.files:
        with _reading(file.name, f" as {file.format}"):
            for names, rows in _text_pieces(file, wanted, options, on_bytes, may_be_lists):
                wanted = names  # as the first file has them
                columns = [
                    _tidy(file.name, name, column) for name, column in zip(names, rows.table.columns, strict=True)
                ]
                table = pa.table(columns, list(names))
                yield Columns(table, rows.lines, "line", rows.misfits, rows.count, file.name)


def _text_pieces(
    file: File, wanted: Wanted, options: CsvOptions, on_bytes: OnBytes, may_be_lists: bool
) -> Iterator[tuple[Sequence[str], Rows]]:
    """Yield the names of the wanted columns, and their rows."""
    stream = file.text(on_bytes)
    if file.format is Format.JSON_LINES:
        found, blocks = open_json_lines(file.name, stream)
        names = wanted(found) if callable(wanted) else wanted
        spelt = [found[position] for position in _positions(file.name, names, found)]
        for rows in json_rows(blocks, spelt, as_text=True, may_be_lists=may_be_lists):
            yield names, rows
        return
    text, blocks = open_csv(file.name, stream, options.delimiter, options.header, options.quote)
    names = wanted(text.names) if callable(wanted) else wanted
    positions = _positions(file.name, names, text.names)
    for rows in text.rows(blocks, positions, positions[0]):
        yield names, rows


def _parquet_pieces(files: Files, wanted: Wanted, on_bytes: OnBytes, schema: pa.Schema) -> Iterator[Columns]:
    found = list(schema.names)
    names = wanted(found) if callable(wanted) else wanted
    spelt = [found[position] for position in _positions(files.name, names, found)]
    last, row = None, 0
    for file, batch in parquet_batches(files, spelt, on_bytes, schema=schema):
        row = row if file is last else 0
        last = file
        columns = [_tidy(file.name, name, pa.chunked_array([batch.column(name)])) for name in spelt]
        lines = np.arange(row + 1, row + len(batch) + 1)
        yield Columns(pa.table(columns, list(names)), lines, "row", [], LineCount(len(batch), unit="row"), file.name)
        row += len(batch)
    if last is None:
        columns = [_tidy(files.name, name, pa.chunked_array([], schema.field(name).type)) for name in spelt]
        yield _no_rows(files, pa.table(columns, list(names)))


def _no_rows(files: Files, table: pa.Table) -> Columns:
    return Columns(table, np.zeros(0, np.int64), "row", [], LineCount(0, unit="row"), files.name)


def _strict(path: Path | str) -> Files:
    """Return the files of an input. The name of each must tell its format."""
    where = f"{path}"
    if not Path(where).is_dir() and not (is_url(where) and "." not in Path(where).name):
        bare = where.removesuffix(".gz").removesuffix(".bz2").removesuffix(".zst").removesuffix(".lz4")
        if not bare.endswith((".csv", ".jsonl", ".ndjson", ".json", ".parquet")):
            raise DataError(
                f"{where}: expected a file that ends in .csv, .jsonl or .parquet, or a directory of such files"
            )
    return find_files(path)


def _strict_pieces(path: Path | str, key: str, quote: Quote | None) -> Iterator[Columns]:
    """Yield all columns with the types in their files. Raise DataError for a malformed line."""
    files = _strict(path)
    if files.format is Format.PARQUET:
        yield _no_rows(files, parquet_schema(files).empty_table())
        for file, batch in parquet_batches(files, None, _nothing):
            table = pa.Table.from_batches([batch])
            yield Columns(table, np.arange(len(table)), "row", [], LineCount(len(table), unit="row"), file.name)
        return
    names: list[str] | None = None
    for file in files.files:
        with _reading(file.name):
            for found, rows in _strict_rows(file, key, quote):
                if names is not None and sorted(found) != sorted(names):
                    raise DataError(f"{file.name}: has the columns {', '.join(found)}, other files {', '.join(names)}")
                names = names or found
                if rows.misfits:
                    line, fault = rows.misfits[0]
                    raise DataError(f"{file.name}: line {line}: {fault}")
                table = rows.table.rename_columns(found)
                table = table if found == names else table.select(names)
                yield Columns(table, rows.lines, "line", [], rows.count, file.name)


def _strict_rows(file: File, key: str, quote: Quote | None) -> Iterator[tuple[list[str], Rows]]:
    """Yield the names of all columns, with the rows."""
    if file.format is Format.JSON_LINES:
        names, blocks = open_json_lines(file.name, file.text())
        for rows in json_rows(blocks, names, as_text=False):
            yield names, rows
        return
    text, blocks = open_csv(file.name, file.text(), ",", None, quote)
    position = text.names.index(key) if key in text.names else None
    for rows in text.rows(blocks, range(len(text.names)), position, pa.large_string(), [""]):
        yield text.names, rows


def _positions(name: str, names: Sequence[str], found: list[str]) -> list[int]:
    untyped = [one.strip().partition(":")[0] for one in found]
    for one in names:
        if one not in found and one not in untyped:
            raise DataError(f"{name}: no column {one!r}; there are: {', '.join(found)}")
    return [found.index(one) if one in found else untyped.index(one) for one in names]


def _tidy(file: str, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keep signed integers, turn lists into lists of text, and others into text; null where a value is missing."""
    if pa.types.is_signed_integer(column.type):
        return column
    try:
        if _is_list(column.type):
            return column.cast(pa.list_(pa.string()))
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        column = column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{file}: column {name} is {column.type}; a column may hold numbers, texts, times, or lists of numbers or "
            "texts; write it again as one of these"
        ) from error
    text = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(text, ""), None, text)


def _together(tables: list[pa.Table]) -> pa.Table:
    """Join tables into one. A column with several types becomes text, or lists of text if a table has lists."""
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return pa.concat_tables(tables)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        lists = {name for table in tables for name in table.column_names if _is_list(table.column(name).type)}
        return pa.concat_tables(
            pa.table([_text(table.column(name), name in lists) for name in table.column_names], table.column_names)
            for table in tables
        )


def _text(column: Any, as_list: bool) -> Any:
    if not as_list:
        return column.cast(pa.string())
    if _is_list(column.type):
        return column.cast(pa.list_(pa.string()))
    values = column.cast(pa.string()).to_pylist()
    return pa.chunked_array([pa.array([None if value is None else [value] for value in values], pa.list_(pa.string()))])


def _kind(kind: pa.DataType) -> pa.DataType:
    """Return text as the type of a JSON column that has no values."""
    if kind == pa.null():
        return pa.string()
    return pa.list_(pa.string()) if kind == pa.list_(pa.null()) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


@contextmanager
def _reading(name: str, kind: str = "") -> Iterator[None]:
    """Raise DataError if a file cannot be read."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{name}: cannot be read{kind}: {' '.join(str(error).split())}") from error
