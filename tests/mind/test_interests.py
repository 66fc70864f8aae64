"""Which interests are searched, and what is found for the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.hits import Hits
from mind.interests import as_if_each_searched, leading
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


def plainly(
    hits: Hits, leads: np.ndarray, vectors: np.ndarray, known: Vocabulary, table: np.ndarray, limit: int
) -> list[list[tuple[int, float]]]:
    """What `as_if_each_searched` says, one hit after the other: the lists of all interests that are not zero."""
    found = np.split(np.arange(len(hits.item_ids)), np.cumsum(hits.lengths)[:-1])
    searched = dict(zip(zip(*(each.tolist() for each in np.nonzero(leads)), strict=True), found, strict=True))
    lists = []
    for user, interest in zip(*(each.tolist() for each in np.nonzero(np.any(vectors, axis=2))), strict=True):
        own = {key: rows for key, rows in searched.items() if key[0] == user}
        if len(own) == np.any(vectors[user], axis=1).sum():
            pairs = [(int(hits.item_ids[row]), float(hits.scores[row])) for row in searched[user, interest]]
        else:
            items = {int(hits.item_ids[row]) for rows in own.values() for row in rows}
            row_of = {item: int(known.item_index(np.array([item]))[0]) for item in items}
            scores = {item: float(table[row] @ vectors[user, interest]) for item, row in row_of.items() if row}
            for row in own.get((user, interest), []):
                if not row_of[int(hits.item_ids[row])]:
                    scores[int(hits.item_ids[row])] = float(hits.scores[row])
            pairs = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        lists.append(pairs[:limit])
    return lists


@given(st.integers(0, 10_000), st.sampled_from(COSINES), st.integers(1, 12), st.integers(1, 12))
def test_every_interest_ranks_the_hits_of_its_user(seed: int, cosine: float, depth: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = interests(seed)
    table = rng.normal(size=(41, 5)).astype(np.float32)
    table[0] = 0
    known = Vocabulary(np.arange(100, 500, 10))  # 40 items; whatever ends in 5 is fresh
    leads = leading(vectors, cosine)
    lengths = rng.integers(0, depth + 1, int(leads.sum()))
    item_ids = [rng.choice(np.arange(100, 500, 5), length, replace=False) for length in lengths]
    scores = [np.sort(rng.normal(size=length))[::-1] for length in lengths]
    hits = Hits(
        np.concatenate([*item_ids, np.zeros(0, np.int64)]).astype(np.int64),
        np.concatenate([*scores, np.zeros(0)]).astype(np.float32),
        lengths,
    )
    got = as_if_each_searched(hits, leads, vectors, known, table, limit)
    wanted = plainly(hits, leads, vectors, known, table, limit)
    assert got.lengths.tolist() == [len(each) for each in wanted]
    assert got.item_ids.tolist() == [item for each in wanted for item, _ in each]
    np.testing.assert_allclose(got.scores, [score for each in wanted for _, score in each], rtol=1e-5, atol=1e-6)


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
