"""Sorts interactions by user and time, and drops repeats. Knows nothing of files."""

from heapq import nsmallest

import numpy as np

from mind.data.columns import Float64, Mask
from mind.data.gathered import Clicks, UInt32, in_parts
from mind.data.interactions import EXAMPLES
from mind.events import Role
from mind.sequences import Int64

RowsFound = tuple[int, list[int]]
"""A number of rows, and the row numbers of the first few."""


def in_order(pieces: list[Clicks]) -> tuple[tuple[Int64, Int64, Int64 | Float64, Role | None], RowsFound, RowsFound]:
    """Sort user, item, time and kind by user and time, without repeats. The list becomes empty.

    Also return the rows that repeat and that moved.
    """
    total = sum(map(len, pieces))
    # Writing takes new pages from the system one by one, while those of the pieces are given back.
    user_id, item_id = np.empty(total, np.int64), np.empty(total, np.int64)
    timestamp: Int64 | Float64 = np.empty(total, pieces[0].timestamp.dtype if pieces else np.int64)
    code = np.empty(total, np.uint8) if pieces and pieces[0].code is not None else None
    end = 0
    duplicates, unsorted = (0, list[int]()), (0, list[int]())
    for part in in_parts(pieces):
        order = np.lexsort((part.timestamp, part.user_id))
        repeats = _duplicates(part, order)
        duplicates = _more(duplicates, part.row[repeats])
        if repeats.any():
            order = order[~repeats[order]]
        unsorted = _more(unsorted, part.row[_earlier_than_before(part, repeats)])
        start, end = end, end + len(order)
        user_id[start:end] = part.user_id[order]
        item_id[start:end] = part.item_id[order]
        timestamp[start:end] = part.timestamp[order]
        if code is not None and part.code is not None:
            code[start:end] = part.code[order]
    return (user_id[:end], item_id[:end], timestamp[:end], None if code is None else code[:end]), duplicates, unsorted


def _more(known: RowsFound, rows: UInt32) -> RowsFound:
    return known[0] + len(rows), nsmallest(EXAMPLES, [*known[1], *np.sort(rows)[:EXAMPLES].tolist()])


def _duplicates(clicks: Clicks, order: Int64) -> Mask:
    """Return a mask of the rows that equal an earlier row in user, item, time and kind: [N] bool.

    `order`: [N] int64, the rows by user and time, in their order where both are equal.
    """
    duplicate = np.zeros(len(clicks), np.bool_)
    user_id, timestamp = clicks.user_id[order], clicks.timestamp[order]
    same = (user_id[1:] == user_id[:-1]) & (timestamp[1:] == timestamp[:-1])
    if not same.any():
        return duplicate
    order = order[np.append(same, False) | np.append(False, same)]  # others have nothing to be compared with
    columns: tuple[Int64 | Float64 | Role, ...] = (clicks.item_id, clicks.timestamp, clicks.user_id)
    if clicks.code is not None:
        columns = (clicks.code, *columns)
    order = order[np.lexsort([column[order] for column in columns])]
    repeats = np.ones(len(order) - 1, np.bool_)
    for column in columns:
        ordered = column[order]
        repeats &= ordered[1:] == ordered[:-1]
    duplicate[order[1:][repeats]] = True
    return duplicate


def _earlier_than_before(clicks: Clicks, repeats: Mask) -> Int64:
    """Return the rows whose time is before that of the previous row of the same user; `repeats` do not count."""
    by_user = np.argsort(clicks.user_id, kind="stable")
    if repeats.any():
        by_user = by_user[~repeats[by_user]]
    user_id, timestamp = clicks.user_id[by_user], clicks.timestamp[by_user]
    earlier: Mask = (user_id[1:] == user_id[:-1]) & (timestamp[1:] < timestamp[:-1])
    return by_user[1:][earlier]
