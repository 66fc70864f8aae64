"""Searches exactly: finds the rows with the best inner products among chosen rows of a table, without an index.

Queries score the rows in chunks, so that the scores stay in the cache of the processor. Only scores above the worst of
the best so far are kept. 256 queries of 64 numbers and 36,000 rows take 17 ms on one core.
"""

import numpy as np
import numpy.typing as npt

from mind.hits import falling, risen
from mind.sequences import Float32, Int64

Rows = npt.NDArray[np.int32]

FEW = 16
"""Number of rows per group. The first limit is found from the best score of each group, which is faster."""
PAIRS = 2**20
"""Number of pairs of query and row that are scored at a time."""
CHUNK_ROWS = 16_384
"""Maximum number of rows that a query scores at a time. If all rows are adjacent and fewer, queries come in groups."""
ROW_BITS = 31
"""Number of bits of a row in a sort key."""
NOTHING = np.iinfo(np.int64).max
"""A sort key that is worse than all others."""


def nearest(
    queries: Float32, table: Float32, rows: Rows, limit: int, factor: Float32 | None = None
) -> tuple[Rows, Float32]:
    """Find the rows with the best inner products for each query.

    Args:
        queries: the Q queries, [Q, D] float32.
        table: the vectors of the rows, [N, D] float32.
        rows: [M] int32, ascending, the rows of `table` to search.
        limit: the number of rows for each query.
        factor: [N] float32, what the inner products of each row are multiplied by, such as `inverse_norms` for cosines;
            None for 1.

    Returns:
        The rows and their scores, [Q, min(limit, M)] each, best first. Ties are in the order of rows. The score of a
        row and a query does not depend on the other queries.
    """
    found = _nearest(queries, table, rows, limit, factor, None)
    return ranked(queries, table, found, factor)


def nearest_with_added(
    queries: Float32, table: Float32, rows: Rows, added: Float32, limit: int
) -> tuple[Rows, Float32, Float32]:
    """Find the rows with the best sums of inner product and a number that each row has.

    Args:
        queries, table, rows, limit: as of `nearest`.
        added: [M] float32, the number of each of `rows`.

    Returns:
        The rows, their inner products and their numbers, [Q, min(limit, M)] each, the best sum first. Ties are in the
        order of rows.
    """
    found = _nearest(queries, table, rows, limit, None, added)
    scores = np.einsum("qld,qd->ql", table[found], queries)
    its = added[np.searchsorted(rows, found)]
    order = _keys(scores + its, found).argsort(axis=1)
    best, scores, its = (np.take_along_axis(column, order, axis=1) for column in (found, scores, its))
    return best, scores, its


