"""Candidates that differ from one another: maximal marginal relevance (MMR, Carbonell and Goldstein 1998).

One candidate after the other is chosen from a user's pool, the item with the highest

    (1 - diversity) * relevance - diversity * similarity

where similarity is the largest cosine of its embedding and that of a candidate chosen before. Inner products have no
bounds, so relevance is the place of the score between the worst of the pool, 0, and the best, 1.

Items of all users are in columns: the pool of the first user, best first, then that of the second, ...
"""

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64

MOST_PAIRS = 4_000_000
"""Pairs of items whose similarity is kept at a time: 16 MB."""


def diversified(relevance: Float32, vectors: Float32, sizes: Int64, diversity: Float32, top_k: Int64) -> list[Int64]:
    """The places in its pool of the candidates of each user, in the order in which they are chosen.

    Args:
        relevance: [n] float32 (`relevance_of`).
        vectors: [n, D] float32 embeddings; zero for an item that is similar to nothing.
        sizes: [B] int64, items of each user's pool, 1 or more.
        diversity: [B] float32.
        top_k: [B] int64, candidates that are wanted.
    """
    length: Float32 = np.linalg.norm(vectors, axis=1)
    length[length == 0] = 1
    scale: Float32 = np.divide(np.sqrt(diversity).repeat(sizes), length)
    scaled = vectors * scale[:, None]  # whose inner products are diversity * cosine
    gain = (1 - diversity).repeat(sizes) * relevance
    together = max(1, MOST_PAIRS // max(1, int(sizes.max(initial=0))) ** 2)
    found: list[Int64] = []
    for first in range(0, len(sizes), together):
        part = slice(first, first + together)
        rows = slice(int(sizes[:first].sum()), int(sizes[: first + together].sum()))
        found += _chosen(gain[rows], scaled[rows], sizes[part], np.minimum(top_k, sizes)[part])
    return found


def relevance_of(values: Float32, sizes: Int64) -> Float32:
    """Values that fall within each pool as 1 to 0, [n] float32; all 1 where those of a pool are equal."""
    wide = values.astype(np.float64)  # the difference of two large floats may have no bounds
    ends = np.cumsum(sizes)
    best, worst = wide[ends - sizes], wide[ends - 1]
    span = best - worst
    relevance: Float32 = ((wide - worst.repeat(sizes)) / np.where(span > 0, span, 1).repeat(sizes)).astype(np.float32)
    relevance[np.repeat(span == 0, sizes)] = 1
    return relevance


def _chosen(gain: Float32, scaled: Float32, sizes: Int64, wanted: Int64) -> list[Int64]:
    """The places of some users' candidates; `gain`: (1 - diversity) * relevance, `scaled`: vectors."""
    users, widest = np.arange(len(sizes)), int(sizes.max())
    alike = np.zeros((len(users), widest, widest), np.float32)
    left = np.full((len(users), widest), -np.inf, np.float32)
    left[np.arange(widest) < sizes[:, None]] = gain
    end = 0
    for user, size in enumerate(sizes.tolist()):  # one by one: the same bits in any batch
        own, end = scaled[end : end + size], end + size
        alike[user, :size, :size] = own @ own.T
    chosen = np.zeros((len(users), int(wanted.max())), np.int64)  # the best of each pool comes first
    nearest = alike[:, 0].copy()
    for step in range(1, chosen.shape[1]):
        left[users, chosen[:, step - 1]] = -np.inf
        chosen[:, step] = np.argmax(left - nearest, axis=1)
        np.maximum(nearest, alike[users, chosen[:, step]], out=nearest)
    return [own[:count] for own, count in zip(chosen, wanted.tolist(), strict=True)]
