"""The popular items of a model, for users without a usable history. Knows nothing of Milvus."""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64
from mind.weights import Weights

LISTED = 2_000
"""Length of the popular list, which is also the maximum number of candidates for a user without a history."""
BLOCK_ITEMS = 2**18
"""Number of items that are searched for popular ones at a time."""


@dataclass(frozen=True)
class Popular:
    """The popular items, best first."""

    item_ids: Int64
    """[P] int64, item ids."""
    scores: Float32
    """[P] float32, the share of all training interactions that were with the item."""


def most_popular(weights: Weights) -> Popular:
    """Return the items of a model with the most training interactions. Ties are in the order of ids."""
    item_id, popularity = weights.item_id, weights.popularity
    best, least = np.zeros(0, np.int64), -1
    for start in range(0, len(item_id), BLOCK_ITEMS):  # blocks avoid copies of all items, which may be many millions
        better = start + np.flatnonzero(popularity[start : start + BLOCK_ITEMS] > least)
        best = np.concatenate([best, better])
        best = best[np.argsort(-popularity[best], kind="stable")][:LISTED]  # ties stay in the order of ids
        if len(best) == LISTED:
            least = popularity[best[-1]]
    share = popularity[best] / max(int(popularity.sum()), 1)  # an imported model may have no counts
    return Popular(item_id[best], share.astype(np.float32))
