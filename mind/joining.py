"""Joins similar interests of a user into one, so that each search finds something different.

Routing gives every user K interests. For a history with one topic they are nearly the same vector. The similarity from
which interests are joined is learnt from validation users (`mind.training.finish`). This module imports only NumPy.
"""

import numpy as np
import numpy.typing as npt

from mind.sequences import Float32, Int64


def joined(vectors: Float32, cosine: float) -> Float32:
    """Join interests that are similar, directly or through others, into their mean.

    Args:
        vectors: [B, K, D] float32, zero where a user has fewer interests.
        cosine: the cosine from which two interests are similar. With 1 or more, none are joined.

    Returns:
        [B, K, D] float32: the joined interests, in the order of the first interest of each, and then zeros.
    """
    return joined_by(vectors, cosine, vectors)


def joined_by(vectors: Float32, cosine: float, values: Float32) -> Float32:
    """Join values of interests, [B, K, N] float32, as `joined` joins the interests themselves."""
    if cosine >= 1 or not len(vectors) or vectors.shape[1] == 1:
        return values
    numbers = np.arange(vectors.shape[1])
    first = _first_alike(vectors, cosine)
    member = (first[:, None, :] == numbers[:, None]) & np.any(vectors, axis=2)[:, None, :]  # [B, joined, K]
    size = member.sum(axis=2, keepdims=True)
    shares: Float32 = (member / np.maximum(size, 1)).astype(np.float32)
    means: Float32 = shares @ values
    order = np.argsort(size[:, :, 0] == 0, axis=1, kind="stable")
    return np.take_along_axis(means, order[:, :, None], axis=1)


def counts(vectors: Float32) -> Int64:
    """Return the number of interests of each user, [B] int64, from [B, K, D] float32."""
    found: Int64 = np.any(vectors, axis=2).sum(axis=1)
    return found


def cosines(vectors: Float32) -> Float32:
    """Return the cosines of all pairs of a user's interests, [B, K, K] float32; 0 with a zero interest."""
    length = np.linalg.norm(vectors, axis=2, keepdims=True)
    unit: Float32 = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    found: Float32 = unit @ unit.transpose(0, 2, 1)
    return found


def _first_alike(vectors: Float32, cosine: float) -> Int64:
    """Return the first of the interests that each interest is joined with: [B, K] int64."""
    alike: npt.NDArray[np.bool_] = (cosines(vectors) >= cosine) | np.eye(vectors.shape[1], dtype=bool)
    for _ in range((vectors.shape[1] - 1).bit_length()):  # after so many squarings, all paths are edges
        alike = (alike.astype(np.float32) @ alike.astype(np.float32)) > 0
    first: Int64 = alike.argmax(axis=2)
    return first
