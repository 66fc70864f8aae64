"""What users were shown, stored as histories are (`mind.milvus.histories`), in a collection of its own.

So several servers may add to one user at the same time, and a deletion is for good. The stamp of an item is the time
when it was shown. An item counts for a time to live, and the newest ones up to a number count.

A user may be shown thousands of items within that time, which are too many to store again with every update. So an
update writes a row with its own items alone. The update that finds `MAX_ROWS` rows of a user merges them. This module
does not use Milvus.
"""

from dataclasses import replace

import numpy as np

from mind.milvus.histories import StoredUser, appended, stamp_at
from mind.milvus.users import now_ms
from mind.sequences import Int64

SHOWN = "user_shown"
"""The name of the collection. It has the fields of `HISTORIES`; `HIST_ITEM` holds the items that were shown."""
MAX_SHOWN = 5_000
"""Maximum number of items that count as shown to a user."""
TTL_DAYS = 7.0
"""How long an item counts as shown by default."""
MAX_ROWS = 16
"""Number of rows of a user from which the next update merges them."""
DAY_MS = 24 * 3600 * 1000


def added(before: StoredUser | None, item_ids: Int64, keep: int, since: int) -> StoredUser:
    """Return what to store once items were shown to a user: these items alone, or all that count.

    `keep`, `since`: as in `counting`.
    """
    if before is None or len(before.rows) < MAX_ROWS:
        return replace(appended(before, item_ids, len(item_ids)), rows=())
    return counting(appended(before, item_ids, len(before.hist_item) + len(item_ids)), keep, since)


def counting(user: StoredUser, keep: int, since: int) -> StoredUser:
    """Return the newest `keep` items with a stamp after `since`, each once, with the time when it was shown last."""
    there = np.flatnonzero(user.stamp > since)[::-1]
    _, first = np.unique(user.hist_item[there], return_index=True)
    newest = there[np.sort(first)[:keep]][::-1]
    return replace(user, hist_item=user.hist_item[newest], stamp=user.stamp[newest])


def counts_since(ttl_days: float) -> int:
    """Return the stamp up to which items do not count now, because they were shown longer ago than a time to live."""
    return stamp_at(now_ms() - int(ttl_days * DAY_MS))
