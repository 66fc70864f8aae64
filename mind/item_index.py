"""All items of a table, searched in memory by an inverted file of FAISS over the cells of `mind.cells`.

A query meets the items of the cells that promise the best inner products, at half precision, and the best of these
again exactly. How many cells are enough is measured when the index is made, on interest vectors of the model. Needs
FAISS, the extra `local`.
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
"""Most hits of a query that the index is for: beyond that, all items are scored as fast."""
RECALL = 0.998
"""Share of the exact best `MOST_HITS` items that the index must find of the model's own interests."""
MEASURED_QUERIES = 256
"""Most interests that this is measured with."""
FEWEST_CELLS, LARGEST_SHARE = 4, 8
"""Fewest cells that a query looks into, and the share of all, an eighth, from which all rows are better scored."""
MORE, SHARE_MORE = 10, 5
"""How many more items than wanted are scored again exactly: so many, and a fifth of those that are wanted."""
TOGETHER = 16
"""Queries whose cells are chosen together. With 20 or more FAISS rounds by the number of queries."""


@dataclass(frozen=True)
class ItemIndex:
    """The index of a table, [N + 1, D], of which row 0 is padding."""

    table: Float32
    promise: Any
    """FAISS index of what the cells promise."""
    inverted: Any
    """FAISS index of the rows, cell by cell."""
    cells: int
    """How many cells a query looks into."""
    recall: float
    """What that finds of the exact best `MOST_HITS` items."""
    rows: Rows
    """[M] int32, ascending: the rows that are searched."""
    left_out: Any = None
    """FAISS selector of the rows that are searched; None for all."""

    @property
    def nbytes(self) -> int:
        """The memory that it takes beside the table: two bytes a number, and eight for each row."""
        return int(self.inverted.ntotal * (self.inverted.code_size + 8))

    def among(self, rows: Rows, gone: Rows) -> "ItemIndex":
        """The index of some rows of the table. `rows`: [M] int32, ascending; `gone`: [G] int32, all others."""
        selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(gone.astype(np.int64))) if len(gone) else None
        return replace(self, rows=rows, left_out=selector)

    def nearest(self, queries: Float32, limit: int) -> tuple[Rows, Float32]:
        """Find nearly all of the rows with the best inner products for each query.

        Args:
            queries: [Q, D] float32.
            limit: rows wanted for each query, `MOST_HITS` at most.

        Returns:
            The rows and their scores, [Q, min(limit, M)] each, best first; equal scores by row. They do not depend on
            the other queries.
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
        """The cells that promise most to each query, [Q, cells] int64."""
        longer = np.concatenate([queries, np.sqrt((queries * queries).sum(axis=1, keepdims=True))], axis=1)
        parts = range(0, len(queries), TOGETHER)
        found = [self.promise.search(longer[start : start + TOGETHER], self.cells)[1] for start in parts]
        return np.concatenate([np.zeros((0, self.cells), np.int64), *found])


def index_of(table: Float32, cells: Cells, interests: Float32) -> ItemIndex | None:
    """Make the index of a table; None if it would have to look into so many cells that all rows are better scored.

    Args:
        table: [N + 1, D] float32, row 0 padding.
        cells: of the table.
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
