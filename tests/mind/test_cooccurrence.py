"""Where item embeddings begin: counts that can be checked by eye, a factorisation that agrees with the exact one."""

import numpy as np
import pytest
from scipy import sparse

from mind.training import cooccurrence
from mind.training.cooccurrence import cooccurrence_vectors


def clicks(*users: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(users).astype(np.int32), np.cumsum([0, *map(len, users)])


def test_pairs_count_less_the_further_apart_and_never_across_users() -> None:
    counts = cooccurrence.close_pairs(*clicks([1, 2, 3], [4], [2, 1]), 4, np.random.default_rng(0)).toarray()
    expected = np.zeros((5, 5))
    expected[1, 2] = expected[2, 1] = 2
    expected[2, 3] = expected[3, 2] = 1
    expected[1, 3] = expected[3, 1] = cooccurrence.APART_FADING
    np.testing.assert_allclose(counts, expected, rtol=1e-6)


def test_information_is_that_of_the_formula() -> None:
    counts = np.array([[0, 0, 0], [0, 0, 3], [0, 3, 1]], np.float32)
    found = cooccurrence._mutual_information(sparse.csr_array(counts)).toarray()
    total = counts.sum(axis=1)
    context = total**0.75 / (total**0.75).sum()
    expected = np.log(3 / (total[1] * context[2]))
    assert found[1, 2] == pytest.approx(expected, rel=1e-5) and expected > 0
    assert found[2, 2] == 0  # less often than by chance


def test_the_factors_are_those_of_an_exact_decomposition() -> None:
    rng = np.random.default_rng(1)
    matrix = sparse.random_array((300, 300), density=0.05, rng=rng, dtype=np.float32).tocsr()
    matrix += 20 * sparse.csr_array(np.outer(np.arange(300) % 3 == 1, np.arange(300) % 5 == 2).astype(np.float32))
    left, values = cooccurrence._largest(matrix, 3, rng)
    exact_left, exact_values, _ = np.linalg.svd(matrix.toarray())
    np.testing.assert_allclose(values, exact_values[:3], rtol=1e-2)
    assert abs(left[:, 0] @ exact_left[:, 0]) == pytest.approx(1, abs=1e-4)


def test_items_that_users_had_together_begin_together() -> None:
    rng = np.random.default_rng(2)
    users = [(1 + 20 * (user % 2) + rng.choice(20, 8, replace=False)).tolist() for user in range(200)]
    vectors = cooccurrence_vectors(*clicks(*users, [41]), 41, 8, seed=3)
    assert vectors.shape == (42, 8) and vectors.dtype == np.float32
    assert not vectors[0].any() and not vectors[41].any()  # padding, and an item that nobody had with another
    assert np.linalg.norm(vectors[1:41], axis=1).mean() == pytest.approx(1, abs=1e-5)
    unit = vectors[1:41] / np.linalg.norm(vectors[1:41], axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[:20, :20].mean() > 0.5 and abs(likeness[:20, 20:].mean()) < 0.1
    np.testing.assert_array_equal(vectors, cooccurrence_vectors(*clicks(*users, [41]), 41, 8, seed=3))


def test_few_items_leave_numbers_zero_and_no_pair_leaves_all_zero() -> None:
    few = cooccurrence_vectors(*clicks([1, 2], [2, 3]), 3, 16, seed=1)
    assert few[1:].any() and not few[:, 4:].any()
    assert not cooccurrence_vectors(*clicks([1], [2]), 2, 16, seed=1).any()
    assert not cooccurrence_vectors(*clicks([1, 1], [2]), 2, 16, seed=1).any()  # no more than by chance


def test_of_too_many_items_the_most_clicked_get_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    users = [[5, 2], [2, 5], [5, 7, 2], [7, 5], [1, 3]]
    exact = cooccurrence_vectors(*clicks([2, 1], [1, 2], [2, 3, 1], [3, 2]), 3, 4, seed=1)
    monkeypatch.setattr(cooccurrence, "MAX_ITEMS", 3)  # 2, 5 and 7
    vectors = cooccurrence_vectors(*clicks(*users), 9, 4, seed=1)
    assert np.flatnonzero(vectors.any(axis=1)).tolist() == [2, 5, 7]
    np.testing.assert_array_equal(vectors[[2, 5, 7]], exact[1:])


def test_of_too_many_clicks_whole_users_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "MAX_CLICKS", 300)
    users = [[3 * user + 1, 3 * user + 2, 3 * user + 3] for user in range(200)]
    counts = cooccurrence.close_pairs(*clicks(*users), 600, np.random.default_rng(0))
    drawn = np.flatnonzero(counts.sum(axis=1))
    assert 200 < len(drawn) < 400 and len(drawn) % 3 == 0
    one, other = counts.tocoo().coords
    assert ((one - 1) // 3 == (other - 1) // 3).all()
