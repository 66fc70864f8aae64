"""Decodes Recall, Explain and filters to the values of `server.serving.question`, checked against the limits."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from protos.recall.v1 import recall_pb2
from server.edge.limits import check_batch, check_top_k, check_total, check_user_id
from server.errors import InvalidRequestError
from server.serving.filter.canonical import canonical
from server.serving.question import Query, Strategy, UserQuery
from server.settings import Settings

_STRATEGIES = {
    recall_pb2.MERGE_STRATEGY_UNSPECIFIED: Strategy.BEST_SCORE,
    recall_pb2.MERGE_STRATEGY_BEST_SCORE: Strategy.BEST_SCORE,
    recall_pb2.MERGE_STRATEGY_ROUND_ROBIN: Strategy.ROUND_ROBIN,
}


def ids_of(users: Iterable[recall_pb2.User]) -> int:
    """The number of ids that users of a request bring, and so what it costs to read them."""
    return sum(len(user.hist_item) + len(user.exclude_item_ids) for user in users)


def read_recall(request: recall_pb2.RecallRequest, limits: Settings, attributes: Mapping[str, str]) -> Query:
    """The query of a Recall. Raises InvalidRequestError with the field, the value and the limit.

    `attributes`: the names and types that filters may use, as in `Fingerprint.attributes`.
    """
    check_batch("users", request.users, limits)
    check_top_k(request.top_k, limits)
    check_total(len(request.users), request.top_k, "candidates", limits.max_candidates)
    return _query(list(request.users), request, limits, attributes)


def read_explain(request: recall_pb2.ExplainRequest, limits: Settings, attributes: Mapping[str, str]) -> Query:
    """The query of an Explain, checked as `read_recall` checks a Recall."""
    check_top_k(request.top_k, limits)
    return _query([request.user], request, limits, attributes)


def read_filter(filter_: str, limits: Settings, attributes: Mapping[str, str]) -> str:
    """The filter in canonical spelling (`server.serving.filter`). Raises InvalidRequestError."""
    if not filter_:
        return ""
    if len(filter_) > limits.max_filter_chars:
        raise InvalidRequestError(
            "filter", f"has {len(filter_)} characters, the limit is {limits.max_filter_chars}", "FILTER_TOO_LONG"
        )
    return canonical(filter_, attributes, limits.max_filter_depth)


def _query(
    users: list[recall_pb2.User],
    request: recall_pb2.RecallRequest | recall_pb2.ExplainRequest,
    limits: Settings,
    attributes: Mapping[str, str],
) -> Query:
    if request.merge_strategy not in _STRATEGIES:
        raise InvalidRequestError(
            "merge_strategy", f"is {request.merge_strategy}, must be 0 to {max(_STRATEGIES)}", "UNKNOWN_MERGE_STRATEGY"
        )
    return Query(
        users=[read_user(user, limits) for user in users],
        top_k=request.top_k,
        filter=read_filter(request.filter, limits, attributes),
        exclude_history=request.exclude_history,
        strategy=_STRATEGIES[request.merge_strategy],
    )


def read_user(user: recall_pb2.User, limits: Settings) -> UserQuery:
    """One user of a request; a user whose data break a limit is marked as `invalid`."""
    for field, found, limit in (
        ("hist_item", len(user.hist_item), limits.max_history),
        ("exclude_item_ids", len(user.exclude_item_ids), limits.max_exclude),
    ):
        if found > limit:
            nothing = np.zeros(0, np.int64)
            return UserQuery(nothing, nothing, invalid=f"{field} has {found} ids, the limit is {limit}")
    query = UserQuery(np.array(user.hist_item, np.int64), np.array(user.exclude_item_ids, np.int64))
    if not user.user_id or len(user.hist_item):
        return query
    invalid = check_user_id(user.user_id) if limits.users else "user_id needs a server that remembers users (--users)"
    return replace(query, invalid=invalid, user_id="" if invalid else user.user_id)
