"""The third stage: merges the hits of each user's interests into one ranked list, for a whole batch at a time.

Items are replaced by ranks and scores by whole numbers, so that one integer holds user, item and score: sorting single
integers is four times as fast as sorting by several keys. A first sort brings the hits of an item and its exclusion
together; a second sort orders the hits that are left. There is no Python object per hit.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits, concatenated, falling
from mind.sequences import Int64
from mind.vocabulary import Mask

MAX_INTERESTS = 64
"""Most interests of one user, as `mind.config` limits them."""


class Fate(IntEnum):
    """Whether a hit was kept, or why it was dropped; the numbers are those of recall.v1.DropReason."""

    KEPT = 0
    DUPLICATE = 1
    HISTORY = 2
    EXCLUDED = 3
    BELOW_TOP_K = 4
    AT_MOST = 10
    DIVERSITY = 11
    PER_INTEREST_MIN = 12
    SHOWN = 15
    PINNED = 23


@dataclass(frozen=True)
class Exclusions:
    """Items that users must not get: parallel [E] arrays of user (0 to B - 1), item id and `Fate`.

    Of several entries for an item, the one with the lowest `Fate` counts.
    """

    user: Int64
    item_ids: Int64
    fate: Int64


class Source(IntEnum):
    """What found an item; the numbers are those of recall.v1.Source."""

    SEARCH = 1
    NEIGHBOURS = 2
    BOTH = 3
    EXPLORE = 4
    PIN = 5


@dataclass(frozen=True)
class NearHits:
    """Hits of the second source, neighbours of the users' newest clicks (`mind.neighbours`); each item of a user once.

    Queries are pairs of a user and the interest that scores the items best, as those of a search.
    """

    hits: Hits
    """Those of a query by score plus bonus."""
    user: Int64
    """[Q] int64, the user of each query."""
    interest: Int64
    """[Q] int64, the interest of each query."""
    bonus: Float32
    """[P] float32, of each hit. The user gets it for the item wherever it is found."""


NO_FLOATS, NO_INTS = np.zeros(0, np.float32), np.zeros(0, np.int64)
NOTHING_NEAR = NearHits(Hits(NO_INTS, NO_FLOATS, NO_INTS), NO_INTS, NO_INTS, NO_FLOATS)


@dataclass(frozen=True)
class Merged:
    """Candidates in columns: those of user 0, best first, then those of user 1, ..."""

    item_ids: Int64
    """[M] int64 external ids."""
    scores: Float32
    """[M] float32, inner products."""
    interest: Int64
    """[M] int64, the interest that found the item."""
    source: Int64
    """[M] int64, the `Source` of each."""
    bonus: Float32
    """[M] float32, what neighbours add to each score for its place."""
    added: Float32
    """[M] float32, what boosts add besides."""
    hit: Int64
    """[M] int64, the number of the hit of each, those of the search first."""
    offsets: Int64
    """[B + 1] int64: the candidates of user b are those from offsets[b] up to offsets[b + 1]."""
    left: Int64
    """[Q] int64, the hits of each query of the search that are not excluded."""
    fate: Int64 | None
    """[H + P] int64: the `Fate` of every hit, those of the search in its order, then the `NearHits`; None unless it was
    asked for."""

    @property
    def values(self) -> Float32:
        """[M] float32, by which the items are ordered, unless interests take turns."""
        return self.scores + self.bonus + self.added


def merge(
    hits: Hits,
    user: Int64,
    interest: Int64,
    top_k: Int64,
    round_robin: Mask,
    excluded: Exclusions,
    explain: bool = False,
    near: NearHits = NOTHING_NEAR,
    added: Float32 | None = None,
) -> Merged:
    """Merge the hits of every user's interests.

    An item that several interests found keeps its best place. Places go by score plus bonus plus boosts. Equal
    ones are ordered by item id, and equal ones of one item by interest, so that the result depends on the arguments
    alone.

    Args:
        hits: the hits of Q queries of a search.
        user: [Q] int64, the user of each query, 0 to B - 1.
        interest: [Q] int64, the interest of each query.
        top_k: [B] int64, most candidates that each user gets.
        round_robin: [B] bool, whether a user's interests take turns, and also the two sources of an interest;
            otherwise the best places come first.
        excluded: what users must not get.
        explain: whether the fate of every hit is wanted.
        near: the hits of the second source.
        added: [H + P] float32, what boosts add to the score of every hit; None without boosts.
    """
    every = concatenated([hits, near.hits]) if len(near.bonus) else hits
    every_user, every_interest = np.concatenate([user, near.user]), np.concatenate([interest, near.interest])
    searched, rows, marks, users = len(hits.item_ids), len(every.item_ids), len(excluded.user), len(top_k)
    hit_user = np.concatenate([every_user.repeat(every.lengths), excluded.user])
    hit_interest = np.concatenate([every_interest.repeat(every.lengths), excluded.fate])  # which orders exclusions, too
    distinct, item = np.unique(np.concatenate([every.item_ids, excluded.item_ids]), return_inverse=True)
    own = hit_user * len(distinct) + item
    bonus = _bonuses(own[:rows], item[:rows], near.bonus)
    place, places = _places(every, bonus, added, round_robin[every_user])
    if users * len(distinct) * places * MAX_INTERESTS >= 2**63:  # too many for one integer: use ranks
        place = np.unique(place, return_inverse=True)[1] + 1
        places = rows + 1
    place = np.concatenate([place, np.zeros(marks, np.int64)])  # an exclusion comes before every hit

    # Equal numbers mean the same, so that a sort that is not stable gives one result. With ranks, 63 bits are enough
    # for 10,000 users with 2 million hits.
    order = ((own * places + place) * MAX_INTERESTS + hit_interest).argsort()
    own = own[order]
    first = np.ones(rows + marks, bool)
    first[1:] = own[1:] != own[:-1]
    best = order[first]  # for every user and item: its exclusion, or else its best hit
    group = np.flatnonzero(best < rows)
    kept = best[group]
    rank = ((hit_user[kept] * places + place[kept]) * len(distinct) + item[kept]).argsort()
    group, kept = group[rank], kept[rank]
    found = np.bincount(hit_user[kept], minlength=users)
    number = np.arange(len(kept)) - (found.cumsum() - found).repeat(found)  # 0 for each user's best
    within = number < top_k[hit_user[kept]]
    group, kept = group[within], kept[within]
    offsets = np.concatenate([[0], np.minimum(found, top_k).cumsum()])
    banned, by = _banned(order, first, rows)
    query = np.arange(len(user)).repeat(hits.lengths)
    left = hits.lengths - np.bincount(query[banned[banned < searched]], minlength=len(user))
    fate = None
    if explain:
        fate = np.full(rows + marks, Fate.BELOW_TOP_K)
        fate[order[~first]] = Fate.DUPLICATE
        fate[banned] = excluded.fate[by]
        fate[kept] = Fate.KEPT
        fate = fate[:rows]
    source = _sources(order, first, searched)[group] if len(near.bonus) else np.full(len(kept), Source.SEARCH)
    gets = np.zeros(len(kept), np.float32) if added is None else added[kept]
    columns = every.item_ids[kept], every.scores[kept], hit_interest[kept], source, bonus[kept], gets, kept
    return Merged(*columns, offsets, left, fate)


def _bonuses(own: Int64, item: Int64, near: Float32) -> Float32:
    """The bonus of every hit, [N] float32.

    Args:
        own: [N] int64, equal for hits of one user and item; those of the second source are the last.
        item: [N] int64, the number of each hit's item.
        near: [P] float32, the bonuses of those.
    """
    bonus = np.zeros(len(own), np.float32)
    if len(near):
        searched = len(own) - len(near)
        bonus[searched:] = near
        is_near = np.zeros(int(item.max()) + 1, bool)  # of any user: few hits are left to look up
        is_near[item[searched:]] = True
        hit = np.flatnonzero(is_near[item[:searched]])
        order = own[searched:].argsort()
        its = own[searched:][order]
        place = np.minimum(np.searchsorted(its, own[hit]), len(its) - 1)
        same = its[place] == own[hit]
        bonus[hit[same]] = near[order][place[same]]
    return bonus


def _sources(order: Int64, first: Mask, searched: int) -> Int64:
    """The `Source` of each user's item, in the order of the items; `searched`: the number of hits of the search.

    `order`, `first`: as in `_banned`. Where an item has no hit but an exclusion, its number means nothing.
    """
    of_hit = np.where(order < searched, Source.SEARCH, Source.NEIGHBOURS)
    return np.bitwise_or.reduceat(of_hit, np.flatnonzero(first))


def _banned(order: Int64, first: Mask, rows: int) -> tuple[Int64, Int64]:
    """The hits that are excluded, and the exclusion of each.

    Args:
        order: [N] int64, hits (below `rows`) and exclusions, those of one user and item together, an exclusion first.
        first: [N] bool, where another user or item begins in this order.
        rows: the number of hits.
    """
    if len(order) == rows:
        return order[:0], order[:0]
    leader = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
    hit = (leader >= rows) & (order < rows)
    return order[hit], leader[hit] - rows


def _places(hits: Hits, bonus: Float32, added: Float32 | None, round_robin: Mask) -> tuple[Int64, int]:
    """A number from 1 for every hit, smaller for better hits and equal for equal ones; and a number larger than all.

    Args:
        hits: of Q queries.
        bonus: [H] float32, what neighbours add to their scores.
        added: [H] float32, what boosts add; None if nothing.
        round_robin: [Q] bool, whether the hits of a query are ordered by their rank before their score.
    """
    values = hits.scores + bonus
    place = falling(values if added is None else values + added) + 2**31
    if not round_robin.any():
        return place, 2**32
    turn = np.arange(len(place)) - np.repeat(np.cumsum(hits.lengths) - hits.lengths, hits.lengths)
    turn[~np.repeat(round_robin, hits.lengths)] = 0
    return place + (turn << 32), int(hits.lengths.max(initial=0) + 1) << 32
