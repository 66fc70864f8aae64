"""Decodes UpsertUsers to the values of `server.users`, and checks them against the limits."""

import numpy as np

from protos.recall.v1 import recall_pb2
from server.edge.item_ids import check_id_type, field_of, read_ids
from server.edge.limits import check_batch, check_user_id
from server.settings import Settings
from server.users.histories import UserUpdate


def read_updates(request: recall_pb2.UpsertUsersRequest, limits: Settings, text: bool) -> list[UserUpdate]:
    """The updates of an UpsertUsers. Raises InvalidRequestError with the field, the value and the limit.

    `text`: whether the ids of the release are text.
    """
    check_batch("users", request.users, limits)
    check_id_type(request.users, text, "users[{}]")
    return [_update(update, limits, text) for update in request.users]


def _update(update: recall_pb2.UserUpdate, limits: Settings, text: bool) -> UserUpdate:
    whole, more = field_of("hist_item", text), field_of("append_item_ids", text)
    given = [field for field in (whole, more) if len(getattr(update, field))]
    item_ids, invalid = np.zeros(0, np.int64), check_user_id(update.user_id)
    if not invalid and len(given) != 1:
        invalid = f"{'both' if given else 'neither'} of {whole} and {more} given, must be one of them"
    if not invalid:
        [(item_ids, invalid)] = read_ids([update], given[0], limits.max_history)
    return UserUpdate(update.user_id, item_ids, append=given == [more], invalid=invalid)
