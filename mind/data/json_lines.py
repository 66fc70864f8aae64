"""Reads JSON lines as rows: one object per line, whose keys are columns. Keeps line numbers, and finds malformed lines.

This module knows nothing of the meaning of columns. Numbers keep the digits of the file.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from mind.data.csv_text import Rows
from mind.data.line_count import LineCount
from mind.data.text_blocks import Block, read_blocks, shorten
from mind.errors import DataError

_LOOKED_AT = 100
"""Number of lines from which the names of columns are taken."""


def open_json_lines(name: str, stream: Any) -> tuple[list[str], Iterator[Block]]:
    """Return the keys of the first objects, and the blocks of the text.

    Args:
        name: the name of the file in messages.
        stream: the bytes of the file, text in UTF-8.

    Raises:
        DataError: the file is empty, is not UTF-8, or does not consist of lines with objects.
    """
    blocks = read_blocks(name, stream)
    first = next(blocks)
    if first.content.lstrip()[:1] == b"[":
        raise DataError(f"{name}: is a JSON array; write an object a line, for example with `jq -c '.[]' FILE`")
    names: dict[str, None] = {}
    for text in first.content.splitlines()[:_LOOKED_AT]:
        names |= dict.fromkeys(_parse(text) or ())
    if not names:
        line = first.content.strip().splitlines()[0].decode()
        raise DataError(f"{name}: expected a JSON object a line, found {shorten(line)}")
    return list(names), chain([first], blocks)


def json_rows(
    blocks: Iterator[Block], names: Sequence[str], as_text: bool, may_be_lists: bool = True
) -> Iterator[Rows]:
    """Read some columns, block by block. A cell is null if the object has no such key.

    Args:
        blocks: the text of the file.
        names: the names of the wanted columns.
        as_text: whether columns become signed integers, text or lists of text. Otherwise they have their types in JSON.
        may_be_lists: whether a list is a valid value. Otherwise it makes a line malformed.
    """
    for block in blocks:
        rows = _alike(block, names) if as_text else None
        yield rows or _each_line(block, names, as_text, may_be_lists)


def _alike(block: Block, names: Sequence[str]) -> Rows | None:
    """Read a block with Arrow if all of its lines have the integers and texts of the first. Return None otherwise."""
    total = _objects(block.content)
    found = _parse(block.content.partition(b"\n")[0])
    if total is None or found is None:
        return None
    kinds = [_kind(found.get(name)) for name in names]
    if not all(kinds):
        return None
    try:
        table = pa_json.read_json(
            pa.BufferReader(block.content),
            pa_json.ReadOptions(use_threads=False, block_size=len(block.content) + 1),
            pa_json.ParseOptions(
                explicit_schema=pa.schema(list(zip(names, kinds, strict=True))), unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        return None
    if len(table) != total:
        return None
    return Rows(table.select(list(names)), np.arange(block.line, block.line + total), [], LineCount(total))


def _objects(content: bytes) -> int | None:
    """Return the number of lines if each begins with { and ends with }, so that none has two objects.

    Return None otherwise.
    """
    data = np.frombuffer(content, np.uint8)
    if not content.endswith(b"\n") or b"\r" in content:
        return None
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.append(0, ends[:-1] + 1)
    if (ends - starts < 2).any() or (data[starts] != ord("{")).any() or (data[ends - 1] != ord("}")).any():
        return None
    return len(ends)


def _kind(value: Any) -> pa.DataType | None:
    if isinstance(value, _Digits):
        return pa.int64() if value.is_integer else None
    return pa.string() if isinstance(value, str) else None


def _each_line(block: Block, names: Sequence[str], as_text: bool, may_be_lists: bool) -> Rows:
    columns: list[list[Any]] = [[] for _ in names]
    lines, misfits, blank = [], [], 0
    for line, text in enumerate(block.content.splitlines(), block.line):
        if not text.strip():
            blank += 1
            continue
        found = _parse(text)
        values = [found.get(name) for name in names] if found is not None else []
        fault = "" if found is not None else f"expected a JSON object, found {shorten(text.strip().decode())}"
        for name, value in zip(names, values, strict=False):
            fault = fault or _fault(name, value, may_be_lists)
        if fault:
            misfits.append((line, fault))
            continue
        lines.append(line)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    made = [_as_text(values) if as_text else _typed(values) for values in columns]
    count = LineCount(len(lines) + len(misfits), blank=blank)
    return Rows(pa.table(made, list(names)), np.array(lines, np.int64), misfits, count)


class _Digits(str):
    """A number with the digits of the file."""

    @property
    def is_integer(self) -> bool:
        return self.lstrip("-").isdecimal()


def _integer(text: str) -> _Digits:
    return _Digits("0" if text == "-0" else text)


def _constant(text: str) -> _Digits | None:
    """Return None for NaN, by which Python and pandas write a missing value. Keep the text of an infinite number."""
    return None if text == "NaN" else _Digits(text)


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_Digits, parse_constant=_constant)


def _parse(text: bytes) -> dict[str, Any] | None:
    """Return the object of a line; None if it has no object."""
    try:
        found = _DECODER.decode(text.decode().strip(" \t\r\n"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _fault(name: str, value: Any, may_be_list: bool) -> str:
    """Return what is wrong with a value; empty if nothing is wrong."""
    for one in value if isinstance(value, list) and may_be_list else [value]:
        if isinstance(one, dict | list):
            expected = "a text, a number or a list of these" if may_be_list else "a text or a number"
            return f"{name} is {shorten(json.dumps(value))}, not {expected}"
        try:
            (one or "").encode() if isinstance(one, str) else None
        except UnicodeEncodeError:
            return f"{name} has half of a character, {shorten(ascii(one))}"
    return ""


def _as_text(values: list[Any]) -> pa.Array:
    """Return a column of text, or of lists of text if one value is a list."""
    if any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) or value is None else [value] for value in values]
        return pa.array([None if value is None else list(map(_text, value)) for value in lists], pa.list_(pa.string()))
    return pa.array(list(map(_text, values)), pa.string())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _typed(values: list[Any]) -> pa.Array:
    """Return a column of the type of its values; a column of text if they have several types."""
    try:
        return pa.array([list(map(_native, value)) if isinstance(value, list) else _native(value) for value in values])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return _as_text(values)


def _native(value: Any) -> Any:
    if isinstance(value, _Digits):
        return int(value) if value.is_integer and len(value) < 20 else float(value)
    return value
