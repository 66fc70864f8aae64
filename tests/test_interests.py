"""Which interests are searched, and what is found for the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.collection import Hits
from mind.interests import as_if_each_searched, best_of, leading
from mind.vocabulary import Vocabulary

COSINES = (0.5, 0.9, 0.99, 1.0)


def interests(seed: int, users: int = 6) -> np.ndarray:
    """[U, 4, 5] float32: some alike, some zero, some equally long."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(users, 4, 5))
    vectors[:, 1] = vectors[:, 0] * rng.uniform(0.5, 2, (users, 1)) + 0.1 * rng.normal(size=(users, 5))
    vectors[rng.random((users, 4)) < 0.2] = 0
    vectors[::3, 3] = vectors[::3, 2]
    return vectors.astype(np.float32)


def cosine_of(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_longest_of_similar_interests_leads() -> None:
    east, north = [2.0, 0.0], [0.0, 1.0]
    almost_east, diagonal = [1.0, 0.1], [1.0, 1.0]  # cosine to east: 0.995 and 0.707
    vectors = np.array([[almost_east, east, north, diagonal]], np.float32)
    assert leading(vectors, 1).tolist() == [[True, True, True, True]]
    assert leading(vectors, 0.99).tolist() == [[False, True, True, True]]
    assert leading(vectors, 0.7).tolist() == [[False, True, True, False]]  # north is nobody's, the diagonal is east's


@pytest.mark.parametrize("cosine", COSINES)
def test_no_interests_and_no_users(cosine: float) -> None:
    assert not leading(np.zeros((2, 4, 3), np.float32), cosine).any()
    assert leading(np.zeros((0, 4, 3), np.float32), cosine).shape == (0, 4)


@given(st.integers(0, 10_000), st.sampled_from(COSINES))
def test_every_interest_has_a_leader(seed: int, cosine: float) -> None:
    vectors = interests(seed)
    leads = leading(vectors, cosine)
    length = np.linalg.norm(vectors, axis=2)
    if cosine == 1:
        assert np.array_equal(leads, length > 0)
    for own, is_leading, long in zip(vectors, leads, length, strict=True):
        assert not is_leading[long == 0].any()
        for follower in np.flatnonzero(~is_leading & (long > 0)):
            assert any(
                long[leader] >= long[follower] and cosine_of(own[leader], own[follower]) >= cosine - 1e-6
                for leader in np.flatnonzero(is_leading)
            )
        pairs = [(a, b) for a in np.flatnonzero(is_leading) for b in np.flatnonzero(is_leading) if a < b]
        assert cosine == 1 or all(cosine_of(own[a], own[b]) < cosine + 1e-6 for a, b in pairs)


@given(st.integers(0, 10_000), st.sampled_from(COSINES))
def test_neighbours_in_a_batch_do_not_matter(seed: int, cosine: float) -> None:
    vectors = interests(seed)
    alone = np.concatenate([leading(vectors[user : user + 1], cosine) for user in range(len(vectors))])
    assert np.array_equal(leading(vectors, cosine), alone)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 20))
def test_best_of_is_a_search_of_the_pool(seed: int, pool_size: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(41, 5)).astype(np.float32)
    vectors = rng.normal(size=(4, 5)).astype(np.float32)
    pool = np.sort(rng.choice(np.arange(1, 41), pool_size, replace=False))
    rows, scores = best_of(pool, vectors, table, limit)
    assert rows.shape == scores.shape == (4, min(pool_size, limit))
    for vector, found, score in zip(vectors, rows, scores, strict=True):
        exact = sorted(pool.tolist(), key=lambda row: -float(table[row] @ vector))
        assert found.tolist() == exact[:limit]
        np.testing.assert_allclose(score, table[found] @ vector, rtol=1e-5, atol=1e-6)


def test_items_that_the_model_does_not_know_keep_their_score_for_the_interest_that_found_them() -> None:
    # Interests: zero, east, almost east (not searched). The model knows 10 = (1, 0), 20 = (0, 1) and 30 = (-1, 0).
    vectors = np.array([[[0, 0], [2, 0], [1, 0.1]]], np.float32)
    leads = leading(vectors, 0.9)
    assert leads.tolist() == [[False, True, False]]
    table = np.array([[0, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    known = Vocabulary(np.array([10, 20, 30]))
    found = Hits(np.array([99, 10, 77, 20]), np.array([5, 2, 1.5, 0], np.float32), np.array([4]))
    hits = as_if_each_searched(found, leads, vectors, known, table, 3)
    assert hits.lengths.tolist() == [3, 2]
    assert hits.item_ids.tolist() == [99, 10, 77, 10, 20]
    np.testing.assert_allclose(hits.scores, [5, 2, 1.5, 1, 0.1])
