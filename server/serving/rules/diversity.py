"""Candidates that differ from one another: maximal marginal relevance (MMR, Carbonell and Goldstein 1998).

One candidate after the other is chosen from a user's pool, the item with the highest

    (1 - diversity) * relevance - diversity * similarity

where similarity is the largest cosine of its embedding and that of a candidate chosen before. Inner products have no
bounds, so relevance is the place of the score between the worst of the pool, 0, and the best, 1.
"""

from collections.abc import Sequence

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64

MOST_PAIRS = 4_000_000
"""Pairs of items whose similarity is kept at a time: 16 MB."""


def diversified(
    relevance: Sequence[Float32], vectors: Sequence[Float32], diversity: Float32, top_k: Int64
) -> list[Int64]:
    """The places in its pool of the candidates of each user, in the order in which they are chosen.

    Args:
        relevance: of each of B users, [P] float32 for the items of the pool, 1 to 0, falling.
        vectors: of each user, [P, D] float32 embeddings; zero for an item that is similar to nothing.
        diversity: [B] float32.
        top_k: [B] int64, candidates that are wanted.
    """
    found: list[Int64] = []
    widest = max(map(len, relevance), default=0)
    together = max(1, MOST_PAIRS // max(1, widest**2))
    for start in range(0, len(relevance), together):
        part = slice(start, start + together)
        found += _chosen(relevance[part], vectors[part], diversity[part], top_k[part])
    return found


def relevance_of(values: Float32) -> Float32:
    """Falling values as 1 to 0, [P] float32; all 1 where they are equal."""
    if not len(values) or values[0] == values[-1]:
        return np.ones(len(values), np.float32)
    # doubles, because the difference of two large floats may have no bounds
    wide = values.astype(np.float64)
    relevance: Float32 = ((wide - wide[-1]) / (wide[0] - wide[-1])).astype(np.float32)
    return relevance


def _chosen(relevance: Sequence[Float32], vectors: Sequence[Float32], diversity: Float32, top_k: Int64) -> list[Int64]:
    users, widest = np.arange(len(relevance)), max(map(len, relevance))
    gain = np.full((len(users), widest), -np.inf, np.float32)
    alike = np.zeros((len(users), widest, widest), np.float32)
    for user, (own, its) in enumerate(zip(relevance, vectors, strict=True)):  # one by one: the same bits in any batch
        length = np.linalg.norm(its, axis=1, keepdims=True)
        unit = its / np.where(length > 0, length, 1)
        alike[user, : len(own), : len(own)] = diversity[user] * (unit @ unit.T)
        gain[user, : len(own)] = (1 - diversity[user]) * own
    wanted = np.minimum(top_k, [len(own) for own in relevance])
    chosen = np.zeros((len(users), int(wanted.max(initial=0))), np.int64)  # the best of each pool comes first
    nearest = alike[:, 0].copy() if widest else alike[:, :0]
    for step in range(1, chosen.shape[1]):
        gain[users, chosen[:, step - 1]] = -np.inf
        chosen[:, step] = np.argmax(gain - nearest, axis=1)
        np.maximum(nearest, alike[users, chosen[:, step]], out=nearest)
    return [own[:count] for own, count in zip(chosen, wanted.tolist(), strict=True)]
