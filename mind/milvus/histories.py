"""The stored history of a remembered user: a few rows that are written once, never changed, and merged when read.

Milvus has no transactions, so two servers that rewrite one row of a user would overwrite each other. Therefore every
update writes a new row, which holds the whole history, under a key that nobody else uses. Then it removes the rows that
it merged into the new one. Rows that two servers write at the same moment stay side by side until the next update. A
row is removed only after another row holds all its clicks, so no order of events loses a click.

Each click has a stamp, which orders the clicks of a user. It is the time of the update, and greater than all stamps
that its writer saw. Each row has a cut. Clicks with a stamp up to the greatest cut of a user's rows do not count. A
replacement and a deletion raise the cut, so earlier clicks do not count even if a slow server writes them again. A
deletion leaves a tombstone, which is a row with a cut and no clicks. Its cut is `CLOCK_MARGIN_MS` after its time, so it
also covers updates that other servers make at the same moment without seeing the tombstone.

An earlier version of this project kept one row for each user in the collection `users`. Servers read these rows and do
not change them, except that a deletion removes them. `purge-users` moves them. This module does not use Milvus.
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import xor

import numpy as np

from mind.milvus.users import (
    CLOCK_MARGIN_MS,
    HIST_ITEM,
    MAX_CAPACITY,
    MAX_USER_ID_BYTES,
    UPDATED_AT,
    USER_KEY,
    Row,
    now_ms,
    user_id_of,
    user_key,
)
from mind.sequences import Int64

HISTORIES = "user_histories"
"""The name of the collection of histories."""
ROW_KEY = "row_key"
"""VARCHAR, primary key: `<user key>/<version of the row as 16 hexadecimal digits>`."""
USER_HASH = "user_hash"
"""INT64: the `user_hash` of the user id, by which the rows of a user are found."""
STAMP = "stamp"
"""ARRAY<INT64>: the stamp of each click of `HIST_ITEM`, ascending."""
CUT = "cut"
"""INT64: clicks of this user with a stamp up to this one do not count. It is -1 if all clicks count."""
NEWEST = "newest"
"""INT64: the stamp of the last click of the row; -1 in a tombstone."""
MAX_ROW_KEY = 3 * MAX_USER_ID_BYTES + 17
"""Maximum length of a `ROW_KEY`: an escaped byte of the user id takes three characters."""
ROW_BYTES = MAX_ROW_KEY + 64
"""Maximum size of a row without its clicks, in bytes."""
CLICK_BYTES = 16
"""The size of a click in a row, in bytes."""
TOMBSTONE_MS = 24 * 3600 * 1000
"""Minimum time in milliseconds for which a tombstone stays. No server takes nearly as long to write a row."""

_EPOCH_MS = 1_577_836_800_000
"""2020-01-01, from which stamps count: 41 bits of milliseconds, 10 random bits, 12 bits of the click's number."""
_MS_BITS, _NUMBER_BITS = 22, 12


@dataclass(frozen=True)
class StoredUser:
    """The history of a user, merged from all its rows."""

    hist_item: Int64
    """[n] int64 external ids, oldest first; empty for a deleted user with a tombstone."""
    stamp: Int64
    """[n] int64, ascending."""
    cut: int
    """Clicks with a stamp up to this one do not count; -1 if all count."""
    version: int
    """The name of this state of the history: every update changes it. Vectors are stored with it."""
    rows: tuple[str, ...] = ()
    """The keys of the rows that were merged. They are removed once this state is stored as one row."""


@dataclass(frozen=True)
class Head:
    """What is stored of a user, without the clicks."""

    version: int
    """As in `StoredUser`."""
    remembered: bool
    """Whether any click counts. A user without one is deleted."""
    stale: bool
    """Whether a row may hold clicks that do not count, because its writer did not see the cut of another row."""


def user_hash(user_id: str) -> int:
    """Return 63 bits of a digest of a user id."""
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8).digest(), "big") >> 1


def appended(before: StoredUser | None, item_ids: Int64, keep: int) -> StoredUser:
    """Return a history after new clicks. Only the newest `keep` ids stay."""
    start, item_ids = _next_stamp(before), item_ids[-keep:]
    stamp = np.arange(start, start + len(item_ids))
    if before is None:
        return StoredUser(item_ids, stamp, -1, _new_version())
    hist_item = np.concatenate([before.hist_item, item_ids])[-keep:]
    return StoredUser(hist_item, np.concatenate([before.stamp, stamp])[-keep:], before.cut, _new_version(), before.rows)


def replaced(before: StoredUser | None, item_ids: Int64, keep: int) -> StoredUser:
    """Return a history after the newest `keep` of other ids took its place."""
    start, item_ids = _next_stamp(before), item_ids[-keep:]
    rows = before.rows if before else ()
    return StoredUser(item_ids, np.arange(start, start + len(item_ids)), start - 1, _new_version(), rows)


def deleted(before: StoredUser) -> StoredUser:
    """Return the tombstone of a user."""
    nothing = np.zeros(0, np.int64)
    return StoredUser(nothing, nothing, _next_stamp(before, CLOCK_MARGIN_MS), _new_version(), before.rows)


def tidied(user: StoredUser, keep: int = MAX_CAPACITY) -> StoredUser:
    """Return the newest `keep` ids, to be stored in place of the rows that they were merged from."""
    newest = slice(-keep, None)
    return StoredUser(user.hist_item[newest], user.stamp[newest], user.cut, _new_version(), user.rows)


