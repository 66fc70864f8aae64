"""Search among very many rows of a table, any choice of them: an inverted file in memory.

Rows that are alike lie in one cell (k-means). A query meets the rows of the cells that promise the best inner products,
and then those of other cells that promise more than the worst of the best so far, until these bring next to nothing
better. So it meets few rows where the table has clusters, and all of them where it has none. How much a cell promises
is measured with queries of the model. A query of 64 numbers takes 0.1 ms where 36,000 of 368,000 rows are chosen.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mind.nearest import Rows, nearest, ranked
from mind.sequences import Float32, Int64

EXACT_ROWS = 24_576
"""Rows that are all scored (`mind.nearest`): for a dozen queries as fast as with cells, for many twice as fast."""
ROWS_A_CELL, MOST_CELLS = 120, 4_096
"""Rows of a cell, on average, and most cells. Larger cells mix rows that have little in common."""
ROUNDS, SAMPLED_A_CELL = 4, 20
"""Rounds of k-means, and rows for each cell that it sees."""
BLOCK_ROWS = 2_048
"""Rows that are compared with all centres at a time."""
FOUND, SHARES = 0.995, (0.1, 1.0)
"""Share of the best rows that must lie in cells that promise enough; shares of all rows for which it is measured."""
MEASURED_QUERIES, MEASURED_BEST = 128, 50
"""Most queries with which that is measured, and their best rows that count."""
FIRST_ROWS, FIRST_LIMITS = 300, 6
"""Rows that a query meets first: at least so many, and so many times the rows that it wants."""
FURTHER_ROWS, ENOUGH = 2_048, 0.01
"""Rows that it meets next, twice as many each time; it is done when no larger share of its best came with the last."""
FIRST_CELLS = 64
"""Most cells that these rows come from, or one for each row that is wanted."""
BLOCK_QUERIES = 32
"""Queries that are compared with all centres at a time."""
CHUNK_ROWS = 1_024
"""Rows that are scored at a time; they stay in the processor's cache."""


@dataclass(frozen=True)
class Members:
    """Some rows of a table, in the order of its cells."""

    cells: "Cells"
    rows: Rows
    """[M] int32: the rows in cell 0, ascending, then those in cell 1, ..."""
    bounds: Int64
    """[C + 1] int64: the rows in cell c are those from bounds[c] up to bounds[c + 1]."""

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        return self.rows.nbytes + self.bounds.nbytes

    def promised(self, queries: Float32) -> Float32:
        """The inner product that hardly a row of each cell exceeds: [Q, C] float32, of cells without rows -inf."""
        promised: Float32 = np.matmul(self.cells.centre, queries[:, :, None])[:, :, 0]  # one by one: the same bits
        share = np.log(len(self.rows) / len(self.cells.cell))
        reach = np.interp(share, np.log(SHARES), self.cells.reach)
        promised += np.float32(reach) * _length(queries) * self.cells.spread
        promised[:, np.diff(self.bounds) == 0] = -np.inf
        return promised


@dataclass(frozen=True)
class Cells:
    """The cells of a table, [N + 1, D], of which row 0 is padding."""

    centre: Float32
    """[C, D] float32."""
    spread: Float32
    """[C] float32, standard deviations: how the scores of rows of a cell lie around that of its centre, for a query of
    length 1."""
    cell: npt.NDArray[np.uint16]
    """[N + 1] uint16, the cell of each row."""
    reach: Float32
    """[S] float32: how many standard deviations a cell must promise, to find the best of each share in `SHARES`."""

    def members(self, rows: Rows) -> Members | None:
        """Put rows into the order of the cells; None for so few that all are better scored.

        `rows`: [M] int32, ascending.
        """
        if len(rows) <= EXACT_ROWS:
            return None
        cell = self.cell[rows]
        counts = np.bincount(cell, minlength=len(self.centre))
        return Members(self, rows[np.argsort(cell, kind="stable")], np.append(0, np.cumsum(counts)))


