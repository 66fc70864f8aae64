"""Finds the columns of users, items and times in a file of clicks, by the names that such columns usually have."""

import re
from collections.abc import Sequence

from mind.data.sources import Source
from mind.errors import DataError

USERS = (
    "user_id", "user", "uid", "customer_id", "customer", "customer_no", "client_id", "visitor_id", "visitor",
    "account_id", "member_id", "profile_id", "reviewer_id", "buyer_id", "session_id", "session",
)  # fmt: skip
ITEMS = (
    "item_id", "item", "iid", "sku", "product_id", "product", "asin", "parent_asin", "article_id", "article",
    "movie_id", "book_id", "track_id", "song_id", "video_id", "listing_id", "variant_id", "stock_code", "content_id",
)  # fmt: skip
TIMES = (
    "timestamp", "time", "ts", "datetime", "date", "event_time", "created_at", "clicked_at", "occurred_at", "viewed_at",
    "bought_at", "purchased_at", "rated_at", "invoice_date", "order_date", "unix_review_time", "t_dat",
)  # fmt: skip
_KINDS = {"user": USERS, "item": ITEMS, "time": TIMES}


def find_columns(path: Source, names: Sequence[str], user: str | None, item: str | None, time: str | None) -> list[str]:
    """Find the columns of users, items and times.

    Args:
        path: the file, for messages.
        names: the columns of the file. A type may follow a name, as in `user_id:token`.
        user, item, time: columns that the caller names; None for a column to find.

    Raises:
        DataError: no column has a usual name, and the caller names no column.
    """
    given = {"user": user, "item": item, "time": time}
    return [given[kind] or find_column(path, names, kind) for kind in _KINDS]


def find_column(path: Source, names: Sequence[str], kind: str, option: str = "") -> str:
    """Find the column of a kind: "user", "item" or "time".

    Raises DataError, whose message names the option for the column.
    """
    plain = {_plain(name): name for name in reversed(names)}
    for usual in _KINDS[kind]:
        if (found := plain.get(_plain(usual))) is not None:
            return found.partition(":")[0].strip()
    raise DataError(
        f"{path}: no column is called {_KINDS[kind][0]} or alike; say with {option or f'--{kind}'} which one "
        f"holds the {kind}s; there are: {', '.join(names)}"
    )


def _plain(name: str) -> str:
    """Return the letters and digits of a name, without a type after a colon.

    Names may be userId, USER_ID or user-id.
    """
    return re.sub(r"[\W_]", "", name.partition(":")[0].lower())
