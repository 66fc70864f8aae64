"""The answer to each user: merged candidates, or the popular list where there is no history or no Milvus."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64
from server.release import Popular, Release
from server.serving.answer import Status, Trace, UserResult
from server.serving.inputs import Inputs
from server.serving.matching import Matches
from server.serving.merge import Merged
from server.serving.question import Query, UserQuery
from server.serving.search import Found

LISTED = "the popular list has"


def results(
    top_k: int, inputs: Inputs, merged: Merged, popular: list[Popular], matches: Sequence[Matches | None]
) -> list[UserResult]:
    """One result for each user of a batch, in their order.

    Args:
        top_k: candidates wanted for each user.
        inputs: the users.
        merged: the candidates of the active users.
        popular: for each user, the list in case there is no usable history.
        matches: for each user, the items that match the filter; None without a filter.
    """
    own_hits = (slice(start, end) for start, end in pairwise(merged.offsets.tolist()))  # of the active users, in turn
    answered = []
    columns = inputs.users, inputs.status, inputs.unknown, popular, matches
    for user, status, unknown, listed, matching in zip(*columns, strict=True):
        if status is Status.OK:
            own = next(own_hits)
            item_ids, scores, interest = merged.item_ids[own], merged.scores[own], merged.interest[own]
        elif status is Status.INVALID:
            item_ids, scores, interest = listed.item_ids[:0], listed.scores[:0], merged.interest[:0]
        else:
            rows = np.flatnonzero(~np.isin(listed.item_ids, user.exclude))[:top_k]
            item_ids, scores, interest = listed.item_ids[rows], listed.scores[rows], np.full(len(rows), -1)
        detail = user.invalid or user.unread
        if not detail and len(item_ids) < top_k:
            source = "the search found" if status is Status.OK else LISTED
            detail = _fewer(len(item_ids), top_k, source, matching)
        answered.append(UserResult(item_ids, scores, interest, status, unknown, detail))
    return answered


def results_without_milvus(query: Query, popular: Popular, told: Iterable[tuple[Status, Int64]]) -> list[UserResult]:
    """One result for each user of a query while Milvus does not answer: the popular list.

    `told`: status and unknown history entries of each user, as `Inputs` holds them.
    """
    return [_degraded(query, popular, user, *known) for user, known in zip(query.users, told, strict=True)]


def _degraded(query: Query, popular: Popular, user: UserQuery, status: Status, unknown: Int64) -> UserResult:
    """One user's share of the popular list; nothing where there is a filter, which only Milvus can check."""
    excluded = np.concatenate([user.exclude, user.hist_item]) if query.exclude_history else user.exclude
    rows = np.flatnonzero(~np.isin(popular.item_ids, excluded))[: query.top_k]
    detail = user.invalid or user.unread
    if status is Status.INVALID:
        rows = rows[:0]
    elif query.filter:
        status, rows = Status.DEGRADED, rows[:0]
        detail = "Milvus does not answer, and only Milvus can check a filter"
    elif status is Status.OK:
        status, detail = Status.DEGRADED, "Milvus does not answer"
    if not detail and len(rows) < query.top_k:
        detail = _fewer(len(rows), query.top_k, LISTED, None)
    return UserResult(popular.item_ids[rows], popular.scores[rows], np.full(len(rows), -1), status, unknown, detail)


def _fewer(found: int, top_k: int, source: str, matches: Matches | None) -> str:
    """Why a user gets fewer candidates than wanted. `source`: what has no more of them."""
    if matches is None:
        return f"{found} of {top_k}: {source} no more items that are not excluded"
    matching = f"{found} of {top_k}: {len(matches):,} items match the filter"
    return matching if found == len(matches) else f"{matching}, and {source} no more of them that are not excluded"


def trace(release: Release, inputs: Inputs, vectors: Float32, found: Found, fate: Int64) -> Trace:
    """The steps behind a batch of one user. `vectors`: [B, K, D] float32; `fate`: [H] int64, of every hit."""
    used = release.vocabulary.item_id[inputs.hist_index[inputs.hist_index > 0] - 1]
    return Trace(used, vectors[found.user, found.interest], found.interest, found.hits, fate)
