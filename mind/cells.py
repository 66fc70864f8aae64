"""Divides a table into cells, which are groups of similar rows (k-means), and bounds the inner products of each cell.

`mind.cell_search` uses the cells to search among any choice of rows. How tight the bounds must be is measured with
queries of the model.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mind.nearest import Rows, nearest
from mind.sequences import Float32, Int64

EXACT_ROWS = 24_576
"""Number of rows up to which all are scored (`mind.nearest`). This is as fast as cells for 12 queries, faster for more.
"""
ROWS_A_CELL, MOST_CELLS = 120, 4_096
"""Mean number of rows of a cell, and maximum number of cells. Larger cells mix rows that have little in common."""
ROUNDS, SAMPLED_A_CELL = 4, 20
"""Number of rounds of k-means, and number of rows per cell that it sees."""
BLOCK_ROWS = 2_048
"""Number of rows that are compared with all centres at a time."""
FOUND, SHARES = 0.995, (0.1, 1.0)
"""Share of the best rows that must lie in cells with high enough bounds, and the shares of all rows that are measured.
"""
MEASURED_QUERIES, MEASURED_BEST = 128, 50
"""Maximum number of queries that this is measured with, and the number of their best rows that count."""


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
        """Return the size of the rows and bounds in bytes."""
        return self.rows.nbytes + self.bounds.nbytes


@dataclass(frozen=True)
class Cells:
    """The cells of a table, [N + 1, D], of which row 0 is padding."""

    centre: Float32
    """[C, D] float32, the centre of each cell."""
    spread: Float32
    """[C] float32: standard deviation of the scores of a cell's rows around the score of its centre, for a query of
    length 1.
    """
    cell: npt.NDArray[np.uint16]
    """[N + 1] uint16, the cell of each row."""
    reach: Float32
    """[S] float32: for each share in `SHARES`, the standard deviations above the centre's score that make the bound."""

    def promised(self, queries: Float32, rows: Int64) -> Float32:
        """Return a bound that hardly any row of each cell exceeds in its inner product with each query: [Q, C] float32.

        `queries`: [Q, D] float32; `rows`: [Q] int64, the number of rows among which each query searches. The bound for
        a query does not depend on the other queries.
        """
        promised: Float32 = np.matmul(self.centre, queries[:, :, None])[:, :, 0]  # one by one: equal in any batch
        reach = np.interp(np.log(rows / len(self.cell)), np.log(SHARES), self.reach).astype(np.float32)
        promised += reach[:, None] * _length(queries) * self.spread
        return promised

    def members(self, rows: Rows) -> Members | None:
        """Sort rows by cell. Return None for so few rows that it is better to score all.

        `rows`: [M] int32, ascending.
        """
        if len(rows) <= EXACT_ROWS:
            return None
        cell = self.cell[rows]
        counts = np.bincount(cell, minlength=len(self.centre))
        return Members(self, rows[np.argsort(cell, kind="stable")], np.append(0, np.cumsum(counts)))


def cells_of(table: Float32, queries: Float32) -> Cells | None:
    """Divide a table into cells. Return None if the table is too small for cells. It takes 3 s for 368,000 rows.

    Args:
        table: [N + 1, D] float32; row 0 is padding.
        queries: [Q, D] float32, typical queries. If all are zero, rows of the table are used instead.
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
    """Return the standard deviations above the centre's score that bound nearly all of the best of some rows."""
    best, scores = nearest(queries, table, rows, MEASURED_BEST)
    cell = cells.cell[best]
    short = scores[:, -1:] - np.einsum("qld,qd->ql", cells.centre[cell], queries)
    spread = cells.spread[cell] * _length(queries)
    needed = np.divide(short, spread, out=np.zeros_like(short), where=spread > 0)
    return max(float(np.quantile(needed, FOUND)), 0.0)


def _length(queries: Float32) -> Float32:
    """Return the lengths of queries, [Q, 1] float32, correct also for vectors whose squares underflow."""
    length: Float32 = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True).astype(np.float32)
    return length


def _assigned(table: Float32, centre: Float32) -> tuple[npt.NDArray[np.uint16], Int64]:
    """Return the nearest centre of each row, and the number of rows of each centre."""
    half = (centre * centre).sum(axis=1) / 2
    cell = np.empty(len(table), np.uint16)
    for start in range(0, len(table), BLOCK_ROWS):
        closeness = table[start : start + BLOCK_ROWS] @ centre.T
        closeness -= half
        cell[start : start + BLOCK_ROWS] = closeness.argmax(axis=1)
    return cell, np.bincount(cell, minlength=len(centre))


def _squared_distance(table: Float32, centre: Float32, cell: npt.NDArray[np.uint16]) -> Float32:
    """Return the squared distance of each row to the centre of its cell, [N + 1] float32."""
    distance = np.empty(len(table), np.float32)
    for start in range(0, len(table), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        distance[block] = ((table[block] - centre[cell[block]]) ** 2).sum(axis=1)
    return distance
