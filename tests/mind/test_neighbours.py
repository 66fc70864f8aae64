"""The items that follow each item: how they are counted, what users get of them, and what a model may hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import load_artifact, write_artifact
from mind.errors import ArtifactError
from mind.neighbours import FADING, MAX_NEIGHBOURS, AddedNeighbours, ItemNeighbours
from mind.training.following import item_neighbours
from tests.artifacts import hyper_parameters_of, make_weights, with_neighbours


def counted(*rows: list[int], items: int) -> ItemNeighbours:
    clicks = np.array([item for row in rows for item in row], np.int32)
    return item_neighbours(clicks, np.cumsum([0, *map(len, rows)]), items, seed=0)


def of(neighbours: ItemNeighbours, row: int) -> dict[int, float]:
    own = slice(*neighbours.offsets[row : row + 2])
    return dict(zip(neighbours.row[own].tolist(), neighbours.weight[own].tolist(), strict=True))


def test_neighbours_are_what_came_soon_after_and_not_before() -> None:
    neighbours = counted([1, 2], [1, 2], [1, 3, 2], [4, 4], items=5)
    # 1 was clicked three times, and one more is assumed: 2 followed at once twice and a click later once
    assert of(neighbours, 1) == pytest.approx({2: (2.8 / 4) ** 0.5, 3: (1 / 4) ** 0.5}, abs=1e-3)
    assert list(of(neighbours, 1)) == [2, 3]
    assert of(neighbours, 2) == {} and of(neighbours, 4) == {} and of(neighbours, 5) == {}
    assert not neighbours.problem(5) and neighbours.bonus == 0


def test_an_item_keeps_the_strongest_few() -> None:
    rng = np.random.default_rng(0)
    neighbours = counted(*(rng.integers(1, 201, 30).tolist() for _ in range(400)), items=200)
    assert np.diff(neighbours.offsets).max() == MAX_NEIGHBOURS
    assert all(np.all(np.diff(list(of(neighbours, row).values())) <= 0) for row in range(1, 201))


def test_users_get_the_neighbours_of_their_newest_clicks_and_fewer_of_older_ones() -> None:
    weight = np.linspace(1, 0.51, 50).astype(np.float16)
    row = np.concatenate([np.arange(101, 151), np.arange(201, 250), [101]]).astype(np.int32)
    offsets = np.concatenate([[0, 0, 50], np.full(299, 100)])
    neighbours = ItemNeighbours(offsets, row, np.concatenate([weight, weight[:49], [1]]).astype(np.float16), 2.0)
    near = neighbours.near(np.array([[1, 2, 0], [9, 0, 0], [2, 1, 0]]), np.array([2, 1, 2]))
    first, none, last = (near.row[near.user == user].tolist() for user in range(3))
    assert first == [*range(101, 126), *range(201, 250)] and none == []  # 101 twice: after both clicks
    assert last == [*range(101, 151), *range(201, 226)]
    assert near.bonus[0] == pytest.approx(2 * (1 + FADING * 1))
    assert near.bonus[1] == pytest.approx(2 * FADING * float(weight[1]))
    scores = np.zeros((2, 300), np.float32)
    near.add(scores, start=1)
    assert scores[1, 100] == np.float32(2) and not scores[0].any()
    np.testing.assert_array_equal(near.part(2, 3).row, last)


def test_added_items_are_merged_into_the_lists_of_items_by_weight() -> None:
    """Of the click before the newest, 25 neighbours count: the added ones push the weakest of the model out."""
    weight = np.linspace(1, 0.51, 50).astype(np.float16)
    row = np.concatenate([np.arange(101, 151), np.arange(101, 151)]).astype(np.int32)
    offsets = np.concatenate([[0, 0, 50], np.full(299, 100)])  # of 300 items, 1 and 2 have the neighbours 101, ..., 150
    neighbours = ItemNeighbours(offsets, row, np.concatenate([weight, weight]), 2.0)
    more = np.array([1.5, 0.995, weight[3]], np.float16)  # 301 is the strongest, 302 the third, 303 equals the fourth
    added = AddedNeighbours(np.array([2, 2, 2]), np.array([301, 302, 303]), more)
    clicks = np.array([[1, 2, 0], [2, 1, 0], [1, 1, 0], [9, 2, 0]]), np.array([2, 2, 2, 2])
    newest, before, without, alone = (neighbours.near(*clicks, added=added).part(user, user + 1) for user in range(4))
    assert newest.row.tolist() == [*range(101, 148), 301, 302, 303]
    assert before.row.tolist() == [*range(101, 151), 301, 302, 303]  # all 50 of the newest click, item 1
    bonus = dict(zip(before.row.tolist(), before.bonus.tolist(), strict=True))
    assert bonus[301] == pytest.approx(2 * FADING * 1.5)
    assert bonus[122] == pytest.approx(2 * (1 + FADING) * float(weight[21])) and bonus[123] == 2 * float(weight[22])
    plain = neighbours.near(*clicks)
    np.testing.assert_array_equal(without.bonus, plain.part(2, 3).bonus)
    assert len(alone.row) == MAX_NEIGHBOURS and alone.row[-1] == 303
    similar = neighbours.following(np.array([0, 0, 1]), np.array([1, 2, 1]), added)
    assert similar.bonus[(similar.user == 0) & (similar.row == 302)] == pytest.approx(float(more[1]) / 2)
    assert similar.row[similar.user == 1].max() == 150


def test_a_model_brings_its_neighbours_along(tmp_path: Path) -> None:
    weights = with_neighbours(make_weights(), bonus=1.5)
    found = load_artifact(write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {})).weights.neighbours
    assert found is not None and found.bonus == 1.5
    np.testing.assert_array_equal(found.weight, weights.neighbour_weight)
    bare = make_weights()
    assert load_artifact(write_artifact(tmp_path, hyper_parameters_of(bare), bare, {}, {})).weights.neighbours is None


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("neighbour_row", 3, 201, "rows outside 1 to 200"),
        ("neighbour_row", 3, 0, "rows outside 1 to 200"),
        ("neighbour_offsets", 1, -1, "must ascend from 0"),
        ("neighbour_offsets", 5, 5_000, "must ascend from 0"),
        ("neighbour_weight", 2, np.nan, "0 or more, and finite"),
        ("neighbour_bonus", 0, -1, "0 or more, and finite"),
    ],
)
def test_damaged_neighbours_are_refused(tmp_path: Path, name: str, place: int, value: float, words: str) -> None:
    weights = with_neighbours(make_weights())
    array = getattr(weights, name).copy()
    array[place] = value
    with pytest.raises(ArtifactError, match=words):
        write_artifact(tmp_path, hyper_parameters_of(weights), replace(weights, **{name: array}), {}, {})


def test_too_many_neighbours_are_refused(tmp_path: Path) -> None:
    weights = with_neighbours(make_weights(), each=MAX_NEIGHBOURS + 1)
    with pytest.raises(ArtifactError, match="has 51 neighbours, the limit is 50"):
        write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {})
