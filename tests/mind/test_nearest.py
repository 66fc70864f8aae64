"""Exact search among chosen rows, against a plain sort of all scores."""

import numpy as np
import pytest

from mind.hits import falling, risen
from mind.nearest import CHUNK_ROWS, nearest


@pytest.mark.parametrize(
    ("queries", "rows", "limit"),
    [
        (0, 10, 5),
        (3, 0, 5),
        (1, 1, 50),
        (4, 30, 50),
        (5, 3 * CHUNK_ROWS, 50),
        (400, 4_000, 7),
        (3, 5_000, 4_999),
        (2, 20_000, 3_000),
        (80, 3 * CHUNK_ROWS, CHUNK_ROWS),
    ],
)
def test_the_best_rows_are_found(queries: int, rows: int, limit: int) -> None:
    rng = np.random.default_rng(rows)
    table = rng.normal(size=(3 * CHUNK_ROWS + 100, 8)).astype(np.float32)
    chosen = np.sort(rng.choice(len(table), rows, replace=False)).astype(np.int32)
    vectors = rng.normal(size=(queries, 8)).astype(np.float32)
    found, scores = nearest(vectors, table, chosen, limit)
    every = vectors @ table[chosen].T
    order = np.argsort(-every, axis=1, kind="stable")[:, :limit]
    assert found.shape == scores.shape == (queries, min(limit, rows))
    np.testing.assert_allclose(scores, np.take_along_axis(every, order, axis=1), rtol=1e-5, atol=1e-5)
    assert (found == chosen[order]).mean() > 0.999 if found.size else True  # rounding may swap neighbours


@pytest.mark.parametrize("ascending", [True, False])
def test_rows_that_get_better_or_worse_in_turn_are_found_all_the_same(ascending: bool) -> None:
    table = np.arange(10_000, dtype=np.float32)[:, None]
    query = np.array([[1 if ascending else -1]], np.float32)
    found, _ = nearest(query, table, np.arange(10_000, dtype=np.int32), 3)
    assert found.tolist() == [[9_999, 9_998, 9_997] if ascending else [0, 1, 2]]


def test_equal_scores_are_ordered_by_row() -> None:
    table = np.ones((10_000, 2), np.float32)
    many, _ = nearest(-np.ones((90, 2), np.float32), table, np.arange(5_000, dtype=np.int32), 4)
    assert many.tolist() == [[0, 1, 2, 3]] * 90
    found, scores = nearest(np.ones((2, 2), np.float32), table, np.arange(5, 10_000, dtype=np.int32), 4)
    assert found.tolist() == [[5, 6, 7, 8]] * 2
    assert scores.tolist() == [[2] * 4] * 2


def test_scores_of_any_sign_come_back_from_their_order() -> None:
    scores = np.array([0, 1e-45, 1.5, 3e38, -1e-45, -1.5, -3e38, np.inf, -np.inf], np.float32)
    assert risen(falling(scores)).tolist() == scores.tolist()
    assert scores[falling(scores).argsort()].tolist() == sorted(scores.tolist(), reverse=True)


def test_a_score_does_not_depend_on_the_other_queries() -> None:
    rng = np.random.default_rng(0)
    table, rows = rng.normal(size=(4_000, 64)).astype(np.float32), np.arange(4_000, dtype=np.int32)
    queries = rng.normal(size=(64, 64)).astype(np.float32)
    together = nearest(queries, table, rows, 20)[1]
    alone = [nearest(query[None], table, rows, 20)[1][0] for query in queries]
    assert together.tobytes() == np.stack(alone).tobytes()
