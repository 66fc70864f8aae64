"""A plain reader of CSV and Parquet, one character and one row at a time: what `fuzz_tables` holds ours against.

It shares no code with the project. It is slow, and short enough to see that it is right.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.csv as pa_csv

NULLS = set(pa_csv.ConvertOptions().null_values)
NUMBER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
INTEGER = re.compile(r"-?[0-9]{1,19}")
INTEGER_ID, TEXT_ID = r"\s*-?[0-9]+\s*", r'\s*[^\s"]+\s*'
LARGEST, SMALLEST = 2**63 - 1, -(2**63)
UNITS = [10**3, 10**6, 10**9]
SECONDS = (631_152_000, 4_102_444_800)
"""1990 and 2100."""


class RefusedError(Exception):
    """The file must not be read."""


@dataclass
class Record:
    """One row of a CSV file, or a blank line."""

    lines: list[str]
    """The lines that it takes."""
    cells: list[str]
    blank: bool


@dataclass
class Expected:
    """What a file of clicks comes to."""

    clicks: list[tuple[Any, ...]] = field(default_factory=list)
    """User, item and time, and the kind where clicks have kinds, ordered by user and time."""
    rows: int = 0
    malformed: int = 0
    missing: int = 0
    duplicates: int = 0
    blank: int = 0
    continued: int = 0


def lines_of(text: str) -> list[str]:
    """The lines of a text, whatever ends them."""
    lines = re.split(r"\r\n|\r|\n", text)
    return lines[:-1] if lines[-1] == "" else lines


def records_of(text: str, delimiter: str, width: int, key: int, quote: str) -> list[Record]:
    """Split a text into rows.

    Raises:
        RefusedError: a quoted value does not end or, for quote="auto", may have swallowed rows.
    """
    lines = lines_of(text)
    if quote == "none":
        return [Record([line], line.split(delimiter), not line.strip()) for line in lines]
    records, start = [], 0
    ids = _ids_of(lines[0], delimiter, width, key) if lines else INTEGER_ID
    while start < len(lines):
        cells, taken = _record(lines, start, delimiter, width, key, ids, quote == "auto")
        records.append(Record(lines[start : start + taken], cells, taken == 1 and not lines[start].strip()))
        start += taken
    return records


def _record(
    lines: Sequence[str], start: int, delimiter: str, width: int, key: int, ids: str, is_wary: bool
) -> tuple[list[str], int]:
    """The cells of the row that begins on a line, and how many lines it takes."""
    number, place, cells, cell = start, 0, [], ""
    before: list[str] = []
    while True:
        line = lines[number]
        if place < len(line) and line[place] == '"':
            opened, place, cell = number, place + 1, ""
            # What the first line would be if the quote were a character: the cells so far, and the rest of it.
            before = [*cells, *line[place:].split(delimiter)] if number == start else []
            while True:
                line = lines[number]
                end = line.find('"', place)
                if end < 0:
                    cell += line[place:] + "\n"
                    number, place = number + 1, 0
                    if number == len(lines):
                        raise RefusedError("a quote is not closed")
                elif line[end : end + 2] == '""':
                    cell, place = cell + line[place : end + 1], end + 2
                else:
                    cell, place = cell + line[place:end], end + 1
                    break
            if is_wary and number > opened:
                if place < len(line) and not line.startswith(delimiter, place):
                    raise RefusedError("a quote is closed inside of a value")
                like = sum(
                    _looks_like_a_row(inner, delimiter, width, key, ids) for inner in lines[opened + 1 : number + 1]
                )
                if like >= (1 if len(before) == width else 3):
                    raise RefusedError("a value takes in rows")
        end = line.find(delimiter, place)
        cells.append(cell + line[place : end if end >= 0 else len(line)])
        cell, place = "", end + len(delimiter)
        if end < 0:
            return cells, number - start + 1


def _ids_of(line: str, delimiter: str, width: int, key: int) -> str:
    """What ids look like, as the first row has one: a regular expression."""
    cells = _cells(line, delimiter) if line.count(delimiter) >= width - 1 else []
    is_text = len(cells) > key and not re.fullmatch(INTEGER_ID, cells[key])
    return TEXT_ID if is_text else INTEGER_ID


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line on its own; a quote that is not closed takes the rest of it."""
    if len(delimiter) == 1:
        return next(csv.reader([line], delimiter=delimiter), [])
    cells, place = [], 0
    while True:
        cell = ""
        if line.startswith('"', place):
            quoted = re.compile('"((?:[^"]|"")*)("|$)').match(line, place)
            assert quoted
            cell, place = quoted[1].replace('""', '"'), quoted.end()
        end = line.find(delimiter, place)
        cells.append(cell + line[place : end if end >= 0 else len(line)])
        if end < 0:
            return cells
        place = end + len(delimiter)


def _looks_like_a_row(line: str, delimiter: str, width: int, key: int, ids: str) -> bool:
    cells = _cells(line, delimiter)
    return len(cells) == width and re.fullmatch(ids, cells[key]) is not None


def expect_clicks(
    records: Iterable[Record], width: int, positions: Sequence[int], text: bool, rated: bool = False
) -> Expected:
    """What the rows of a CSV file come to; the header is not among them.

    `text`: whether ids are text; `rated`: whether kinds are ratings.
    """
    found, rows = Expected(), []
    for record in records:
        if record.blank:
            found.blank += 1
        elif len(record.cells) != width:
            found.malformed += len(record.lines)
            found.rows += len(record.lines)
        else:
            found.rows += 1
            found.continued += len(record.lines) - 1
            cells = [record.cells[position] for position in positions]
            rows.append([None if cell in NULLS or not cell.strip() else cell.strip() for cell in cells])
    return _add_rows(found, rows, text, rated)


