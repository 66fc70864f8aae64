"""Exact search: the items with the best inner products among chosen rows of a table, without an index.

A query meets the rows a chunk at a time, so that its scores stay in the processor's cache, and only scores above the
worst of the best so far are kept. 256 queries of 64 numbers and 36,000 rows take 20 ms on one core.
"""

import numpy as np
import numpy.typing as npt

from mind.hits import falling
from mind.sequences import Float32, Int64

Rows = npt.NDArray[np.int32]

FEW = 16
"""Rows of the first chunk of which only the best says what is good, as fewer are compared then."""
CHUNK_ROWS, CHUNK_PAIRS = 8_192, 2**20
"""Most rows, and pairs of query and row, that are scored at a time."""


def nearest(queries: Float32, table: Float32, rows: Rows, limit: int) -> tuple[Rows, Float32]:
    """Find the rows with the best inner products for each query.

    Args:
        queries: [Q, D] float32.
        table: [N, D] float32.
        rows: [M] int32, ascending, the rows of `table` to search.
        limit: rows wanted for each query.

    Returns:
        The rows and their scores, [Q, min(limit, M)] each, best first; equal scores by row. The score of a row and a
        query does not depend on the other queries.
    """
    best = _Best(len(queries), min(limit, len(rows)))
    step = max(1, min(CHUNK_ROWS, CHUNK_PAIRS // max(1, len(queries))))
    chosen = np.empty(
        (step, table.shape[1]), np.float32
    )  # written again and again: new memory costs more than all else
    scores = np.empty(len(queries) * step, np.float32)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        if chunk[-1] - chunk[0] == len(chunk) - 1:  # rows in one piece are scored where they are
            part = table[chunk[0] : chunk[-1] + 1]
        else:
            part = table.take(chunk, axis=0, out=chosen[: len(chunk)], mode="clip")
        of_chunk = scores[: len(queries) * len(chunk)].reshape(len(queries), len(chunk))
        best.add(np.matmul(queries, part.T, out=of_chunk), chunk)
    return ranked(queries, table, best.rows())


def ranked(queries: Float32, table: Float32, found: Rows) -> tuple[Rows, Float32]:
    """Order the rows found for each query, [Q, L], and give their scores: best first; equal scores by row."""
    scores = np.einsum("qld,qd->ql", table[found], queries)  # anew: a product of matrices rounds by their sizes
    order = np.lexsort((found, falling(scores)))
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)


class _Best:
    """The best `limit` rows so far of each query, in columns, and newer ones that may be better."""

    def __init__(self, queries: int, limit: int) -> None:
        self._queries, self._limit = queries, limit
        self._worst = np.full((queries, 1), -np.inf, np.float32)
        """The score that another row must exceed."""
        self._query: list[Int64] = []
        self._rows: list[Rows] = []
        self._scores: list[Float32] = []
        self._seen = 0
        self._tidy_at = 0

    def add(self, scores: Float32, rows: Rows) -> None:
        """Take the scores of further rows, [Q, C] float32. `rows`: [C] int32, greater than those before."""
        if not self._seen and len(rows) > self._limit > 0:  # nothing is known yet: the best of these are a start
            groups = len(rows) // FEW
            few = groups >= self._limit
            top = scores[:, : groups * FEW].reshape(len(scores), FEW, groups).max(axis=1) if few else scores
            place = np.flatnonzero(scores >= np.partition(top, -self._limit, axis=1)[:, -self._limit, None])
        else:
            place = np.flatnonzero(scores > self._worst)
        query, column = np.divmod(place, len(rows))
        self._query.append(query)
        self._rows.append(rows[column])
        self._scores.append(scores[query, column])
        self._seen += len(rows)
        if self._seen >= self._tidy_at:
            self._tidy()

    def _tidy(self) -> None:
        """Keep the best, now and when twice as many rows were seen."""
        query, rows, scores = np.concatenate(self._query), np.concatenate(self._rows), np.concatenate(self._scores)
        order = np.argsort((query << 34) + falling(scores), kind="stable")
        counts = np.bincount(query, minlength=self._queries)
        starts = np.cumsum(counts) - counts
        rank = np.arange(len(order)) - np.repeat(starts, counts)
        order = order[rank < self._limit]
        self._query, self._rows, self._scores = [query[order]], [rows[order]], [scores[order]]
        if self._seen >= self._limit:
            self._worst = scores[order].reshape(self._queries, self._limit)[:, -1:]
        self._tidy_at = 2 * max(self._seen, self._limit)

    def rows(self) -> Rows:
        """The best rows of each query, [Q, limit] int32."""
        if not self._seen or not self._queries:
            return np.zeros((self._queries, self._limit), np.int32)
        self._tidy()
        return self._rows[0].reshape(self._queries, self._limit)
