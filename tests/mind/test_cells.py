"""Search by cells, against the exact search among the same rows."""

import numpy as np
import pytest

from mind import cells
from mind.artifact import Float32
from mind.cells import Cells, Members, cells_of, nearest_in_cells
from mind.nearest import Rows, nearest

ROWS, DIM, A_CLUSTER, TOP = 40_000, 32, 200, 50


def clustered() -> Float32:
    """A table whose rows lie in clusters, those of one cluster one after the other."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(ROWS // A_CLUSTER, DIM))
    item = centre[np.arange(ROWS) // A_CLUSTER] + 0.6 * rng.normal(size=(ROWS, DIM))
    return np.concatenate([np.zeros((1, DIM)), item]).astype(np.float32)


@pytest.fixture(scope="module")
def table() -> Float32:
    return clustered()


@pytest.fixture(scope="module")
def divided(table: Float32) -> Cells:
    found = cells_of(table, between(table, 0))
    assert found is not None
    return found


def between(table: Float32, seed: int) -> Float32:
    """Queries between two rows, nearer to the first."""
    rng = np.random.default_rng(seed)
    return table[rng.integers(1, ROWS, 100)] + table[rng.integers(1, ROWS, 100)] / 3


def members(divided: Cells, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> Members:
    with monkeypatch.context() as patched:
        patched.setattr(cells, "EXACT_ROWS", 0)
        found = divided.members(rows)
    assert found is not None
    return found


def recall(found: Rows, exact: Rows) -> float:
    return float(np.mean([np.isin(own, best).mean() for own, best in zip(found, exact, strict=True)]))


@pytest.mark.parametrize("by_cluster", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6, 0.9, 1.0])
def test_nearly_all_of_the_best_are_found(
    table: Float32, divided: Cells, share: float, by_cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    chosen = np.repeat(rng.random(ROWS // A_CLUSTER), A_CLUSTER) if by_cluster else rng.random(ROWS)
    rows = (np.flatnonzero(chosen < share) + 1).astype(np.int32)
    queries = between(table, 1)
    found, scores = nearest_in_cells(queries, table, members(divided, rows, monkeypatch), TOP)
    exact, exact_scores = nearest(queries, table, rows, TOP)
    assert found.shape == exact.shape and np.isin(found, rows).all()
    assert recall(found, exact) >= 0.98
    assert (scores <= exact_scores).all() and (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(own)) == len(own) for own in found.tolist())


def test_a_table_without_clusters_costs_time_and_no_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    table = np.concatenate([np.zeros((1, DIM)), rng.normal(size=(ROWS, DIM))]).astype(np.float32)
    divided, rows = cells_of(table, table[:0]), np.arange(1, ROWS, 3, dtype=np.int32)
    assert divided is not None
    queries = rng.normal(size=(50, DIM)).astype(np.float32)
    found, _ = nearest_in_cells(queries, table, members(divided, rows, monkeypatch), TOP)
    assert recall(found, nearest(queries, table, rows, TOP)[0]) >= 0.98


def test_the_queries_of_a_model_say_how_far_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a cell spread unevenly: the best ones lie up to 6 standard deviations from the centre, not 3."""
    rng = np.random.default_rng(4)
    shape = np.linspace(2, 0.2, DIM) ** 2
    item = (clustered()[1:] + 2 * rng.normal(size=(ROWS, DIM))) * shape * rng.lognormal(0, 0.5, (ROWS, 1))
    table = np.concatenate([np.zeros((1, DIM)), item]).astype(np.float32)
    asked = np.maximum(rng.normal(size=(200, DIM)) * shape, 0).astype(np.float32)
    rows = np.arange(1, ROWS, 2, dtype=np.int32)
    divided = cells_of(table, asked[:100])
    assert divided is not None
    found, _ = nearest_in_cells(asked[100:], table, members(divided, rows, monkeypatch), TOP)
    assert recall(found, nearest(asked[100:], table, rows, TOP)[0]) >= 0.98


@pytest.mark.parametrize(("rows", "limit"), [(1, 5), (1, 50), (30, 50), (3_000, 3_000), (3_000, 2_999), (200, 1)])
def test_nobody_is_short_of_what_there_is(
    table: Float32, divided: Cells, rows: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = np.sort(np.random.default_rng(3).choice(np.arange(1, ROWS), rows, replace=False)).astype(np.int32)
    for queries in (table[5:8], table[:0]):
        found, scores = nearest_in_cells(queries, table, members(divided, chosen, monkeypatch), limit)
        assert found.shape == scores.shape == (len(queries), min(limit, rows))
        assert all(len(set(own)) == len(own) for own in found.tolist())


def test_what_a_query_finds_does_not_depend_on_the_others(
    table: Float32, divided: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = members(divided, np.arange(1, ROWS, 2, dtype=np.int32), monkeypatch)
    queries = table[100:8_000:200]
    together = nearest_in_cells(queries, table, chosen, 20)
    for number, query in enumerate(queries):
        alone = nearest_in_cells(query[None], table, chosen, 20)
        assert alone[0][0].tolist() == together[0][number].tolist()
        assert alone[1].tobytes() == together[1][number].tobytes()


def test_rows_that_are_all_alike_are_found() -> None:
    table = np.ones((30_000, 4), np.float32)
    divided = cells_of(table, table[:0])
    assert divided is not None
    chosen = divided.members(np.arange(1, 30_000, dtype=np.int32))
    assert chosen is not None
    found, scores = nearest_in_cells(table[:1], table, chosen, 10)
    assert len(set(found[0].tolist())) == 10 and scores.tolist() == [[4] * 10]


def test_few_rows_need_no_cells(table: Float32, divided: Cells) -> None:
    assert cells_of(table[: cells.EXACT_ROWS], table[:0]) is None
    assert divided.members(np.arange(1, 1_000, dtype=np.int32)) is None
