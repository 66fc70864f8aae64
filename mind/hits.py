"""The hits of vector searches in columns, and an exact integer order of their scores. Knows nothing of Milvus."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mind.sequences import Float32, Int64


@dataclass(frozen=True)
class Hits:
    """The hits of a batch of searches in columns: the hits of query 0, then those of query 1, and so on."""

    item_ids: Int64
    """[H] int64, nearest first within a query."""
    scores: Float32
    """[H] float32, inner products."""
    lengths: Int64
    """[Q] int64, the number of hits of each query."""

    def first(self, most: Int64) -> "Hits":
        """Return at most the first `most` hits of each query. `most`: [Q] int64."""
        lengths = np.minimum(self.lengths, most)
        if len(self.item_ids) == lengths.sum():
            return self
        place = np.arange(len(self.item_ids)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        kept = place < np.repeat(lengths, self.lengths)
        return Hits(self.item_ids[kept], self.scores[kept], lengths)


def concatenated(parts: Sequence[Hits]) -> Hits:
    """Join the hits of several batches into one batch."""
    columns = [[getattr(part, name) for part in parts] for name in ("item_ids", "scores", "lengths")]
    return Hits(*map(np.concatenate, columns))


def falling(scores: Float32) -> Int64:
    """Turn scores into integers from -2^31 to 2^31.

    A better score gives a smaller integer, an equal score an equal one.

    The bits of floats, read as integers, have the order of the floats if those of negative floats are inverted (IEEE
    754).
    """
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    return np.where(bits < 0, bits & 0x7FFFFFFF, -bits)


def risen(fallen: Int64) -> Float32:
    """Turn the integers of `falling` back into scores."""
    return np.where(fallen > 0, fallen | 0x80000000, -fallen).astype(np.uint32).view(np.float32)