def cells_of(table: Float32, queries: Float32) -> Cells | None:
    """Divide a table into cells; None for one that is so small that nobody needs them. 368,000 rows take 3 s.

    Args:
        table: [N + 1, D] float32, row 0 padding.
        queries: [Q, D] float32 such as will be asked; where all are zero, some rows take their place.
    """
    rows, dim = len(table) - 1, table.shape[1]
    if rows <= EXACT_ROWS:
        return None
    count = min(rows // ROWS_A_CELL + 1, MOST_CELLS)
    rng = np.random.default_rng(0)
    sample = table[1 + rng.choice(rows, min(rows, count * SAMPLED_A_CELL), replace=False)]
    centre = sample[:count].copy()
    for _ in range(ROUNDS):
        cell, counts = _assigned(sample, centre)
        starts = (np.cumsum(counts) - counts)[counts > 0]
        total = np.add.reduceat(sample[np.argsort(cell, kind="stable")], starts, axis=0)
        centre[counts > 0] = total / counts[counts > 0, None]
    cell, counts = _assigned(table, centre)
    variance = np.bincount(cell, _squared_distance(table, centre, cell), count) / np.maximum(counts, 1) / dim
    cells = Cells(centre, np.sqrt(variance).astype(np.float32), cell, np.zeros(len(SHARES), np.float32))
    asked = queries[np.any(queries, axis=1)]
    asked = (asked if len(asked) else sample)[:MEASURED_QUERIES]
    some = [np.arange(1, rows + 1, round(1 / share), dtype=np.int32) for share in SHARES]
    return replace(cells, reach=np.array([_reach(cells, table, asked, each) for each in some], np.float32))


def _reach(cells: Cells, table: Float32, queries: Float32, rows: Rows) -> float:
    """In multiples of its `spread`, how much a cell must promise that nearly all of the best of some rows are found."""
    best, scores = nearest(queries, table, rows, MEASURED_BEST)
    cell = cells.cell[best]
    short = scores[:, -1:] - np.einsum("qld,qd->ql", cells.centre[cell], queries)
    spread = cells.spread[cell] * _length(queries)
    needed = np.divide(short, spread, out=np.zeros_like(short), where=spread > 0)
    return max(float(np.quantile(needed, FOUND)), 0.0)


def _length(queries: Float32) -> Float32:
    """[Q, 1] float32, also of vectors so short that their squares vanish."""
    length: Float32 = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True).astype(np.float32)
    return length


def _assigned(table: Float32, centre: Float32) -> tuple[npt.NDArray[np.uint16], Int64]:
    """The nearest centre of each row, and the number of rows of each centre."""
    half = (centre * centre).sum(axis=1) / 2
    cell = np.empty(len(table), np.uint16)
    for start in range(0, len(table), BLOCK_ROWS):
        closeness = table[start : start + BLOCK_ROWS] @ centre.T
        closeness -= half
        cell[start : start + BLOCK_ROWS] = closeness.argmax(axis=1)
    return cell, np.bincount(cell, minlength=len(centre))


