"""Sums of comparisons: quantiles, items that came and went, and what is told of two releases."""

import numpy as np
import pytest

from server.watching.item_counts import ItemCounts
from server.watching.shadow_answers import Answered, Compared, compared
from server.watching.shadow_figures import ShadowFigures
from server.watching.spread import MILLISECONDS, RATIOS, SHARES, Spread
from tests.server.test_comparison import lists


def answered(*own: list[int], interests: list[bool] | None = None, work_ms: float = 1) -> Answered:
    """The answer to users, who all have interests by default."""
    return Answered(lists(*own), np.array(interests or [True] * len(own)), work_ms)


def both(live: Answered, shadow: Answered, top_k: int = 3, known: bool = True) -> Compared:
    return compared(live, shadow, top_k, np.full(len(shadow.lists.item_ids), known))


@pytest.mark.parametrize("classes", [SHARES, MILLISECONDS, RATIOS])
def test_quantiles_are_close(classes: np.ndarray) -> None:  # type: ignore[type-arg]
    values = np.random.default_rng(0).uniform(classes[1], min(classes[-1], 100), 10_000)
    spread = Spread(classes)
    for part in np.array_split(values, 7):
        spread.add(part)
    assert spread.count == 10_000
    assert spread.mean == pytest.approx(values.mean())
    for share in (0.05, 0.5, 0.95):
        assert spread.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.03, abs=0.006)


def test_a_spread_keeps_values_beyond_its_classes_at_the_ends() -> None:
    spread = Spread(RATIOS)
    spread.add([0, 1e9])
    assert spread.quantile(0.05) == pytest.approx(0.001)
    assert spread.quantile(0.95) == pytest.approx(1000)
    assert Spread(RATIOS).quantile(0.5) == Spread(RATIOS).mean == 0


def test_item_counts_keep_those_that_change_most() -> None:
    counts = ItemCounts(most=4)
    counts.add(np.array([1, 1, 1, 2, 3]), 1)
    counts.add(np.array([4, 4, 5, 3]), -1)  # 3 comes and goes
    assert counts.top(10, 1) == [(1, 3), (2, 1)]
    assert counts.top(10, -1) == [(4, -2), (5, -1)]
    counts.trim()
    assert counts.top(10, 1) == [(1, 3)]
    assert counts.top(10, -1) == [(4, -2)]


def test_what_is_told() -> None:
    figures = ShadowFigures()
    # The first user has interests in both, the second in live alone, the third in neither; the fourth gets nothing.
    live = answered([1, 2, 3], [4, 5, 6], [7], [], interests=[True, True, False, True], work_ms=2)
    shadow = answered([2, 1, 8], [7], [7], [], interests=[True, False, False, True], work_ms=5)
    figures.add(both(live, shadow, known=False))
    report = figures.report()
    assert report.counts == {
        "users_both": 2,
        "users_live": 1,
        "users_shadow": 0,
        "users_neither": 1,
        "candidates": 5,
        "new_candidates": 5,
        "live_short": 2,
        "live_empty": 1,
        "shadow_short": 3,
        "shadow_empty": 1,
    }
    assert report.values["overlap"].count == 1  # popular lists and two empty lists say nothing
    assert report.values["overlap"].mean == pytest.approx(2 / 3)
    assert report.values["rbo"].mean == pytest.approx(0.63, abs=0.01)
    assert report.values["latency_ratio"].p50 == pytest.approx(2.5, rel=0.01)
    assert report.values["live_ms"].p95 == pytest.approx(2, rel=0.025)
    assert report.gained == [(8, 1)]
    assert report.lost == [(3, -1)]


def test_a_list_that_became_empty_has_no_overlap() -> None:
    figures = ShadowFigures()
    figures.add(both(answered([1, 2]), answered([])))
    report = figures.report()
    assert (report.values["overlap"].count, report.values["overlap"].mean) == (1, 0)
    assert report.values["score_ratio"].count == 0


def test_scores_of_another_scale() -> None:
    figures = ShadowFigures()
    for user in range(1, 101):
        live, shadow = answered([user]), answered([10 * user])
        figures.add(both(live, shadow))
    report = figures.report()
    assert report.values["score_ratio"].p05 == pytest.approx(10, rel=0.01)
    assert report.values["score_ratio"].p95 == pytest.approx(10, rel=0.01)
    ids = np.arange(1, 101)
    deviation = np.sqrt((ids.var() + (10 * ids).var()) / 2)
    assert report.score_difference == pytest.approx((10 * ids.mean() - ids.mean()) / deviation)


def test_scores_that_are_not_positive_have_no_ratio() -> None:
    figures = ShadowFigures()
    figures.add(both(answered([-4, 5], [2]), answered([-8], [4]), top_k=2))
    assert figures.report().values["score_ratio"].count == 1
