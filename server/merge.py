"""The hits of every user's interests as one ranked list a user, for a whole batch at a time.

Items and scores become ranks, small integers, so that a sort by user, item and score is a sort of single integers: four
times as fast as sorting by several keys. One such sort brings repeats and exclusions next to each other; a second puts
what is left in order. No Python object per hit anywhere.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64
from server.search_wire import Hits

MAX_INTERESTS = 64
"""Of one user, as `mind.config` limits them."""


class Strategy(IntEnum):
    """How places are given; the numbers are those of recall.v1.MergeStrategy."""

    BEST_SCORE = 1
    ROUND_ROBIN = 2


class Fate(IntEnum):
    """What became of a hit; the numbers are those of recall.v1.DropReason."""

    KEPT = 0
    DUPLICATE = 1
    HISTORY = 2
    EXCLUDED = 3
    BELOW_TOP_K = 4


@dataclass(frozen=True)
class Exclusions:
    """Items that users must not get: parallel [E] arrays of user (0 to B - 1), item id and `Fate`."""

    user: Int64
    item_ids: Int64
    fate: Int64


@dataclass(frozen=True)
class Merged:
    """Candidates in columns: those of user 0, best first, then those of user 1, ..."""

    item_ids: Int64
    """[M] int64."""
    scores: Float32
    """[M] float32."""
    interest: Int64
    """[M] int64."""
    offsets: Int64
    """[B + 1] int64: user b has [offsets[b], offsets[b + 1])."""
    fate: Int64
    """[H] int64: the `Fate` of every hit, in the order of the search."""


def merge(
    hits: Hits, user: Int64, interest: Int64, users: int, top_k: int, strategy: Strategy, excluded: Exclusions
) -> Merged:
    """Merge the interests of every user.

    An item that several interests found keeps its best place. Equal scores are ordered by item id, equal scores of one
    item by interest, so the result depends on nothing but its arguments.

    Args:
        hits: the hits of Q queries.
        user: [Q] int64, whose query it was, 0 to users - 1.
        interest: [Q] int64, which interest it was.
        users: B.
        top_k: most candidates a user gets.
        strategy: by score, or the interests in turn.
        excluded: what users must not get.
    """
    rows, marks = len(hits.item_ids), len(excluded.user)
    hit_user = np.concatenate([np.repeat(user, hits.lengths), excluded.user])
    hit_interest = np.concatenate([np.repeat(interest, hits.lengths), np.zeros(marks, np.int64)])
    distinct, item = np.unique(np.concatenate([hits.item_ids, excluded.item_ids]), return_inverse=True)
    rank = np.concatenate([_rank(hits, strategy), np.zeros(marks, np.int64)])  # an exclusion comes before every hit

    # Unique, so that the fastest sort gives one result; 63 bits are enough for 10,000 users with 2 million hits.
    own = hit_user * len(distinct) + item
    order = np.argsort((own * (rows + 1) + rank) * MAX_INTERESTS + hit_interest)
    first = np.ones(rows + marks, bool)
    first[1:] = np.diff(own[order]) != 0
    leader = order[np.maximum.accumulate(np.where(first, np.arange(rows + marks), 0))]  # of each group, per position
    fate = np.zeros(rows + marks, np.int64)
    fate[order] = np.where(leader >= rows, _fate_of(leader, rows, excluded), np.where(first, Fate.KEPT, Fate.DUPLICATE))

    kept = order[first & (leader < rows)]
    kept = kept[np.argsort((hit_user[kept] * (rows + 1) + rank[kept]) * len(distinct) + item[kept])]
    found = np.bincount(hit_user[kept], minlength=users)
    place = np.arange(len(kept)) - np.repeat(np.cumsum(found) - found, found)
    fate[kept[place >= top_k]] = Fate.BELOW_TOP_K
    kept = kept[place < top_k]
    offsets = np.concatenate([[0], np.cumsum(np.minimum(found, top_k))])
    return Merged(hits.item_ids[kept], hits.scores[kept], hit_interest[kept], offsets, fate[:rows])


def _rank(hits: Hits, strategy: Strategy) -> Int64:
    """The place of every hit among all of the batch, from 1, equal ones alike: [H] int64.

    Floats order as their bits do, as integers, once those of negative ones are turned round (IEEE 754).
    """
    bits = (hits.scores + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    falling = np.where(bits < 0, bits & 0x7FFFFFFF, -bits)
    if strategy is Strategy.ROUND_ROBIN:
        turn = np.arange(len(falling)) - np.repeat(np.cumsum(hits.lengths) - hits.lengths, hits.lengths)
        falling = falling + (turn << 33)
    return np.unique(falling, return_inverse=True)[1] + 1


def _fate_of(leader: Int64, rows: int, excluded: Exclusions) -> Int64:
    if not len(excluded.fate):
        return np.zeros_like(leader)
    return excluded.fate[np.maximum(leader - rows, 0)]
