"""The search of users whose items are boosted: exact among the boosted items, joined with what the usual search found.

An item that gets nothing comes before others by its inner product alone, so the usual search finds it. An item that
gets something is found here, where the items that do are all scored with what they get. So the best of both are the
best of all, down to the worst that either search gave. Where some items lose, the others may be beyond what the usual
search gave; the list of an interest then ends early, and the user is searched for again among all items
(`server.serving.depth`).
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits, falling
from mind.nearest import nearest_with_added
from mind.sequences import Int64
from server.release import Release
from server.serving.filtered import INLINE_PAIRS, PART_PAIRS
from server.serving.merge import NearHits
from server.serving.offload import computed
from server.serving.rules.lift import Lift
from server.serving.search import NO_HITS, Found

JOINED_ITEMS = 2
"""To join a hit takes as long as to work through so many items (`server.serving.offload`)."""

Columns = tuple[Int64, Int64, Float32, Float32]
"""Parallel columns of hits: query, item id, inner product, what the item gets."""


def interests_of(vectors: Float32) -> Found:
    """The interests of [B, K, D] vectors that are not zero, of which nothing was found yet."""
    user, interest = np.nonzero(np.any(vectors, axis=2))
    return Found(user, interest, Hits(NO_HITS.item_ids, NO_HITS.scores, np.zeros(len(user), np.int64)))


async def with_lifted(release: Release, found: Found, vectors: Float32, lifts: Sequence[Lift], limits: Int64) -> Found:
    """What was found, ordered anew by inner product and boosts, with the boosted items that come before.

    Args:
        release: whose items.
        found: what the usual search found; nothing for lifts that are whole.
        vectors: [B, K, D] float32, the interests of B users.
        lifts: what items get, for each of these users.
        limits: [B] int64, hits of each interest that each user gets.
    """
    own = [lifts[user] for user in found.user.tolist()]
    pairs = sum(len(lift.items) for lift in own)

    def part(numbers: Int64) -> Columns:
        return _lifted(release, found, vectors, own, limits, numbers)

    parts = np.array_split(np.arange(len(own)), pairs // PART_PAIRS + 1)
    if pairs <= INLINE_PAIRS:
        lifted = list(map(part, parts))
    else:
        lifted = await asyncio.gather(*(asyncio.to_thread(part, numbers) for numbers in parts))
    size = JOINED_ITEMS * (len(found.hits.item_ids) + sum(len(query) for query, *_ in lifted))
    columns = [np.concatenate(column) for column in zip(*lifted, strict=True)]
    return await computed(size, _joined, release, found, own, limits[found.user], columns)


def added_to(release: Release, found: Found, near: NearHits, lifts: Sequence[Lift]) -> Float32:
    """What every hit of the search, and then every neighbour, gets: [H + P] float32."""
    assert found.added is not None  # noqa: S101 - `with_lifted` found them
    added = np.zeros(len(near.bonus), np.float32)
    user = near.user.repeat(near.hits.lengths)
    for group in _groups(lifts, range(len(lifts))):
        places = np.flatnonzero(np.isin(user, group))
        added[places] = lifts[group[0]].of(release, near.hits.item_ids[places])
    return np.concatenate([found.added, added])


def _groups(lifts: Sequence[Lift], numbers: Sequence[int]) -> list[list[int]]:
    """The numbers of the queries, those with the same lift together."""
    found: dict[int, list[int]] = {}
    for number in numbers:
        found.setdefault(id(lifts[number]), []).append(number)
    return list(found.values())


def _lifted(
    release: Release, found: Found, vectors: Float32, own: Sequence[Lift], limits: Int64, numbers: Int64
) -> Columns:
    """The best boosted items of some queries, as many as each user gets hits."""
    parts = [(np.zeros(0, np.int64), *_none())]
    for group in _groups(own, numbers.tolist()):
        lift, users = own[group[0]], found.user[group]
        queries, most = vectors[users, found.interest[group]], int(limits[users].max())
        rows, scores, added = nearest_with_added(queries, release.item_embedding, lift.items.rows, lift.added, most)
        item_ids = release.vocabulary.item_id[rows - 1]
        if len(lift.items.fresh_ids):
            every = np.arange(len(lift.items.fresh_ids), dtype=np.int32)
            fresh = nearest_with_added(queries, lift.items.fresh_vectors, every, lift.fresh_added, most)
            item_ids = np.concatenate([item_ids, lift.items.fresh_ids[fresh[0]]], axis=1)
            scores, added = (np.concatenate(both, axis=1) for both in zip((scores, added), fresh[1:], strict=True))
            order = np.lexsort((item_ids, falling(scores + added)))[:, :most]
            item_ids = np.take_along_axis(item_ids, order, axis=1)
            scores, added = (np.take_along_axis(each, order, axis=1) for each in (scores, added))
        kept = np.arange(item_ids.shape[1]) < limits[users][:, None]
        query = np.array(group)[:, None].repeat(item_ids.shape[1], axis=1)
        parts.append((query[kept], item_ids[kept], scores[kept], added[kept]))
    query, item_ids, scores, added = (np.concatenate(column) for column in zip(*parts, strict=True))
    return query, item_ids, scores, added


def _none() -> tuple[Int64, Float32, Float32]:
    return np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32)


def _joined(release: Release, found: Found, own: Sequence[Lift], limits: Int64, lifted: Sequence[Int64]) -> Found:
    """Both kinds of hits as one list for each query; `limits`: [Q] int64, `lifted`: `Columns`."""
    queries, lengths = len(own), found.hits.lengths
    usual = np.repeat(np.arange(queries), lengths)
    gets = np.zeros(len(usual), np.float32)
    ends = np.cumsum(lengths)
    for group in _groups(own, range(queries)):
        places = np.concatenate([np.arange(ends[number] - lengths[number], ends[number]) for number in group])
        gets[places] = own[group[0]].of(release, found.hits.item_ids[places])

    query = np.concatenate([lifted[0], usual])
    item_ids = np.concatenate([lifted[1], found.hits.item_ids])
    scores, added = np.concatenate([lifted[2], found.hits.scores]), np.concatenate([lifted[3], gets])
    order = np.lexsort((item_ids, query))  # stable: of two hits of an item, the first is the one that was scored here
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(query[order]) != 0) | (np.diff(item_ids[order]) != 0)
    leader = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    scores[order] = scores[order[leader]]  # another search may round differently
    values = scores + added

    # The highest value that an item can have which neither search gave.
    bound, given = np.full(queries, -np.inf, np.float32), np.bincount(lifted[0], minlength=queries)
    more = np.array([len(lift.items) for lift in own]) > given
    worst = np.full(queries, np.inf, np.float32)
    np.minimum.at(worst, lifted[0], values[: len(lifted[0])])
    bound[more & (given > 0)] = worst[more & (given > 0)]
    open_ = (lengths >= limits) & (lengths > 0)
    worst = np.full(queries, np.inf, np.float32)
    np.minimum.at(worst, usual, scores[len(lifted[0]) :])
    bound[open_] = np.maximum(bound[open_], worst[open_])

    kept = order[first]
    kept = kept[values[kept] >= bound[query[kept]]]
    kept = kept[np.lexsort((item_ids[kept], falling(values[kept]), query[kept]))]
    hits = Hits(item_ids[kept], scores[kept], np.bincount(query[kept], minlength=queries))
    longer = hits.lengths > limits
    if longer.any():
        starts = np.cumsum(hits.lengths) - hits.lengths
        cut = kept[(starts + limits - 1)[longer]]
        bound[longer] = values[cut]
        kept = kept[np.arange(len(kept)) - np.repeat(starts, hits.lengths) < np.repeat(limits, hits.lengths)]
    return Found(found.user, found.interest, hits.first(limits), added[kept], bound)
