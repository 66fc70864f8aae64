"""The search of users whose items are boosted: exact among the boosted items, joined with what the usual search found.

An item that gets nothing comes before others by its inner product alone, so the usual search finds it. An item that
gets something is found here, where items are scored with what they get. So the best of both are the
best of all, down to the worst that either search gave. A boosted item is not even scored if it gets so little that it
could not come before the items which the usual search found. Where some items lose, the others may be beyond what the
usual search gave; the list of an interest then ends early, and the user is searched for again among all items
(`server.serving.depth`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mind.artifact import Float32
from mind.hits import Hits, falling
from mind.nearest import nearest_with_added
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.release import Release
from server.serving.filtered import INLINE_PAIRS, PART_PAIRS
from server.serving.merge import NearHits
from server.serving.offload import computed
from server.serving.rules.lift import Lift
from server.serving.search import NO_HITS, Found

JOINED_ITEMS = 2
"""To join a hit takes as long as to work through so many items (`server.serving.offload`)."""

KEPT_ITEMS = 20
"""To order boosted items, which is done once for a lift, takes as long for so many as to work through one."""
ROUNDING = 1e-5
"""More than the share by which the score of an item may differ between the search and here."""

Columns = tuple[Int64, Int64, Float32, Float32]
"""Parallel columns of hits: query, item id, inner product, what the item gets."""


def interests_of(vectors: Float32) -> Found:
    """The interests of [B, K, D] vectors that are not zero, of which nothing was found yet."""
    user, interest = np.nonzero(np.any(vectors, axis=2))
    return Found(user, interest, Hits(NO_HITS.item_ids, NO_HITS.scores, np.zeros(len(user), np.int64)))


@dataclass(frozen=True)
class _Usual:
    """What the usual search found for Q queries, and what can still come before it."""

    gets: Float32
    """[H] float32, what each hit gets."""
    open: Mask
    """[Q] bool, for which queries it may not have found all items."""
    most: Float32
    """[Q] float32, the highest inner product of an item that it did not find."""
    enough: Float32
    """[Q] float32: so many items have this sum that others with less do not matter; -inf if there are too few."""
    reaching: Int64
    """[Q] int64, the items that must be scored: those that get most of all that the model knows."""


async def with_lifted(
    release: Release, found: Found, vectors: Float32, lifts: Sequence[Lift], limits: Int64, wanted: Int64
) -> Found:
    """Order the hits by inner product and boosts, and add the boosted items that come before them.

    Args:
        release: whose items.
        found: what the usual search found; nothing for lifts that are whole.
        vectors: [B, K, D] float32, the interests of B users.
        lifts: what items get, for each of these users.
        limits: [B] int64, hits of each interest that the usual search was asked for.
        wanted: [B] int64, hits of each interest that each user gets, no more than `limits`.
    """
    own, limits, wanted = [lifts[user] for user in found.user.tolist()], limits[found.user], wanted[found.user]
    size = JOINED_ITEMS * len(found.hits.item_ids) + max(map(len, (lift.items for lift in lifts))) // KEPT_ITEMS
    usual = await computed(size, _usual, release, found, own, limits, wanted)
    pairs = int(usual.reaching.sum()) + sum(len(lift.items.fresh_ids) for lift in own)

    def part(numbers: Int64) -> Columns:
        return _lifted(release, found, vectors, own, usual, wanted, numbers)

    parts = np.array_split(np.arange(len(own)), pairs // PART_PAIRS + 1)
    if pairs <= INLINE_PAIRS:
        lifted = list(map(part, parts))
    else:
        lifted = await asyncio.gather(*(asyncio.to_thread(part, numbers) for numbers in parts))
    size = JOINED_ITEMS * (len(found.hits.item_ids) + sum(len(query) for query, *_ in lifted))
    columns = [np.concatenate(column) for column in zip(*lifted, strict=True)]
    return await computed(size, _joined, found, own, usual, wanted, columns)


def _usual(release: Release, found: Found, own: Sequence[Lift], limits: Int64, wanted: Int64) -> _Usual:
    """What the usual search tells of the items that it did not find."""
    queries, lengths, scores = len(own), found.hits.lengths, found.hits.scores
    gets, ends = np.zeros(len(scores), np.float32), np.cumsum(lengths)
    for group in _groups(own, range(queries)):
        places = np.concatenate([np.arange(ends[number] - lengths[number], ends[number]) for number in group])
        gets[places] = own[group[0]].of(release, found.hits.item_ids[places])
    whole = np.array([lift.whole for lift in own], bool)
    open_ = (lengths >= limits) & (lengths > 0) & ~whole
    most = np.full(queries, -np.inf, np.float32)
    most[open_] = scores[ends[open_] - 1]
    values, query = scores + gets, np.repeat(np.arange(queries), lengths)
    order = np.lexsort((falling(values), query))
    enough = np.full(queries, -np.inf, np.float32)
    full = open_ & (lengths >= wanted)
    enough[full] = values[order[(ends - lengths + wanted - 1)[full]]]
    slack = ROUNDING * (np.abs(np.where(full, enough, 0)) + np.abs(np.where(open_, most, 0)))
    enough -= slack
    reaching = np.zeros(queries, np.int64)
    least = np.where(full, enough - slack - np.where(open_, most, 0), -np.inf)
    for group in _groups(own, range(queries)):
        reaching[group] = own[group[0]].reaching(least[group].astype(np.float32))
    return _Usual(gets, open_, most, enough, reaching)


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
    release: Release,
    found: Found,
    vectors: Float32,
    own: Sequence[Lift],
    usual: _Usual,
    wanted: Int64,
    numbers: Int64,
) -> Columns:
    """The best boosted items of some queries, as many as each user gets hits."""
    parts = [(np.zeros(0, np.int64), *_none())]
    for group in _groups(own, numbers.tolist()):
        lift = own[group[0]]
        for count in np.unique(usual.reaching[group]).tolist():
            same = [number for number in group if usual.reaching[number] == count]
            if count or len(lift.items.fresh_ids):
                queries = vectors[found.user[same], found.interest[same]]
                parts.append(_best(release, lift, count, queries, np.array(same), wanted[same]))
    query, item_ids, scores, added = (np.concatenate(column) for column in zip(*parts, strict=True))
    return query, item_ids, scores, added


def _best(release: Release, lift: Lift, count: int, queries: Float32, numbers: Int64, wanted: Int64) -> Columns:
    """The best of the `count` items that get most, and of the fresh ones, for queries of one lift."""
    most = int(wanted.max())
    rows, scores, added = nearest_with_added(queries, release.item_embedding, *lift.top(count), most)
    item_ids = release.vocabulary.item_id[rows - 1]
    if len(lift.items.fresh_ids):
        every = np.arange(len(lift.items.fresh_ids), dtype=np.int32)
        fresh = nearest_with_added(queries, lift.items.fresh_vectors, every, lift.fresh_added, most)
        item_ids = np.concatenate([item_ids, lift.items.fresh_ids[fresh[0]]], axis=1)
        scores, added = (np.concatenate(both, axis=1) for both in zip((scores, added), fresh[1:], strict=True))
        order = np.lexsort((item_ids, falling(scores + added)))[:, :most]
        item_ids = np.take_along_axis(item_ids, order, axis=1)
        scores, added = (np.take_along_axis(each, order, axis=1) for each in (scores, added))
    kept = np.arange(item_ids.shape[1]) < wanted[:, None]
    query = numbers[:, None].repeat(item_ids.shape[1], axis=1)
    return query[kept], item_ids[kept], scores[kept], added[kept]


def _none() -> tuple[Int64, Float32, Float32]:
    return np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32)


def _joined(
    found: Found, own: Sequence[Lift], before: _Usual, wanted: Int64, lifted: Sequence[npt.NDArray[Any]]
) -> Found:
    """Both kinds of hits as one list for each query; `wanted`: [Q] int64, its length, `lifted`: `Columns`."""
    queries = len(own)
    usual = np.repeat(np.arange(queries), found.hits.lengths)
    query = np.concatenate([lifted[0], usual])
    item_ids = np.concatenate([lifted[1], found.hits.item_ids])
    scores, added = np.concatenate([lifted[2], found.hits.scores]), np.concatenate([lifted[3], before.gets])
    order = np.lexsort((item_ids, query))  # stable: of two hits of an item, the first is the one that was scored here
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(query[order]) != 0) | (np.diff(item_ids[order]) != 0)
    leader = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    scores[order] = scores[order[leader]]  # another search may round differently
    values = scores + added

    # The highest value that an item can have which neither search gave.
    bound, given = np.full(queries, -np.inf, np.float32), np.bincount(lifted[0], minlength=queries)
    scored = before.reaching + np.array([len(lift.items.fresh_ids) for lift in own])
    more = (scored > given) & (given > 0)
    worst = np.full(queries, np.inf, np.float32)
    np.minimum.at(worst, lifted[0], values[: len(lifted[0])])
    bound[more] = worst[more]
    worst = np.full(queries, np.inf, np.float32)
    np.minimum.at(worst, usual, scores[len(lifted[0]) :])
    bound[before.open] = np.maximum(bound[before.open], worst[before.open])
    left_out = before.reaching < np.array([len(lift.items.rows) for lift in own])
    bound[left_out] = np.maximum(bound[left_out], before.enough[left_out])

    kept = order[first]
    kept = kept[values[kept] >= bound[query[kept]]]
    kept = kept[np.lexsort((item_ids[kept], falling(values[kept]), query[kept]))]
    hits = Hits(item_ids[kept], scores[kept], np.bincount(query[kept], minlength=queries))
    longer = hits.lengths > wanted
    if longer.any():
        starts = np.cumsum(hits.lengths) - hits.lengths
        cut = kept[(starts + wanted - 1)[longer]]
        bound[longer] = values[cut]
        kept = kept[np.arange(len(kept)) - np.repeat(starts, hits.lengths) < np.repeat(wanted, hits.lengths)]
    return Found(found.user, found.interest, hits.first(wanted), added[kept], bound)
