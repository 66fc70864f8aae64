"""Searches all items of a table in memory, by an inverted file of FAISS over the cells of `mind.cells`.

A query scores the items of the cells with the highest bounds in half precision, and the best of these again exactly.
The number of cells is measured on interest vectors of the model when the index is made. The module needs FAISS, from
the extra `local`.
"""

from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np

from mind.artifact import Float32
from mind.cells import SHARES, Cells
from mind.nearest import Rows, nearest, ranked
from mind.sequences import Int64

MOST_HITS = 128
"""Maximum number of hits of a query for which the index is used. For more, scoring all items is as fast."""
RECALL = 0.998
"""Share of the exact best `MOST_HITS` items that the index must find for interests of the model."""
MEASURED_QUERIES = 256
"""Maximum number of interests that this is measured with."""
FEWEST_CELLS, LARGEST_SHARE = 4, 8
"""Minimum number of cells that a query searches, and the divisor of all cells (an eighth) from which all rows are
scored.
"""
MORE, SHARE_MORE = 10, 5
"""Number of items that are scored again exactly, beyond the wanted ones: a constant, plus a fifth of the wanted number.
"""
TOGETHER = 16
"""Number of queries whose cells are chosen together. From 20 on, results of FAISS depend on the number of queries."""


@dataclass(frozen=True)
class ItemIndex:
    """The index of a table, [N + 1, D]. Row 0 of the table is padding."""

    table: Float32
    promise: Any
    """FAISS index of the bounds of the cells."""
    inverted: Any
    """FAISS index of the rows, cell by cell."""
    cells: int
    """Number of cells that a query searches."""
    recall: float
    """The measured share of the exact best `MOST_HITS` items that the index finds."""
    rows: Rows
    """[M] int32, ascending: the rows to search."""
    left_out: Any = None
    """FAISS selector of the rows to search; None for all rows."""

    @property
    def nbytes(self) -> int:
        """Return the memory of the index in bytes, besides the table: two for each number, and eight for each row."""
        return int(self.inverted.ntotal * (self.inverted.code_size + 8))

    def among(self, rows: Rows, gone: Rows) -> "ItemIndex":
        """Return the index of some rows of the table.

        `rows`: [M] int32, ascending; `gone`: [G] int32, all other rows.
        """
        selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(gone.astype(np.int64))) if len(gone) else None
        return replace(self, rows=rows, left_out=selector)

    def nearest(self, queries: Float32, limit: int) -> tuple[Rows, Float32]:
        """Find nearly all of the rows with the best inner products for each query.

        Args:
            queries: the Q queries, [Q, D] float32.
            limit: the number of rows for each query, at most `MOST_HITS`.

        Returns:
            The rows and their scores, [Q, min(limit, M)] each, best first. Ties are in the order of rows. The result of
            a query does not depend on the other queries.
        """
        wanted = limit + MORE + limit // SHARE_MORE
        queries = np.ascontiguousarray(queries)
        cells = self._best_cells(queries)
        found = np.empty((len(queries), wanted), np.int64)
        scores, unused = np.empty(found.shape, np.float32), np.zeros(cells.shape, np.float32)
        how = faiss.SearchParametersIVF()
        how.nprobe, how.sel = cells.shape[1], self.left_out
        where = [faiss.swig_ptr(array) for array in (cells, unused, scores, found)]
        self.inverted.search_preassigned_c(len(queries), faiss.swig_ptr(queries), wanted, *where, False, how)
        few = found[:, -1] < 0  # where the cells have fewer rows
        if few.all():
            return nearest(queries, self.table, self.rows, limit)
        rows, best = ranked(queries, self.table, np.maximum(found, 0).astype(np.int32))
        rows, best = rows[:, :limit], best[:, :limit]
        if few.any():
            rows[few], best[few] = nearest(queries[few], self.table, self.rows, limit)
        return rows, best

    def _best_cells(self, queries: Float32) -> Int64:
        """Return the cells with the highest bounds for each query, [Q, cells] int64."""
        longer = np.concatenate([queries, np.sqrt((queries * queries).sum(axis=1, keepdims=True))], axis=1)
        parts = range(0, len(queries), TOGETHER)
        found = [self.promise.search(longer[start : start + TOGETHER], self.cells)[1] for start in parts]
        return np.concatenate([np.zeros((0, self.cells), np.int64), *found])


def index_of(table: Float32, cells: Cells, interests: Float32) -> ItemIndex | None:
    """Make the index of a table. Return None if queries would need so many cells that scoring all rows is better.

    Args:
        table: [N + 1, D] float32; row 0 is padding.
        cells: the cells of the table.
        interests: [Q, D] float32, interest vectors of real histories.
    """
    dim, count = table.shape[1], len(cells.centre)
    promise = faiss.IndexFlatIP(dim + 1)
    reach = cells.reach[SHARES.index(1.0)] * cells.spread  # of all rows
    promise.add(np.concatenate([cells.centre, reach[:, None]], axis=1))
    kind = faiss.ScalarQuantizer.QT_fp16
    inverted = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, count, kind, faiss.METRIC_INNER_PRODUCT, False
    )
    inverted.quantizer.add(cells.centre)
    inverted.train(table[1:2])  # half precision has nothing to learn
    rows, cell, items = np.arange(1, len(table)), cells.cell[1:].astype(np.int64), np.ascontiguousarray(table[1:])
    inverted.add_core(len(rows), *(faiss.swig_ptr(array) for array in (items, rows, cell)))
    queries = interests[np.any(interests, axis=1)][:MEASURED_QUERIES]
    every = rows.astype(np.int32)
    exact, _ = nearest(queries, table, every, MOST_HITS)
    looked_into = FEWEST_CELLS
    while looked_into <= count // LARGEST_SHARE:
        index = ItemIndex(table, promise, inverted, looked_into, 1.0, every)
        found, _ = index.nearest(queries, MOST_HITS)
        right = [len(np.intersect1d(own, best)) for own, best in zip(found, exact, strict=True)]
        recall = float(np.sum(right) / max(exact.size, 1)) if len(queries) else 0.0
        if recall >= RECALL:
            return replace(index, recall=recall)
        looked_into *= 2
    return None