def merged(rows: Iterable[Row]) -> dict[str, StoredUser]:
    """Merge the rows of users. Return the users by id.

    Args:
        rows: all rows of these users, with `HIST_ITEM`, `STAMP` and `CUT`; in the earlier format with `UPDATED_AT`.
    """
    found: dict[str, list[StoredUser]] = {}
    for row in rows:
        user = _old(row) if USER_KEY in row else _new(row)
        found.setdefault(user_id_of(user.rows[0]), []).append(user)
    return {user_id: parts[0] if len(parts) == 1 else _union(parts) for user_id, parts in found.items()}


def last_ids(rows: Iterable[Row]) -> tuple[dict[str, Int64], list[str]]:
    """Return the item ids of the last row of each user, by user id, and the users who have several rows.

    `rows` have `HIST_ITEM`. Stamps and cuts change the result only for users with several rows.
    """
    found: dict[str, Int64] = {}
    several: dict[str, None] = {}
    for row in rows:
        user_id = user_id_of(key_of(row))
        if user_id in found:
            several[user_id] = None
        found[user_id] = np.array(row[HIST_ITEM], np.int64)
    return found, list(several)


def heads(rows: Iterable[Row]) -> dict[str, Head]:
    """Return the heads of users as `merged` would, from `CUT` and `NEWEST`, or `UPDATED_AT` in the earlier format."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(user_id_of(key_of(row)), []).append(row)
    return {user_id: _head(parts) for user_id, parts in found.items()}


def history_rows(user_id: str, user: StoredUser) -> list[Row]:
    """Return the rows that store a user: one, or more if one ARRAY cannot hold all ids."""
    starts = range(0, max(1, len(user.hist_item)), MAX_CAPACITY)
    versions = [_new_version() for _ in starts[1:]]
    versions.append(reduce(xor, versions, user.version))  # merged, the rows have the version of the user
    return [_row(user_id, user, start, version) for start, version in zip(starts, versions, strict=True)]


def stamp_at(at_ms: int) -> int:
    """Return the first stamp of a time, in milliseconds since 1970."""
    return max(0, at_ms - _EPOCH_MS) << _MS_BITS


def key_of(row: Row) -> str:
    """Return the primary key of a row of either format."""
    return str(row[USER_KEY if USER_KEY in row else ROW_KEY])


def is_old(key: str) -> bool:
    """Return whether a key belongs to a row of the earlier format."""
    return "/" not in key


def _row(user_id: str, user: StoredUser, start: int, version: int) -> Row:
    """Return the row that stores the ids from a place on."""
    part = slice(start, start + MAX_CAPACITY)
    return {
        ROW_KEY: f"{user_key(user_id)}/{version:016x}",
        USER_HASH: user_hash(user_id),
        HIST_ITEM: user.hist_item[part].tolist(),
        STAMP: user.stamp[part].tolist(),
        CUT: user.cut,
        NEWEST: int(user.stamp[part][-1]) if len(user.stamp) else -1,
        UPDATED_AT: now_ms(),
    }


def _head(rows: list[Row]) -> Head:
    new = [row for row in rows if ROW_KEY in row]
    cut = max((row[CUT] for row in new), default=-1)
    newest = max(row[NEWEST] if ROW_KEY in row else _end_of(row[UPDATED_AT]) for row in rows)
    versions = [_version_of(row[ROW_KEY]) for row in new] or [row[UPDATED_AT] for row in rows]
    return Head(reduce(xor, versions), newest > cut, any(row[CUT] < cut and row[NEWEST] >= 0 for row in new))


def _union(parts: list[StoredUser]) -> StoredUser:
    cut = max(part.cut for part in parts)
    stamp = np.concatenate([part.stamp for part in parts])
    hist_item = np.concatenate([part.hist_item for part in parts])
    order = np.lexsort((hist_item, stamp))
    stamp, hist_item = stamp[order], hist_item[order]
    again = np.zeros(len(stamp), bool)  # the same click in several rows
    again[1:] = (stamp[1:] == stamp[:-1]) & (hist_item[1:] == hist_item[:-1])
    counts = (stamp > cut) & ~again
    # A row of the earlier format stays when it is merged into another, so it is no part of the version.
    versions = [part.version for part in parts if not is_old(part.rows[0])]
    rows = sorted(key for part in parts for key in part.rows)
    return StoredUser(hist_item[counts], stamp[counts], cut, reduce(xor, versions), tuple(rows))


def _new(row: Row) -> StoredUser:
    ids, stamp = np.array(row[HIST_ITEM], np.int64), np.array(row[STAMP], np.int64)
    return StoredUser(ids, stamp, row[CUT], _version_of(row[ROW_KEY]), (row[ROW_KEY],))


def _old(row: Row) -> StoredUser:
    """Return the user of a row without stamps. Each click gets the time of the row and its place from the end."""
    ids, end = np.array(row[HIST_ITEM], np.int64), _end_of(row[UPDATED_AT]) + 1
    return StoredUser(ids, np.arange(end - len(ids), end), -1, row[UPDATED_AT], (row[USER_KEY],))


def _end_of(at_ms: int) -> int:
    """Return the stamp of the last click of a row of the earlier format."""
    return stamp_at(at_ms) + MAX_CAPACITY - 1


def _next_stamp(before: StoredUser | None, later_ms: int = 0) -> int:
    """Return a stamp after everything that the writer saw, whatever its clock says.

    The random bits keep apart what two servers write in the same millisecond.
    """
    seen = max(before.cut, int(before.stamp[-1]) if len(before.stamp) else -1) if before else -1
    at_ms = max(now_ms() - _EPOCH_MS + later_ms, (seen >> _MS_BITS) + 1)
    return (at_ms << _MS_BITS) + (secrets.randbits(_MS_BITS - _NUMBER_BITS) << _NUMBER_BITS)


def _version_of(row_key: str) -> int:
    return int(row_key.partition("/")[2], 16)


def _new_version() -> int:
    return secrets.randbits(63)
