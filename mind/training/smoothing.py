"""Smooths item embeddings with their neighbours. Neighbours supply what the few clicks on an item cannot teach.

E' = E + a S E, where row i of S has the items that users had close to item i. It is the first layer of a graph network
(LightGCN, arXiv 2002.02126), applied once after training. The artifact contains the smoothed table.
"""

import numpy as np
from scipy import sparse

from mind.sequences import Float32, Int64
from mind.training.cooccurrence import Rows, close_pairs

NEIGHBOURS = 20
"""The most neighbours of an item."""
_BLOCK = 4_000_000
"""Pairs that are ranked at a time, which bounds the memory."""


def neighbour_shares(item_index: Rows, offsets: Int64, items: int, seed: int) -> sparse.csr_array:
    """Return the nearest neighbours of every item, by how often users had both close together over sqrt(clicks).

    Args:
        item_index: [n] rows 1 to `items`, the clicks of one user after those of another, oldest first.
        offsets: [U + 1] int64, where the clicks of each user begin.
        items: N.
        seed: of the users that are drawn if there are too many clicks.

    Returns:
        [N + 1, N + 1] float32. Rows sum to 1, or are empty for items that nobody clicked near another.
    """
    pairs = close_pairs(item_index, offsets, items, np.random.default_rng(seed))
    clicks = np.bincount(item_index, minlength=items + 1)
    near = (pairs @ sparse.diags_array(1 / np.sqrt(np.maximum(clicks, 1)))).tocsr()
    kept = largest_of_rows(near, NEIGHBOURS)
    return (sparse.diags_array(1 / np.maximum(kept.sum(axis=1), 1e-30)) @ kept).tocsr().astype(np.float32)


def smoothed(item_embedding: Float32, shares: sparse.csr_array, much: float) -> Float32:
    """Return the item table with this share of the neighbours' mean added to every item, [N + 1, D] float32."""
    if not much:
        return item_embedding
    table: Float32 = item_embedding + np.float32(much) * (shares @ item_embedding)
    return table


def largest_of_rows(near: sparse.csr_array, most: int) -> sparse.csr_array:
    """Return the largest entries of each row, without the diagonal, as float32. Equal entries are taken by column."""
    parts = [_largest(near, start, end, most) for start, end in _blocks(near.indptr)]
    return sparse.vstack(parts, format="csr", dtype=np.float32)


def _blocks(indptr: Int64) -> list[tuple[int, int]]:
    """Return where blocks of rows start and end. A block has `_BLOCK` entries together, or is one row with more."""
    blocks, start, rows = [], 0, len(indptr) - 1
    while start < rows:
        end = max(int(np.searchsorted(indptr, indptr[start] + _BLOCK, side="right")) - 1, start + 1)
        blocks.append((start, min(end, rows)))
        start = min(end, rows)
    return blocks


def _largest(near: sparse.csr_array, start: int, end: int, most: int) -> sparse.csr_array:
    part = near[start:end].tocoo()
    row, column = part.coords
    other = row + start != column
    row, column, value = row[other], column[other], part.data[other]
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    first = np.searchsorted(row, np.arange(end - start))
    kept = np.arange(len(row)) - first[row] < most
    return sparse.csr_array((value[kept], (row[kept], column[kept])), shape=(end - start, near.shape[1]))
