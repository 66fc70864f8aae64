"""Vectors for items that no training has seen."""

import numpy as np
import pyarrow as pa
import pytest

from mind.fresh_items import MAX_NEIGHBOURS, AttributeVectors, Neighbours, count_neighbours, from_neighbours
from mind.sequences import Sequences
from mind.vocabulary import Vocabulary

KNOWN = Vocabulary(np.array([10, 20, 30]))
TABLE = np.array([[0, 0], [2, 0], [0, 2], [-2, 0]], np.float32)


def sequences(*users: list[int]) -> Sequences:
    return Sequences(np.arange(len(users)), np.cumsum([0, *map(len, users)]), np.concatenate(users).astype(np.int64))


def test_neighbours_are_weighed_by_the_cosine_of_their_users() -> None:
    # Item 7 was had by users 0 and 1, item 10 by 0 and 1 (twice by 0), item 20 by 1, 2 and 3; 8 and 9 without others.
    counted = dict(count_neighbours(sequences([10, 7, 10], [20, 10, 7], [20, 20], [20], [8], [-9]), KNOWN))
    assert list(counted) == [7]
    assert counted[7].item_id.tolist() == [10, 20]
    np.testing.assert_allclose(counted[7].weight, [2 / np.sqrt(2 * 2), 1 / np.sqrt(2 * 3)], atol=1e-6)


def test_no_more_than_the_heaviest_neighbours() -> None:
    known = Vocabulary(np.arange(100, 200))
    ((item_id, found),) = count_neighbours(sequences([*range(100, 200), 7], [*range(150, 200)]), known)
    assert item_id == 7 and found.item_id.tolist() == [*range(100, 100 + MAX_NEIGHBOURS)]  # had by fewer others


@pytest.mark.parametrize("users", [[[10, 20]], [[7]]])
def test_nothing_to_count(users: list[list[int]]) -> None:
    assert dict(count_neighbours(sequences(*users), KNOWN)) == {}


def test_a_vector_is_the_mean_of_its_neighbours_and_of_a_length_between() -> None:
    agreeing = from_neighbours(Neighbours(np.array([10]), np.ones(1, np.float32)), KNOWN, TABLE)
    assert agreeing is not None and agreeing.tolist() == [2, 0]
    apart = from_neighbours(Neighbours(np.array([10, 20, 999]), np.ones(3, np.float32)), KNOWN, TABLE)
    assert apart is not None
    # the mean is (1, 1), of length sqrt(2); its neighbours' length is 2, which is sqrt(2) times as long
    np.testing.assert_allclose(apart, np.array([1, 1]) * np.sqrt(2) ** (1 / 3), rtol=1e-6)
    assert from_neighbours(Neighbours(np.array([999]), np.ones(1, np.float32)), KNOWN, TABLE) is None
    assert from_neighbours(Neighbours(np.array([10, 30]), np.ones(2, np.float32)), KNOWN, TABLE) is None


def test_attributes_are_believed_as_far_as_they_tell_trained_items_apart() -> None:
    rng = np.random.default_rng(0)
    genre, year, flag = rng.integers(0, 4, 400), rng.integers(1980, 2020, 400), rng.random(400) < 0.5
    centre = rng.normal(size=(4, 8))
    vectors = (centre[genre] + 0.05 * (year[:, None] - 2000) + 0.1 * rng.normal(size=(400, 8))).astype(np.float32)
    columns = {
        "genres": pa.array([[f"g{one}"] for one in genre], pa.list_(pa.large_string())),
        "year": pa.array(year),
        "in_stock": pa.array(flag),
        "title": pa.array([f"title {one}" for one in range(400)], pa.large_string()),
    }
    learnt = AttributeVectors(columns, vectors)
    new = {
        "genres": pa.array([["g1"], ["g3", "unheard"], []], pa.list_(pa.large_string())),
        "year": pa.array([1985, 2015, 2000]),
        "in_stock": pa.array([True, False, True]),
        "title": pa.array(["a", "", "title 3"], pa.large_string()),
    }
    found, told = learnt.of(new)
    expected = np.stack([centre[1] - 0.75, centre[3] + 0.75, centre[genre].mean(0)])
    assert np.abs(found - expected).max() < 0.35 < np.abs(expected[0] - expected[1]).max()
    assert told.tolist() == [3, 3, 2]


def test_values_that_are_not_there_tell_nothing() -> None:
    columns = {
        "year": pa.array([2000, 2000, None], pa.int64()),
        "price": pa.array([None, 1.5, 2.5], pa.float64()),
        "in_stock": pa.array([True, True, None]),
        "maker": pa.array(["a", "a", None], pa.large_string()),
        "genres": pa.array([["g"], ["g"], None], pa.list_(pa.large_string())),
    }
    learnt = AttributeVectors(columns, TABLE[1:])
    found, told = learnt.of({name: pa.array([None], column.type) for name, column in columns.items()})
    assert told.tolist() == [0]
    np.testing.assert_allclose(found, TABLE[1:].mean(0)[None], atol=1e-6)
    year = learnt.of({name: pa.array([2000 if name == "year" else None], c.type) for name, c in columns.items()})[1]
    assert year.tolist() == [1]


def test_attributes_that_nobody_shares_tell_nothing() -> None:
    learnt = AttributeVectors({"maker": pa.array(["a", "a", "b"], pa.large_string())}, TABLE[1:])
    found, told = learnt.of({"maker": pa.array(["b", "", "c"], pa.large_string())})
    assert told.tolist() == [0, 0, 0]
    np.testing.assert_allclose(found, np.tile(TABLE[1:].mean(0), (3, 1)), atol=1e-6)
