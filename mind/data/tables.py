"""CSV and Parquet files, read for training, evaluation and the indexer. Knows nothing of what their columns mean.

`read_table` and `read_batches` are for files of which every row counts; every cell of a CSV file is text there.
`read_columns` takes some columns of a file that people exported: it finds the delimiter, and tells on which line every
row stands and which lines are malformed. Two formats stay where they are known: PaddleRec's training lines
(`mind.data.paddlerec`), and the Parquet files of our clients (`clients/bulk_input.py`), which import nothing of this
package.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mind.errors import DataError
from mind.sequences import Int64

BLOCK_BYTES = 1 << 24
"""Bytes of a CSV file that are decoded or parsed at a time."""
DELIMITERS = ",\t;|"
"""The delimiters that are recognised in a CSV file."""

_STREAMED_BYTES = 1 << 22
"""Bytes of a CSV file that `read_batches` has in memory at a time."""


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


def column_names(path: Path) -> list[str]:
    """The columns of a file that ends in .csv, with a header line, or .parquet.

    Raises:
        DataError: it cannot be read, or ends otherwise.
    """
    with _reading(path):
        if _ends_in_parquet(path):
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])


def read_table(path: Path) -> pa.Table:
    """Read a whole file that ends in .csv, with a header, or .parquet. Cells of a CSV file are text, null if empty.

    Raises:
        DataError: it cannot be read, ends otherwise, or a row has too many or too few columns.
    """
    with _reading(path):
        if _ends_in_parquet(path):
            table = pq.read_table(path)
            table.validate(full=True)  # texts that are not UTF-8
            return table
        return pa_csv.read_csv(path, parse_options=_WHOLE_ROWS, convert_options=_as_text(column_names(path)))


def read_batches(path: Path, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Read such a file at most `batch_rows` rows at a time, so that it may be larger than memory. Raises DataError."""
    with _reading(path):
        if _ends_in_parquet(path):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_rows):
                    batch.validate(full=True)
                    yield batch
            return
        options = pa_csv.ReadOptions(block_size=_STREAMED_BYTES)
        for block in pa_csv.open_csv(path, options, _WHOLE_ROWS, _as_text(column_names(path))):
            for start in range(0, len(block), batch_rows):
                yield block.slice(start, batch_rows)


_WHOLE_ROWS = pa_csv.ParseOptions(newlines_in_values=True)


def _as_text(names: list[str]) -> pa_csv.ConvertOptions:
    """Read all columns as text: Arrow would choose types by the first block, and make dates of texts."""
    return pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.large_string()), null_values=[""], strings_can_be_null=True
    )


def _ends_in_parquet(path: Path) -> bool:
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(f"{path}: expected a file that ends in .csv or .parquet")
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


def read_columns(
    path: Path, names: Sequence[str], delimiter: str | None = None, header: Sequence[str] | None = None
) -> Columns:
    """Read some columns of a CSV (plain or compressed) or Parquet file. Blank lines are left out.

    The text of a CSV file is in memory once, besides its wanted columns.

    Args:
        path: a Parquet file, or text in UTF-8.
        names: the wanted columns; the file may add a type to a name, as in `user_id:token` (RecBole).
        delimiter: one character; detected among `DELIMITERS` if None.
        header: names of all columns of a CSV file that does not name them itself.

    Raises:
        DataError: the file or a column is missing, or the format is another.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise DataError(f"{path}: the delimiter is {delimiter!r}, it must be one character")
    with _reading(path), path.open("rb") as file:
        is_parquet = path.suffix == ".parquet" or file.read(4) == b"PAR1"
    with _reading(path, " as Parquet" if is_parquet else " as CSV"):
        return _parquet_columns(path, names) if is_parquet else _csv_columns(path, names, delimiter, header)


def shorten(text: str) -> str:
    """Quote text from a file in a message, at most 60 characters of it."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def _parquet_columns(path: Path, names: Sequence[str]) -> Columns:
    file = pq.ParquetFile(path)
    found = file.schema_arrow.names
    wanted = [found[position] for position in _positions(path, names, found)]
    table = file.read(wanted)
    table.validate(full=True)  # texts that are not UTF-8
    columns = [_tidy(table.column(name)) for name in wanted]
    return Columns(pa.table(columns, list(names)), np.arange(1, len(table) + 1), "row", [])


