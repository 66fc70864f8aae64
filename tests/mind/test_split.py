"""The splits: of users 8:1:1, by time, and by the last clicks of every user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.data.interactions import Interactions
from mind.data.split import split, split_by_time, split_last_out
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


def test_nothing_after_a_moment_is_trained_on() -> None:
    """Users 1 to 4 come at the times 0, 4, 8 and 12, and click seven times each."""
    user_id = np.repeat([1, 2, 3, 4], 7)
    time = np.tile(np.arange(7), 4) + np.repeat([0, 4, 8, 12], 7)
    parts = split_by_time(Interactions(user_id, user_id * 100 + time, time), 6, 10)
    assert {user: parts.train[at].tolist() for at, user in enumerate(parts.train.user_id.tolist())} == {
        1: [100, 101, 102, 103, 104, 105],
        2: [204, 205],
    }
    found = {}
    for name, cases in (("valid", parts.valid), ("test", parts.test)):
        for at, user in enumerate(cases.history.user_id.tolist()):
            found[name, user] = (cases.history[at].tolist(), cases.target[at].tolist())
    assert found == {
        ("valid", 1): ([100, 101, 102, 103, 104, 105], [106]),
        ("valid", 2): ([204, 205], [206, 207, 208, 209]),
        ("valid", 3): ([], [308, 309]),
        ("test", 2): ([204, 205, 206, 207, 208, 209], [210]),
        ("test", 3): ([308, 309], [310, 311, 312, 313, 314]),
        ("test", 4): ([], [412, 413, 414, 415, 416, 417, 418]),
    }
    assert parts.histories_are_trained


def test_the_last_clicks_of_every_user_are_held_out() -> None:
    parts = split_last_out(interactions([4, 5, 9]), 2, min_interactions=3)
    assert parts.dropped_users == 1
    assert [parts.train[at].tolist() for at in range(2)] == [[200], [300, 301, 302, 303, 304]]
    assert [parts.valid.history[at].tolist() for at in range(2)] == [[200], [300, 301, 302, 303, 304]]
    assert [parts.valid.target[at].tolist() for at in range(2)] == [[201, 202], [305, 306]]
    assert [parts.test.history[at].tolist() for at in range(2)] == [[200, 201, 202], list(range(300, 307))]
    assert [parts.test.target[at].tolist() for at in range(2)] == [[203, 204], [307, 308]]


def test_moments_and_clicks_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="test_from must be after valid_from"):
        split_by_time(interactions([9] * 3), 5, 5)
    with pytest.raises(
        DataError, match="train would have no user: of 3 users nobody has interactions then; choose other"
    ):
        split_by_time(interactions([9] * 3), 0, 5)
    with pytest.raises(DataError, match="test would have no user"):
        split_by_time(interactions([9] * 3), 5, 50)
    with pytest.raises(DataError, match="train would have no user: of 0 users nobody"):
        split_last_out(interactions([5] * 3), 3)
    with pytest.raises(ConfigError, match="0 clicks are held out of every user, it must be at least 1"):
        split_last_out(interactions([5] * 3), 0)
