"""The search with filters: a user gets the best of the items that match (`server.serving.matching`).

An index that is searched with a filter loses items, because the paths of its graph lead through items that do not
match. So the server searches in memory. If few items match, it scores all of them. If many match, it scores those of
the most promising cells (`mind.cell_search`).
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from mind.artifact import Float32
from mind.cell_search import nearest_in_cells
from mind.hits import Hits, falling
from mind.nearest import Rows, nearest
from mind.sequences import Int64
from server.release import Release
from server.serving.matching import Matches
from server.serving.search import NO_HITS, Found

PAIRS_IN_CELLS = 24_000
"""Number of pairs of query and item that are scored in the time of one query by cells: 0.06 ms."""
INLINE_PAIRS = 20_000
"""A search of so many pairs or fewer runs on the event loop: 0.2 ms. Requests during a longer one share a batch."""
PART_PAIRS = 8_000_000
"""Pairs for which another thread is worth its cost: 20 ms."""


async def search_matches(release: Release, vectors: Float32, matches: Sequence[Matches], limits: Int64) -> Found:
    """Search for each user among the items that match the user's filter.

    Args:
        release: its model's items are searched, and items that were added to its collection since the build.
        vectors: [B, K, D] float32, the interest vectors of B users; all-zero ones find nothing.
        matches: the matching items of each of the B users.
        limits: [B] int64, hits of each interest that each user gets.
    """
    user, interest = np.nonzero(np.any(vectors, axis=2))
    own = [matches[each] for each in user.tolist()]
    pairs = sum(PAIRS_IN_CELLS if each.members else len(each) for each in own)

    def part(numbers: Int64) -> Hits:
        queries = vectors[user[numbers], interest[numbers]]
        return _search(release, queries, [own[each] for each in numbers.tolist()], limits[user[numbers]])

    parts = np.array_split(np.arange(len(user)), pairs // PART_PAIRS + 1)
    if pairs <= INLINE_PAIRS:
        found = list(map(part, parts))
    else:
        found = await asyncio.gather(*(asyncio.to_thread(part, numbers) for numbers in parts))
    columns = zip(*((hits.item_ids, hits.scores, hits.lengths) for hits in found), strict=True)
    return Found(user, interest, Hits(*map(np.concatenate, columns)))


def _search(release: Release, queries: Float32, matches: Sequence[Matches], limits: Int64) -> Hits:
    """Return the hits of [Q, D] queries, each among its own matches, and at most its own limit of them."""
    found = []
    for numbers in _together(matches, limits):
        most = int(limits[numbers].max())
        item_ids, scores = _nearest(release, queries[numbers], [matches[number] for number in numbers], most)
        found.append((np.repeat(numbers, item_ids.shape[1]), item_ids.ravel(), scores.ravel()))
    if not found:
        return NO_HITS
    query, item_ids, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(query, kind="stable")
    return Hits(item_ids[order], scores[order], np.bincount(query, minlength=len(queries))).first(limits)


def _nearest(release: Release, queries: Float32, matches: Sequence[Matches], limit: int) -> tuple[Int64, Float32]:
    """Return the ids and scores of the nearest items of queries that share a search, [Q, L] each, best first."""
    if members := [own.members for own in matches if own.members]:
        rows, scores = nearest_in_cells(queries, release.item_embedding, members, limit)
    else:
        rows, scores = nearest(queries, release.item_embedding, matches[0].rows, limit)
    return with_fresh(release, queries, matches[0], rows, scores, limit)


def with_fresh(
    release: Release, queries: Float32, matches: Matches, rows: Rows, scores: Float32, limit: int
) -> tuple[Int64, Float32]:
    """Return the ids and scores of the nearest items, [Q, L] each, with the fresh items added to those of the model."""
    item_ids = release.vocabulary.item_id[rows - 1]
    if not len(matches.fresh_ids):
        return item_ids, scores
    every = np.arange(len(matches.fresh_ids), dtype=np.int32)
    fresh, fresh_scores = nearest(queries, matches.fresh_vectors, every, limit)
    item_ids = np.concatenate([item_ids, matches.fresh_ids[fresh]], axis=1)
    scores = np.concatenate([scores, fresh_scores], axis=1)
    order = np.lexsort((item_ids, falling(scores)))[:, :limit]
    return np.take_along_axis(item_ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _together(matches: Sequence[Matches], limits: Int64) -> list[list[int]]:
    """Group the numbers of the queries that share a search: those with the same matches, or all by cells.

    The number of cells that a search looks into depends on its limit, so queries by cells share it only with the same
    limit. Fresh items are not in cells, so queries that match some share a search only with the same matches.
    """
    numbers: dict[tuple[int, int], list[int]] = {}
    for number, (own, limit) in enumerate(zip(matches, limits.tolist(), strict=True)):
        by_cells = own.members and not len(own.fresh_ids)
        numbers.setdefault((0 if by_cells else id(own), limit if own.members else 0), []).append(number)
    return list(numbers.values())
