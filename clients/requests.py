"""Makes requests from plain Python values, and splits them for the server's limits. Errors name the wrong value."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from clients.ids import ItemIds, fill, kinds_of
from protos.recall.v1 import recall_pb2

History = ItemIds | str | recall_pb2.User
"""The history of a user: item ids, oldest first; or the user_id of a remembered user; or a ready message."""
Boost = Mapping[str, Any] | recall_pb2.Boost
"""What is added to some items: `{"filter": "margin > 0.3", "add": 0.2}`, or
`{"attribute": "published_at", "half_life_days": 14, "weight": 0.5}`."""
Explore = Mapping[str, Any] | recall_pb2.Explore
"""Places for items that are drawn: `{"share": 0.05, "filter": "vector_source != 'trained'", "seed": 7}`."""
MergeStrategyName = Literal["best_score", "round_robin"]
NeighboursName = Literal["default", "on", "off"]

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Most bytes of a request that a server without `--max-request-bytes` accepts."""
NO_RULES: Mapping[str, Any] = MappingProxyType({})
"""No rules about candidates."""
MAX_HISTORY = 10_000
"""Most ids of a user that a server without `--max-history` accepts."""
_MERGE_STRATEGIES: dict[str, recall_pb2.MergeStrategy] = {
    "best_score": recall_pb2.MERGE_STRATEGY_BEST_SCORE,
    "round_robin": recall_pb2.MERGE_STRATEGY_ROUND_ROBIN,
}
_NEIGHBOURS: dict[str, recall_pb2.Neighbours] = {
    "default": recall_pb2.NEIGHBOURS_UNSPECIFIED,
    "on": recall_pb2.NEIGHBOURS_ON,
    "off": recall_pb2.NEIGHBOURS_OFF,
}
_SPARE_BYTES = 1024
"""Bytes of a request besides users and filter, with the frame that gRPC counts too."""
_FIELD_BYTES = 6
"""Most bytes of the tag and length before a user."""


def users_of(
    histories: Sequence[History],
    exclude_item_ids: Sequence[ItemIds] | None,
    max_history: int,
    field: str = "histories",
) -> list[recall_pb2.User]:
    """Make the users of a batch.

    Args:
        histories: of each user.
        exclude_item_ids: of each user; None if nothing is excluded.
        max_history: ids of a history that are sent, the newest ones; a model looks at fewer.
        field: the caller's name for the histories.

    Raises:
        TypeError: a value is of the wrong kind, or ids are integers and text; the message says which.
        ValueError: an id does not fit 64 bits, or the two lists do not belong together.
    """
    if isinstance(histories, str | bytes):
        raise TypeError(f"{field} is the text {histories[:50]!r}, must be a list with one history for each user")
    if exclude_item_ids is None:
        exclude_item_ids = [()] * len(histories)
    if len(exclude_item_ids) != len(histories):
        raise ValueError(f"exclude_item_ids has {len(exclude_item_ids)} lists for {len(histories)} {field}")
    pairs = zip(histories, exclude_item_ids, strict=True)
    users = [
        user_of(history, exclude, max_history, f"{field}[{number}]", f"exclude_item_ids[{number}]")
        for number, (history, exclude) in enumerate(pairs)
    ]
    integers, texts = zip(*map(kinds_of, users), strict=True) if users else ((), ())
    if True in integers and True in texts:
        raise TypeError(
            f"user {texts.index(True)} of {field} has text ids and user {integers.index(True)} integers: item ids of a "
            "release are of one kind"
        )
    return users


def user_of(
    history: History,
    exclude_item_ids: ItemIds,
    max_history: int,
    field: str = "history",
    exclude: str = "exclude_item_ids",
) -> recall_pb2.User:
    """Make one user. `field` and `exclude` are the caller's names for the two values. Raises what `users_of` raises."""
    if isinstance(history, recall_pb2.User):
        if len(exclude_item_ids):
            raise ValueError("exclude_item_ids goes with plain histories; a User message carries its own")
        return history
    user = recall_pb2.User()
    if isinstance(history, str):
        user.user_id = history
    else:
        fill(user, "hist_item", history, field, max_history)
    fill(user, "exclude_item_ids", exclude_item_ids, exclude)
    return user


