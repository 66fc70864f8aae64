"""Named columns of a CSV or Parquet file, every row with its line; and their values as ids and times.

Knows nothing of what the columns mean. Works on whole columns: no Python code runs per row.
"""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mind.errors import DataError
from mind.sequences import Int64

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BLOCK_BYTES = 1 << 24
"""Of a CSV file, decoded or parsed at a time."""
DELIMITERS = ",\t;|"
"""What the delimiter of a CSV file is detected among."""

_INTEGER = r"^-?[0-9]{1,19}$"
_NUMBER = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_HOUR = "([01][0-9]|2[0-3])"
_ZONE = rf"(Z| ?UTC|[+-]{_HOUR}(:?[0-5][0-9])?)"
_DATE = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_HOUR}:[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?{_ZONE}?)?$"
_ZONED = r":.*[Z+-]"


@dataclass(frozen=True)
class Columns:
    """Columns as they stand in a file."""

    table: pa.Table
    """N rows under the wanted names: signed integers, lists of text, or trimmed text; null where a value is missing."""
    lines: Int64
    """[N] int64: where each row stands in the file, from 1."""
    unit: str
    """What `lines` counts: "line" of a CSV file, its header included, or "row" of a Parquet file."""
    misfits: list[tuple[int, str]]
    """Line and fault of every line that has too many or too few columns."""


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
    try:
        with path.open("rb") as file:
            is_parquet = path.suffix == ".parquet" or file.read(4) == b"PAR1"
        return _read_parquet(path, names) if is_parquet else _read_csv(path, names, delimiter, header)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as {'Parquet' if is_parquet else 'CSV'}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_ids(column: pa.ChunkedArray) -> tuple[Int64, Mask]:
    """Integers of 64 bits; no list is one.

    Returns:
        values: [N] int64; 0 where the value is null or no such integer.
        valid: [N] bool.
    """
    if pa.types.is_signed_integer(column.type):
        return column.fill_null(0).cast(pa.int64()).to_numpy(), column.is_valid().to_numpy()
    if pa.types.is_list(column.type):
        return np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_)
    matches = pc.match_substring_regex(column, _INTEGER).fill_null(False)
    # 19 digits always fit into 64 bits without a sign, so this cast cannot fail.
    magnitude = pc.if_else(matches, pc.utf8_ltrim(column, "-"), "0").cast(pa.uint64()).to_numpy()
    negative = pc.starts_with(column, "-").fill_null(False).to_numpy()
    valid = matches.to_numpy() & (magnitude <= np.uint64(2**63 - 1) + negative)
    return np.where(valid, np.where(negative, -magnitude, magnitude), 0).view(np.int64), valid


def strict_ids(path: Path, found: Columns, name: str, unique: bool = False) -> Int64:
    """Ids of a file of which every row counts, such as one about items: [N] int64.

    Raises:
        DataError: a line has too many or too few columns, an id is no integer of 64 bits, or, where they must be
            `unique`, one occurs twice.
    """
    if found.misfits:
        line, fault = found.misfits[0]
        raise DataError(f"{path}: line {line}: {fault}")
    column = found.table.column(name)
    ids, valid = parse_ids(column)
    if not valid.all():
        row = int(valid.argmin())
        text = shorten(str(column[row].as_py() or ""))
        raise DataError(f"{path}: {found.unit} {found.lines[row]}: {name} is {text}, not an integer of 64 bits")
    ordered = np.sort(ids)
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if unique and len(repeated):
        raise DataError(f"{path}: {name} {ordered[repeated[0]]} occurs more than once")
    return ids


def parse_times(column: pa.ChunkedArray) -> tuple[Int64 | Float64, Mask]:
    """Integers, else floats, else ISO 8601 in microseconds since 1970 (UTC where no zone is given).

    What most values are decides which of them are valid.

    Returns:
        values: [N] int64 if all are integers or dates, or float64; 0 where the value is null or no time.
        valid: [N] bool.
    """
    values, valid = parse_ids(column)
    if pa.types.is_list(column.type) or len(valid) - valid.sum() == column.null_count:
        return values, valid
    numbers = pc.match_substring_regex(column, _NUMBER).fill_null(False)
    dates = pc.match_substring_regex(column, _DATE).fill_null(False)
    number_count, date_count = pc.sum(numbers).as_py(), pc.sum(dates).as_py()
    if date_count > number_count:
        return _parse_dates(column, dates)
    if number_count == valid.sum():
        return values, valid
    floats = pc.if_else(numbers, column, "0").cast(pa.float64()).to_numpy()
    return floats, numbers.to_numpy() & np.isfinite(floats)


def shorten(text: str) -> str:
    """Text from a file as part of a message."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def _parse_dates(text: pa.ChunkedArray, matches: pa.ChunkedArray) -> tuple[Int64, Mask]:
    day = pc.utf8_slice_codeunits(text, 0, 10)
    in_calendar = [value for value in pc.unique(pc.filter(day, matches)).to_pylist() if _is_date(value)]
    valid = pc.and_(matches, pc.is_in(day, pa.array(in_calendar, pa.string())))
    text = pc.replace_substring_regex(text, " ?UTC$", "Z")
    zoned = pc.match_substring_regex(text, _ZONED).fill_null(False)
    text = pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")
    with_zone = pc.if_else(pc.and_(valid, zoned), text, None).cast(pa.timestamp("us", "UTC"))
    without = pc.if_else(pc.and_not(valid, zoned), text, None).cast(pa.timestamp("us"))
    values = pc.coalesce(with_zone.cast(pa.int64()), without.cast(pa.int64()), 0)
    return values.to_numpy(), valid.to_numpy()


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, names: Sequence[str]) -> Columns:
    file = pq.ParquetFile(path)
    found = file.schema_arrow.names
    wanted = [found[position] for position in _positions(path, names, found)]
    table = file.read(wanted)
    table.validate(full=True)  # texts that are not UTF-8
    columns = [_tidy(table.column(name)) for name in wanted]
    return Columns(pa.table(columns, list(names)), np.arange(1, len(table) + 1), "row", [])


def _read_csv(path: Path, names: Sequence[str], delimiter: str | None, header: Sequence[str] | None) -> Columns:
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
    """Decode it a block at a time: the whole would take as much memory again, or several times that."""
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
    """Signed integers as they are, lists as lists of text, anything else as text; null where a value is missing."""
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
        """Lines, from 1, of what `parse` gave: [rows] int64 and [len(invalid)] int64."""
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
