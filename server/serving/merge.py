"""The third stage: merges the hits of each user's interests into one ranked list, for a whole batch at a time.

Items are replaced by ranks and scores by whole numbers, so that one integer holds user, item and score: sorting single
integers is four times as fast as sorting by several keys. A first sort brings the hits of an item and its exclusion
together; a second sort orders the hits that are left. There is no Python object per hit.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits, falling
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


@dataclass(frozen=True)
class Exclusions:
    """Items that users must not get: parallel [E] arrays of user (0 to B - 1), item id and `Fate`.

    Of several entries for an item, the one with the lowest `Fate` counts.
    """

    user: Int64
    item_ids: Int64
    fate: Int64


@dataclass(frozen=True)
class Merged:
    """Candidates in columns: those of user 0, best first, then those of user 1, ..."""

    item_ids: Int64
    """[M] int64 external ids."""
    scores: Float32
    """[M] float32, inner products."""
    interest: Int64
    """[M] int64, the interest that found the item."""
    offsets: Int64
    """[B + 1] int64: the candidates of user b are those from offsets[b] up to offsets[b + 1]."""
    left: Int64
    """[Q] int64, the hits of each query that are not excluded."""
    fate: Int64 | None
    """[H] int64: the `Fate` of every hit, in the order of the search; None unless it was asked for."""


def merge(
    hits: Hits,
    user: Int64,
    interest: Int64,
    top_k: Int64,
    round_robin: Mask,
    excluded: Exclusions,
    explain: bool = False,
) -> Merged:
    """Merge the hits of every user's interests.

    An item that several interests found keeps its best place. Equal scores are ordered by item id, and equal scores of
    one item by interest, so that the result depends on the arguments alone.

    Args:
        hits: the hits of Q queries.
        user: [Q] int64, the user of each query, 0 to B - 1.
        interest: [Q] int64, the interest of each query.
        top_k: [B] int64, most candidates that each user gets.
        round_robin: [B] bool, whether a user's interests take turns; otherwise the best scores come first.
        excluded: what users must not get.
        explain: whether the fate of every hit is wanted.
    """
    rows, marks, users = len(hits.item_ids), len(excluded.user), len(top_k)
    hit_user = np.concatenate([user.repeat(hits.lengths), excluded.user])
    hit_interest = np.concatenate([interest.repeat(hits.lengths), excluded.fate])  # which orders exclusions, too
    distinct, item = np.unique(np.concatenate([hits.item_ids, excluded.item_ids]), return_inverse=True)
    own = hit_user * len(distinct) + item
    place, places = _places(hits, round_robin[user])
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
    kept = order[first]  # for every user and item: its exclusion, or else its best hit
    kept = kept[kept < rows]
    kept = kept[((hit_user[kept] * places + place[kept]) * len(distinct) + item[kept]).argsort()]
    found = np.bincount(hit_user[kept], minlength=users)
    number = np.arange(len(kept)) - (found.cumsum() - found).repeat(found)  # 0 for each user's best
    kept = kept[number < top_k[hit_user[kept]]]
    offsets = np.concatenate([[0], np.minimum(found, top_k).cumsum()])
    banned, by = _banned(order, first, rows)
    query = np.arange(len(user)).repeat(hits.lengths)
    left = hits.lengths - np.bincount(query[banned], minlength=len(user))
    fate = None
    if explain:
        fate = np.full(rows + marks, Fate.BELOW_TOP_K)
        fate[order[~first]] = Fate.DUPLICATE
        fate[banned] = excluded.fate[by]
        fate[kept] = Fate.KEPT
        fate = fate[:rows]
    return Merged(hits.item_ids[kept], hits.scores[kept], hit_interest[kept], offsets, left, fate)


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


def _places(hits: Hits, round_robin: Mask) -> tuple[Int64, int]:
    """A number from 1 for every hit, smaller for better hits and equal for equal ones; and a number larger than all.

    `round_robin`: [Q] bool, whether the hits of a query are ordered by their rank before their score.
    """
    place = falling(hits.scores) + 2**31
    if not round_robin.any():
        return place, 2**32
    turn = np.arange(len(place)) - np.repeat(np.cumsum(hits.lengths) - hits.lengths, hits.lengths)
    turn[~np.repeat(round_robin, hits.lengths)] = 0
    return place + (turn << 32), int(hits.lengths.max(initial=0) + 1) << 32
