"""Reads ranked lists that another program made, as JSON lines, or as Parquet from `recall-client bulk`.

A file from `recall-client` names the model that answered. This module knows nothing of gRPC or Milvus.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mind.data.ids import KeyTable
from mind.data.tables import read_table
from mind.errors import DataError
from mind.keys import key_ids
from mind.sequences import EvalCases, Int64

PERSONAL = ("", "UNSPECIFIED", "OK")
"""The statuses of a personal list. "" is for files without a status, whose lists all count as personal."""


@dataclass(frozen=True)
class Served:
    """The release of a service that returned some lists, according to their file."""

    model_version: str
    collection: str
    """The Milvus collection; "" for Parquet files, which do not have it."""


@dataclass(frozen=True)
class Candidates:
    """The ranked lists of a file, in the order of the test users."""

    ranked: Int64
    """[U, top_n] int64, -1 where a list is shorter."""
    served: Served | None
    """The release that returned the lists; None if they did not come from a service."""
    status: npt.NDArray[np.str_]
    """[U]: the status that the service gave each user, such as OK or EMPTY_HISTORY; "" if the file has no status."""
    detail: npt.NDArray[np.str_]
    """[U]: the reason in the words of the service; "" if the file has no reason."""

    def take(self, users: Int64) -> "Candidates":
        """Return the lists of some users. `users`: [V] int64, their positions."""
        return Candidates(self.ranked[users], self.served, self.status[users], self.detail[users])


@dataclass(frozen=True)
class TextIds:
    """Which ids in a file are text, as in the data and the model."""

    users: KeyTable | None = None
    """The text ids of the test users; None if ids are integers."""
    items: bool = False
    """Whether the items have text ids."""


INTEGERS = TextIds()


@dataclass(frozen=True)
class _Row:
    user_id: int
    item_ids: list[int]
    served: Served | None
    status: str
    detail: str


def read_candidates(file: Path, cases: EvalCases, top_n: int, items: int, text: TextIds = INTEGERS) -> Candidates:
    """Read ranked lists for all test users.

    If the file has the test users in their order, lists are assigned by position, because a user may occur twice in
    test data. Otherwise they are assigned by user id.

    Args:
        file: JSON lines, or Parquet if it ends in .parquet.
        cases: the test users, in order.
        top_n: the number of items of a list to read.
        items: the number of items that the model knows.
        text: which ids are text.

    Raises:
        DataError: a row is not a list of candidates, a test user has no list, the lists are from several releases, or
            the service was asked for fewer than `top_n` candidates.
    """
    rows = list((_parquet_rows if file.suffix == ".parquet" else _json_rows)(file, top_n, text))
    served = _release(file, rows)
    longest = max((len(row.item_ids) for row in rows if row.status in PERSONAL), default=None)
    if served and longest is not None and longest < min(top_n, items):
        raise DataError(
            f"{file}: its longest list has {longest} items, -top_n is {top_n}: "
            "ask for more with recall-client's --top-k, or give a smaller -top_n"
        )
    rows = _of_users(file, rows, cases.history.user_id.tolist(), text.users)
    ranked = np.full((len(cases), top_n), -1, np.int64)
    for number, row in enumerate(rows):
        ranked[number, : len(row.item_ids)] = row.item_ids
    return Candidates(
        ranked, served, np.array([row.status for row in rows], str), np.array([row.detail for row in rows], str)
    )


def _json_rows(file: Path, top_n: int, text: TextIds) -> list[_Row]:
    number, rows = 0, []
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            number += 1
            rows.append(_row(json.loads(line), top_n, text))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise DataError(f'{file}: line {number}: expected {{"user_id": 1, "item_ids": [..]}}: {error}') from error
    return rows


def _parquet_rows(file: Path, top_n: int, text: TextIds) -> list[_Row]:
    table, _ = read_table(file)
    for name in ("user_id", "item_ids"):
        if name not in table.column_names:
            raise DataError(f"{file}: no column {name!r}; there are: {', '.join(table.column_names)}")
    known = [name for name in ("user_id", "item_ids", "status", "model_version") if name in table.column_names]
    number, rows = 0, []
    try:
        for record in table.select(known).to_pylist():
            number += 1
            rows.append(_row(record, top_n, text))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{file}: row {number}: expected an integer user_id and a list item_ids: {error}") from error
    return rows


def _row(record: dict[str, Any], top_n: int, text: TextIds) -> _Row:
    item_ids = _ids(record["item_ids"][:top_n], text.items)
    if len(set(item_ids)) < len(item_ids):
        raise ValueError("item_ids has repeats")
    model_version = record.get("model_version")
    served = Served(str(model_version), str(record.get("collection", ""))) if model_version else None
    status = str(record.get("status") or "").removeprefix("USER_STATUS_")
    (user_id,) = _ids([record["user_id"]], text.users is not None)
    return _Row(user_id, item_ids, served, status, str(record.get("detail") or ""))


def _ids(found: list[Any], is_text: bool) -> list[int]:
    ids: Int64 = key_ids(map(str, found)) if is_text else np.array([int(one) for one in found], np.int64)
    listed: list[int] = ids.tolist()
    return listed


def _release(file: Path, rows: list[_Row]) -> Served | None:
    """Return the release that returned all lists; None if the file names no release."""
    found = list(dict.fromkeys(row.served for row in rows))
    names = [(one.collection or f"model {one.model_version}") if one else "no release" for one in found]
    if len(found) > 1 or "," in "".join(names):  # an answer during a release names both collections
        raise DataError(
            f"{file}: its lists come from {' and '.join(names)}, because a release changed meanwhile; "
            "run recall-client again"
        )
    return found[0] if found else None


def _of_users(file: Path, rows: list[_Row], users: list[int], names: KeyTable | None) -> list[_Row]:
    if [row.user_id for row in rows] == users:
        return rows
    by_user = {row.user_id: row for row in rows}
    missing = [user for user in users if user not in by_user]
    if missing:
        name = names.name(missing[0]) if names else missing[0]
        raise DataError(f"{file}: {len(missing)} of {len(users)} test users have no line, such as user {name}")
    return [by_user[user] for user in users]
