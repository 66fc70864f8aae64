"""Compares the candidates of users in two releases: overlap, rank-biased overlap, and which items came and went.

All users of a request are compared at once. Knows nothing of releases, requests or metrics.
"""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64
from mind.vocabulary import Mask

PERSISTENCE = 0.9
"""The p of rank-biased overlap. With 0.9, the first 10 places have 86 % of the weight."""


@dataclass(frozen=True)
class Lists:
    """The candidates of B users, best first, those of the first user first."""

    item_ids: Int64
    """[n] int64, without repeats within a list."""
    scores: Float32
    """[n] float32, the scores of the candidates."""
    lengths: Int64
    """[B] int64, candidates of each user."""

    @property
    def user(self) -> Int64:
        """[n] int64, the user of each candidate."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def depth(self) -> Int64:
        """[n] int64, the place of each candidate in its list, from 1."""
        starts = np.cumsum(self.lengths) - self.lengths
        return np.arange(1, len(self.item_ids) + 1) - np.repeat(starts, self.lengths)

    def of(self, users: Mask) -> "Lists":
        """The lists of some users. `users`: [B] bool."""
        kept = np.repeat(users, self.lengths)
        return Lists(self.item_ids[kept], self.scores[kept], self.lengths[users])


@dataclass(frozen=True)
class Differences:
    """How the lists of two releases differ."""

    overlap: Float32
    """[B] float32, items in both lists of a user, as a share of the longer one; 1 for two empty lists."""
    rbo: Float32
    """[B] float32, rank-biased overlap; 1 for two empty lists."""
    gained: Int64
    """[g] int64, the items of the second release that the first does not give the same user, with repeats."""
    lost: Int64
    """[l] int64, the items of the first release that the second does not give the same user, with repeats."""


def compare(first: Lists, second: Lists) -> Differences:
    """How the lists of the same users in two releases differ."""
    one, other = _shared(first, second)
    user, depth = first.user[one], np.maximum(first.depth[one], second.depth[other])
    common = np.bincount(user, minlength=len(first.lengths))
    longer = np.maximum(first.lengths, second.lengths)
    overlap = np.where(longer > 0, common / np.maximum(longer, 1), 1)
    return Differences(
        overlap=overlap.astype(np.float32),
        rbo=rank_biased_overlap(first.lengths, second.lengths, user, depth).astype(np.float32),
        gained=np.delete(second.item_ids, other),
        lost=np.delete(first.item_ids, one),
    )


def _shared(first: Lists, second: Lists) -> tuple[Int64, Int64]:
    """The positions of each item that both lists of a user have: [m] int64 in the first and in the second lists."""
    item_ids = np.concatenate([first.item_ids, second.item_ids])
    user = np.concatenate([first.user, second.user])
    order = np.lexsort((item_ids, user))  # stable, so an item of the first lists comes before that of the second
    before, after = order[:-1], order[1:]
    same = (item_ids[before] == item_ids[after]) & (user[before] == user[after])
    return before[same], after[same] - len(first.item_ids)


def rank_biased_overlap(
    first: Int64, second: Int64, user: Int64, depth: Int64, persistence: float = PERSISTENCE
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Extrapolated rank-biased overlap of two lists of each user, 0 to 1, of any lengths.

    It is RBO_EXT for lists of uneven lengths, equation 32 of Webber, Moffat and Zobel, "A similarity measure for
    indefinite rankings", ACM TOIS 28(4), 2010. X_d is the number of items in common at depth d; s and l are the shorter
    and the longer length. The first sum is X_d / d * p^d for d to l. The second one is X_s (d - s) / (s d) * p^d for d
    from s + 1 to l. Both are multiplied by (1 - p) / p. To them comes ((X_l - X_s) / l + X_s / s) * p^l.

    Args:
        first: [B] int64, lengths of the first lists.
        second: [B] int64, lengths of the second lists.
        user: [m] int64, the user of each item that both lists of a user have.
        depth: [m] int64, the depth at which both lists have it: its larger place, from 1.
        persistence: p, between 0 and 1.
    """
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    powers = persistence ** np.arange(int(longer.max(initial=0)) + 1)
    powers[0] = 0
    weights = np.cumsum(powers / np.maximum(np.arange(len(powers)), 1))  # [d]: sum of p^e / e for e to d
    powers_to = np.cumsum(powers)
    users = len(first)
    common = np.bincount(user, minlength=users)
    at_shorter = np.bincount(user[depth <= shorter[user]], minlength=users)
    share = at_shorter / np.maximum(shorter, 1)  # X_s / s
    found = np.bincount(user, weights[longer[user]] - weights[depth - 1], minlength=users)
    beyond = powers_to[longer] - powers_to[shorter] - shorter * (weights[longer] - weights[shorter])
    last = (common - at_shorter) / np.maximum(longer, 1) + share
    extrapolated = (1 - persistence) / persistence * (found + share * beyond) + last * persistence**longer
    return np.where(longer > 0, extrapolated, 1.0)


def medians(lists: Lists) -> Float32:
    """The median score of each list, [B] float32; nan for an empty one."""
    ends = np.cumsum(lists.lengths)
    starts = ends - lists.lengths
    there = lists.lengths > 0
    found = np.full(len(lists.lengths), np.nan, np.float32)
    ordered = lists.scores[np.lexsort((lists.scores, lists.user))]
    low, high = starts + (lists.lengths - 1) // 2, starts + lists.lengths // 2
    found[there] = (ordered[low[there]] + ordered[high[there]]) / 2
    return found
