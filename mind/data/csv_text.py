"""CSV text as rows: which line each stands on, which lines are malformed, and that no line is lost.

Knows nothing of what the columns mean. Every cell is text.
"""

import codecs
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from mind.data.line_count import LineCount, count_lines
from mind.data.quotes import Quote, Quotes, cells_of
from mind.errors import DataError
from mind.sequences import Int64

Mask = npt.NDArray[np.bool_]

BLOCK_BYTES = 1 << 24
"""Bytes of a CSV file that are decoded or parsed at a time."""
DELIMITERS = ",\t;|"
"""The delimiters that are recognised in a CSV file."""

_TEXT = pa.string()
_BREAKS = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True)
class Rows:
    """The rows of a CSV text."""

    table: pa.Table
    """N rows of the wanted columns as text."""
    lines: Int64
    """[N] int64: the line where each row begins, from 1."""
    misfits: list[tuple[int, str]]
    """Line and fault of every line that has too many or too few columns."""
    count: LineCount


@dataclass(frozen=True)
class CsvText:
    """The text of a CSV file, whole in memory."""

    path: Path
    content: bytes
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
        positions: Sequence[int],
        key: int | None,
        text: pa.DataType = _TEXT,
        null_values: Sequence[str] | None = None,
    ) -> Rows:
        """Read some columns.

        Args:
            positions: of the wanted columns.
            key: position of a column of ids, by which a line that is swallowed by a quote is known.
            text: Arrow's type of the cells.
            null_values: what stands for no value; None for what Arrow takes for it, such as an empty cell and NULL.

        Raises:
            DataError: a quote swallows lines, or the text cannot be parsed.
        """
        try:
            table, invalid = self._parse(positions, text, null_values)
        except pa.ArrowInvalid as error:
            self._continued_lines(key)  # a quote that is never closed is the likely reason
            if "straddling" in str(error):
                raise DataError(f"{self.path}: a row has more than {BLOCK_BYTES >> 20} MiB, the limit") from error
            raise
        lines, invalid_lines, continued = self._places(len(table), invalid, key)
        faults = [
            (line, len(_BREAKS.findall(row.text.encode())), row)
            for line, row in zip(invalid_lines.tolist(), invalid, strict=True)
        ]
        misfits = [
            (line + offset, f"expected {len(self.names)} columns, found {row.actual_columns}: {shorten(row.text)}")
            for line, breaks, row in faults
            if not row.text.isspace()
            for offset in range(breaks + 1)  # every line that a misplaced quote joined is malformed
        ]
        blank = sum(row.text.isspace() for row in invalid)
        kept = ~self._blank(table, lines)
        count = LineCount(
            rows=int(kept.sum()) + len(misfits),
            header=self.header_lines,
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

        names = [str(position) for position in range(len(self.names))]
        include = [names[position] for position in positions]
        quoted = self.quote is not Quote.NONE
        table = pa_csv.read_csv(
            pa.BufferReader(self.content),
            # Rows have numbers only if one thread reads them.
            pa_csv.ReadOptions(
                use_threads=False, skip_rows=self.header_lines, column_names=names, block_size=BLOCK_BYTES
            ),
            pa_csv.ParseOptions(
                delimiter=self.delimiter,
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
        return table, invalid

    def _places(self, rows: int, invalid: list[pa_csv.InvalidRow], key: int | None) -> tuple[Int64, Int64, int]:
        """The lines of rows that `_parse` gave and of those that it skipped, and how many lines quoted values take."""
        records = self.header_lines + rows + len(invalid)
        total = count_lines(self.content)
        bad = np.array([row.number - 1 for row in invalid], np.int64)
        good = np.delete(np.arange(records), bad)[self.header_lines :]
        line = np.arange(1, total + 1)
        if total == records > self.header_lines:
            self._refuse_open_end(total, key)
        if total != records:
            continued = self._continued_lines(key)
            line = np.delete(line, continued - 1)
            if len(line) != records:
                raise DataError(
                    f"{self.path}: has {total:,} lines, of which {records:,} were read as rows and {len(continued):,} "
                    "as parts of quoted values; these do not add up, so none is used: give --quote none, or mend the "
                    "quotes"
                )
        return line[good], line[bad], total - records

    def _continued_lines(self, key: int | None) -> Int64:
        header = _BREAKS.search(self.content) if self.header_lines else None
        start = header.end() if header else len(codecs.BOM_UTF8) * self.content.startswith(codecs.BOM_UTF8)
        return self._quotes(key).continued_lines(self.content, start, self.header_lines + 1)

    def _refuse_open_end(self, lines: int, key: int | None) -> None:
        """Refuse a quote on the last line that is not closed, which joins no lines."""
        end = len(self.content) - self.content.endswith((b"\n", b"\r"))
        start = self.content.rfind(b"\n", 0, end) + 1
        start = max(start, self.content.rfind(b"\r", start, end - self.content.endswith(b"\r\n")) + 1)
        self._quotes(key).continued_lines(self.content, start, lines)

    def _quotes(self, key: int | None) -> Quotes:
        return Quotes(self.path, self.delimiter, len(self.names), key, self.quote, self.has_option)

    def _blank(self, table: pa.Table, lines: Int64) -> Mask:
        """Which rows are blank lines: [N] bool."""
        blank: Mask = np.all([column.is_null().to_numpy() for column in table.columns], axis=0)
        if not blank.any():
            return blank
        starts = _line_starts(self.content)
        for row in np.flatnonzero(blank).tolist():
            start = starts[lines[row] - 1]
            end = starts[lines[row]] if lines[row] < len(starts) else len(self.content)
            blank[row] = not self.content[start:end].strip()
        return blank


def open_csv(path: Path, delimiter: str | None, header: Sequence[str] | None, quote: Quote | None) -> CsvText:
    """Read the text of a CSV file, plain or compressed, and the names of its columns.

    Args:
        path: text in UTF-8.
        delimiter: one character; detected among `DELIMITERS` if None.
        header: names of all columns of a file that does not name them itself.
        quote: None for `Quote.AUTO` in a command that has no option for it.

    Raises:
        DataError: it is empty or not UTF-8.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise DataError(f"{path}: the delimiter is {delimiter!r}, it must be one character")
    path.open("rb").close()  # whose error says why in fewer words than Arrow's
    with pa.input_stream(str(path)) as stream:
        content = stream.read()
    if not content or content.isspace():
        raise DataError(f"{path}: the file is empty")
    _check_utf8(path, content)
    if b"\n" not in content:
        content += b"\n"  # Arrow skips no header without one
    first_line = re.split(r"[\r\n]", io.BytesIO(content).readline().decode("utf-8-sig"))[0]
    delimiter = delimiter or max(DELIMITERS, key=first_line.count)
    mode = quote or Quote.AUTO
    names = list(header or cells_of(first_line, delimiter, mode))
    return CsvText(path, content, delimiter, names, 0 if header else 1, mode, quote is not None)


def shorten(text: str) -> str:
    """Quote text from a file in a message, at most 60 characters of it."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


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


def _line_starts(content: bytes) -> Int64:
    """Where each line begins."""
    if b"\r" in content:
        return np.array([0, *(found.end() for found in _BREAKS.finditer(content))], np.int64)
    data = np.frombuffer(content, np.uint8)
    blocks = range(0, len(data), BLOCK_BYTES)
    breaks = [np.flatnonzero(data[start : start + BLOCK_BYTES] == ord("\n")) + start + 1 for start in blocks]
    return np.concatenate([np.zeros(1, np.int64), *breaks])