def expect_rows(rows: Sequence[Sequence[Any]], text: bool, rated: bool = False) -> Expected:
    """What the rows of a Parquet file come to. `text` and `rated`: as for `expect_clicks`."""
    return _add_rows(Expected(rows=len(rows)), [[_text(value) for value in row] for row in rows], text, rated)


def roles_of(
    clicks: Sequence[tuple[Any, ...]], kinds: Mapping[str, tuple[bool, float, bool]], span: int
) -> list[tuple[Any, ...]]:
    """User, item, time, kind, whether it is history, and weight of the clicks that are for anything.

    `kinds`: of each, whether it is history, its weight as a target, and whether it excludes the item; `span`: in which
    a repeat does not count.
    """
    last: dict[Any, float] = {}
    found = []
    excluded = {click[:2] for click in clicks if kinds[click[3]][2]}
    for user, item, time, kind in clicks:
        before = last.get((user, item, kind))
        if before is not None and time - before < span:
            continue
        last[user, item, kind] = time
        is_history, weight, _ = kinds[kind]
        weight = 0 if (user, item) in excluded else weight
        if is_history or weight:
            found.append((user, item, time, kind, is_history, weight))
    return found


def rating_kind(text: str) -> str:
    """The kind of a rating where >=4 is a target and <2 excludes."""
    return ">=4" if float(text) >= 4 else "<2" if float(text) < 2 else "other"


def expect_json_lines(text: str, names: Sequence[str], is_text: bool, rated: bool = False) -> Expected:
    """What the lines of a text of JSON come to. `is_text` and `rated`: as for `expect_clicks`."""
    found, rows = Expected(), []
    keys: set[str] = set()
    if text.strip().startswith("["):
        raise RefusedError("an array")
    for line in lines_of(text):
        if not line.strip():
            found.blank += 1
            continue
        found.rows += 1
        try:
            # A number stays as it is spelt, besides -0.
            value = json.loads(line, parse_int=lambda digits: Number("0" if digits == "-0" else digits),
                               parse_float=Number, parse_constant=lambda name: None)  # fmt: skip
            keys |= value.keys()
            cells = [_json_cell(value.get(name)) for name in names]
        except (ValueError, AttributeError):
            found.malformed += 1
            continue
        rows.append([cell.strip() if cell and cell.strip() else None for cell in cells])
    if not set(names) <= keys:
        raise RefusedError("a column is missing")
    return _add_rows(found, rows, is_text, rated)


class Number(str):
    """A number as it is spelt."""


def _json_cell(value: Any) -> str | None:
    if isinstance(value, dict | list):
        raise ValueError("an object or a list")
    if isinstance(value, bool):
        return str(value).lower()
    if value is not None:
        value.encode()  # half of a character is a ValueError
    return value


def _text(value: Any) -> str | None:
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _add_rows(found: Expected, rows: Sequence[Sequence[str | None]], text: bool, rated: bool = False) -> Expected:
    if rows and len(rows[0]) > 3 and not rated and not {"view", "buy", "return"} <= {row[3] for row in rows}:
        raise RefusedError("a kind that is named does not occur")
    numbers = [float(str(row[3])) for row in rows if rated and NUMBER.fullmatch(str(row[3]))]
    if numbers and max(numbers) < 4:
        raise RefusedError("no row is a target")
    clicks: list[tuple[Any, ...]] = []
    spellings: list[dict[int, str]] = [{}, {}]
    times = [row[2] for row in rows if row[2] is not None]
    integers = all(_is_id(time) for time in times if NUMBER.fullmatch(time))
    for row in rows:
        for cell, seen in zip(row[:2], spellings, strict=True):
            if not text and _is_id(cell) and seen.setdefault(int(str(cell)), str(cell)) != cell:
                raise RefusedError("an id has two spellings")
        if None in row:
            found.missing += 1
        elif not (text or all(map(_is_id, row[:2]))) or not all(
            NUMBER.fullmatch(str(cell)) for cell in row[2 : 3 + rated]
        ):
            found.malformed += 1
        else:
            user, item = (_hash(str(cell)) if text else int(str(cell)) for cell in row[:2])
            time = int(str(row[2])) if integers else float(str(row[2]))
            clicks.append((user, item, time, *(rating_kind(str(kind)) if rated else kind for kind in row[3:])))
    if not clicks:
        raise RefusedError("no row is usable")
    if len({unit for _, _, time, *_ in clicks for unit in [1, *UNITS] if _among(time, unit)}) > 1:
        raise RefusedError("two units")
    distinct = list(dict.fromkeys(clicks))
    found.duplicates = len(clicks) - len(distinct)
    found.clicks = sorted(distinct, key=lambda click: (click[0], click[2]))
    return found


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % 2**63


def _among(time: float, unit: int) -> bool:
    return SECONDS[0] * unit <= time < SECONDS[1] * unit


def _is_id(cell: str | None) -> bool:
    return cell is not None and bool(INTEGER.fullmatch(cell)) and SMALLEST <= int(cell) <= LARGEST
