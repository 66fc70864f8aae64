"""Exact search: the items with the best inner products among chosen rows of a table, without an index.

Queries meet the rows a piece at a time, so that the scores stay in the processor's cache, and only scores above the
worst of the best so far are kept. 256 queries of 64 numbers and 36,000 rows take 17 ms on one core.
"""

import numpy as np
import numpy.typing as npt

from mind.hits import falling, risen
from mind.sequences import Float32, Int64

Rows = npt.NDArray[np.int32]

FEW = 16
"""Rows of which only the best says what is good at first, as fewer are compared then."""
PAIRS = 2**20
"""Pairs of query and row that are scored at a time."""
CHUNK_ROWS = 16_384
"""Most rows that a query meets at a time. If there are no more, and in one piece, some queries follow the others."""
PLACE_BITS = 31
"""Bits of a row, or of its place among the rows, in a key."""
NOTHING = np.iinfo(np.int64).max
"""A key that is worse than all."""


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
    found = np.zeros((len(queries), min(limit, len(rows))), np.int32)
    if not found.size:
        return found, np.zeros(found.shape, np.float32)
    in_one_piece = len(rows) <= CHUNK_ROWS and rows[-1] - rows[0] == len(rows) - 1
    at_once = min(PAIRS // len(rows), len(queries)) if in_one_piece else len(queries)
    step = len(rows) if in_one_piece else min(CHUNK_ROWS, max(1, PAIRS // len(queries)))
    scores = np.empty(at_once * step, np.float32)  # written again and again: new memory costs more than all else
    for start in range(0, len(queries), at_once):
        block = slice(start, start + at_once)
        found[block] = rows[_best_places(queries[block], table, rows, found.shape[1], scores)]
    return ranked(queries, table, found)


def ranked(queries: Float32, table: Float32, found: Rows) -> tuple[Rows, Float32]:
    """Order the rows found for each query, [Q, L], and give their scores: best first; equal scores by row."""
    scores = np.einsum("qld,qd->ql", table[found], queries)  # anew: a product of matrices rounds by their sizes
    order = _keys(scores, found).argsort(axis=1)
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _best_places(queries: Float32, table: Float32, rows: Rows, limit: int, scores: Float32) -> Int64:
    """The places in `rows` of the best of each query, [Q, limit] in any order.

    `scores`: [S] float32 to be written, room for the scores of all queries and as many rows as are met at a time.
    """
    best, step = _Best(len(queries), limit), len(scores) // len(queries)
    chosen = np.empty((0, table.shape[1]), np.float32)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        if chunk[-1] - chunk[0] == len(chunk) - 1:  # rows in one piece are scored where they are
            part = table[chunk[0] : chunk[-1] + 1]
        else:
            chosen = chosen if len(chosen) else np.empty((step, table.shape[1]), np.float32)
            part = table.take(chunk, axis=0, out=chosen[: len(chunk)], mode="clip")
        of_chunk = scores[: len(queries) * len(chunk)].reshape(len(queries), len(chunk))
        best.add(np.matmul(queries, part.T, out=of_chunk))
    return best.keys & ((1 << PLACE_BITS) - 1)


class _Best:
    """The best `limit` places so far of each query."""

    def __init__(self, queries: int, limit: int) -> None:
        self.keys = np.empty((queries, 0), np.int64)
        """[Q, K] int64: score and place of each (`_keys`), in any order."""
        self._limit = limit
        self._seen = 0

    def add(self, scores: Float32) -> None:
        """Take the scores of the next places, [Q, C] float32."""
        queries, known = self.keys.shape
        place = np.flatnonzero(scores >= self._least(scores))
        query, column = np.divmod(place, scores.shape[1])
        counts = np.bincount(query, minlength=queries)
        slot = known + np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        keys = np.full((queries, known + int(counts.max())), NOTHING)
        keys[:, :known] = self.keys
        keys[query, slot] = _keys(scores[query, column], column + self._seen)
        if keys.shape[1] > self._limit:
            keys.partition(self._limit - 1, axis=1)
        self.keys = keys[:, : self._limit]
        self._seen += scores.shape[1]

    def _least(self, scores: Float32) -> Float32:
        """A score that all of the best have at least, [Q, 1] float32."""
        queries, known = self.keys.shape
        if known == self._limit:
            return risen(self.keys.max(axis=1, keepdims=True) >> PLACE_BITS)
        if known or scores.shape[1] <= self._limit:
            return np.full((queries, 1), -np.inf, np.float32)
        groups = scores.shape[1] // FEW
        few = groups >= self._limit
        top = scores[:, : groups * FEW].reshape(queries, FEW, groups).max(axis=1) if few else scores
        least: Float32 = np.partition(top, -self._limit, axis=1)[:, -self._limit, None]
        return least


def _keys(scores: Float32, place: Int64 | Rows) -> Int64:
    """One whole number for score and place: smaller for better scores, and for equal ones by place."""
    return (falling(scores) << PLACE_BITS) + place
