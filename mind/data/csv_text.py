"""CSV text as rows, block after block: which line each row stands on, which are malformed, and that no line is lost.

Knows nothing of what the columns mean. Every cell is text.
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
"""Characters that texts do not have, of which one takes the place of a delimiter that is longer."""
_NETFLIX = re.compile(r"[0-9]+:\s*")


@dataclass(frozen=True)
class Rows:
    """Some rows of a text."""

    table: pa.Table
    """N rows of the wanted columns."""
    lines: Int64
    """[N] int64: the line where each row begins, from 1."""
    misfits: list[tuple[int, str]]
    """Line and fault of every line that is no row, such as one with too many or too few columns."""
    count: LineCount


@dataclass(frozen=True)
class CsvFile:
    """How a CSV file is read."""

    name: str
    """What messages call it."""
    delimiter: str
    names: list[str]
    """The names of all columns."""
    header_lines: int
    """1, or 0 if the file does not name its columns."""
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
        """Read some columns, block after block; at least once, with no rows where the file has none.

        Args:
            blocks: the text of the file.
            positions: of the wanted columns.
            key: position of a column of ids, by which a line that is swallowed by a quote is known.
            text: Arrow's type of the cells.
            null_values: what stands for no value; None for what Arrow takes for it, such as an empty cell and NULL.

        Raises:
            DataError: a quote swallows lines, or the text cannot be parsed.
        """
        ids: re.Pattern[str] | None = None
        header = self.header_lines
        rest = b""  # rows that the last block began and did not end
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
    """The number of their first line."""
    separator: str
    """What separates the columns in `content`."""
    spans: list[tuple[int, int]]
    """The first and the last line of every value that goes over several."""

    def rows(self, positions: Sequence[int], text: pa.DataType, null_values: Sequence[str] | None, header: int) -> Rows:
        """Read some columns. `header`: lines of the header before these rows."""
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
        """Some columns as text, and the rows that have another number of columns. A blank line is a row of nulls."""
        invalid: list[pa_csv.InvalidRow] = []

        def skip(row: pa_csv.InvalidRow) -> str:
            invalid.append(row)
            return "skip"

        names = [str(position) for position in range(len(self.file.names))]
        include = [names[position] for position in positions]
        if not self.content:
            return pa.table([pa.array([], text)] * len(include), include), []
        quoted = self.file.quote is not Quote.NONE
        mark = codecs.BOM_UTF8 * self.content.startswith(codecs.BOM_UTF8)  # of two, Arrow leaves the one that is text
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
        """The cells as they stand in the file, where a character took the place of the delimiter."""
        if self.separator == self.file.delimiter:
            return table
        columns = [pc.replace_substring(column, self.separator, self.file.delimiter) for column in table.columns]
        return pa.table(columns, table.column_names)

    def _shown(self, row: pa_csv.InvalidRow) -> str:
        return shorten(str(row.text).replace(self.separator, self.file.delimiter))

    def _places(self, rows: int, invalid: list[pa_csv.InvalidRow]) -> tuple[Int64, Int64, int]:
        """The lines of rows that `_parse` gave and of those that it skipped, and how many lines quoted values take."""
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
        """Which rows are blank lines: [N] bool."""
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
    """Find out how a CSV file is to be read, and begin to read it.

    Args:
        name: what messages call the file.
        stream: its bytes, text in UTF-8.
        delimiter: one character or several; detected among `DELIMITERS` if None.
        header: names of all columns of a file that does not name them itself.
        quote: None for `Quote.AUTO` in a command that has no option for it.

    Raises:
        DataError: it is empty, not UTF-8, or has Netflix' blocks; or the delimiter cannot be one.
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
    """Raise DataError if something cannot separate columns."""
    if delimiter is not None and (not 0 < len(delimiter) <= 8 or re.search(r'["\r\n]', delimiter)):
        raise DataError(
            f"{name}: the delimiter is {delimiter!r}; it must have 1 to 8 characters, without quotes and line breaks"
        )


def _separator(name: str, delimiter: str, content: bytes) -> bytes:
    """The byte that separates columns: the delimiter, or one that takes its place and that the content lacks."""
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
    """Where each line begins."""
    if b"\r" in content:
        return np.array([0, *(found.end() for found in _BREAKS.finditer(content))], np.int64)
    breaks = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
    return np.concatenate([np.zeros(1, np.int64), breaks])
