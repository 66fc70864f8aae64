"""Search among very many rows of a table, any choice of them: an inverted file in memory.

Rows that are alike lie in one cell (k-means). A query meets the rows of the cells that promise the best inner products,
and then half as many rows again, until these bring next to nothing better. So it meets few rows where the table has
clusters, and all of them where it has none. A query of 64 numbers takes 0.15 ms where 36,000 of 368,000 rows are
chosen; to score all that are chosen takes three times as long.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.nearest import Rows, ranked
from mind.sequences import Float32, Int64

EXACT_ROWS = 16_384
"""Rows that are scored one and all (`mind.nearest`) as fast as with cells."""
ROWS_A_CELL, MOST_CELLS = 180, 4_096
"""Rows of a cell, on average, and most cells. Larger cells mix rows that have little in common."""
ROUNDS, SAMPLED_A_CELL = 4, 20
"""Rounds of k-means, and rows for each cell that it sees."""
BLOCK_ROWS = 2_048
"""Rows that are compared with all centres at a time."""
FIRST_ROWS = 1_024
"""Rows that a query meets before it looks whether further ones are better."""
GROWTH = 1.5
"""The rows that a query has met when it looks again, in multiples of those at the look before."""
ENOUGH = 0.01
"""A query is done when no larger share of its best rows came with the last ones that it met."""
DEVIATIONS = 3
"""What a cell promises: the score of its centre and so many standard deviations of the rows around it."""


@dataclass(frozen=True)
class Members:
    """Some rows of a table, in the order of its cells."""

    cells: "Cells"
    rows: Rows
    """[M] int32: the rows in cell 0, ascending, then those in cell 1, ..."""
    counts: Int64
    """[C] int64, the number of rows in each cell."""

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        return self.rows.nbytes + self.counts.nbytes


@dataclass(frozen=True)
class Cells:
    """The cells of a table, [N + 1, D], of which row 0 is padding."""

    centre: Float32
    """[C, D] float32."""
    spread: Float32
    """[C] float32: by how much the scores of rows of a cell exceed that of its centre, for a query of length 1."""
    cell: npt.NDArray[np.uint16]
    """[N + 1] uint16, the cell of each row."""

    def members(self, rows: Rows) -> Members | None:
        """Put rows into the order of the cells; None for so few that all are better scored.

        `rows`: [M] int32, ascending.
        """
        if len(rows) <= EXACT_ROWS:
            return None
        cell = self.cell[rows]
        return Members(self, rows[np.argsort(cell, kind="stable")], np.bincount(cell, minlength=len(self.centre)))

    def best_first(self, query: Float32) -> Int64:
        """The cells, [C] int64, those first that promise the best inner products with a query, [D] float32."""
        promised = self.centre @ query + np.sqrt(query @ query) * self.spread
        return np.argsort(-promised)


def cells_of(table: Float32) -> Cells | None:
    """Divide a table into cells; None for one that is so small that nobody needs them. 368,000 rows take 2 s.

    `table`: [N + 1, D] float32, row 0 padding.
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
    return Cells(centre, (DEVIATIONS * np.sqrt(variance)).astype(np.float32), cell)


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
    starts = np.cumsum(members.counts) - members.counts
    found = np.empty((len(queries), limit), np.int32)
    room = np.empty((4 * FIRST_ROWS, table.shape[1]), np.float32)  # written again and again: new memory takes time
    for number, query in enumerate(queries):
        order = members.cells.best_first(query)
        found[number] = _visited(query, table, members, starts[order], members.counts[order], limit, room)
    return ranked(queries, table, found)


def _visited(
    query: Float32, table: Float32, members: Members, starts: Int64, counts: Int64, limit: int, room: Float32
) -> Rows:
    """The best rows for one query, [limit] int32.

    `starts` and `counts`: [C] int64, where the members of each cell begin and how many they are, best cells first.
    `room`: [R, D] float32, overwritten.
    """
    ends = np.cumsum(counts)
    shift = starts + counts - ends
    best, scores = np.empty(0, np.int32), np.empty(0, np.float32)
    wanted, seen, looked, fresh = max(FIRST_ROWS, 2 * limit), 0, 0, limit
    while seen < len(members.rows) and fresh > ENOUGH * limit:
        until = int(ends.searchsorted(wanted)) + 1
        end = int(ends[min(until, len(ends)) - 1])
        places = np.repeat(shift[looked:until], counts[looked:until])
        places += np.arange(seen, end)
        rows = members.rows.take(places)
        chosen = table.take(rows, 0, out=room[: len(rows)] if len(rows) <= len(room) else None, mode="clip")
        best, scores = np.concatenate([best, rows]), np.concatenate([scores, chosen @ query])
        kept = scores.argpartition(-limit)[-limit:]
        fresh = int(np.count_nonzero(kept >= limit)) if seen else limit
        best, scores = best[kept], scores[kept]
        looked, seen, wanted = until, end, int(GROWTH * end)
    return best