def _nearest(
    queries: Float32, table: Float32, rows: Rows, limit: int, factor: Float32 | None, added: Float32 | None
) -> Rows:
    """The best rows of each query, [Q, min(limit, M)] in any order."""
    found = np.zeros((len(queries), min(limit, len(rows))), np.int32)
    if not found.size:
        return found
    in_one_piece = len(rows) <= CHUNK_ROWS and rows[-1] - rows[0] == len(rows) - 1
    at_once = min(PAIRS // len(rows), len(queries)) if in_one_piece else len(queries)
    step = len(rows) if in_one_piece else min(CHUNK_ROWS, max(1, PAIRS // len(queries)))
    scores = np.empty(at_once * step, np.float32)  # is reused, because new memory costs more than all else
    for start in range(0, len(queries), at_once):
        block = slice(start, start + at_once)
        found[block] = _best_rows(queries[block], table, rows, found.shape[1], scores, factor, added)
    return found


def ranked(queries: Float32, table: Float32, found: Rows, factor: Float32 | None = None) -> tuple[Rows, Float32]:
    """Sort the rows found for each query, [Q, L], and return them with their scores: best first, ties by row."""
    scores = np.einsum("qld,qd->ql", table[found], queries)  # again: a matrix product rounds by its size
    if factor is not None:
        scores *= factor[found]
    order = _keys(scores, found).argsort(axis=1)
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _best_rows(
    queries: Float32,
    table: Float32,
    rows: Rows,
    limit: int,
    scores: Float32,
    factor: Float32 | None,
    added: Float32 | None,
) -> Rows:
    """Return the best rows of each query, [Q, limit] in any order.

    `scores`: [S] float32, a buffer for the scores of all queries and one chunk of rows.
    """
    best, step = Best(len(queries), limit), len(scores) // len(queries)
    chosen = np.empty((0, table.shape[1]), np.float32)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        if chunk[-1] - chunk[0] == len(chunk) - 1:  # adjacent rows are scored without a copy
            part = table[chunk[0] : chunk[-1] + 1]
        else:
            chosen = chosen if len(chosen) else np.empty((step, table.shape[1]), np.float32)
            part = table.take(chunk, axis=0, out=chosen[: len(chunk)], mode="clip")
        of_chunk = scores[: len(queries) * len(chunk)].reshape(len(queries), len(chunk))
        np.matmul(queries, part.T, out=of_chunk)
        if factor is not None:
            of_chunk *= factor[chunk]
        if added is not None:
            of_chunk += added[start : start + step]
        query, place = np.divmod(np.flatnonzero(of_chunk >= _least(best, of_chunk)), len(chunk))
        best.add(query, chunk[place], of_chunk[query, place])
    return best.rows


class Best:
    """The best `limit` rows of each query so far."""

    def __init__(self, queries: int, limit: int) -> None:
        """Start without rows. `queries`: the number of queries; `limit`: the number of rows for each query."""
        self.limit = limit
        self._keys = np.empty((queries, 0), np.int64)
        """[Q, K] int64: the score and row of each entry (`_keys`), in any order."""

    @property
    def rows(self) -> Rows:
        """Return the rows, [Q, K] int32 in any order."""
        return (self._keys & ((1 << ROW_BITS) - 1)).astype(np.int32)

    @property
    def worst(self) -> Float32:
        """Return the score of the worst of the best rows of each query, [Q, 1] float32."""
        return risen(self._keys.max(axis=1, keepdims=True) >> ROW_BITS)

    @property
    def found(self) -> int:
        """Return the number of rows of each query so far."""
        return self._keys.shape[1]

    def add(self, query: Int64, rows: Rows, scores: Float32) -> Int64:
        """Add more rows. Return how many of the best rows of each query they replaced, [Q] int64.

        `query`, `rows` and `scores`: parallel columns, by query. Until it has `limit` rows, each query gets as many.
        """
        best = self._keys
        counts = np.bincount(query, minlength=len(best))
        slot = best.shape[1] + np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        keys = np.full((len(best), best.shape[1] + int(counts.max(initial=0))), NOTHING)
        keys[:, : best.shape[1]] = best
        keys[query, slot] = _keys(scores, rows)
        if keys.shape[1] > self.limit:
            keys.partition(self.limit - 1, axis=1)
        self._keys = keys[:, : self.limit]
        replaced: Int64 = np.count_nonzero(best > self._keys.max(axis=1, keepdims=True), axis=1)
        return replaced


def _least(best: Best, scores: Float32) -> Float32:
    """Return a lower bound for the scores of the best rows after these rows, [Q, 1] float32.

    `scores`: [Q, C] float32.
    """
    if best.found == best.limit:
        return best.worst
    queries, columns = scores.shape
    if best.found or columns <= best.limit:
        return np.full((queries, 1), -np.inf, np.float32)
    groups = columns // FEW
    few = groups >= best.limit
    top = scores[:, : groups * FEW].reshape(queries, FEW, groups).max(axis=1) if few else scores
    least: Float32 = np.partition(top, -best.limit, axis=1)[:, -best.limit, None]
    return least


def _keys(scores: Float32, rows: Rows) -> Int64:
    """Return one integer for score and row: smaller for a better score, and for equal scores in the order of rows."""
    return (falling(scores) << ROW_BITS) + rows


def inverse_norms(vectors: Float32) -> Float32:
    """1 / length of each of [N, D] vectors, [N] float32; 0 for a vector without a direction."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    has_direction = length > np.finfo(np.float32).tiny
    inverse: Float32 = np.divide(1, length, out=np.zeros(len(length)), where=has_direction).astype(np.float32)
    return inverse
