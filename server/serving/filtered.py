"""The search with filters: what a user gets is the best of the items that match (`server.serving.matching`).

An index that is searched with a filter loses items, because its graph leads past many that do not match. So the items
are searched in memory: if few match, all of them are scored, and if many do, those of the most promising cells
(`mind.cells`).
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from mind.artifact import Float32
from mind.cells import nearest_in_cells
from mind.hits import Hits, falling
from mind.nearest import Rows, nearest
from mind.sequences import Int64
from server.release import Release
from server.serving.matching import Matches
from server.serving.search import NO_HITS, Found

PAIRS_IN_CELLS = 40_000
"""Pairs of query and item that are scored in the time that a query takes which searches cells: 0.1 ms."""
INLINE_PAIRS = 20_000
"""Pairs up to which a search runs on the event loop: 0.2 ms. Requests that come during a longer one share a batch."""
PART_PAIRS = 8_000_000
"""Pairs that are worth a further thread: 20 ms."""


async def search_matches(release: Release, vectors: Float32, matches: Sequence[Matches], limits: Int64) -> Found:
    """Search for each user among the items that match a filter of its own.

    Args:
        release: its model's items are searched, and what was added to its collection since.
        vectors: [B, K, D] float32, the interest vectors of B users; all-zero ones find nothing.
        matches: of each of the B users.
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
    """The hits of [Q, D] queries, each among the matches of its own, and no more than its own limit."""
    found = []
    for numbers in _together(matches, limits):
        most = int(limits[numbers].max())
        item_ids, scores = nearest_among(release, queries[numbers], matches[numbers[0]], most)
        found.append((np.repeat(numbers, item_ids.shape[1]), item_ids.ravel(), scores.ravel()))
    if not found:
        return NO_HITS
    query, item_ids, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(query, kind="stable")
    return Hits(item_ids[order], scores[order], np.bincount(query, minlength=len(queries))).first(limits)


def nearest_among(release: Release, queries: Float32, matches: Matches, limit: int) -> tuple[Int64, Float32]:
    """Find the ids and scores of the nearest of these items, [Q, L] each, best first."""
    if matches.members:
        rows, scores = nearest_in_cells(queries, release.item_embedding, matches.members, limit)
    else:
        rows, scores = nearest(queries, release.item_embedding, matches.rows, limit)
    return with_fresh(release, queries, matches, rows, scores, limit)


def with_fresh(
    release: Release, queries: Float32, matches: Matches, rows: Rows, scores: Float32, limit: int
) -> tuple[Int64, Float32]:
    """The ids and scores of the nearest items, [Q, L] each, after those that the model knows were searched."""
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
    """The numbers of the queries, those with the same matches together.

    How many cells a search looks into depends on its limit, so those by cells share it only with the same limit.
    """
    numbers: dict[tuple[int, int], list[int]] = {}
    for number, (own, limit) in enumerate(zip(matches, limits.tolist(), strict=True)):
        numbers.setdefault((id(own), limit if own.members else 0), []).append(number)
    return list(numbers.values())