def _squared_distance(table: Float32, centre: Float32, cell: npt.NDArray[np.uint16]) -> Float32:
    """[N + 1] float32, of each row to the centre of its cell."""
    distance = np.empty(len(table), np.float32)
    for start in range(0, len(table), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        distance[block] = ((table[block] - centre[cell[block]]) ** 2).sum(axis=1)
    return distance


def nearest_in_cells(queries: Float32, table: Float32, members: Members, limit: int) -> tuple[Rows, Float32]:
    """Find nearly all of the members with the best inner products for each query.

    Args:
        queries: [Q, D] float32.
        table: [N + 1, D] float32.
        members: the M rows of the table to search.
        limit: rows wanted for each query.

    Returns:
        The rows and their scores, [Q, min(limit, M)] each, best first; equal scores by row. They do not depend on the
        other queries.
    """
    limit = min(limit, len(members.rows))
    found = np.empty((len(queries), limit), np.int32)
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        found[block] = _best_rows(queries[block], table, members, limit)
    return ranked(queries, table, found)


def _best_rows(queries: Float32, table: Float32, members: Members, limit: int) -> Rows:
    """The best rows of each query, [Q, limit] in any order."""
    promised = members.promised(queries)
    best = np.empty((len(queries), limit), np.int32)
    best_scores = np.empty((len(queries), limit), np.float32)
    worst = np.full((len(queries), 1), -np.inf, np.float32)
    query, cell = _first_cells(promised, members, limit)
    most, kept = FURTHER_ROWS, 0
    while len(query):
        promised[query, cell] = -np.inf
        for number, (rows, scores) in enumerate(_scored(queries, table, members, query, cell)):
            every = np.concatenate([best_scores[number, :kept], scores])
            chosen = every.argpartition(-limit)[-limit:]
            if kept and np.count_nonzero(chosen >= kept) <= ENOUGH * limit:
                promised[number] = -np.inf  # it is done
            best[number] = np.concatenate([best[number, :kept], rows])[chosen]
            best_scores[number] = every[chosen]
        worst, kept = best_scores.min(axis=1, keepdims=True), limit
        query, cell = _further_cells(promised, worst, members, most)
        most *= 2
    return best


def _further_cells(promised: Float32, worst: Float32, members: Members, most: int) -> tuple[Int64, Int64]:
    """Queries, ascending, and the cells that each meets next, those first that promise more, with about `most` rows.

    `promised`: [Q, C] float32; `worst`: [Q, 1] float32, the score that a row must exceed.
    """
    query, cell = np.nonzero(promised > worst)
    order = np.lexsort((-promised[query, cell], query))
    query, cell = query[order], cell[order]
    counts = members.bounds[cell + 1] - members.bounds[cell]
    before = np.cumsum(counts) - counts
    needed = before - before[query.searchsorted(query)] < most
    return query[needed], cell[needed]


def _first_cells(promised: Float32, members: Members, limit: int) -> tuple[Int64, Int64]:
    """Queries, ascending, and the cells that each meets first, in columns: the most promising ones, with enough rows.

    `promised`: [Q, C] float32.
    """
    most = min(max(FIRST_CELLS, limit), promised.shape[1])
    cells = np.argpartition(promised, -most, axis=1)[:, -most:]
    order = np.argsort(-np.take_along_axis(promised, cells, axis=1), axis=1)
    cells = np.take_along_axis(cells, order, axis=1)
    counts = members.bounds[cells + 1] - members.bounds[cells]
    needed = counts.cumsum(axis=1) - counts < max(FIRST_ROWS, FIRST_LIMITS * limit)
    return np.nonzero(needed)[0], cells[needed]


def _scored(
    queries: Float32, table: Float32, members: Members, query: Int64, cell: Int64
) -> list[tuple[Rows, Float32]]:
    """For each query, the members in its cells and their scores. `query` and `cell`: parallel columns, by query."""
    start = members.bounds[cell]
    counts = members.bounds[cell + 1] - start
    ends = counts.cumsum()
    places = np.repeat(start + counts - ends, counts)
    places += np.arange(len(places))
    rows = members.rows.take(places)
    scores = np.empty(len(rows), np.float32)
    chosen = np.empty((CHUNK_ROWS, table.shape[1]), np.float32)  # written again and again: new memory takes time
    bounds = np.append(0, ends)[query.searchsorted(np.arange(len(queries) + 1))].tolist()
    for own, (begin, end) in zip(queries, pairwise(bounds), strict=True):
        for at in range(begin, end, CHUNK_ROWS):
            chunk = slice(at, min(at + CHUNK_ROWS, end))
            of_chunk = table.take(rows[chunk], 0, out=chosen[: chunk.stop - at], mode="clip")
            np.dot(of_chunk, own, out=scores[chunk])
    return [(rows[begin:end], scores[begin:end]) for begin, end in pairwise(bounds)]
