"""Searches similar interests of a user once, and scores the hits for all of them.

The items nearest to one of two similar vectors are nearly those nearest to the other. The interests of a trained model
differ only as far as a history does, so many users need one or two searches instead of four. The server uses this, and
`indexer choose-index`, which measures the loss of recall. This module knows nothing of Milvus.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mind.artifact import Float32
from mind.hits import Hits, falling
from mind.sequences import Int64
from mind.vocabulary import Vocabulary

Mask = npt.NDArray[np.bool_]

OVERSEARCH = 2
"""Number of hits fetched for an interest that others share, as a multiple of what it would need alone."""
_NOTHING = np.iinfo(np.int64).max


def leading(vectors: Float32, cosine: float) -> Mask:
    """Choose the interests to search with: the longest, then each with a cosine below `cosine` to all that were chosen.

    Args:
        vectors: [B, K, D] float32, zero where a user has fewer interests.
        cosine: the limit of similarity. With 1 or more, all interests are searched.

    Returns:
        [B, K] bool, never true for a zero vector.
    """
    found: Mask = np.any(vectors, axis=2)  # [B, K]
    if cosine >= 1 or not len(vectors):
        return found
    length = np.linalg.norm(vectors, axis=2)  # also correct for a vector whose square underflows to 0
    unit = vectors / np.where(length > 0, length, 1)[:, :, None]
    alike = unit @ unit.transpose(0, 2, 1) >= cosine  # [B, K, K]
    leads = np.zeros_like(found)
    user = np.arange(len(vectors))
    for interest in np.argsort(-length, axis=1, kind="stable").T:  # [B] at a time, longest first
        leads[user, interest] = found[user, interest] & ~np.any(alike[user, interest] & leads, axis=1)
    return leads


def as_if_each_searched(
    hits: Hits, leads: Mask, vectors: Float32, vocabulary: Vocabulary, item_embedding: Float32, limit: int
) -> Hits:
    """Return the hits that each interest of a user would find among the hits of the searched interests.

    A user whose interests were all searched keeps the hits unchanged. The hits of another user form a pool, which each
    of the user's interests ranks again. Ties are ranked by item. The result does not depend on other users of the
    batch.

    Args:
        hits: the hits of Q searches, one for each of the `leading` interests. An item that the vocabulary does not
            know, because it was added after the training, keeps its score for the interest that was searched.
        leads: [B, K] bool, the interests of the Q searches.
        vectors: [B, K, D] float32. Zero interests find nothing.
        vocabulary: the vocabulary of the model.
        item_embedding: [N + 1, D] float32.
        limit: the maximum number of hits of an interest.
    """
    found: Mask = np.any(vectors, axis=2)  # [B, K]
    number = (np.cumsum(found) - 1).reshape(found.shape)  # [B, K], numbers of the interests that find something
    user, interest = (np.repeat(each, hits.lengths) for each in np.nonzero(leads))  # [H]
    unsearched: Mask = np.any(found & ~leads, axis=1)  # [B]
    merged = unsearched[user]  # [H]
    place = np.arange(len(user)) - np.repeat(np.cumsum(hits.lengths) - hits.lengths, hits.lengths)
    kept = ~merged & (place < limit)
    columns = [(number[user, interest][kept], hits.item_ids[kept], hits.scores[kept])]
    if merged.any():
        pool = _Pool(user[merged], interest[merged], hits.item_ids[merged], hits.scores[merged])
        scores = pool.scored(vectors, vocabulary, item_embedding)  # [P, K]
        entry, own = _best(pool.user, scores, limit)
        columns.append((number[pool.user[entry], own], pool.item_ids[entry], scores[entry, own]))
    of, item_ids, scores = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(of, kind="stable")
    return Hits(item_ids[order], scores[order], np.bincount(of, minlength=int(found.sum())))


class _Pool:
    """The distinct items among the hits of each user, in columns of length P, ascending by user and item."""

    def __init__(self, user: Int64, interest: Int64, item_ids: Int64, scores: Float32) -> None:
        """Collect the hits of all users, given in columns. `user` is in ascending order."""
        order = np.lexsort((item_ids, user))
        self.user, self.item_ids = user[order], item_ids[order]
        first = np.ones(len(order), bool)
        first[1:] = (np.diff(self.user) != 0) | (np.diff(self.item_ids) != 0)
        self.user, self.item_ids = self.user[first], self.item_ids[first]
        self._entry, self._interest, self._scores = np.cumsum(first) - 1, interest[order], scores[order]  # of each hit

    def scored(self, vectors: Float32, vocabulary: Vocabulary, item_embedding: Float32) -> Float32:
        """Score items by every interest of their user: [P, K] float32, -inf for an unknown item or a zero interest."""
        row = vocabulary.item_index(self.item_ids)
        embedding = item_embedding[row]
        scores = np.full((len(row), vectors.shape[1]), -np.inf, np.float32)
        users, start = np.unique(self.user, return_index=True)
        for user, own in zip(users.tolist(), pairwise([*start.tolist(), len(row)]), strict=True):
            scores[slice(*own)] = embedding[slice(*own)] @ vectors[user].T  # one by one: equal in any batch
        scores[~np.any(vectors, axis=2)[self.user]] = -np.inf
        scores[row == 0] = -np.inf
        fresh = row[self._entry] == 0
        scores[self._entry[fresh], self._interest[fresh]] = self._scores[fresh]
        return scores


def _best(user: Int64, scores: Float32, limit: int) -> tuple[Int64, Int64]:
    """Return the entries and the interest of the `limit` best scores of each interest, by user, interest and rank."""
    _, start, run = np.unique(user, return_index=True, return_inverse=True)
    slot = np.arange(len(user)) - start[run]
    ranked = np.full((len(start), scores.shape[1], int(slot.max()) + 1), _NOTHING)  # [users, K, entries of one]
    ranked[run, :, slot] = np.where(scores > -np.inf, falling(scores) << 32 | slot[:, None], _NOTHING)
    ranked.sort(axis=2)  # unique integers have one order, and sort fastest
    ranked = ranked[:, :, :limit]
    of, interest, _ = there = np.nonzero(ranked < _NOTHING)
    return start[of] + (ranked[there] & 0xFFFFFFFF), interest
