"""The hits of every user's interests as one ranked list a user, for a whole batch at a time.

One pass sorts all hits of the batch by user and item, so that repeats and exclusions fall next to each other; a second
sorts what is left by rank. No Python object per hit anywhere.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64
from server.store import Hits


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
    hit_interest = np.concatenate([np.repeat(interest, hits.lengths), np.full(marks, -1)])
    item_ids = np.concatenate([hits.item_ids, excluded.item_ids])
    score = np.concatenate([hits.scores, np.zeros(marks, np.float32)])
    if strategy is Strategy.ROUND_ROBIN:
        start = np.repeat(np.cumsum(hits.lengths) - hits.lengths, hits.lengths)
        turn = np.concatenate([np.arange(rows) - start, np.full(marks, -1)])
    else:
        turn = np.repeat([0, -1], [rows, marks])  # an exclusion comes before every hit of the same item

    order = np.lexsort((hit_interest, -score, turn, item_ids, hit_user))
    first = np.ones(rows + marks, bool)
    first[1:] = (np.diff(hit_user[order]) != 0) | (np.diff(item_ids[order]) != 0)
    leader = order[np.maximum.accumulate(np.where(first, np.arange(rows + marks), 0))]  # of each group, per position
    fate = np.zeros(rows + marks, np.int64)
    fate[order] = np.where(leader >= rows, _fate_of(leader, rows, excluded), np.where(first, Fate.KEPT, Fate.DUPLICATE))

    kept = order[first & (leader < rows)]
    kept = kept[np.lexsort((item_ids[kept], -score[kept], turn[kept], hit_user[kept]))]
    found = np.bincount(hit_user[kept], minlength=users)
    place = np.arange(len(kept)) - np.repeat(np.cumsum(found) - found, found)
    fate[kept[place >= top_k]] = Fate.BELOW_TOP_K
    kept = kept[place < top_k]
    offsets = np.concatenate([[0], np.cumsum(np.minimum(found, top_k))])
    return Merged(item_ids[kept], score[kept], hit_interest[kept], offsets, fate[:rows])


def _fate_of(leader: Int64, rows: int, excluded: Exclusions) -> Int64:
    if not len(excluded.fate):
        return np.zeros_like(leader)
    return excluded.fate[np.maximum(leader - rows, 0)]
