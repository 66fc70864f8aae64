"""Initialises item embeddings: items that users clicked close together begin close together.

Gradient steps cannot teach that with few clicks per item. The counts become positive pointwise mutual information,
whose factorisation word2vec approaches (Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization",
NIPS 2014).
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mind.artifact import Float32
from mind.neighbours import APART_FADING, WINDOW
from mind.sequences import Int64

Rows = npt.NDArray[np.int32]

SMOOTHING = 0.75
"""Power of context counts. It keeps rare items from being neighbours by chance (Levy, Goldberg, Dagan, TACL 2015)."""
MAX_ITEMS = 500_000
"""Most items that get vectors; beyond that, the most clicked ones. More items cost time and tell little."""
MAX_CLICKS = 3_000_000
"""Most clicks that are counted; beyond that, those of randomly drawn users are. They make 2 GB of pairs."""
OVERSAMPLING, POWER_ITERATIONS = 16, 4
"""Parameters of the randomised singular value decomposition."""


def cooccurrence_vectors(item_index: Rows, offsets: Int64, items: int, dim: int, seed: int) -> Float32:
    """Return vectors whose inner products approximate the items' mutual information, scaled to a mean length of 1.

    Args:
        item_index: [n] rows 1 to `items`, the clicks of one user after those of another, oldest first.
        offsets: [U + 1] int64, where the clicks of each user begin.
        items: N.
        dim: D.
        seed: for everything that is drawn at random.

    Returns:
        [N + 1, D] float32. Rows are zero for padding, for items that nobody clicked near another item, and beyond
        `MAX_ITEMS`.
    """
    rng = np.random.default_rng(seed)
    vectors = np.zeros((items + 1, dim), np.float32)
    if items > MAX_ITEMS:
        chosen, item_index, offsets = _most_clicked(item_index, offsets, items)
        vectors[chosen] = cooccurrence_vectors(item_index, offsets, MAX_ITEMS, dim, seed)[1:]
        return vectors
    information = _mutual_information(close_pairs(item_index, offsets, items, rng))
    if information.nnz:
        left, values = _largest(information, min(dim, items), rng)
        vectors[:, : left.shape[1]] = left * np.sqrt(values)
        vectors[np.diff(information.indptr) == 0] = 0  # but for rounding
        length = np.linalg.norm(vectors, axis=1)
        if length.any():
            vectors /= length[length > 0].mean()
    return vectors


def _most_clicked(item_index: Rows, offsets: Int64, items: int) -> tuple[Int64, Rows, Int64]:
    """Return the rows of the `MAX_ITEMS` most clicked items, and the clicks on them, numbered from 1, with offsets."""
    clicks = np.bincount(item_index, minlength=items + 1)[1:]
    chosen = 1 + np.sort(np.argsort(-clicks, kind="stable")[:MAX_ITEMS])
    number = np.zeros(items + 1, np.int32)
    number[chosen] = np.arange(1, MAX_ITEMS + 1)
    numbers = number[item_index]
    kept = numbers > 0
    return chosen, numbers[kept], np.append(0, np.cumsum(kept))[offsets]


def close_pairs(item_index: Rows, offsets: Int64, items: int, rng: np.random.Generator) -> sparse.csr_array:
    """Count how often items were close, nearer pairs with a larger weight: [N + 1, N + 1] float32, symmetric."""
    counts = following_pairs(item_index, offsets, items, rng)
    return (counts + counts.T).tocsr()


def following_pairs(item_index: Rows, offsets: Int64, items: int, rng: np.random.Generator) -> sparse.csr_array:
    """Count how often the column's item came soon after the row's, sooner with more weight: [N + 1, N + 1] float32."""
    lengths = np.diff(offsets)
    if offsets[-1] > MAX_CLICKS:
        lengths = np.where(rng.random(len(lengths)) < MAX_CLICKS / offsets[-1], lengths, 0)
    user = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    item_index = item_index[np.repeat(offsets[:-1] - np.cumsum(lengths) + lengths, lengths) + np.arange(len(user))]
    counts = sparse.csr_array((items + 1, items + 1), dtype=np.float32)
    for apart in range(1, WINDOW + 1):
        same = user[apart:] == user[:-apart]
        one, other = item_index[:-apart][same], item_index[apart:][same]
        weight = np.full(len(one), APART_FADING ** (apart - 1), np.float32)
        counts += sparse.coo_array((weight, (one, other)), counts.shape).tocsr()
    return counts


def _mutual_information(counts: sparse.csr_array) -> sparse.csr_array:
    """Return the positive pointwise mutual information: log(P(i, j) / (P(i) P(j))), where that is above 0."""
    total = counts.sum(axis=1)
    context = total**SMOOTHING
    context /= max(context.sum(), 1)
    found = counts.tocoo()
    row, column = found.coords
    found.data = np.log(found.data / (total[row] * context[column])).clip(min=0)
    return found.tocsr()


def _largest(matrix: sparse.csr_array, dim: int, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """Return the `dim` largest singular values and their left singular vectors: vectors [n, dim], values [dim].

    The method is that of Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithms
    4.4 and 5.1.
    """
    size = min(dim + OVERSAMPLING, matrix.shape[0])
    basis = np.linalg.qr(matrix @ rng.normal(size=(matrix.shape[1], size)).astype(np.float32))[0]
    for _ in range(POWER_ITERATIONS):
        basis = np.linalg.qr(matrix.T @ basis)[0]
        basis = np.linalg.qr(matrix @ basis)[0]
    small = matrix.T @ basis  # [n, size], the transpose of the matrix seen through the basis
    squares, turn = np.linalg.eigh(small.T @ small)
    largest = np.argsort(squares)[::-1][:dim]
    return basis @ turn[:, largest], np.sqrt(squares[largest].clip(min=0))
