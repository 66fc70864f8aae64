"""The answer for each user: merged candidates, or the popular list without a usable history or enough time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count, pairwise

import numpy as np

from mind.artifact import Float32
from mind.milvus.collection import MAX_HITS
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.popular import Popular
from server.release import Release
from server.serving.answer import Status, Trace, UserResult
from server.serving.depth import Depth
from server.serving.inputs import Inputs
from server.serving.matching import Matches
from server.serving.merge import Fate, Merged, NearHits
from server.serving.question import Query, UserQuery
from server.serving.rules.popular import PopularRule
from server.serving.search import Found

LISTED = "the popular list has"
SILENT = "Milvus does not answer"
FROM_MEMORY = f"{SILENT}: the candidates were found in the server's memory, without the newest changes of items"


def results(
    top_k: Sequence[int],
    inputs: Inputs,
    merged: Merged,
    short: Mask,
    matches: Sequence[Matches | None],
    with_near: Mask,
    said: Sequence[str] = (),
    boosted: bool = False,
    interests: Float32 | None = None,
) -> list[UserResult]:
    """One result for each user of a batch, in their order; those without a usable history get nothing yet.

    Args:
        top_k: for each user, the candidates wanted.
        inputs: the users.
        merged: the candidates of the B active users.
        short: [B] bool, what `cut_short` says.
        matches: for each user, the items that match the filter; None without a filter.
        with_near: [B] bool, who asked for neighbours.
        said: for each of the B users, what rules did to the list, if it must be told; empty without rules.
        boosted: whether there are boosts.
        interests: [B, K, D] float32, if places of their lists are filled later.
    """
    own_hits = (slice(start, end) for start, end in pairwise(merged.offsets.tolist()))  # of the active users, in turn
    own_short, own_near, own_said = iter(short.tolist()), iter(with_near.tolist()), iter(said)
    nothing = merged.item_ids[:0], merged.scores[:0], merged.interest[:0]
    answered, numbers = [], count()
    columns = inputs.users, inputs.status, inputs.unknown, top_k, matches
    for user, status, unknown, wanted, matching in zip(*columns, strict=True):
        detail = user.invalid or user.unread
        if status is not Status.OK:
            answered.append(UserResult(*nothing, status, unknown, detail))
            continue
        own, again, labelled = next(own_hits), next(own_short), next(own_near)
        item_ids, scores, interest = merged.item_ids[own], merged.scores[own], merged.interest[own]
        detail = next(own_said, "")
        if not detail and len(item_ids) < wanted:
            detail = _fewer(len(item_ids), wanted, "the search found", matching)
        source, added = merged.source[own] if labelled else None, merged.added[own] if boosted else None
        vectors = None if interests is None else interests[next(numbers)]
        columns_of = item_ids, scores, interest, status, unknown, detail, again, source, added, vectors
        answered.append(UserResult(*columns_of))
    return answered


def with_popular(
    query: Query,
    answered: list[UserResult],
    popular: Popular,
    matches: Matches | None,
    rule: PopularRule | None = None,
) -> list[UserResult]:
    """Return the results of a query's users, with the popular items for those without a usable history.

    Args:
        query: of the users.
        answered: their results so far.
        popular: the popular items that match the filter of the query.
        matches: all items that match it; None without a filter.
        rule: chooses which of them at_most allows; None without such rules.
    """
    filled = []
    for user, result in zip(query.users, answered, strict=True):
        if result.fallback:
            rows = _listed(popular, _excluded(user, query.pins), query.top_k, rule)
            detail = result.detail or (rule.detail if rule else "")
            if not detail and len(rows) < query.top_k:
                detail = _fewer(len(rows), query.top_k, LISTED, matches, rule is not None)
            columns = popular.item_ids[rows], popular.scores[rows], np.full(len(rows), -1)
            result = UserResult(*columns, result.status, result.unknown, detail)
        filled.append(result)
    return filled


def cut_short(depths: Sequence[Depth], top_k: Int64, found: Found, merged: Merged) -> Mask:
    """Return which of B users may get other candidates from a deeper search: [B] bool.

    These are users with fewer than `top_k` hits of an interest left, if the index may have more.
    """
    deeper = np.array([depth.goes_on for depth in depths], bool)
    if not deeper.any():
        return deeper
    limit = np.array([depth.limit for depth in depths], np.int64)
    few = (merged.left < top_k[found.user]) & found.goes_on(limit)
    lacking = np.zeros(len(depths), bool)
    lacking[found.user[few]] = True
    return deeper & lacking


def _listed(popular: Popular, excluded: Int64, top_k: int, rule: PopularRule | None) -> Int64:
    """Return the places of the popular items that a user gets."""
    rows = np.flatnonzero(~np.isin(popular.item_ids, excluded))
    return (rule.among(rows, len(popular.item_ids)) if rule else rows)[:top_k]


def results_without_milvus(
    query: Query, popular: Popular, told: Iterable[tuple[Status, Int64]], rule: PopularRule | None = None
) -> list[UserResult]:
    """Return one result for each user of a query while Milvus does not answer: the popular list.

    `told`: status and unknown history entries of each user, as in `Inputs`; `rule`: as of `with_popular`.
    """
    return [_degraded(query, popular, rule, user, *known) for user, known in zip(query.users, told, strict=True)]


def _degraded(
    query: Query, popular: Popular, rule: PopularRule | None, user: UserQuery, status: Status, unknown: Int64
) -> UserResult:
    """Return one user's part of the popular list. It is empty with a filter, because only Milvus can check filters."""
    excluded = _excluded(user, query.pins)
    if query.exclude_history:
        excluded = np.concatenate([excluded, user.hist_item])
    rows = _listed(popular, excluded, query.top_k, rule)
    detail = user.invalid or user.unread
    if status is Status.INVALID:
        rows = rows[:0]
    elif query.filter:
        status, rows = Status.DEGRADED, rows[:0]
        detail = f"{SILENT}, and only Milvus can check a filter"
    elif status is Status.OK:
        status, detail = Status.DEGRADED, SILENT
    if rule and rule.detail and len(rows):
        detail = f"{detail}; {rule.detail}" if detail else rule.detail
    if not detail and len(rows) < query.top_k:
        detail = _fewer(len(rows), query.top_k, LISTED, None, rule is not None)
    return UserResult(popular.item_ids[rows], popular.scores[rows], np.full(len(rows), -1), status, unknown, detail)


