"""Counts which items users clicked soon after each item: the neighbours that a model carries (`mind.neighbours`)."""

import numpy as np
from scipy import sparse

from mind.neighbours import MAX_NEIGHBOURS, UNSEEN, ItemNeighbours
from mind.sequences import Int64
from mind.training.cooccurrence import MAX_CLICKS, Rows, following_pairs
from mind.training.smoothing import largest_of_rows


def item_neighbours(item_index: Rows, offsets: Int64, items: int, seed: int) -> ItemNeighbours:
    """Return the items that followed each item most often, with a bonus of 0.

    The weight of j for i is sqrt(p). p tells how often j came soon after i for each click on i; sooner counts more
    (`following_pairs`). The square root keeps one frequent successor from hiding all others.

    Args:
        item_index: [n] rows 1 to `items`, the clicks of one user after those of another, oldest first.
        offsets: [U + 1] int64, where the clicks of each user begin.
        items: N.
        seed: of the users that are drawn if there are too many clicks.
    """
    pairs = following_pairs(item_index, offsets, items, np.random.default_rng(seed))
    counted = min(1, MAX_CLICKS / max(len(item_index), 1)) * np.bincount(item_index, minlength=items + 1)
    share = largest_of_rows((sparse.diags_array(1 / (counted + UNSEEN)) @ pairs).tocsr(), MAX_NEIGHBOURS)
    row = np.repeat(np.arange(items + 1), np.diff(share.indptr))
    order = np.lexsort((share.indices, -share.data, row))
    weight = np.sqrt(share.data[order]).astype(np.float16)
    return ItemNeighbours(share.indptr.astype(np.int64), share.indices[order].astype(np.int32), weight, 0.0)
