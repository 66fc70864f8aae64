"""Decodes UpsertUsers to the values of `server.users`, and checks them against the limits."""

import numpy as np

from protos.recall.v1 import recall_pb2
from server.edge.limits import check_batch, check_user_id
from server.settings import Settings
from server.users.histories import UserUpdate


def read_updates(request: recall_pb2.UpsertUsersRequest, limits: Settings) -> list[UserUpdate]:
    """The updates of an UpsertUsers. Raises InvalidRequestError with the field, the value and the limit."""
    check_batch("users", request.users, limits)
    return [_update(update, limits) for update in request.users]


def _update(update: recall_pb2.UserUpdate, limits: Settings) -> UserUpdate:
    given = {name: getattr(update, name) for name in ("hist_item", "append_item_ids") if len(getattr(update, name))}
    invalid = check_user_id(update.user_id)
    if not invalid and len(given) != 1:
        invalid = f"{'both' if given else 'neither'} of hist_item and append_item_ids given, must be one of them"
    for name, item_ids in given.items():
        if not invalid and len(item_ids) > limits.max_history:
            invalid = f"{name} has {len(item_ids)} ids, the limit is {limits.max_history}"
    if invalid:
        return UserUpdate(update.user_id, np.zeros(0, np.int64), append=False, invalid=invalid)
    [(name, item_ids)] = given.items()
    return UserUpdate(update.user_id, np.array(item_ids, np.int64), append=name == "append_item_ids")