def _excluded(user: UserQuery, pins: Int64) -> Int64:
    """The ids that a user must not get by rank, whatever the history is."""
    return np.concatenate([user.exclude, user.shown, pins]) if len(user.shown) + len(pins) else user.exclude


def with_note(result: UserResult, note: str) -> UserResult:
    """The result with something more to tell, if its candidates come from interests."""
    if result.fallback or result.status is Status.INVALID:
        return result
    return replace(result, detail=f"{result.detail}; {note}" if result.detail else note)


def without_places(steps: Trace, result: UserResult) -> Trace:
    """The steps of a user, after the last candidates lost their places to others."""
    item_ids = np.concatenate([steps.hits.item_ids, steps.near.hits.item_ids])
    lost = (steps.fate == Fate.KEPT) & ~np.isin(item_ids, result.item_ids)
    return replace(steps, fate=np.where(lost, Fate.BELOW_TOP_K, steps.fate))


def found_in_memory(answered: list[UserResult]) -> list[UserResult]:
    """Return the results of a search in memory while Milvus does not answer, and tell users with a usable history."""
    return [
        replace(result, status=Status.DEGRADED, own=True, detail=result.detail or FROM_MEMORY)
        if result.status is Status.OK
        else result
        for result in answered
    ]


def _fewer(found: int, top_k: int, source: str, matches: Matches | None, ruled: bool = False) -> str:
    """Return why a user gets too few candidates. `source`: what has no more of them; `ruled`: with at_most."""
    left = "are not excluded and that at_most allows" if ruled else "are not excluded"
    if matches is None:
        return f"{found} of {top_k}: {source} no more items that {left}"
    matching = f"{found} of {top_k}: {len(matches):,} items match the filter"
    return matching if found == len(matches) else f"{matching}, and {source} no more of them that {left}"


def trace(
    release: Release,
    inputs: Inputs,
    vectors: Float32,
    found: Found,
    near: NearHits,
    fate: Int64,
    capped_by: Mapping[str, Mask],
    added: Float32 | None,
    search: str,
    most: int = MAX_HITS,
) -> Trace:
    """The steps behind a batch of one user.

    `vectors`: [B, K, D] float32; `fate`, `added`: [H + P], of every hit; `capped_by`: for each attribute of at_most,
    [H + P] bool, the hits that it dropped; `most`: hits of an interest that are shown.
    """
    used = release.vocabulary.item_id[inputs.hist_index[inputs.hist_index > 0] - 1]
    lengths, hits = found.hits.lengths, found.hits.first(np.full(len(found.hits.lengths), most))
    place = np.arange(len(found.hits.item_ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    shown = np.concatenate([place < most, np.ones(len(fate) - len(place), bool)])
    fate, added = fate[shown], None if added is None else added[shown]
    capped_by = {name: dropped[shown] for name, dropped in capped_by.items()}
    which = found.user, found.interest
    weights = np.zeros((0, 0), np.float32)
    if len(found.user):
        weights = release.click_weights(inputs.hist_index, inputs.seq_len)[which][:, : len(used)]
    return Trace(used, vectors[which], weights, found.interest, hits, near, fate, capped_by, added, search)
