"""Reads CSV text as rows, block by block, with their line numbers.

Finds malformed rows, and makes sure that no line is lost.

This module knows nothing of the meaning of columns. Every cell is text.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from mind.data import text_blocks
from mind.data.line_count import LineCount, count_line_breaks, count_lines
from mind.data.quotes import Quote, Quotes, cells_of, ids_like
from mind.data.text_blocks import Block, read_blocks, shorten
from mind.errors import DataError
from mind.sequences import Int64

Mask = npt.NDArray[np.bool_]

DELIMITERS = (",", "\t", ";", "|", "::")
"""The delimiters that are recognised in a CSV file."""

_TEXT = pa.string()
_BREAKS = re.compile(rb"\r\n|\r|\n")
_STAND_INS = [b"\x1f", b"\x1e", b"\x1d", b"\x1c", b"\x02", b"\x03", b"\x04", b"\x05"]
"""Characters that do not occur in texts. One of them replaces a delimiter of several characters."""
_NETFLIX = re.compile(r"[0-9]+:\s*")


@dataclass(frozen=True)
class Rows:
    """Some rows of a text, and the lines that are not rows."""

    table: pa.Table
    """N rows of the wanted columns."""
    lines: Int64
    """[N] int64: the line on which each row begins, from 1."""
    misfits: list[tuple[int, str]]
    """Line and fault of every line that is not a row, such as one with too many or too few columns."""
    count: LineCount


@dataclass(frozen=True)
class CsvFile:
    """The format of a CSV file."""

    name: str
    """The name of the file in messages."""
    delimiter: str
    names: list[str]
    """The names of all columns."""
    header_lines: int
    """Number of header lines: 1, or 0 if the file has no header."""
    quote: Quote
    has_option: bool
    """Whether the command has an option `--quote`."""

    def rows(
        self,
        blocks: Iterator[Block],
        positions: Sequence[int],
        key: int | None,
        text: pa.DataType = _TEXT,
        null_values: Sequence[str] | None = None,
    ) -> Iterator[Rows]:
        """Read some columns, block by block. Yield at least once; a file without rows gives an empty table.

        Args:
            blocks: the text of the file.
            positions: positions of the wanted columns.
            key: position of a column of ids, by which a line that a quote swallows is detected.
            text: Arrow's type of the cells.
            null_values: the texts that mean no value; None for Arrow's defaults, such as an empty cell and NULL.

        Raises:
            DataError: a quote swallows lines, or the text cannot be parsed.
        """
        ids: re.Pattern[str] | None = None
        header = self.header_lines
        rest = b""  # rows that began in the last block and did not end
        for block in blocks:
            line = block.line - count_line_breaks(rest, 0, len(rest))
            content = rest + block.content
            if header:
                first = _BREAKS.search(content)
                content, line = content[first.end() if first else len(content) :], line + 1
            separator = _separator(self.name, self.delimiter, content)
            content = content.replace(self.delimiter.encode(), separator)
            single = separator.decode()
            if ids is None and content:
                ids = ids_like(_first_line(content), single, self.quote, key)
            quotes = Quotes(self.name, single, len(self.names), key, self.quote, self.has_option, ids)
            spans, end = quotes.spans(content, line, block.is_last)
            rest = content[end:]
            if len(rest) > (limit := 2 * text_blocks.BLOCK_BYTES):
                at = line + count_line_breaks(content, 0, end)
                raise quotes.error(at, f"is not closed within {limit >> 20} MiB")
            parsed = _Parsed(self, content[:end], line, single, spans)
            yield parsed.rows(positions, text, null_values, header)
            rest, header = rest.replace(separator, self.delimiter.encode()), 0


@dataclass(frozen=True)
class _Parsed:
    """Whole rows of a CSV file."""

    file: CsvFile
    content: bytes
    line: int
    """The line number of the first row."""
    separator: str
    """What separates the columns in `content`."""
    spans: list[tuple[int, int]]
    """The first and the last line of every value that spans several lines."""

    def rows(self, positions: Sequence[int], text: pa.DataType, null_values: Sequence[str] | None, header: int) -> Rows:
        """Read some columns. `header`: the number of header lines before these rows."""
        table, invalid = self._parse(positions, text, null_values)
        lines, invalid_lines, continued = self._places(len(table), invalid)
        faults = [
            (line, len(_BREAKS.findall(row.text.encode())), row)
            for line, row in zip(invalid_lines.tolist(), invalid, strict=True)
        ]
        misfits = [
            (line + offset, f"expected {len(self.file.names)} columns, found {row.actual_columns}: {self._shown(row)}")
            for line, breaks, row in faults
            if not row.text.isspace()
            for offset in range(breaks + 1)  # every line that a misplaced quote joined is malformed
        ]
        blank = sum(row.text.isspace() for row in invalid)
        kept = ~self._blank(table, lines)
        count = LineCount(
            rows=int(kept.sum()) + len(misfits),
            header=header,
            blank=blank + len(table) - int(kept.sum()),
            continued=continued - sum(breaks for _, breaks, row in faults if not row.text.isspace()),
        )
        if not kept.all():
            table, lines = table.filter(kept), lines[kept]
        return Rows(table, lines, misfits, count)

    def _parse(
        self, positions: Sequence[int], text: pa.DataType, null_values: Sequence[str] | None
    ) -> tuple[pa.Table, list[pa_csv.InvalidRow]]:
        """Read some columns as text, and collect the rows with another number of columns.

        A blank line is a row of nulls.
        """
        invalid: list[pa_csv.InvalidRow] = []

        def skip(row: pa_csv.InvalidRow) -> str:
            invalid.append(row)
            return "skip"

        names = [str(position) for position in range(len(self.file.names))]
        include = [names[position] for position in positions]
        if not self.content:
            return pa.table([pa.array([], text)] * len(include), include), []
        quoted = self.file.quote is not Quote.NONE
        mark = codecs.BOM_UTF8 * self.content.startswith(codecs.BOM_UTF8)  # Arrow drops one mark only
        table = pa_csv.read_csv(
            pa.BufferReader(mark + self.content),
            # Rows have numbers only if one thread reads them.
            pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(self.content) + 4),
            pa_csv.ParseOptions(
                delimiter=self.separator,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            pa_csv.ConvertOptions(
                include_columns=include,
                column_types=dict.fromkeys(include, text),
                strings_can_be_null=True,
                null_values=null_values,
            ),
        )
        return self._with_delimiter(table), invalid

    def _with_delimiter(self, table: pa.Table) -> pa.Table:
        """Put the delimiter back into cells, where a character replaced it."""
        if self.separator == self.file.delimiter:
            return table
        columns = [pc.replace_substring(column, self.separator, self.file.delimiter) for column in table.columns]
        return pa.table(columns, table.column_names)

    def _shown(self, row: pa_csv.InvalidRow) -> str:
        return shorten(str(row.text).replace(self.separator, self.file.delimiter))

    def _places(self, rows: int, invalid: list[pa_csv.InvalidRow]) -> tuple[Int64, Int64, int]:
        """Return the lines of the parsed rows and of the skipped rows, and how many lines the quoted values take."""
        records, total = rows + len(invalid), count_lines(self.content)
        bad = np.array([row.number - 1 for row in invalid], np.int64)
        good = np.delete(np.arange(records), bad) if len(bad) else np.arange(records)
        line = np.arange(self.line, self.line + total)
        continued = [np.arange(first + 1, last + 1) - self.line for first, last in self.spans]
        if continued:
            line = np.delete(line, np.concatenate(continued))
        if len(line) != records:
            raise DataError(
                f"{self.file.name}: lines {self.line:,} to {self.line + total - 1:,} are {total:,}, of which "
                f"{records:,} were read as rows and {total - len(line):,} as parts of quoted values; these do not add "
                "up, so none is used: give --quote none, or mend the quotes"
            )
        return line[good], line[bad], total - records

    def _blank(self, table: pa.Table, lines: Int64) -> Mask:
        """Return which rows are blank lines, as a mask: [N] bool."""
        blank: Mask = np.all([column.is_null().to_numpy() for column in table.columns], axis=0)
        if not blank.any():
            return blank
        starts = _line_starts(self.content)
        for row in np.flatnonzero(blank).tolist():
            at = lines[row] - self.line
            end = starts[at + 1] if at + 1 < len(starts) else len(self.content)
            blank[row] = not self.content[starts[at] : end].strip()
        return blank


def open_csv(
    name: str, stream: Any, delimiter: str | None, header: Sequence[str] | None, quote: Quote | None
) -> tuple[CsvFile, Iterator[Block]]:
    """Detect the format of a CSV file, and begin to read it.

    Args:
        name: the name of the file in messages.
        stream: the bytes of the file, text in UTF-8.
        delimiter: one character or several; detected among `DELIMITERS` if None.
        header: names of all columns of a file that has no header.
        quote: the meaning of quotes; None for `Quote.AUTO` in a command that has no option for it.

    Raises:
        DataError: the file is empty, is not UTF-8, or has the blocks of Netflix' files; or the delimiter is not valid.
    """
    check_delimiter(name, delimiter)
    blocks = read_blocks(name, stream)
    first = next(blocks)
    first_line = _first_line(first.content)
    if _NETFLIX.fullmatch(first_line):
        raise DataError(
            f"{name}: line 1 is {first_line.strip()!r}, an item to which the lines after it belong, as in Netflix' "
            'files; write a row for every rating with `awk \'/:\\r?$/ {sub(/:.*/, ""); item = $0; next} '
            '{print item "," $0}\' FILE > ratings.csv` and give --header item_id,user_id,rating,date'
        )
    delimiter = delimiter or max(DELIMITERS, key=lambda one: first_line.count(one))
    mode = quote or Quote.AUTO
    single = _separator(name, delimiter, first.content).decode()
    names = list(header or cells_of(first_line.replace(delimiter, single), single, mode))

    def every() -> Iterator[Block]:
        yield first
        yield from blocks

    return CsvFile(name, delimiter, names, 0 if header else 1, mode, quote is not None), every()


def check_delimiter(name: str, delimiter: str | None) -> None:
    """Raise DataError if a text cannot be a delimiter."""
    if delimiter is not None and (not 0 < len(delimiter) <= 8 or re.search(r'["\r\n]', delimiter)):
        raise DataError(
            f"{name}: the delimiter is {delimiter!r}; it must have 1 to 8 characters, without quotes and line breaks"
        )


def _separator(name: str, delimiter: str, content: bytes) -> bytes:
    """Return the byte that separates columns: the delimiter, or a byte for it that does not occur in the content."""
    if len(delimiter.encode()) == 1:
        return delimiter.encode()
    for separator in _STAND_INS:
        if separator not in content:
            return separator
    raise DataError(f"{name}: has all of the control characters that could take the place of {delimiter!r}")


def _first_line(content: bytes) -> str:
    end = _BREAKS.search(content)
    return content[: end.start() if end else len(content)].decode()


def _line_starts(content: bytes) -> Int64:
    """Return the positions at which lines begin."""
    if b"\r" in content:
        return np.array([0, *(found.end() for found in _BREAKS.finditer(content))], np.int64)
    breaks = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
    return np.concatenate([np.zeros(1, np.int64), breaks])