def _csv_columns(path: Path, names: Sequence[str], delimiter: str | None, header: Sequence[str] | None) -> Columns:
    with pa.input_stream(str(path)) as stream:
        content = stream.read()
    if not content or content.isspace():
        raise DataError(f"{path}: the file is empty")
    _check_utf8(path, content)
    if b"\n" not in content:
        content += b"\n"  # Arrow skips no header without one
    first_line = re.split(r"[\r\n]", io.BytesIO(content).readline().decode("utf-8-sig"))[0]
    delimiter = delimiter or max(DELIMITERS, key=first_line.count)
    found = list(header or next(csv.reader([first_line], delimiter=delimiter)))
    positions = _positions(path, names, found)
    file = _Csv(content, delimiter, width=len(found), header_lines=0 if header else 1)
    table, invalid = file.parse(positions, pa.string())
    lines, invalid_lines = file.lines(len(table), invalid)
    misfits = [
        (line + offset, f"expected {len(found)} columns, found {row.actual_columns}: {shorten(row.text)}")
        for line, row in zip(invalid_lines.tolist(), invalid, strict=True)
        if not row.text.isspace()
        for offset in range(row.text.count("\n") + 1)  # a quote without its partner swallows lines
    ]
    del content, file  # before columns are copied
    columns = [_tidy(column) for column in table.columns]
    filled = np.any([column.is_valid().to_numpy() for column in columns], axis=0)
    return Columns(pa.table(columns, list(names)).filter(filled), lines[filled], "line", misfits)


def _check_utf8(path: Path, content: bytes) -> None:
    """Refuse text that is not UTF-8. Blocks are decoded one by one, for the whole needs several times its size."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(content), BLOCK_BYTES):
        pending = len(decoder.getstate()[0])  # bytes of a character that the last block began
        block = content[start : start + BLOCK_BYTES]
        try:
            decoder.decode(block, final=start + BLOCK_BYTES >= len(content))
        except UnicodeDecodeError as error:
            fault = start - pending + error.start
            line = content.count(b"\n", 0, fault) + 1
            raise DataError(f"{path}: line {line}: byte {content[fault]:#04x} is not UTF-8; convert it") from error


def _positions(path: Path, names: Sequence[str], found: list[str]) -> list[int]:
    untyped = [name.strip().partition(":")[0] for name in found]
    for name in names:
        if name not in found and name not in untyped:
            raise DataError(f"{path}: no column {name!r}; there are: {', '.join(found)}")
    return [found.index(name) if name in found else untyped.index(name) for name in names]


def _tidy(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Leave signed integers, make lists of text of lists, and text of anything else; null where a value is missing."""
    if pa.types.is_signed_integer(column.type):
        return column
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return column.cast(pa.list_(pa.string()))
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.equal(text, ""), None, text)


@dataclass(frozen=True)
class _Csv:
    content: bytes
    delimiter: str
    width: int
    header_lines: int

    def parse(self, positions: Sequence[int], type_: pa.DataType) -> tuple[pa.Table, list[pa_csv.InvalidRow]]:
        """Some columns as text, and the rows that have not `width` columns. A blank line is a row of nulls."""
        invalid: list[pa_csv.InvalidRow] = []

        def skip(row: pa_csv.InvalidRow) -> str:
            invalid.append(row)
            return "skip"

        names = [str(position) for position in range(self.width)]
        include = [names[position] for position in positions]
        table = pa_csv.read_csv(
            pa.BufferReader(self.content),
            # Rows have numbers only if one thread reads them.
            pa_csv.ReadOptions(
                use_threads=False, skip_rows=self.header_lines, column_names=names, block_size=BLOCK_BYTES
            ),
            pa_csv.ParseOptions(
                delimiter=self.delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            pa_csv.ConvertOptions(
                include_columns=include, column_types=dict.fromkeys(include, type_), strings_can_be_null=True
            ),
        )
        return table, invalid

    def lines(self, rows: int, invalid: list[pa_csv.InvalidRow]) -> tuple[Int64, Int64]:
        """The lines, from 1, of rows that `parse` gave and of rows that it skipped: [rows], [len(invalid)] int64."""
        records = self.header_lines + rows + len(invalid)
        bad = np.array([row.number - 1 for row in invalid], np.int64)
        good = np.delete(np.arange(records), bad)[self.header_lines :]
        line = np.arange(1, records + 1)
        lines = self.content.count(b"\n") + (not self.content.endswith(b"\n"))
        if lines > records:  # quoted values go over several lines
            whole, _ = self.parse(range(self.width), pa.binary())
            extra = np.zeros(records, np.int64)
            extra[good] = sum(pc.count_substring(column.fill_null(b""), b"\n").to_numpy() for column in whole.columns)
            extra[bad] = [row.text.count("\n") for row in invalid]
            line += np.cumsum(extra) - extra
        return line[good], line[bad]
