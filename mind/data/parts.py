"""Reads the directory of prepared data: its parts, the files beside them, and the description of kinds of clicks."""

import json
from pathlib import Path
from typing import Any

from mind.errors import DataError
from mind.events import Roles, roles_of

EVENTS = "events.json"


def is_part(path: Path) -> bool:
    """Return whether a path may be a part of prepared data: a directory such as data/mine/train, or its train.txt."""
    return path.is_dir() or path.stem == path.parent.name


def beside(part: Path, name: str) -> Path:
    """Return the path of a file in the directory that a part belongs to."""
    return (part.parent.parent if part.is_file() and is_part(part) else part.parent) / name


def recorded(part: Path, name: str) -> dict[str, Any]:
    """Read a JSON object in the directory that a part belongs to; empty if there is no such file. Raises DataError."""
    return read_record(beside(part, name))


def read_record(file: Path) -> dict[str, Any]:
    """Read a JSON object that `mind.prepare` wrote; empty if there is no such file. Raises DataError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}; prepare the data again") from error
    if not isinstance(found, dict):
        raise DataError(f"{file}: expected a JSON object; prepare the data again")
    return found


def read_roles(part: Path) -> Roles:
    """Read the roles of the clicks of a part whose lines have roles. Raises DataError if they are not described."""
    try:
        roles = roles_of(recorded(part, EVENTS))
    except DataError as error:
        raise DataError(f"{beside(part, EVENTS)}: {error}; prepare the data again") from error
    if roles is None:
        raise DataError(
            f"{part}: its lines have roles of clicks, and {beside(part, EVENTS)}, which says what they mean, is "
            "missing or of other data; prepare the data again"
        )
    return roles