def updates_of(
    hist_item: Mapping[str, ItemIds] | recall_pb2.UpsertUsersRequest | None,
    append_item_ids: Mapping[str, ItemIds] | None,
    max_history: int,
    events: Mapping[str, Sequence[str]] | None = None,
    shown_item_ids: Mapping[str, ItemIds] | None = None,
) -> recall_pb2.UpsertUsersRequest:
    """Make the updates of an UpsertUsers, with the newest `max_history` clicks each, because a server stores fewer.

    What a user was shown is in the update with the user's clicks, or else in one of its own after all others. Raises
    what `users_of` raises, and names the user_id; ValueError, too, for kinds (`events`) that do not fit the ids.
    """
    if isinstance(hist_item, recall_pb2.UpsertUsersRequest):
        if append_item_ids or events:
            raise ValueError("append_item_ids and events go with plain histories; a ready request carries its own")
        return hist_item
    request = recall_pb2.UpsertUsersRequest()
    kinds = dict(events or {})
    if both := [user_id for user_id in kinds if user_id in (hist_item or {}) and user_id in (append_item_ids or {})]:
        raise ValueError(f"events[{both[0]!r}]: the user is in hist_item and in append_item_ids; send two requests")
    own: dict[str, recall_pb2.UserUpdate] = {}
    lists = ("hist_item", hist_item), ("append_item_ids", append_item_ids), ("shown_item_ids", shown_item_ids)
    for name, given in lists:
        for user_id, item_ids in (given or {}).items():
            if not isinstance(user_id, str):
                raise TypeError(f"{name} has the user_id {user_id!r}, must be text: send a number as its decimal text")
            were_shown = given is shown_item_ids
            if not (were_shown and user_id in own):
                own[user_id] = request.users.add(user_id=user_id)
            if user_id in kinds and not were_shown:
                own[user_id].events.extend(_kinds_of(user_id, kinds.pop(user_id), len(item_ids))[-max_history:])
            fill(own[user_id], name, item_ids, f"{name}[{user_id!r}]", None if were_shown else max_history)
    if kinds:
        raise ValueError(f"events has the user_id {next(iter(kinds))!r}, of whom no clicks are given")
    return request


def _kinds_of(user_id: str, kinds: Sequence[str], ids: int) -> Sequence[str]:
    """Return the kinds of a user's ids. Raises TypeError or ValueError if they are not one text for each id."""
    if isinstance(kinds, str) or not all(isinstance(kind, str) for kind in kinds):
        raise TypeError(f"events[{user_id!r}] must be a list of texts, the kind of each id, such as ['view', 'buy']")
    if len(kinds) != ids:
        raise ValueError(f"events[{user_id!r}] has {len(kinds)} kinds for {ids} ids, must be one for each")
    return kinds


def merge_strategy_of(name: str) -> recall_pb2.MergeStrategy:
    """Return the number of a strategy. Raises ValueError if there is none of this name."""
    if name not in _MERGE_STRATEGIES:
        raise ValueError(f"merge_strategy is {name!r}, must be one of {', '.join(_MERGE_STRATEGIES)}")
    return _MERGE_STRATEGIES[name]


def neighbours_of(name: str) -> recall_pb2.Neighbours:
    """Return the enum value of a name. Raises ValueError for another name."""
    if name not in _NEIGHBOURS:
        raise ValueError(f"neighbours is {name!r}, must be one of {', '.join(_NEIGHBOURS)}")
    return _NEIGHBOURS[name]


def rules_of(
    at_most: Mapping[str, int],
    per_interest_min: int,
    diversity: float,
    boosts: Sequence[Boost] = (),
    pin: ItemIds = (),
    explore: Explore | None = None,
    now_unix_s: int = 0,
    release_rules: bool = True,
) -> dict[str, Any]:
    """The fields of a request that make candidates vary, raise or lower items, and fill places.

    Raises:
        TypeError: a value is of the wrong kind.
        ValueError: a value has a field that there is not, or an id does not fit.
    """
    if not isinstance(at_most, Mapping):
        raise TypeError(f"at_most is {at_most!r}, must be a dict of attributes and counts, such as {{'category': 5}}")
    rules = [recall_pb2.AtMost(attribute=name, count=count) for name, count in at_most.items()]
    pins = recall_pb2.RecallRequest()
    fill(pins, "pin_item_ids", pin, "pin")
    return {
        "at_most": rules,
        "per_interest_min": per_interest_min,
        "diversity": diversity,
        "boosts": [_message(recall_pb2.Boost, boost, f"boosts[{place}]") for place, boost in enumerate(boosts)],
        "pin_item_ids": pins.pin_item_ids,
        "pin_item_keys": pins.pin_item_keys,
        "explore": None if explore is None else _message(recall_pb2.Explore, explore, "explore"),
        "now_unix_s": now_unix_s,
        "release_rules": recall_pb2.RELEASE_RULES_UNSPECIFIED if release_rules else recall_pb2.RELEASE_RULES_OFF,
    }


def _message(kind: Any, given: Any, name: str) -> Any:
    """A part of a request from a dict of its fields, or from a ready message; `name`: what the caller knows it as."""
    if isinstance(given, kind):
        return given
    fields = ", ".join(field.name for field in kind.DESCRIPTOR.fields)
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} is {given!r}, must be a dict with some of {fields}")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} is {dict(given)!r}, must have some of {fields}: {error}") from None


Part = TypeVar("Part", recall_pb2.User, recall_pb2.ItemQuery)


def split(users: Sequence[Part], max_users: int, max_bytes: int, filter_: str) -> Iterator[Sequence[Part]]:
    """Split the users, or queries, into as few parts as the limits allow, in order; at least one part.

    A user larger than `max_bytes` is a part alone, which the server judges.
    """
    room = max_bytes - _SPARE_BYTES - len(filter_.encode())
    start = size = 0
    for number, user in enumerate(users):
        own = user.ByteSize() + _FIELD_BYTES
        if number > start and (number - start == max_users or size + own > room):
            yield users[start:number]
            start, size = number, 0
        size += own
    yield users[start:]
