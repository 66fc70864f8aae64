"""Places that do not go by rank: pinned items come first, and some places go to items that are drawn.

Both are put into the finished list of a user. Pins were left out of the ranking before, as excluded items are, so rules
such as at_most neither drop nor count them. Drawn items take the places of the last candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mind.artifact import Float32
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.errors import StoreUnavailableError
from server.release import Release
from server.serving.added import is_among
from server.serving.answer import Status, UserResult
from server.serving.local import LocalItems
from server.serving.matching import Matches, MatchingItems
from server.serving.merge import Source
from server.serving.neighbours import best_of
from server.serving.offload import computed
from server.serving.question import Query, UserQuery
from server.serving.rules.explore import Pool, drawn, spread
from server.serving.rules.stage import embeddings_of

PLACED_ITEMS = 100
"""To fill the places of a user takes as long as to work through so many items (`server.serving.offload`)."""
POPULAR = 0
"""Stands for the source of a popular item beside items that were placed."""


@dataclass(frozen=True)
class _Pins:
    """The pins of a query."""

    item_ids: Int64
    """[p] int64, their external ids."""
    there: Mask
    """[p] bool, which of them a user may get: those that the collection has and that match the filter."""


class Places:
    """Fills the places of pins and of drawn items."""

    def __init__(self, matching: MatchingItems, local: LocalItems) -> None:
        """`matching`: the items that match filters; `local`: all items."""
        self._matching = matching
        self._local = local

    async def fill(
        self, release: Release, query: Query, results: Sequence[UserResult], time_left_s: float
    ) -> list[UserResult]:
        """The results of the users of a query with its pins and drawn items.

        Args:
            release: whose items.
            query: has pins, or explores.
            results: with `UserResult.interests` where candidates come from them.
            time_left_s: most time to wait for Milvus.
        """
        seen = await self._local.seen(release, time_left_s)
        known = self._local.known(release).items if seen or self._local.knows(release) else None
        pins = _Pins(query.pins, np.zeros(len(query.pins), bool))
        said = []
        if len(pins.item_ids):
            there, why = await self._among(release, query.filter, known, time_left_s)
            if there:
                pins = replace(pins, there=_there(release, there, pins.item_ids))
            if absent := np.flatnonzero(~pins.there).tolist():
                which = ", ".join(map(str, absent))
                said.append(f"pins {which} (from 0) are left out: {why or 'no such items, or they do not match'}")
        pool = None
        if query.explore:
            filters = [own for own in (query.filter, query.explore.filter) if own]
            both = " and ".join(f"({own})" for own in filters) if len(filters) > 1 else "".join(filters)
            found, why = await self._among(release, both, known, time_left_s)
            pool = Pool(release, found) if found else None
            said += [f"no items are explored: {why}"] if why else []
        size = len(results) * (PLACED_ITEMS + query.top_k)
        return await computed(size, _filled, release, query, results, pins, pool, known, said)

    async def _among(
        self, release: Release, filter_: str, known: Matches | None, time_left_s: float
    ) -> tuple[Matches | None, str]:
        """The items that match a filter, or all; or None, and why they are not known."""
        if not filter_:
            return known, "" if known else "Milvus does not answer"
        try:
            return await self._matching.of(release, filter_, time_left_s), ""
        except StoreUnavailableError:
            last = self._matching.last(release, filter_)
            return last, "" if last else "Milvus does not answer"


def _there(release: Release, items: Matches, item_ids: Int64) -> Mask:
    """Which of some items are among others, [n] bool."""
    row = release.vocabulary.item_index(item_ids)
    return np.where(row > 0, is_among(row, items.rows), is_among(item_ids, items.fresh_ids))


def _filled(
    release: Release,
    query: Query,
    results: Sequence[UserResult],
    pins: _Pins,
    pool: Pool | None,
    known: Matches | None,
    said: Sequence[str],
) -> list[UserResult]:
    return [
        result
        if result.status is Status.INVALID or result.cut_short
        else _filled_for(release, query, user, result, pins, pool, known, said)
        for user, result in zip(query.users, results, strict=True)
    ]


def _filled_for(
    release: Release,
    query: Query,
    user: UserQuery,
    result: UserResult,
    pins: _Pins,
    pool: Pool | None,
    known: Matches | None,
    said: Sequence[str],
) -> UserResult:
    banned = np.concatenate([user.exclude, user.shown])
    pinned = pins.item_ids[pins.there & ~np.isin(pins.item_ids, banned)][: query.top_k]
    ranked = np.flatnonzero(~np.isin(result.item_ids, pinned))[: query.top_k - len(pinned)]
    explored, notes = pinned[:0], list(said)
    if pool and query.explore:
        taken = [banned, query.pins, result.item_ids[ranked], *([user.hist_item] if query.exclude_history else [])]
        wanted = min(query.explore.places(query.top_k), query.top_k - len(pinned))
        explored = drawn(user.draw, pool, np.concatenate(taken), wanted)
        if len(explored) < wanted:
            notes.append(f"{len(explored)} of {wanted} items are explored: no others match that are not candidates")
    ranked = ranked[: query.top_k - len(pinned) - len(explored)]
    places = spread(len(explored), len(ranked) + len(explored)) + len(pinned)
    order = np.full(len(pinned) + len(ranked) + len(explored), -1)
    order[: len(pinned)] = np.arange(len(pinned))
    order[places] = len(pinned) + len(ranked) + np.arange(len(explored))
    order[order < 0] = len(pinned) + np.arange(len(ranked))
    placed = np.concatenate([pinned, explored])
    scores, interest = _scores(release, result, placed, known)
    by_rank = np.full(len(result.item_ids), POPULAR if result.fallback else Source.SEARCH)
    source = (by_rank if result.source is None else result.source)[ranked]
    columns: dict[str, tuple[npt.NDArray[Any], ...]] = {
        "item_ids": (pinned, result.item_ids[ranked], explored),
        "scores": (scores[: len(pinned)], result.scores[ranked], scores[len(pinned) :]),
        "interest": (interest[: len(pinned)], result.interest[ranked], interest[len(pinned) :]),
        "source": (np.full(len(pinned), Source.PIN), source, np.full(len(explored), Source.EXPLORE)),
    }
    if result.added is not None:
        nothing = np.zeros(len(placed), np.float32)
        columns["added"] = nothing[: len(pinned)], result.added[ranked], nothing[len(pinned) :]
    joined = {name: np.concatenate(parts)[order] for name, parts in columns.items()}
    detail = _detail(result, len(order), query.top_k, notes)
    return replace(result, detail=detail, **joined)


def _detail(result: UserResult, items: int, top_k: int, notes: Sequence[str]) -> str:
    """What to say of the list: what was said of the ranked items, if it still holds, and the notes."""
    fewer = f"{len(result.item_ids)} of {top_k}: "
    said = result.detail
    if said.startswith(fewer):
        said = "" if items == top_k else f"{items} of {top_k}: {said.removeprefix(fewer)}"
    return "; ".join(part for part in (said, *notes) if part)


def _scores(release: Release, result: UserResult, item_ids: Int64, known: Matches | None) -> tuple[Float32, Int64]:
    """The score of each item and the interest that scores it best; in a popular list, its share if it is listed."""
    if result.interests is None or result.fallback:
        popular = release.popular
        order = np.argsort(popular.item_ids)
        place = np.minimum(np.searchsorted(popular.item_ids[order], item_ids), max(len(order) - 1, 0))
        listed = popular.item_ids[order][place] == item_ids if len(order) else np.zeros(len(item_ids), bool)
        scores = np.zeros(len(item_ids), np.float32)
        scores[listed] = popular.scores[order][place[listed]]
        return scores, np.full(len(item_ids), -1)
    scores = np.einsum("nd,kd->nk", embeddings_of(release, known, item_ids), result.interests)
    scores[:, ~result.interests.any(axis=1)] = -np.inf
    interest, best = best_of(scores)
    return best, interest
