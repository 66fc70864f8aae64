"""A CSV file that may be larger than memory, with a header and commas: in batches of rows, and its lines counted."""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from mind.data.csv_text import shorten
from mind.data.line_count import LineCount
from mind.data.quotes import Quote, Quotes, cells_of
from mind.errors import DataError

_BLOCK_BYTES = 1 << 22
"""Bytes of the file that are in memory at a time."""
_BREAK = re.compile(rb"\r\n|\r|\n")


def header_of(path: Path, quote: Quote | None) -> list[str]:
    """The names in the first line. Raises OSError, csv.Error or UnicodeDecodeError."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return cells_of(file.readline().rstrip("\r\n"), ",", quote or Quote.AUTO)


def count_csv(path: Path, key: str, quote: Quote | None) -> LineCount:
    """Count the lines of a file by what they are.

    Args:
        path: the file.
        key: a column of ids, by which lines that a misplaced quote swallows are known.
        quote: None for `Quote.AUTO` in a command that has no option for it.

    Raises:
        DataError: a quote swallows lines, or the text is not UTF-8.
        OSError: the file cannot be read.
    """
    names = header_of(path, quote)
    lines, blank_lines = 0, []
    with path.open(encoding="utf-8", newline=None) as file:
        try:
            for line in file:
                lines += 1
                if line.isspace():
                    blank_lines.append(lines)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: the text after line {lines} is not UTF-8; convert it") from error
    continued = np.zeros(0, np.int64)
    if lines:
        quotes = Quotes(
            path, ",", len(names), names.index(key) if key in names else None, quote or Quote.AUTO, quote is not None
        )
        with path.open("rb") as binary, mmap.mmap(binary.fileno(), 0, access=mmap.ACCESS_READ) as content:
            header = _BREAK.search(content)
            if content.find(b'"') >= 0:
                continued = quotes.continued_lines(content, header.end() if header else len(content), 2)
    blank = len(blank_lines) - len(np.intersect1d(blank_lines, continued))
    return LineCount(lines - min(lines, 1) - blank - len(continued), min(lines, 1), blank, len(continued))


def read_csv_batches(path: Path, batch_rows: int, quote: Quote | None) -> Iterator[pa.RecordBatch]:
    """Read all columns as text, null if empty. Raises DataError, OSError, pa.ArrowException or csv.Error."""
    faults: list[pa_csv.InvalidRow] = []

    def refuse(row: pa_csv.InvalidRow) -> str:
        if row.text.isspace():
            return "skip"
        faults.append(row)
        return "error"

    quoted = quote is not Quote.NONE
    names = header_of(path, quote)
    try:
        blocks = pa_csv.open_csv(
            path,
            pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, skip_rows=1, column_names=names),
            pa_csv.ParseOptions(
                quote_char='"' if quoted else False, newlines_in_values=quoted, invalid_row_handler=refuse
            ),
            # As text: Arrow would choose types by the first block, and make dates of texts.
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()), null_values=[""], strings_can_be_null=True
            ),
        )
        for block in blocks:
            for start in range(0, len(block), batch_rows):
                yield block.slice(start, batch_rows)
    except pa.ArrowInvalid:
        if not faults:
            raise
        row = faults[0]
        raise DataError(
            f"{path}: row {row.number - 1}: expected {row.expected_columns} columns, found {row.actual_columns}: "
            f"{shorten(row.text)}"
        ) from None
