"""Interests that are alike become one, whatever the order, and the others stay as they are."""

import numpy as np

from mind.joining import cosines, counts, joined

EAST, NORTH = [4.0, 0.0], [0.0, 2.0]


def user(*vectors: list[float]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([vectors], np.float32)


def test_alike_interests_become_their_mean_and_take_the_place_of_the_first() -> None:
    found = joined(user(NORTH, EAST, [2, 0], [0, 4]), 0.9)
    assert found.tolist() == [[[0, 3], [3, 0], [0, 0], [0, 0]]]
    assert counts(found).tolist() == [2] and found.dtype == np.float32


def test_none_are_joined_at_a_cosine_of_one_and_zero_stays_zero() -> None:
    same = user(EAST, EAST, NORTH, [0, 0])
    assert joined(same, 1) is same
    assert joined(same, 0.9).tolist() == [[EAST, NORTH, [0, 0], [0, 0]]]
    assert joined(user([0, 0], EAST, [0, 0]), 0.5).tolist() == [[EAST, [0, 0], [0, 0]]]
    assert joined(np.zeros((0, 4, 2), np.float32), 0.5).shape == (0, 4, 2)


def test_what_is_alike_to_something_alike_joins_too_in_any_order() -> None:
    """0, 20, 40 and 90 degrees: neighbours of 20 degrees are alike (0.94), the ends of the chain are not (0.77)."""
    angles = np.radians([0, 20, 40, 90])
    fan = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 0, 1]):
        found = joined(fan[order][None], 0.9)
        assert counts(found).tolist() == [2]
        np.testing.assert_allclose(
            sorted(found[0, :2].tolist()), sorted([fan[3].tolist(), fan[:3].mean(0).tolist()]), atol=1e-6
        )


def test_a_user_has_the_same_interests_alone_and_in_a_batch() -> None:
    vectors = np.random.default_rng(2).normal(size=(50, 4, 8)).astype(np.float32)
    together = joined(vectors, 0.3)
    assert 1 < counts(together).mean() < 4
    for number in range(50):
        assert joined(vectors[number : number + 1], 0.3).tolist() == together[number : number + 1].tolist()
    assert np.abs(cosines(vectors)[:, range(4), range(4)] - 1).max() < 1e-6
