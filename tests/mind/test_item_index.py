"""The index of all items in memory, against an exact search."""

from dataclasses import replace

import numpy as np
import pytest

from mind import cells, item_index
from mind.artifact import Float32
from mind.cells import Cells, cells_of
from mind.item_index import ItemIndex, index_of
from mind.nearest import nearest


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> tuple[Float32, Cells, Float32]:
    """A table with clusters of 100 rows, its cells, and queries near to some rows."""
    monkeypatch.setattr(cells, "EXACT_ROWS", 100)
    monkeypatch.setattr(item_index, "MOST_HITS", 60)
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(200, 16)) * 3
    rows = np.concatenate([centre[i] + 0.5 * rng.normal(size=(100, 16)) for i in range(200)])
    table = np.concatenate([np.zeros((1, 16)), rows]).astype(np.float32)
    divided = cells_of(table, table[:0])
    assert divided
    return table, divided, (table[rng.integers(1, len(table), 100)] + 0.1).astype(np.float32)


def made(clusters: tuple[Float32, Cells, Float32]) -> ItemIndex:
    index = index_of(*clusters)
    assert index
    return index


def test_it_finds_nearly_all_and_says_how_many(clusters: tuple[Float32, Cells, Float32]) -> None:
    table, divided, queries = clusters
    index = made(clusters)
    every = np.arange(1, len(table), dtype=np.int32)
    found, scores = index.nearest(queries, 60)
    exact, exact_scores = nearest(queries, table, every, 60)
    right = sum(len(np.intersect1d(own, best)) for own, best in zip(found, exact, strict=True)) / exact.size
    assert right == pytest.approx(index.recall) and index.recall >= item_index.RECALL
    assert index.cells <= len(divided.centre) / 8
    same = (found == exact).all(axis=1)
    assert scores[same].tobytes() == exact_scores[same].tobytes()  # scored again exactly
    assert index.nbytes == 20_000 * (16 * 2 + 8)


def test_rows_that_are_gone_are_not_found(clusters: tuple[Float32, Cells, Float32]) -> None:
    table, _, queries = clusters
    found, _ = made(clusters).nearest(queries, 10)
    gone = np.unique(found[:, :5]).astype(np.int32)
    rows = np.setdiff1d(np.arange(1, len(table)), gone).astype(np.int32)
    left, _ = made(clusters).among(rows, gone).nearest(queries, 10)
    assert not np.isin(left, gone).any()
    exact, _ = nearest(queries, table, rows, 10)
    assert (left == exact).mean() > 0.98


def test_a_query_whose_cells_have_too_few_rows_meets_all(clusters: tuple[Float32, Cells, Float32]) -> None:
    table, divided, queries = clusters
    index = made(clusters)
    of_first = np.flatnonzero(np.isin(divided.cell[1:], index._best_cells(queries[:1])))[5:] + 1
    rows = np.setdiff1d(np.arange(1, len(table)), of_first).astype(np.int32)
    found, scores = index.among(rows, of_first.astype(np.int32)).nearest(queries, 20)
    exact, exact_scores = nearest(queries[:1], table, rows, 20)
    assert found[0].tolist() == exact[0].tolist() and scores[0].tobytes() == exact_scores[0].tobytes()
    few = rows[:7]
    others = np.setdiff1d(np.arange(1, len(table)), few).astype(np.int32)
    assert {tuple(sorted(each)) for each in index.among(few, others).nearest(queries, 20)[0].tolist()} == {tuple(few)}


def test_an_answer_does_not_depend_on_the_other_queries(clusters: tuple[Float32, Cells, Float32]) -> None:
    queries = clusters[2]
    index = made(clusters)
    together = index.nearest(queries, 20)
    alone = [index.nearest(query[None], 20) for query in queries]
    for one in (0, 1):
        assert together[one].tobytes() == np.concatenate([each[one] for each in alone]).tobytes()
    assert index.nearest(queries[:0], 20)[0].shape == (0, 20)


def test_cells_promise_as_far_as_their_rows_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide cell has the best rows, and 40 narrow ones have better centres."""
    monkeypatch.setattr(item_index, "MOST_HITS", 5)
    centre = np.array([[0.5, 0.0]] + [[0.68, 0.0]] * 40 + [[0.0, 1.0]] * 23, np.float32)
    wide = [[0.8, 0.0]] * 5 + [[0.45, 0.0]] * 15
    narrow = [[float(x), float(y)] for x, y in centre[1:] for _ in range(20)]
    table = np.array([[0, 0], *wide, *narrow], np.float32)
    cell = np.append(0, np.repeat(np.arange(64), 20)).astype(np.uint16)
    spread = np.array([0.15] + [0.01] * 63, np.float32)
    divided = Cells(centre, spread, cell, reach=np.array([2, 2], np.float32))
    index = index_of(table, divided, np.array([[1, 0]], np.float32))
    assert index and (index.cells, index.recall) == (4, 1)
    assert index_of(table, replace(divided, reach=np.ones(2, np.float32)), np.array([[1, 0]], np.float32)) is None


def test_no_index_where_it_would_look_at_nearly_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "EXACT_ROWS", 100)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(10_001, 64)).astype(np.float32)
    divided = cells_of(table, table[:0])
    assert divided and index_of(table, divided, rng.normal(size=(50, 64)).astype(np.float32)) is None
