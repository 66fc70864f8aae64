"""Interests that point the same way are searched once, and what is found is scored for all of them.

The items nearest to one of two similar vectors are nearly those nearest to the other, and the interests of a trained
model differ only as far as a history does: many users need one or two searches, not four. Shared by the server and by
`indexer tune`, which measures what that costs in recall. Knows nothing of Milvus.
"""

import numpy as np
import numpy.typing as npt

from mind.artifact import Float32
from mind.collection import Hits
from mind.sequences import Int64
from mind.vocabulary import Vocabulary

Mask = npt.NDArray[np.bool_]

OVERSEARCH = 2
"""Hits fetched for an interest that stands for others, in multiples of what it alone would need."""


def leading(vectors: Float32, cosine: float) -> Mask:
    """The interests to search with: the longest, and then each that is less than `cosine` similar to those before it.

    Args:
        vectors: [B, K, D] float32, zero where a user has no such interest.
        cosine: 1 or more searches with all of them.

    Returns:
        [B, K] bool, never true for a zero vector.
    """
    found: Mask = np.any(vectors, axis=2)  # [B, K]
    if cosine >= 1 or not len(vectors):
        return found
    length = np.linalg.norm(vectors, axis=2)  # 0 of a vector so short that its square vanishes, too
    unit = vectors / np.where(length > 0, length, 1)[:, :, None]
    alike = unit @ unit.transpose(0, 2, 1) >= cosine  # [B, K, K]
    leads = np.zeros_like(found)
    user = np.arange(len(vectors))
    for interest in np.argsort(-length, axis=1, kind="stable").T:  # [B] at a time, the longest first
        leads[user, interest] = found[user, interest] & ~np.any(alike[user, interest] & leads, axis=1)
    return leads


def best_of(pool: Int64, vectors: Float32, item_embedding: Float32, limit: int) -> tuple[Int64, Float32]:
    """The items of a user's pool that are best for each interest.

    Args:
        pool: [P] int64, distinct rows of `item_embedding`, ascending.
        vectors: [K, D] float32, the user's interests.
        item_embedding: [N + 1, D] float32.
        limit: most items for an interest.

    Returns:
        rows: [K, n] int64, the best first; n is the smaller of P and `limit`.
        scores: [K, n] float32, inner products.
    """
    scores = vectors @ item_embedding[pool].T  # [K, P]
    best = np.argsort(-scores, axis=1)[:, :limit]
    return pool[best], np.take_along_axis(scores, best, axis=1)


def as_if_each_searched(
    hits: Hits, leads: Mask, vectors: Float32, vocabulary: Vocabulary, item_embedding: Float32, limit: int
) -> Hits:
    """What each interest of a user would have found among the hits of those that were searched.

    Args:
        hits: of Q searches, one for each of the `leading` interests. An item that the vocabulary does not know, for it
            was added to the index since, keeps the score with which it was found, for the interest that was searched.
        leads: [B, K] bool, which interests the Q searches were for.
        vectors: [B, K, D] float32; interests that are zero find nothing.
        vocabulary: of the model.
        item_embedding: [N + 1, D] float32.
        limit: most hits of an interest.
    """
    user, interest = np.nonzero(leads)
    ends = np.cumsum(hits.lengths)
    first = np.flatnonzero(np.diff(user, prepend=-1))  # the first search of each user that has any
    item_ids, scores, lengths = [], [], []
    for own, start, end in zip(vectors[user[first]], first.tolist(), [*first[1:].tolist(), len(user)], strict=True):
        interests = own[np.any(own, axis=1)]
        if len(interests) == end - start:  # nothing was merged
            for stop, length in zip(ends[start:end].tolist(), hits.lengths[start:end].tolist(), strict=True):
                found = slice(stop - length, stop - length + min(length, limit))
                item_ids.append(hits.item_ids[found])
                scores.append(hits.scores[found])
                lengths.append(len(item_ids[-1]))
            continue
        found = slice(ends[start] - hits.lengths[start], ends[end - 1])
        rows = vocabulary.item_index(hits.item_ids[found])
        best, score = best_of(np.unique(rows[rows > 0]), interests, item_embedding, limit)
        known = Hits(vocabulary.item_id[best.ravel() - 1], score.ravel(), np.full(len(best), best.shape[1]))
        if not rows.all():
            fresh = rows == 0
            searched = np.repeat(interest[start:end], hits.lengths[start:end])[fresh]
            row = np.searchsorted(np.flatnonzero(np.any(own, axis=1)), searched)
            known = _with_fresh(known, row, hits.item_ids[found][fresh], hits.scores[found][fresh], limit)
        item_ids.append(known.item_ids)
        scores.append(known.scores)
        lengths += known.lengths.tolist()
    return Hits(np.concatenate(item_ids), np.concatenate(scores), np.array(lengths, np.int64))


def _with_fresh(known: Hits, row: Int64, item_ids: Int64, scores: Float32, limit: int) -> Hits:
    """Hits of some interests with those of items that the model does not know, [F] each, for interest number `row`."""
    of = np.concatenate([np.repeat(np.arange(len(known.lengths)), known.lengths), row])
    item_ids, scores = np.concatenate([known.item_ids, item_ids]), np.concatenate([known.scores, scores])
    order = np.lexsort((-scores, of))
    counts = np.bincount(of, minlength=len(known.lengths))
    place = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[place < limit]
    return Hits(item_ids[kept], scores[kept], np.minimum(counts, limit))
