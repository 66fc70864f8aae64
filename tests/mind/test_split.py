"""The split of users: 8:1:1, nobody in two parts, 80 % of a held-out user's items as history."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.data.interactions import Interactions
from mind.data.split import split
from mind.errors import ConfigError, DataError


def interactions(lengths: list[int]) -> Interactions:
    """User u (from 1) has `lengths[u - 1]` interactions with the items 100 u, 100 u + 1, ..."""
    user_id = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    time = np.concatenate([np.arange(length) for length in lengths])
    return Interactions(user_id, user_id * 100 + time, time)


def test_users_are_split_8_1_1() -> None:
    parts = split(interactions([5] * 100))
    users = (parts.train.user_id, parts.valid.history.user_id, parts.test.history.user_id)
    assert [len(part) for part in users] == [80, 10, 10]
    assert sorted(np.concatenate(users).tolist()) == list(range(1, 101))
    assert users[0].tolist() != list(range(1, 81)), "the users are not shuffled"


@pytest.mark.parametrize(
    ("length", "history"),
    [(5, 4), (6, 4), (7, 5), (9, 7), (10, 8), (11, 8)],
)
def test_history_is_the_first_80_percent(length: int, history: int) -> None:
    parts = split(interactions([length] * 3))
    for cases in (parts.valid, parts.test):
        first = cases.history.user_id[0] * 100
        assert cases.history[0].tolist() == list(range(first, first + history))
        assert cases.target[0].tolist() == list(range(first + history, first + length))
        assert cases.target.user_id.tolist() == cases.history.user_id.tolist()


def test_short_users_are_dropped_and_counted() -> None:
    parts = split(interactions([5, 4, 5, 1, 5, 4]))
    assert parts.dropped_users == 3
    users = np.concatenate([parts.train.user_id, parts.valid.history.user_id, parts.test.history.user_id])
    assert sorted(users.tolist()) == [1, 3, 5]
    assert split(interactions([5, 4, 5, 1, 5, 4]), min_interactions=4).dropped_users == 1


def test_repeated_clicks_stay() -> None:
    clicks = interactions([5] * 3)
    clicks.item_id[:] = 8
    parts = split(clicks)
    assert parts.train[0].tolist() == [8] * 5
    assert parts.test.target[0].tolist() == [8]


def test_the_seed_decides() -> None:
    clicks = interactions([5] * 100)
    first, again, other = split(clicks, seed=1), split(clicks, seed=1), split(clicks, seed=2)
    assert first.train.user_id.tolist() == again.train.user_id.tolist()
    assert first.train.user_id.tolist() != other.train.user_id.tolist()


@given(st.lists(st.integers(1, 12), min_size=3, max_size=40), st.integers(0, 5))
def test_nothing_is_lost_or_repeated(lengths: list[int], seed: int) -> None:
    lengths = [*lengths, 5, 5, 5]
    clicks = interactions(lengths)
    parts = split(clicks, seed=seed)
    found = {int(user): parts.train[row].tolist() for row, user in enumerate(parts.train.user_id)}
    for cases in (parts.valid, parts.test):
        assert len(cases) > 0
        for row, user in enumerate(cases.history.user_id.tolist()):
            assert user not in found
            assert len(cases.history[row]) > 0
            assert len(cases.target[row]) > 0
            found[user] = cases.history[row].tolist() + cases.target[row].tolist()
    long_enough = [user for user, length in enumerate(lengths, start=1) if length >= 5]
    assert found == {user: clicks.item_id[clicks.user_id == user].tolist() for user in long_enough}


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (
            [9],
            r"1 of 1 users have 5 interactions or more \(the most is 9\); train, valid and test need at least 3 users",
        ),
        ([4, 3, 2, 1], r"0 of 4 users have 5 interactions or more \(the most is 4\)"),
        ([9, 9, 4], r"2 of 3 users"),
    ],
)
def test_too_few_users_are_refused(lengths: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(interactions(lengths))


def test_a_limit_without_room_for_a_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="min_interactions is 1, a history and a target need at least 2"):
        split(interactions([5] * 3), min_interactions=1)
