"""Searches among any choice of rows of a large table: an inverted file in memory, with the cells of `mind.cells`.

A query first scores the rows of the cells with the highest bounds on their inner products. Then it scores the rows of
other cells whose bound is above the worst of its best rows so far. It stops when these rows hardly improve the result.
So a query scores few rows of a clustered table, and all rows of a table without clusters. Queries share all steps
except the scoring, even if each query searches among other rows. A query of 64 numbers takes 0.06 ms if 36,000 of
368,000 rows are chosen.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mind.cells import Members
from mind.hits import falling
from mind.nearest import Best, Rows, ranked
from mind.sequences import Float32, Int64
from mind.vocabulary import Mask

FIRST_ROWS, FIRST_LIMITS = 300, 6
"""Minimum number of rows that a query scores first, and the same as a multiple of the number of wanted rows."""
FURTHER_ROWS, ENOUGH = 2_048, 0.01
"""Number of rows that a query scores next, twice as many each time, until at most this share of its best is new."""
FIRST_CELLS = 64
"""Maximum number of cells of the first rows, unless more rows than this are wanted. Then it is one cell per wanted row.
"""
BLOCK_QUERIES = 64
"""Number of queries that are searched for together."""
CHUNK_ROWS = 1_024
"""Number of rows that are scored at a time, so that they stay in the cache of the processor."""
CELL_BITS, SCORE_BITS = 16, 33
"""Number of bits of a cell, and of the order of a score, in a sort key."""


def nearest_in_cells(queries: Float32, table: Float32, members: Sequence[Members], limit: int) -> tuple[Rows, Float32]:
    """Find nearly all of the members with the best inner products for each query.

    Args:
        queries: the Q queries, [Q, D] float32.
        table: the vectors of the rows, [N + 1, D] float32.
        members: the rows of the table to search, for each query. All must be of the same cells.
        limit: the number of rows that are wanted for each query.

    Returns:
        The rows and their scores, [Q, L] each, best first. Equal scores are in the order of the rows. L is `limit`, or
        the number of the fewest members if that is lower. The result of a query does not depend on the other queries.
    """
    limit = min([limit, *(len(own.rows) for own in members)])
    found = np.empty((len(queries), limit), np.int32)
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        found[block] = _best_rows(queries[block], table, members[block], limit)
    return ranked(queries, table, found)


def _best_rows(queries: Float32, table: Float32, members: Sequence[Members], limit: int) -> Rows:
    """Return the best rows of each query, [Q, limit] in any order."""
    ahead = _Ahead(queries, members)
    best = Best(len(queries), limit)
    places = ahead.first(max(FIRST_CELLS, limit), max(FIRST_ROWS, FIRST_LIMITS * limit))
    best.add(*_scored(queries, table, members, *places))
    most = FURTHER_ROWS
    while len((places := ahead.above(best.worst, most))[0]):
        query, rows, scores = _scored(queries, table, members, *places)
        better = np.flatnonzero(scores > best.worst[query, 0])
        replaced = best.add(query[better], rows[better], scores[better])
        ahead.leave(replaced <= ENOUGH * limit)
        most *= 2
    return best.rows


class _Ahead:
    """The cells that each query has not scored yet, and the bounds of their inner products."""

    def __init__(self, queries: Float32, members: Sequence[Members]) -> None:
        distinct = {id(own): own for own in members}
        number = dict(zip(distinct, range(len(distinct)), strict=True))
        own = np.array([number[id(each)] for each in members])
        bounds = np.array([each.bounds for each in distinct.values()])
        self._bounds = bounds.ravel()
        self._begins = own * bounds.shape[1]
        """[Q] int64: where the offsets of each query's members begin in `_bounds`."""
        self._promised = members[0].cells.promised(queries, bounds[own, -1])
        """[Q, C] float32; -inf for cells without members, and for cells that were scored."""
        np.copyto(self._promised, -np.inf, where=(bounds[:, 1:] == bounds[:, :-1])[own])

    def first(self, cells: int, most: int) -> tuple[Int64, Int64, Int64]:
        """Return the cells with the highest bounds of each query, at most `cells` per query. See `above`."""
        cells = min(cells, self._promised.shape[1])
        least = np.sort(self._promised, axis=1)[:, -cells, None]  # many are equal, which makes a partition slow
        return self.above(np.nextafter(least, np.float32(-np.inf)), most)

    def above(self, least: Float32, most: int) -> tuple[Int64, Int64, Int64]:
        """Take the cells whose bound is above `least`, [Q, 1] float32, up to about `most` members for each query.

        Returns parallel columns, by query and then by descending bound: the query, where the members of a cell begin,
        and their number.
        """
        query, cell = np.divmod(np.flatnonzero(self._promised > least), self._promised.shape[1])
        order = falling(self._promised[query, cell]) + 2**31
        keys = (((query << SCORE_BITS) + order) << CELL_BITS) + cell  # one number each: sorted four times as fast
        keys.sort()
        query, cell = keys >> SCORE_BITS + CELL_BITS, keys & (1 << CELL_BITS) - 1
        at = self._begins[query] + cell
        start = self._bounds[at]
        counts = self._bounds[at + 1] - start
        before = counts.cumsum() - counts
        needed = before - before[query.searchsorted(query)] < most
        query, start, counts = query[needed], start[needed], counts[needed]
        self._promised[query, cell[needed]] = -np.inf
        return query, start, counts

    def leave(self, queries: Mask) -> None:
        """Score no more cells for some queries. `queries`: [Q] bool."""
        self._promised[queries] = -np.inf


def _scored(
    queries: Float32, table: Float32, members: Sequence[Members], query: Int64, start: Int64, counts: Int64
) -> tuple[Int64, Rows, Float32]:
    """Score `counts` members from `start` on, for each query. Return columns of query, row and score."""
    ends = counts.cumsum()
    places = np.repeat(start + counts - ends, counts)
    places += np.arange(len(places))
    rows, scores = np.empty(len(places), np.int32), np.empty(len(places), np.float32)
    chosen = np.empty((CHUNK_ROWS, table.shape[1]), np.float32)  # is reused, because new memory takes time
    bounds = np.append(0, ends)[query.searchsorted(np.arange(len(queries) + 1))]
    for number, (begin, end) in enumerate(pairwise(bounds.tolist())):
        for at in range(begin, end, CHUNK_ROWS):
            chunk = slice(at, min(at + CHUNK_ROWS, end))
            members[number].rows.take(places[chunk], out=rows[chunk], mode="clip")
            of_chunk = table.take(rows[chunk], 0, out=chosen[: chunk.stop - at], mode="clip")
            np.dot(of_chunk, queries[number], out=scores[chunk])
    return np.repeat(np.arange(len(queries)), np.diff(bounds)), rows, scores
