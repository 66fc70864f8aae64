"""Overlap, rank-biased overlap and medians of many users at once against plain formulas for one."""

import numpy as np
import pytest

from server.watching.comparison import Lists, compare, medians


def lists(*own: list[int]) -> Lists:
    """The lists of users; an item's score is its id."""
    items = [np.array(each, np.int64) for each in own]
    ids = np.concatenate(items) if items else np.zeros(0, np.int64)
    return Lists(ids, ids.astype(np.float32), np.array(list(map(len, own)), np.int64))


def plain_rbo(one: list[int], other: list[int], p: float = 0.9) -> float:
    """Equation 32 of Webber, Moffat and Zobel (2010), written as it is printed."""
    shorter, longer = sorted((one, other), key=len)
    s, l = len(shorter), len(longer)  # noqa: E741 - the paper's names
    if not l:
        return 1.0
    x = [len(set(one[:d]) & set(other[:d])) for d in range(l + 1)]
    if not s:
        return 0.0
    first = sum(x[d] / d * p**d for d in range(1, l + 1))
    second = sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    return (1 - p) / p * (first + second) + ((x[l] - x[s]) / l + x[s] / s) * p**l


def test_rank_biased_overlap_by_hand() -> None:
    # In common at depths 1 to 3: 0, 2, 2. Agreement: 0, 1, 2/3. 0.1/0.9 (1 * 0.81 + 2/3 * 0.729) + 2/3 * 0.729 = 0.63
    found = compare(lists([1, 2, 3]), lists([2, 1, 4]))
    assert found.rbo[0] == pytest.approx(0.1 / 0.9 * (0.81 + 0.486) + 0.486)
    assert found.rbo[0] == pytest.approx(0.63)


@pytest.mark.parametrize(
    ("one", "other", "overlap", "rbo"),
    [
        ([1, 2, 3], [1, 2, 3], 1, 1),
        ([1, 2, 3], [4, 5, 6], 0, 0),
        ([1, 2, 3, 4, 5], [2, 3, 4, 1, 5], 1, 0.828),
        ([1, 2, 3, 4], [1, 2], 0.5, 1),  # of equal beginnings, the shorter list is believed to go on like that
        ([1, 2], [], 0, 0),
        ([], [], 1, 1),
    ],
)
def test_one_user(one: list[int], other: list[int], overlap: float, rbo: float) -> None:
    found = compare(lists(one), lists(other))
    assert found.overlap[0] == pytest.approx(overlap)
    assert found.rbo[0] == pytest.approx(rbo, abs=1e-6)


def test_what_came_and_what_went() -> None:
    found = compare(lists([1, 2, 3], [1, 2], []), lists([3, 4], [2, 1], [9]))
    assert sorted(found.gained.tolist()) == [4, 9]
    assert sorted(found.lost.tolist()) == [1, 2]


def test_the_same_item_of_other_users_is_no_overlap() -> None:
    found = compare(lists([1], [2]), lists([2], [1]))
    assert found.overlap.tolist() == [0, 0]
    assert found.rbo.tolist() == [0, 0]


def test_many_users_at_once_get_what_each_gets_alone() -> None:
    rng = np.random.default_rng(0)
    one, other = ([rng.choice(60, rng.integers(0, 40), replace=False).tolist() for _ in range(200)] for _ in range(2))
    found = compare(lists(*one), lists(*other))
    assert found.rbo == pytest.approx([plain_rbo(*pair) for pair in zip(one, other, strict=True)], abs=1e-6)
    shares = [len(set(a) & set(b)) / max(len(a), len(b)) if a or b else 1 for a, b in zip(one, other, strict=True)]
    assert found.overlap == pytest.approx(shares)
    lost = [item for a, b in zip(one, other, strict=True) for item in a if item not in b]
    assert sorted(found.lost.tolist()) == sorted(lost)


def test_no_users() -> None:
    found = compare(lists(), lists())
    assert len(found.overlap) == len(found.rbo) == 0


def test_negative_and_large_ids() -> None:
    ends = [-(2**63), 2**63 - 1]
    assert compare(lists(ends), lists(ends[::-1])).overlap.tolist() == [1]


def test_medians() -> None:
    found = medians(lists([5, 1, 3], [], [4, 1], [7]))
    assert found.tolist()[::2] == [3, 2.5]
    assert np.isnan(found[1])
    assert found[3] == 7


def test_lists_of_some_users() -> None:
    kept = lists([1, 2], [3], [4, 5]).of(np.array([True, False, True]))
    assert (kept.item_ids.tolist(), kept.lengths.tolist()) == ([1, 2, 4, 5], [2, 2])
