"""Finds quoted values in CSV text that span several lines, and checks that the quotes are meant as quotes.

RFC 4180 lets a quoted value contain line breaks. A file whose texts contain a lone `"` looks the same to a parser: it
reads the lines up to the next quote as one value. This module knows nothing of the meaning of columns.
"""

import csv
import re
from dataclasses import dataclass
from enum import StrEnum

from mind.data.line_count import count_line_breaks
from mind.errors import DataError


class Quote(StrEnum):
    """What the character `"` means in a CSV file."""

    AUTO = "auto"
    """It quotes values. A quoted value with lines that look like rows is refused."""
    ALWAYS = "always"
    """It quotes values, whatever the lines in them look like."""
    NONE = "none"
    """It is a normal character."""


def ids_like(row: str, delimiter: str, quote: Quote, key: int | None) -> re.Pattern[str]:
    """Return a pattern of the ids of a file, made from the id in its first row.

    `key`: the position of the column of ids.
    """
    try:
        cells = cells_of(row, delimiter, quote)
    except csv.Error:
        cells = []
    is_text = key is not None and key < len(cells) and not _INTEGER_ID.fullmatch(cells[key])
    return _TEXT_ID if is_text else _INTEGER_ID


def cells_of(line: str, delimiter: str, quote: Quote) -> list[str]:
    """Return the cells of a line that is read on its own. Raises csv.Error if a cell is longer than Python's limit."""
    return line.split(delimiter) if quote is Quote.NONE else next(csv.reader([line], delimiter=delimiter), [])


_LINE_BREAK = re.compile(rb"\r\n|\r|\n")
_VALUE = re.compile(rb'"(?>(?:[^"]+|"")*)"')
_INTEGER_ID = re.compile(r"\s*-?[0-9]+\s*")
_TEXT_ID = re.compile(r"\s*[^\s\"]+\s*")
_MOST_LINES = 10_000
"""Maximum number of lines of one value that are checked."""
_MANY_ROWS = 3
"""Minimum number of lines in a value that look like rows for the quote to be an error."""


@dataclass(frozen=True)
class Quotes:
    """The way in which the quotes of one CSV file are read."""

    name: str
    """The name of the file in messages."""
    delimiter: str
    width: int
    """Number of columns of a row."""
    key: int | None
    """The position of a column that holds an id in every row, by which rows are recognized; None if there is none."""
    mode: Quote
    has_option: bool
    """Whether the command has an option `--quote` that a message can name."""
    ids: re.Pattern[str] | None
    """The pattern of the ids of the file: integers, or text without spaces; None for a file without rows."""

    def spans(self, content: bytes, line: int, is_last: bool) -> tuple[list[tuple[int, int]], int]:
        """Return the values that span several lines of whole rows.

        Args:
            content: lines of the file, the first of which begins a row.
            line: the number of the first line, from 1.
            is_last: whether the file ends after these lines.

        Returns:
            The first and the last line of every such value, and the start of a last row that does not end in the
            content; this is the length of the content if there is no such row.

        Raises:
            DataError: a quote is never closed, or its value has lines that look like rows and the mode is not `ALWAYS`.
        """
        if self.mode is Quote.NONE or b'"' not in content:
            return [], len(content)
        opening, more = self._patterns()
        found: list[tuple[int, int]] = []
        position, counted = 0, 0
        while opened := opening.search(content, position):
            record, of_record = opened.start(), []
            while opened:
                quote = opened.start(1)
                line += count_line_breaks(content, counted, quote)
                value = _VALUE.match(content, quote)
                if value is None:
                    if is_last:
                        raise self.error(line, "is not closed before the end of the file")
                    return found, record
                last = line + count_line_breaks(content, quote, value.end())
                self._check(content, record, value, line, last)
                of_record.append((line, last))
                position, counted, line = value.end(), value.end(), last
                opened = more.match(content, position)
            found += of_record
        return found, len(content)

    def _patterns(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        """Return patterns for a quote that is open at the end of its line: from a line's start, and after a value."""
        d = re.escape(self.delimiter.encode())
        rest = rb"[^%b\r\n]*" % d
        cell = rb'(?:"(?>(?:[^"\r\n]+|"")*)"' + rest + rb'|[^"\r\n%b]' % d + rest + rb"|)"
        opened = rb"(?>(?:" + cell + d + rb')*)(")(?>(?:[^"\r\n]+|"")*)(?=[\r\n]|\Z)'
        return re.compile(rb"(?<![^\r\n])" + opened), re.compile(rest + d + opened)

    def _check(self, content: bytes, record: int, value: re.Match[bytes], line: int, last: int) -> None:
        if self.mode is Quote.ALWAYS:
            return
        after = content[value.end() : value.end() + 1]
        if after and after not in (b"\n", b"\r", self.delimiter.encode()):
            raise self.error(line, f"closes on line {last} in the middle of a value", True)
        end = _LINE_BREAK.search(content, value.start())
        first = content[record : value.start()] + b"x" + content[value.start() + 1 : end.start() if end else None]
        whole = not _LINE_BREAK.search(first) and len(self._cells(first)) == self.width
        rows = 0
        position = end.end() if end else value.end()
        for _ in range(_MOST_LINES):
            if position >= value.end():
                break
            end = _LINE_BREAK.search(content, position)
            rows += self._is_row(content[position : end.start() if end else len(content)])
            if rows >= (1 if whole else _MANY_ROWS):
                raise self.error(line, f"closes on line {last}, and lines in it look like rows of their own", True)
            position = end.end() if end else value.end()

    def _is_row(self, text: bytes) -> bool:
        cells = self._cells(text)
        return len(cells) == self.width and (
            self.key is None or self.ids is None or bool(self.ids.fullmatch(cells[self.key]))
        )

    def _cells(self, text: bytes) -> list[str]:
        """Return the cells of a line that is read on its own; [] if the line certainly has fewer cells than a row."""
        if text.count(self.delimiter.encode()) < self.width - 1:
            return []
        try:
            return cells_of(text.decode(errors="replace"), self.delimiter, self.mode)
        except csv.Error:
            return []

    def error(self, line: int, what: str, is_closed: bool = False) -> DataError:
        """Return the error for a quote on a line."""
        text = f'{self.name}: line {line}: a quote (") opens a value that {what}; mend the line'
        if self.has_option:
            text += ", or give --quote none if quotes mean nothing in this file"
            if is_closed:
                text += ", or --quote always if the value is meant to have several lines"
        return DataError(text)
