"""Recent clicks count more: as targets of training, and in the popular fallback."""

import numpy as np

from mind.sequences import Float32, Int64, Sequences
from mind.vocabulary import Vocabulary


def recency(ages: Float32 | None, half_life_days: float | None) -> Float32 | None:
    """The weight of each click as a target, [n] float32: 1 now, a half after the half-life; None: all weigh 1.

    `ages`: [n] float32 days.
    """
    if ages is None or half_life_days is None:
        return None
    weight: Float32 = np.exp2(-ages / np.float32(half_life_days)).astype(np.float32)
    return np.maximum(weight, np.float32(1e-6))  # a batch of old clicks alone still has a mean


def popularity_within(
    sequences: Sequences, vocabulary: Vocabulary, ages: Float32 | None, days: float | None, clicks: Int64
) -> Int64:
    """How often each item was clicked within the last days, [N] int64.

    Args:
        sequences: the training users, n clicks.
        vocabulary: N items.
        ages: [n] float32 days.
        days: how many; None for all.
        clicks: [N] int64, how often each was clicked at all.
    """
    if ages is None or days is None:
        return clicks
    rows = vocabulary.item_index(sequences.item_id[ages <= days])
    return np.bincount(rows, minlength=len(vocabulary) + 1)[1:]
