"""Reads the item ids of requests: integers, or text ids (`mind.keys`) if the release has them.

Both kinds become int64 ids here. A request with ids of the wrong kind is refused.
"""

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from operator import attrgetter

import numpy as np

from mind.keys import MAX_KEY_BYTES, key_ids
from mind.sequences import Int64
from protos.recall.v1 import recall_pb2
from server.errors import InvalidRequestError
from server.serving.item_keys import KEY_ITEMS

KEYS_OF = {
    "hist_item": "hist_item_keys",
    "exclude_item_ids": "exclude_item_keys",
    "append_item_ids": "append_item_keys",
    "item_ids": "item_keys",
    "shown_item_ids": "shown_item_keys",
    "pin_item_ids": "pin_item_keys",
}
"""The fields of item ids in requests, with the fields for text ids."""

Bringing = (
    recall_pb2.User
    | recall_pb2.UserUpdate
    | recall_pb2.ItemQuery
    | recall_pb2.GetItemsRequest
    | recall_pb2.RecallRequest
    | recall_pb2.ExplainRequest
)
"""A message that brings item ids."""
NOTHING = np.zeros(0, np.int64)
BYTES_OF_CHARACTER = 4
"""Maximum number of bytes of a character in UTF-8."""


def ids_of(users: Sequence[recall_pb2.User]) -> int:
    """Return the cost of reading the ids of a request's users, in items of `server.serving.offload`."""
    keys = _lengths(users, "hist_item_keys", "exclude_item_keys")
    return _lengths(users, "hist_item", "exclude_item_ids") + KEY_ITEMS * keys


def ids_of_updates(updates: Sequence[recall_pb2.UserUpdate]) -> int:
    """Return the cost of reading the ids of updates of remembered users, in the same unit."""
    keys = _lengths(updates, "hist_item_keys", "append_item_keys", "shown_item_keys")
    return _lengths(updates, "hist_item", "append_item_ids", "shown_item_ids", "events") + KEY_ITEMS * keys


def ids_of_queries(queries: Sequence[recall_pb2.ItemQuery]) -> int:
    """The same for queries for similar items."""
    keys = _lengths(queries, "item_keys", "exclude_item_keys")
    return _lengths(queries, "item_ids", "exclude_item_ids") + KEY_ITEMS * keys


def _lengths(users: Sequence[object], *fields: str) -> int:
    """Return the number of entries in some fields of all users. No Python code runs for each user."""
    return sum(sum(map(len, map(attrgetter(field), users))) for field in fields)


def field_of(name: str, text: bool) -> str:
    """Return the field in which a release expects ids. `name`: the field for integers; `text`: whether ids are text."""
    return KEYS_OF[name] if text else name


def check_id_type(users: Sequence[Bringing], text: bool, path: str) -> None:
    """Check that users have ids of the kind of the release. Raises InvalidRequestError.

    `text`: whether the ids of the release are text; `path`: the path of a user in the request, such as `users[{}]`, or
    empty for the request itself.
    """
    if not users:
        return
    for name, keys in KEYS_OF.items():
        if name not in users[0].DESCRIPTOR.fields_by_name:
            continue
        wrong, right = (name, keys) if text else (keys, name)
        if not any(map(attrgetter(wrong), users)):
            continue
        for number, user in enumerate(users):
            if found := len(getattr(user, wrong)):
                kind = "text" if text else "integers"
                raise InvalidRequestError(
                    f"{path.format(number)}.{wrong}".removeprefix("."),
                    f"has {found} ids, but the ids of this release are {kind}; send them in {right}",
                    "WRONG_ID_TYPE",
                )


def read_ids(users: Sequence[Bringing], field: str, limit: int) -> list[tuple[Int64, str]]:
    """Read the ids in a field of each user, [n] int64.

    Return them with what is wrong, which is empty if nothing is wrong.

    `limit`: the maximum number of ids in the field.
    """
    sent = list(map(attrgetter(field), users))
    if not any(sent):
        return [(NOTHING, "")] * len(sent)
    wrong = [f"{field} has {len(own)} ids, the limit is {limit}" if len(own) > limit else "" for own in sent]
    valid = [() if one else own for own, one in zip(sent, wrong, strict=True)]
    if field in KEYS_OF:
        return [(np.array(own, np.int64), one) for own, one in zip(valid, wrong, strict=True)]
    keys = [list(own) for own in valid]
    lengths = [len(key) for own in keys for key in own]
    if not lengths:
        return [(NOTHING, one) for one in wrong]
    if min(lengths) < 1 or max(lengths) > MAX_KEY_BYTES // BYTES_OF_CHARACTER:
        wrong = [one or _bad_key(field, own) for own, one in zip(keys, wrong, strict=True)]
        keys = [[] if one else own for own, one in zip(keys, wrong, strict=True)]
    ids = key_ids(chain.from_iterable(keys))  # in one call, which costs as much as 30 keys
    ends = accumulate(map(len, keys), initial=0)
    return [(ids[start:end], one) for (start, end), one in zip(pairwise(ends), wrong, strict=True)]


def _bad_key(field: str, keys: Sequence[str]) -> str:
    """Return what is wrong with the first key that is empty or too long; empty if none is."""
    for position, key in enumerate(keys):
        if not 1 <= (size := len(key.encode())) <= MAX_KEY_BYTES:
            return f"{field}[{position}] has {size} bytes, a key has 1 to {MAX_KEY_BYTES}"
    return ""
