"""Gives recent clicks more weight: as targets of training, and in the popular fallback."""

import numpy as np

from mind.sequences import Float32, Int64, Sequences
from mind.training.parallel import ALONE, Ranks
from mind.vocabulary import Vocabulary


def recency(ages: Float32 | None, half_life_days: float | None) -> Float32 | None:
    """Return the weight of each click as a target, [n] float32: 1 now, 0.5 after the half-life.

    `ages`: [n] float32 days. Return None, which weighs all clicks equally, if there are no ages or no half-life.
    """
    if ages is None or half_life_days is None:
        return None
    weight: Float32 = np.exp2(-ages / np.float32(half_life_days)).astype(np.float32)
    return np.maximum(weight, np.float32(1e-6))  # a batch that has only old clicks still needs a mean


def popularity_within(
    sequences: Sequences,
    vocabulary: Vocabulary,
    ages: Float32 | None,
    days: float | None,
    clicks: Int64,
    ranks: Ranks = ALONE,
) -> Int64:
    """Return how popular each item is, [N] int64: its clicks or, with roles, the weights of its targets, rounded up.

    Args:
        sequences: the training users of this process, n clicks.
        vocabulary: N items.
        ages: [n] float32 days.
        days: only clicks of so many days before the newest one count; None counts all.
        clicks: [N] int64, how often each item was clicked in all data.
        ranks: the processes that train together.
    """
    weight, items = sequences.weight, sequences.item_id
    if ages is None or days is None:
        if weight is None:
            return clicks
    else:
        newest = ranks.gather(ages.min(keepdims=True)).min()  # the newest clicks of the data may be held out
        recent = ages <= newest + days
        weight, items = None if weight is None else weight[recent], items[recent]
    rows = vocabulary.item_index(items)
    sums = ranks.total(np.bincount(rows, weights=weight, minlength=len(vocabulary) + 1)[1:])
    return sums if weight is None else np.ceil(sums.round(4)).astype(np.int64)
