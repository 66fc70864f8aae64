"""The files that the command line reads: histories of many users. Knows nothing of the service."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_OWN_IDS = "test_users.jsonl"


class FileError(ValueError):
    """A file that cannot be used; the message names file and line."""


@dataclass(frozen=True)
class UserLine:
    """A line of a file of users."""

    user_id: Any
    """Integer or text."""
    hist_item: list[Any]
    """Item ids, oldest first: all integers or all text."""
    eval_item: list[str]
    """What the user clicked later, ids as text; often empty."""


def check_own_ids(path: Path) -> None:
    """Refuse a file such as data/mine/test/test.txt where `mind.prepare` put integers in the place of text ids.

    Raises FileError, which names the file that has the ids themselves.
    """
    better = path.resolve().parent.parent / _OWN_IDS
    if path.suffix == ".txt" and better.is_file():
        raise FileError(f"{path} has integers instead of text ids; give {better}, which has the text ids")


def read_users(lines: Iterable[bytes], name: str, text: bool | None = False) -> Iterator[UserLine]:
    """The users of a file, blank lines skipped.

    Args:
        lines: PaddleRec evaluation lines, `user_id:7 target_item:0 hist_item:43 hist_item:23 eval_item:65`, or
            JSON objects, `{"user_id": 7, "hist_item": [43, 23]}`, with strings in the list where ids are text.
        name: of the file, for messages.
        text: whether item ids are text; None takes either kind and gives text, for one who does not know the release.

    Raises:
        FileError: a line is neither, or has ids of the other kind.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = _from_json(line) if line.lstrip().startswith(b"{") else _from_fields(line.decode(), text)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(
                f'{name}:{number}: neither "user_id:U hist_item:I ..." nor {{"user_id": U, "hist_item": [I, ...]}}'
            ) from error
        hist_item = checked_ids(found.hist_item, text, f"{name}:{number}: hist_item")
        yield replace(found, hist_item=hist_item, eval_item=list(map(str, found.eval_item)))


def read_updates(
    lines: Iterable[bytes], name: str, text: bool = False
) -> Iterator[tuple[str, str, list[Any], list[str], list[Any]]]:
    """User id, field, item ids, kinds, and items that were shown, of each line; blank lines skipped.

    Args:
        lines: JSON objects, `{"user_id": "7", "hist_item": [43, 23]}` or `{"user_id": "7", "append_item_ids": [23]}`,
            with strings in the list where item ids are text; an integer as user_id is taken as its decimal text. A line
            may have the kind of each id too, `"events": ["view", "buy"]`, and `"shown_item_ids": [7, 9]`, with which it
            need not have clicks; what a line does not have is empty.
        name: of the file, for messages.
        text: whether item ids are text.

    Raises:
        FileError: a line is neither, or has ids of the other kind.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            user_id, kinds = str(record.pop("user_id")), record.pop("events", [])
            shown = record.pop("shown_item_ids", [])
            [(field, item_ids)] = list(record.items()) or ([("", [])] if shown else [])
            if field not in ("", "hist_item", "append_item_ids") or not isinstance(item_ids, list):
                raise ValueError(field)
            if not isinstance(shown, list):
                raise TypeError(shown)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FileError(
                f'{name}:{number}: neither {{"user_id": U, "hist_item": [I, ...]}} nor '
                '{"user_id": U, "append_item_ids": [I, ...]} nor {"user_id": U, "shown_item_ids": [I, ...]}'
            ) from error
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise FileError(f'{name}:{number}: events must be a list of texts, such as ["view", "buy"]')
        if kinds and len(kinds) != len(item_ids):
            raise FileError(
                f"{name}:{number}: events has {len(kinds)} kinds for {len(item_ids)} ids, must be one for each"
            )
        ids, were_shown = (
            checked_ids(own, text, f"{name}:{number}: {of}")
            for own, of in ((item_ids, field), (shown, "shown_item_ids"))
        )
        yield user_id, field, ids, kinds, were_shown


def checked_ids(ids: list[Any], text: bool | None, place: str) -> list[Any]:
    """The ids of a line, if all of them are of the kind that the release has; as text where that is not known.

    Raises FileError, which begins with `place`.
    """
    for item_id in ids:
        if text is not False and isinstance(item_id, str):
            continue
        if text:
            raise FileError(f"{place} has {item_id!r}, must be text: this release has text ids")
        if not is_int64(item_id):
            raise FileError(f"{place} has {item_id!r}, must be a 64-bit integer: this release has integer ids")
    return list(map(str, ids)) if text is None else ids


def is_int64(value: object) -> bool:
    """Whether the value can be an item id."""
    return type(value) is int and -(2**63) <= value < 2**63


def _from_json(line: bytes) -> UserLine:
    record = json.loads(line)
    hist_item, eval_item = record["hist_item"], record.get("eval_item", [])
    if not isinstance(hist_item, list) or not isinstance(eval_item, list):
        raise TypeError
    return UserLine(record["user_id"], hist_item, eval_item)


def _from_fields(line: str, text: bool | None) -> UserLine:
    fields = [field.split(":", 1) for field in line.split()]
    user_id = dict(fields)["user_id"]
    is_integer = _INTEGER.fullmatch(user_id) and str(int(user_id)) == user_id
    hist_item, eval_item = ([value for key, value in fields if key == name] for name in ("hist_item", "eval_item"))
    return UserLine(
        int(user_id) if is_integer else user_id,
        [int(each) if text is False and _INTEGER.fullmatch(each) else each for each in hist_item],
        eval_item,
    )
