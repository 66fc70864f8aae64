"""Which items a new item follows."""

import numpy as np
import pytest

from mind.clicks_before import MAX_BEFORE, Before, ClicksBefore
from mind.training.following import item_neighbours
from mind.vocabulary import Vocabulary
from tests.mind.test_fresh_items import KNOWN, sequences


def weights(before: Before) -> dict[int, float]:
    return dict(zip(before.item_id.tolist(), before.weight.tolist(), strict=True))


def test_a_new_item_follows_what_was_clicked_soon_before_and_not_after() -> None:
    # 10 was clicked three times, and one click more is assumed: 7 followed at once, once a click later, once not at all
    clicks = sequences([10, 7, 30], [10, 99, 7, 7], [10], [20, *[30] * 20, 7], [8, 7])
    counts = ClicksBefore(clicks, KNOWN)
    own = weights(counts.of(7))
    assert own == pytest.approx({10: ((1 + 0.8 + 0.64) / 4) ** 0.5, 30: (sum(0.8**n for n in range(20)) / 22) ** 0.5})
    assert list(own) == [30, 10] and list(weights(counts.of(99))) == [10] and weights(counts.of(5)) == {}


def test_new_items_follow_as_those_of_a_training_do() -> None:
    rng = np.random.default_rng(0)
    users = [rng.integers(1, 31, rng.integers(1, 30)).tolist() for _ in range(40)]
    known = Vocabulary(np.arange(1, 30))  # all but 30
    before = ClicksBefore(sequences(*users), known).of(30)
    clicks = np.concatenate(users).astype(np.int32)
    trained = item_neighbours(clicks, np.cumsum([0, *map(len, users)]), 30, seed=0)
    as_trained = {
        row: float(trained.weight[own][trained.row[own] == 30][0])
        for row in range(1, 30)
        if 30 in trained.row[own := slice(*trained.offsets[row : row + 2])]
    }
    assert weights(before) == pytest.approx(as_trained, rel=1e-3)


def test_a_new_item_follows_no_more_than_the_most_frequent() -> None:
    known = Vocabulary(np.arange(100, 200))
    clicks = sequences(*([item, 7] for item in range(100, 200)), *([item, 7] for item in range(150, 200)))
    before = ClicksBefore(clicks, known).of(7)
    assert before.item_id.tolist() == [*range(150, 150 + MAX_BEFORE)]
