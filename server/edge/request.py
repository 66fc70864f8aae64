"""Decodes Recall, Explain and filters to the values of `server.serving.question`, checked against the limits."""

from collections.abc import Sequence
from dataclasses import replace

from mind.sequences import Int64
from protos.recall.v1 import recall_pb2
from server.edge.boosts import now_of, read_boosts
from server.edge.filters import read_filter
from server.edge.item_ids import check_id_type, field_of, read_ids
from server.edge.limits import check_batch, check_top_k, check_total, check_user_id, most_candidates
from server.edge.placing import read_draws, read_explore, read_pins
from server.edge.release_rules import with_release_rules
from server.edge.rules import read_variety
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.question import Query, Strategy, UserQuery
from server.settings import Settings

_STRATEGIES = {
    recall_pb2.MERGE_STRATEGY_UNSPECIFIED: Strategy.BEST_SCORE,
    recall_pb2.MERGE_STRATEGY_BEST_SCORE: Strategy.BEST_SCORE,
    recall_pb2.MERGE_STRATEGY_ROUND_ROBIN: Strategy.ROUND_ROBIN,
}


def read_recall(request: recall_pb2.RecallRequest, limits: Settings, release: Release, channel: str = "") -> Query:
    """The query of a Recall to a release of a channel.

    Raises:
        InvalidRequestError: the request breaks a limit; with the field, the value and the limit.
    """
    check_batch("users", request.users, limits)
    check_top_k(request.top_k, limits)
    check_total(len(request.users), request.top_k, "candidates", most_candidates(limits, release))
    users = read_users(request.users, limits, release.has_text_ids, without_shown=request.exclude_shown)
    return read_options(request, limits, release, channel, users)


def read_explain(request: recall_pb2.ExplainRequest, limits: Settings, release: Release, channel: str = "") -> Query:
    """The query of an Explain, checked as `read_recall` checks a Recall."""
    check_top_k(request.top_k, limits)
    check_total(1, request.top_k, "candidates", most_candidates(limits, release))
    users = read_users([request.user], limits, release.has_text_ids, "user", request.exclude_shown)
    return read_options(request, limits, release, channel, users)


def read_items(
    request: recall_pb2.GetItemsRequest, limits: Settings, release: Release
) -> tuple[Int64, tuple[str, ...]]:
    """The items of a GetItems, [n] int64, and the attributes to tell. Raises InvalidRequestError."""
    field = field_of("item_ids", release.has_text_ids)
    check_id_type([request], release.has_text_ids, "")
    if not getattr(request, field):
        raise InvalidRequestError(field, "is empty; a request has 1 item or more", "EMPTY_BATCH")
    [(item_ids, wrong)] = read_ids([request], field, limits.max_users)
    if wrong:
        raise InvalidRequestError(field, wrong.removeprefix(f"{field} "), "INVALID_ITEMS")
    return item_ids, read_attributes(request.return_attributes, limits, release)


def read_options(
    request: recall_pb2.RecallRequest | recall_pb2.ExplainRequest,
    limits: Settings,
    release: Release,
    channel: str,
    users: list[UserQuery],
) -> Query:
    """The query with the options of a request to a release. `users`: those of the request, as they were read.

    Raises InvalidRequestError.
    """
    if request.merge_strategy not in _STRATEGIES:
        raise InvalidRequestError(
            "merge_strategy", f"is {request.merge_strategy}, must be 0 to {max(_STRATEGIES)}", "UNKNOWN_MERGE_STRATEGY"
        )
    query = Query(
        users=users,
        top_k=request.top_k,
        filter=read_filter(request.filter, limits, release),
        exclude_history=request.exclude_history,
        strategy=_STRATEGIES[request.merge_strategy],
        neighbours=_neighbours(request.neighbours, release),
        attributes=read_attributes(request.return_attributes, limits, release),
        variety=read_variety(request, limits, release),
        boosts=read_boosts(request, limits, release),
        now_s=now_of(request),
        pins=read_pins(request, limits, release),
        explore=read_explore(request, limits, release),
        channel=channel,
    )
    query = with_release_rules(query, request, limits, release)
    return replace(query, users=read_draws(request, users)) if query.explore else query


def read_attributes(names: Sequence[str], limits: Settings, release: Release) -> tuple[str, ...]:
    """The attributes to return. Raises InvalidRequestError."""
    if len(names) > limits.max_return_attributes:
        said = f"has {len(names)} names, the limit is {limits.max_return_attributes}"
        raise InvalidRequestError("return_attributes", said, "TOO_MANY_ATTRIBUTES")
    known = release.attributes if names else {}
    for place, name in enumerate(names):
        if name not in known or name in names[:place]:
            wrong = (
                "is there twice" if name in known else f"is unknown; the attributes are {', '.join(known) or 'none'}"
            )
            raise InvalidRequestError(f"return_attributes[{place}]", f"{name!r} {wrong}", "UNKNOWN_ATTRIBUTE")
    return tuple(names)


def _neighbours(asked: int, release: Release) -> bool:
    """Whether neighbours are candidates. Raises InvalidRequestError for a number without a meaning."""
    if asked not in recall_pb2.Neighbours.values():
        most = max(recall_pb2.Neighbours.values())
        raise InvalidRequestError("neighbours", f"is {asked}, must be 0 to {most}", "UNKNOWN_NEIGHBOURS")
    if asked == recall_pb2.NEIGHBOURS_UNSPECIFIED:
        return release.adds_neighbours
    return asked == recall_pb2.NEIGHBOURS_ON and release.neighbours is not None


def read_users(
    users: Sequence[recall_pb2.User],
    limits: Settings,
    text: bool,
    path: str = "users[{}]",
    without_shown: bool = False,
) -> list[UserQuery]:
    """The users of a request; a user whose data break a limit is marked as `invalid`.

    Args:
        users: the users.
        limits: the limits.
        text: whether the ids of the release are text.
        path: of a user in the request, with the place of its number.
        without_shown: whether users must not get what they were shown before.

    Raises:
        InvalidRequestError: a user has ids of the wrong kind.
    """
    check_id_type(users, text, path)
    histories = read_ids(users, field_of("hist_item", text), limits.max_history)
    excluded = read_ids(users, field_of("exclude_item_ids", text), limits.max_exclude)
    return [
        _user(user.user_id, hist_item, exclude, wrong or also_wrong, limits, without_shown)
        for user, (hist_item, wrong), (exclude, also_wrong) in zip(users, histories, excluded, strict=True)
    ]


def _user(
    user_id: str, hist_item: Int64, exclude: Int64, wrong: str, limits: Settings, without_shown: bool
) -> UserQuery:
    if wrong:
        return UserQuery(hist_item[:0], exclude[:0], invalid=wrong)
    if not user_id or (len(hist_item) and not without_shown):
        return UserQuery(hist_item, exclude)
    wrong = check_user_id(user_id) if limits.users else "user_id needs a server that was started with --users"
    if wrong:
        return UserQuery(hist_item[:0], exclude, wrong)
    stored = "" if len(hist_item) else user_id
    return UserQuery(hist_item, exclude, user_id=stored, shown_to=user_id if without_shown else "")
