"""The files that the command line reads: histories of many users. Knows nothing of the service."""

import json
from collections.abc import Iterable, Iterator
from typing import Any


class FileError(ValueError):
    """A file that cannot be used; the message names file and line."""


def read_users(lines: Iterable[bytes], name: str) -> Iterator[tuple[Any, list[int]]]:
    """User id and history of each line, blank lines skipped.

    Args:
        lines: PaddleRec evaluation lines, `user_id:7 target_item:0 hist_item:43 hist_item:23 eval_item:65`, or
            JSON objects, `{"user_id": 7, "hist_item": [43, 23]}`.
        name: of the file, for messages.

    Raises:
        FileError: a line is neither.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            user_id, hist_item = _from_json(line) if line.lstrip().startswith(b"{") else _from_fields(line.decode())
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(
                f'{name}:{number}: neither "user_id:U hist_item:I ..." nor {{"user_id": U, "hist_item": [I, ...]}}'
            ) from error
        for item_id in hist_item:
            if not is_int64(item_id):
                raise FileError(f"{name}:{number}: hist_item has {item_id!r}, must be a 64-bit integer")
        yield user_id, hist_item


def read_updates(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, str, list[int]]]:
    """User id, field and item ids of each line, blank lines skipped.

    Args:
        lines: JSON objects, `{"user_id": "7", "hist_item": [43, 23]}` or `{"user_id": "7", "append_item_ids": [23]}`;
            an integer as user_id is taken as its decimal text.
        name: of the file, for messages.

    Raises:
        FileError: a line is neither.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            user_id, fields = str(record.pop("user_id")), list(record.items())
            [(field, item_ids)] = fields
            if field not in ("hist_item", "append_item_ids") or not all(map(is_int64, item_ids)):
                raise ValueError(field)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FileError(
                f'{name}:{number}: neither {{"user_id": U, "hist_item": [I, ...]}} nor '
                '{"user_id": U, "append_item_ids": [I, ...]}'
            ) from error
        yield user_id, field, item_ids


def is_int64(value: object) -> bool:
    """Whether the value can be an item id."""
    return type(value) is int and -(2**63) <= value < 2**63


def _from_json(line: bytes) -> tuple[Any, list[int]]:
    record = json.loads(line)
    return record["user_id"], list(record["hist_item"])


def _from_fields(line: str) -> tuple[Any, list[int]]:
    fields = [field.split(":") for field in line.split()]
    user_id = dict(fields)["user_id"]
    return int(user_id), [int(value) for key, value in fields if key == "hist_item"]
