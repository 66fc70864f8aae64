"""The search with filters: what a user gets is the best of the items that match (`server.serving.matching`).

An index that is searched with a filter loses items, because its graph leads past many that do not match. So items are
scored in memory, all that match. Only where these are very many, the index is searched without the filter for more
hits, of which those that match are kept; who gets too few of them is searched for in memory after all.
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits, falling
from mind.interests import OVERSEARCH
from mind.milvus.collection import MAX_HITS
from mind.nearest import nearest
from mind.sequences import Int64
from server.ports import ItemStore
from server.release import Release
from server.serving.matching import Matches
from server.serving.offload import computed
from server.serving.search import NO_HITS, Found, search

Columns = tuple[Int64, Int64, Float32]
"""Hits: the query, the item id and the score of each."""
PAIRS_PER_ITEM = 8
"""Pairs of query and item that are scored in the time that `computed` expects an item to take."""


async def search_matches(
    store: ItemStore,
    release: Release,
    vectors: Float32,
    matches: Sequence[Matches],
    limits: Int64,
    fetched: int,
    timeout_s: float,
) -> Found:
    """Search for each user among the items that match a filter of its own.

    Args:
        store: Milvus.
        release: its model's items are searched, and what was added to its collection since.
        vectors: [B, K, D] float32, the interest vectors of B users; all-zero ones find nothing.
        matches: of each of the B users.
        limits: [B] int64, hits of each interest that each user gets.
        fetched: what `mind.milvus.filtered.hits_to_fetch` says, the same for all of them.
        timeout_s: longest wait for Milvus.
    """
    if not fetched:
        user, interest = np.nonzero(np.any(vectors, axis=2))
        own = [matches[each] for each in user.tolist()]
        return Found(user, interest, await _in_memory(release, vectors[user, interest], own, limits[user]))
    all_of_them = np.full(len(vectors), fetched)
    asked = fetched if release.fingerprint.interest_cosine >= 1 else min(MAX_HITS, fetched * OVERSEARCH)
    found = await search(store, release, vectors, all_of_them, asked, timeout_s, filtered=True)
    own = [matches[each] for each in found.user.tolist()]
    hits = await computed(len(found.hits.item_ids), _kept, release, found.hits, own)
    wanted = limits[found.user]
    short = np.flatnonzero(hits.lengths < np.minimum(wanted, [len(each) for each in own]))
    if len(short):
        queries = vectors[found.user, found.interest][short]
        more = await _in_memory(release, queries, [own[each] for each in short.tolist()], wanted[short])
        enough = ~np.isin(_query_of(hits), short)
        kept = _query_of(hits)[enough], hits.item_ids[enough], hits.scores[enough]
        hits = _joined([kept, (short[_query_of(more)], more.item_ids, more.scores)], len(own))
    return Found(found.user, found.interest, hits.first(wanted))


def _kept(release: Release, hits: Hits, matches: Sequence[Matches]) -> Hits:
    """The hits of each of Q queries that are among the matches of its own."""
    row, query = release.vocabulary.item_index(hits.item_ids), _query_of(hits)
    keep = np.zeros(len(row), bool)
    for numbers in _together(matches):
        own, there = matches[numbers[0]], np.zeros(len(release.vocabulary) + 1, bool)
        there[own.rows] = True
        asked = np.isin(query, numbers)
        keep[asked] = there[row[asked]] | np.isin(hits.item_ids[asked], own.fresh_ids)
    return Hits(hits.item_ids[keep], hits.scores[keep], np.bincount(query[keep], minlength=len(matches)))


async def _in_memory(release: Release, queries: Float32, matches: Sequence[Matches], limits: Int64) -> Hits:
    """The hits of [Q, D] queries, each among the matches of its own, of all of which the scores are computed.

    `limits`: [Q] int64, hits wanted of each query.
    """

    size = sum(map(len, matches)) // PAIRS_PER_ITEM

    async def found(numbers: list[int]) -> Columns:
        own, limit = matches[numbers[0]], int(limits[numbers].max())
        item_ids, scores = await computed(size, _nearest_among, release, queries[numbers], own, limit)
        return np.repeat(numbers, item_ids.shape[1]), item_ids.ravel(), scores.ravel()

    # One product of matrices for all queries with the same matches; different matches on threads of their own.
    return _joined(await asyncio.gather(*map(found, _together(matches))), len(queries)).first(limits)


def _nearest_among(release: Release, queries: Float32, matches: Matches, limit: int) -> tuple[Int64, Float32]:
    """The ids and scores of the nearest of these items, [Q, L] each, best first."""
    rows, scores = nearest(queries, release.item_embedding, matches.rows, limit)
    item_ids = release.vocabulary.item_id[rows - 1]
    if not len(matches.fresh_ids):
        return item_ids, scores
    every = np.arange(len(matches.fresh_ids), dtype=np.int32)
    fresh, fresh_scores = nearest(queries, matches.fresh_vectors, every, limit)
    item_ids = np.concatenate([item_ids, matches.fresh_ids[fresh]], axis=1)
    scores = np.concatenate([scores, fresh_scores], axis=1)
    order = np.lexsort((item_ids, falling(scores)))[:, :limit]
    return np.take_along_axis(item_ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _query_of(hits: Hits) -> Int64:
    """[H] int64, the query of each hit."""
    return np.repeat(np.arange(len(hits.lengths)), hits.lengths)


def _joined(found: list[Columns], queries: int) -> Hits:
    """What was found of Q queries in parts; each query is in one of them."""
    if not found:
        return NO_HITS
    query, item_ids, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(query, kind="stable")
    return Hits(item_ids[order], scores[order], np.bincount(query, minlength=queries))


def _together(matches: Sequence[Matches]) -> list[list[int]]:
    """The numbers of the queries, those with the same matches together."""
    numbers: dict[int, list[int]] = {}
    for number, own in enumerate(matches):
        numbers.setdefault(id(own), []).append(number)
    return list(numbers.values())
