"""Decodes UpsertUsers to the values of `server.users`, and checks them against the limits."""

import numpy as np

from mind.errors import DataError
from mind.events import EventRules
from mind.sequences import Int64
from protos.recall.v1 import recall_pb2
from server.edge.item_ids import check_id_type, field_of, read_ids
from server.edge.limits import check_batch, check_user_id
from server.settings import Settings
from server.users.histories import UserUpdate

MAX_EVENT_BYTES = 256
"""The longest kind of a click, in bytes of UTF-8."""


def read_updates(
    request: recall_pb2.UpsertUsersRequest, limits: Settings, text: bool, rules: EventRules | None = None
) -> list[UserUpdate]:
    """The updates of an UpsertUsers. Raises InvalidRequestError with the field, the value and the limit.

    `text`: whether the ids of the release are text; `rules`: which kinds of clicks are history for its model, None if
    it knows no kinds.
    """
    check_batch("users", request.users, limits)
    check_id_type(request.users, text, "users[{}]")
    known: dict[str, bool | str] = {}
    return [_update(update, limits, text, rules, known) for update in request.users]


def _update(
    update: recall_pb2.UserUpdate, limits: Settings, text: bool, rules: EventRules | None, known: dict[str, bool | str]
) -> UserUpdate:
    whole, more, seen = (field_of(name, text) for name in ("hist_item", "append_item_ids", "shown_item_ids"))
    given = [field for field in (whole, more) if len(getattr(update, field))]
    item_ids, invalid, dropped = np.zeros(0, np.int64), check_user_id(update.user_id), 0
    if not invalid and len(given) > 1:
        invalid = f"both of {whole} and {more} given, must be one of them"
    if not invalid and not given and not len(getattr(update, seen)):
        invalid = f"none of {whole}, {more} and {seen} given, must be one of them"
    [(shown, wrong)] = read_ids([update], seen, limits.max_shown)
    invalid = invalid or wrong
    if not invalid and given:
        [(item_ids, invalid)] = read_ids([update], given[0], limits.max_history)
    if not invalid and len(update.events):
        sent = len(item_ids)
        item_ids, invalid = _history_of(update, item_ids, rules, known)
        dropped = 0 if invalid else sent - len(item_ids)
        if not invalid and given == [whole] and not len(item_ids):
            invalid = f"{whole} has no id of a kind that is history for the model; DeleteUsers forgets a user"
    return UserUpdate(update.user_id, item_ids, given == [more], invalid, dropped, shown)


def _history_of(
    update: recall_pb2.UserUpdate, item_ids: Int64, rules: EventRules | None, known: dict[str, bool | str]
) -> tuple[Int64, str]:
    """The ids of kinds that are history, and what is wrong with the kinds; empty if nothing is.

    `known`: what is known of kinds already: whether each is history, or what is wrong with it.
    """
    if len(update.events) != len(item_ids):
        return item_ids, f"events has {len(update.events)} kinds for {len(item_ids)} ids, must be one for each, or none"
    if rules is None:
        return item_ids, f"events has {len(update.events)} kinds, but the model was trained without kinds; send none"
    is_history = np.zeros(len(item_ids), np.bool_)
    for position, kind in enumerate(update.events):
        if kind not in known:
            known[kind] = _judge(kind, rules)
        found = known[kind]
        if isinstance(found, str):
            return item_ids, f"events[{position}] {found}"
        is_history[position] = found
    return item_ids[is_history], ""


def _judge(kind: str, rules: EventRules) -> bool | str:
    """Whether a kind is history, or what is wrong with it."""
    if len(kind.encode()) > MAX_EVENT_BYTES:
        return f"has {len(kind.encode())} bytes, the limit is {MAX_EVENT_BYTES}"
    try:
        return rules.is_history(kind)
    except DataError as error:
        return str(error)
