"""Quoted values in CSV text that go on over several lines: which lines they take, and whether they are meant to.

RFC 4180 lets a quoted value contain line breaks. A file whose texts contain a lone `"` looks the same to a parser: it
reads the lines up to the next quote as one value. Knows nothing of what the columns mean.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from mind.data.line_count import Text, count_line_breaks
from mind.errors import DataError
from mind.sequences import Int64


class Quote(StrEnum):
    """What the character `"` means in a CSV file."""

    AUTO = "auto"
    """It quotes values; one that takes in lines which look like rows of their own is refused."""
    ALWAYS = "always"
    """It quotes values, whatever the lines in them look like."""
    NONE = "none"
    """Nothing: it is a character like any other."""


def cells_of(line: str, delimiter: str, quote: Quote) -> list[str]:
    """The cells of a line that is read on its own. Raises csv.Error if one is longer than Python's limit."""
    return line.split(delimiter) if quote is Quote.NONE else next(csv.reader([line], delimiter=delimiter), [])


_LINE_BREAK = re.compile(rb"\r\n|\r|\n")
_VALUE = re.compile(rb'"(?>(?:[^"]+|"")*)"')
_INTEGER_ID = re.compile(r"\s*-?[0-9]+\s*")
_TEXT_ID = re.compile(r"\s*[^\s\"]+\s*")
_MOST_LINES = 10_000
"""The most lines of one value that are looked at."""
_MANY_ROWS = 3
"""So many lines in a value that look like rows are no coincidence."""


@dataclass(frozen=True)
class Quotes:
    """How the quotes of one CSV file are read."""

    path: Path
    delimiter: str
    width: int
    """The columns of a row."""
    key: int | None
    """The position of a column that holds an id in every row, by which a row is known; None without one."""
    mode: Quote
    has_option: bool
    """Whether the command has an option `--quote` that a message can name."""

    def continued_lines(self, content: Text, start: int, line: int) -> Int64:
        """The lines that begin inside of a quoted value, ascending.

        Args:
            content: the text.
            start: where its first row begins.
            line: the number of this line, from 1.

        Raises:
            DataError: a quote is never closed or, unless the mode is `ALWAYS`, takes in lines that look like rows.
        """
        if self.mode is Quote.NONE:
            return np.zeros(0, np.int64)
        found = [np.arange(first + 1, last + 1) for first, last in self._spans(content, start, line)]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _spans(self, content: Text, start: int, line: int) -> Iterator[tuple[int, int]]:
        """The first and the last line of every value that goes over several."""
        opening, more = self._patterns()
        ids = self._ids(content, start)
        position, counted, record = start, start, -1
        while opened := opening.search(content, position):
            record = opened.start()
            while opened:
                quote = opened.start(1)
                line += count_line_breaks(content, counted, quote)
                value = _VALUE.match(content, quote)
                if value is None:
                    raise self._error(line, "is not closed before the end of the file")
                last = line + count_line_breaks(content, quote, value.end())
                self._check(content, record, value, line, last, ids)
                yield line, last
                position, counted, line = value.end(), value.end(), last
                opened = more.match(content, position)

    def _patterns(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        """What finds a quote that is open at the end of its line: from the start of a line, and after a value."""
        d = re.escape(self.delimiter.encode())
        rest = rb"[^%b\r\n]*" % d
        cell = rb'(?:"(?>(?:[^"\r\n]+|"")*)"' + rest + rb'|[^"\r\n%b]' % d + rest + rb"|)"
        opened = rb"(?>(?:" + cell + d + rb')*)(")(?>(?:[^"\r\n]+|"")*)(?=[\r\n]|\Z)'
        return re.compile(rb"(?:(?<![^\r\n])|(?<=\A\xef\xbb\xbf))" + opened), re.compile(rest + d + opened)

    def _ids(self, content: Text, start: int) -> re.Pattern[str]:
        """What the ids of the file look like, as its first row has one: integers, or text without spaces."""
        end = _LINE_BREAK.search(content, start)
        cells = self._cells(content[start : end.start() if end else len(content)])
        is_text = self.key is not None and self.key < len(cells) and not _INTEGER_ID.fullmatch(cells[self.key])
        return _TEXT_ID if is_text else _INTEGER_ID

    def _check(
        self, content: Text, record: int, value: re.Match[bytes], line: int, last: int, ids: re.Pattern[str]
    ) -> None:
        if self.mode is Quote.ALWAYS:
            return
        after = content[value.end() : value.end() + 1]
        if after and after not in (b"\n", b"\r", self.delimiter.encode()):
            raise self._error(line, f"closes on line {last} in the middle of a value", True)
        end = _LINE_BREAK.search(content, value.start())
        first = content[record : value.start()] + b"x" + content[value.start() + 1 : end.start() if end else None]
        whole = not _LINE_BREAK.search(first) and len(self._cells(first)) == self.width
        rows = 0
        position = end.end() if end else value.end()
        for _ in range(_MOST_LINES):
            if position >= value.end():
                break
            end = _LINE_BREAK.search(content, position)
            rows += self._is_row(content[position : end.start() if end else len(content)], ids)
            if rows >= (1 if whole else _MANY_ROWS):
                raise self._error(line, f"closes on line {last}, and lines in it look like rows of their own", True)
            position = end.end() if end else value.end()

    def _is_row(self, text: bytes, ids: re.Pattern[str]) -> bool:
        cells = self._cells(text)
        return len(cells) == self.width and (self.key is None or bool(ids.fullmatch(cells[self.key])))

    def _cells(self, text: bytes) -> list[str]:
        """The cells of a line read on its own; [] if there are certainly fewer than a row has."""
        if text.count(self.delimiter.encode()) < self.width - 1:
            return []
        try:
            return cells_of(text.decode(errors="replace"), self.delimiter, self.mode)
        except csv.Error:
            return []

    def _error(self, line: int, what: str, is_closed: bool = False) -> DataError:
        text = f'{self.path}: line {line}: a quote (") opens a value that {what}; mend the line'
        if self.has_option:
            text += ", or give --quote none if quotes mean nothing in this file"
            if is_closed:
                text += ", or --quote always if the value is meant to have several lines"
        return DataError(text)
