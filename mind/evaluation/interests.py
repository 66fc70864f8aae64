"""Measures how distinct a user's interests are, and what each contributes, from vectors and ranked lists."""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Float32
from mind.evaluation.analysis import batches, in_common
from mind.sequences import Int64
from mind.vocabulary import Mask

HISTOGRAM_BINS = 20
"""Number of bins for the cosines between a user's interests, from the lowest cosine, rounded down to a tenth, to 1."""


@dataclass(frozen=True)
class Interests:
    """The number of interests of users (K at most), and how distinct they are.

    Users without a known item do not count.
    """

    users: int
    having: list[float]
    """[K]: share of users with exactly 1, 2, ... K interests."""
    cosine: list[list[float]]
    """[K, K]: mean cosine between two interests over the users who have both; 0 if no user has both."""
    cosine_quartiles: list[float]
    """[3]: quartiles of a user's mean cosine between different interests, over users with several interests."""
    histogram_edges: list[float]
    """[B + 1]: the edges of the bins of that mean cosine."""
    histogram_users: list[int]
    """[B]: the number of users in each bin."""
    found: list[float]
    """[K]: share of all candidates that each interest found, which means that it scored them highest."""
    contributing: list[float]
    """[K]: share of users whose list has candidates of exactly 1, 2, ... K interests."""
    largest_part: float
    """Mean over users of the share of the list that comes from the interest that found most."""
    sampled_users: int
    """Number of users whose interests were searched for separately."""
    overlap: list[list[float]]
    """[K, K]: mean over sampled users of the share of the N nearest items that two interests have in common."""
    own_recall: list[float]
    """[K]: recall@N over sampled users of the N nearest items of each interest alone."""
    merged_recall: float
    """The recall@N of the merged list, over the same users."""


def cosines(interest_vectors: Float32) -> Float32:
    """Compute the cosines between a user's interests: [U, K, D] to [U, K, K] float32; 0 with a zero vector."""
    norm = np.linalg.norm(interest_vectors, axis=2, keepdims=True)
    unit = interest_vectors / np.maximum(norm, 1e-12)
    cosine: Float32 = unit @ unit.transpose(0, 2, 1)
    return cosine


def mean_cosine(interest_vectors: Float32) -> float | None:
    """Return the mean cosine between two interests of a user, [K, D] float32; None if only one is not zero."""
    own = interest_vectors[np.any(interest_vectors, axis=1)]
    pairs = cosines(own[None])[0][np.triu_indices(len(own), 1)]
    return float(pairs.mean()) if len(pairs) else None


def found_by(interest_vectors: Float32, item_embedding: Float32, rows: Int64) -> Int64:
    """Return the interest that scores each candidate highest (ties: the lower number): [U, N] int64, -1 where row is 0.

    Args:
        interest_vectors: [U, K, D] float32.
        item_embedding: [I + 1, D] float32.
        rows: [U, N] int64.
    """
    interest = np.full(rows.shape, -1, np.int64)
    for users in batches(rows, width=rows.shape[1] * item_embedding.shape[1]):
        scores = item_embedding[rows[users]] @ interest_vectors[users].transpose(0, 2, 1)  # [B, N, K]
        interest[users] = np.where(rows[users] > 0, scores.argmax(axis=2), -1)
    return interest


def interests(
    interest_vectors: Float32, interest: Int64, own_rows: Int64, sample: Int64, own_recall: list[float], merged: float
) -> Interests:
    """Measure how distinct the interests are.

    Args:
        interest_vectors: [U, K, D] float32.
        interest: [U, N] int64, as from `found_by`.
        own_rows: [S, K, N] int64, the nearest items of each interest alone, for a sample of the users.
        sample: [S] int64, the positions of these users.
        own_recall: [K], the recall of these lists.
        merged: the recall of the merged lists of the same users.
    """
    active = interest_vectors.any(axis=(1, 2))
    count = interest_vectors.shape[1]
    cosine = cosines(interest_vectors[active])
    has: Mask = np.any(interest_vectors[active], axis=2)  # [A, K]
    number = has.sum(axis=1)
    both = has[:, :, None] & has[:, None, :]  # [A, K, K]
    several = number > 1
    pairs = number[several] * (number[several] - 1)
    same = np.trace(cosine[several], axis1=1, axis2=2)
    distinct = np.clip((cosine[several].sum(axis=(1, 2), dtype=np.float64) - same) / pairs, -1, 1)
    together = cosine.sum(axis=0, where=both, dtype=np.float64) / np.maximum(both.sum(axis=0), 1)
    lowest = np.floor(10 * distinct.min(initial=0.9)) / 10
    users, edges = np.histogram(distinct, np.linspace(lowest, 1, HISTOGRAM_BINS + 1))
    parts = _parts(interest[active], count)
    contributing = np.bincount((parts > 0).sum(axis=1), minlength=count + 1)[1:]
    return Interests(
        users=int(active.sum()),
        having=(np.bincount(number, minlength=count + 1)[1:] / max(len(number), 1)).tolist(),
        cosine=together.tolist(),
        cosine_quartiles=np.quantile(distinct, [0.25, 0.5, 0.75]).tolist() if len(distinct) else [0.0] * 3,
        histogram_edges=edges.tolist(),
        histogram_users=users.tolist(),
        found=(parts.sum(axis=0) / max(int(parts.sum()), 1)).tolist(),
        contributing=(contributing / max(int(contributing.sum()), 1)).tolist(),
        largest_part=float(np.mean(parts.max(axis=1) / np.maximum(parts.sum(axis=1), 1))) if len(parts) else 0.0,
        sampled_users=len(sample),
        overlap=overlap(own_rows),
        own_recall=own_recall,
        merged_recall=merged,
    )


def overlap(rows: Int64) -> list[list[float]]:
    """Return the mean share of items that the lists of two interests have in common, over users who have both: [K, K].

    Args:
        rows: [S, K, N] int64, without repeats within a list, 0 where a list is shorter.
    """
    count = rows.shape[1]
    shared = np.ones((count, count))
    for i in range(count):
        for j in range(i):
            both = rows[(rows[:, i] > 0).any(axis=1) & (rows[:, j] > 0).any(axis=1)]
            shared[i, j] = shared[j, i] = np.mean(in_common(both[:, i], both[:, j])) if len(both) else 0
    return [[float(value) for value in row] for row in shared]


def _parts(interest: Int64, count: int) -> Int64:
    """Count the candidates that each interest found, by user: [U, N] int64 to [U, K] int64."""
    owner = np.arange(len(interest))[:, None] * count
    return np.bincount((owner + interest)[interest >= 0], minlength=len(interest) * count).reshape(-1, count)
