"""The numbers behind the evaluation report, on cases a reader can check by eye."""

import numpy as np
import pytest

from mind.evaluation import analysis, interests, metrics
from mind.evaluation.evaluate import measure
from mind.evaluation.retrieval import nearest_items
from mind.sequences import EvalCases
from tests.server.test_metrics import sequences


def test_curves_are_the_metrics_at_every_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "CELLS", 50)  # several batches
    rng = np.random.default_rng(0)
    ranked = np.array([rng.permutation(40)[:12] for _ in range(30)])
    targets = sequences(*(rng.integers(0, 40, rng.integers(1, 20)).tolist() for _ in range(30)))
    measured = measure(ranked, EvalCases(targets, targets))
    cutoffs = (1, 5, 12)
    assert measured.curves.at(cutoffs) == pytest.approx(metrics.report(ranked, targets, cutoffs))
    assert list(measured.curves.at(cutoffs)) == metrics.names(cutoffs)
    assert measured.recall.mean() == pytest.approx(measured.curves.recall[-1])
    assert (measured.hit == metrics.hits(ranked, targets)).all()


def test_hits_where_a_batch_of_users_has_no_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "CELLS", 1)
    assert analysis.hit_matrix(np.array([[5], [5]]), sequences([], [5])).tolist() == [[False], [True]]


def test_mean_and_its_interval() -> None:
    found = analysis.mean(np.array([0.0, 1.0, 0.0, 1.0]))
    # the variance is 4 * 0.25 / 3, its standard error sqrt(1/3 / 4)
    assert found.mean == 0.5 and found.half_width == pytest.approx(1.96 * (1 / 12) ** 0.5)
    assert analysis.mean(np.array([0.25])) == analysis.Mean(0.25, None)


def test_length_buckets_are_fifths() -> None:
    buckets, bucket = analysis.length_buckets(np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert [(one.low, one.high, one.users) for one in buckets] == [
        (1, 2, 2),
        (3, 4, 2),
        (5, 6, 2),
        (7, 8, 2),
        (9, 10, 2),
    ]
    assert bucket.tolist() == [4, 0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_equal_lengths_stay_together() -> None:
    buckets, bucket = analysis.length_buckets(np.array([3, 3, 3, 3, 3, 3, 3, 3, 3, 9]))
    assert [(one.low, one.high, one.users) for one in buckets] == [(3, 3, 9), (9, 9, 1)]
    assert [one.mean for one in analysis.by_length(np.array([0.5] * 9 + [1.0]), bucket)] == [0.5, 1]
    assert len(analysis.length_buckets(np.array([7]))[0]) == 1


def test_popularity_buckets_hold_a_third_of_the_clicks_each() -> None:
    # 12 clicks, most popular first: rows 2 (4), 4 (3), 1 and 3 (2), 5 (1), 6 (0); a third is 4 clicks
    bucket = analysis.popularity_buckets(np.array([2, 4, 2, 3, 1, 0]))
    assert bucket.tolist() == [3, 1, 0, 2, 1, 2, 2]  # row 0, the unknown item, is in none


def test_recall_by_popularity() -> None:
    bucket = np.array([3, 0, 1, 1, 2])
    rows = np.array([[1, 2], [3, 4]])
    hit = np.array([[True, True], [False, True]])
    wanted = np.array([1, 2, 3, 3, 4, 0])
    assert analysis.by_popularity(rows, hit, wanted, bucket) == [1.0, pytest.approx(1 / 3), 1.0]
    assert analysis.by_popularity(rows, hit & False, np.array([1]), bucket) == [0.0, None, None]


def test_repeated_targets_are_one_pair() -> None:
    targets = sequences([20, 10, 20], [20])
    assert analysis.distinct_pairs(targets, np.array([2, 0, 2, 2])).tolist() == [0, 2, 2]


def test_spread_over_the_catalogue() -> None:
    rows = np.array([[1, 2], [1, 3], [1, 0]])
    seen = np.array([[True, False], [False, False], [False, False]])
    found = analysis.spread(rows, seen, np.array([9, 5, 5, 1]))
    assert found.coverage == [1 / 4, 3 / 4]
    assert found.top_share == 3 / 5  # item 1, the most popular of 4, takes 3 of 5 places
    assert found.seen == 1 / 5
    assert found.gini == pytest.approx(2 * (1 * 0 + 2 * 1 + 3 * 1 + 4 * 3) / (4 * 5) - 5 / 4)


def test_gini_of_equal_and_of_extreme_counts() -> None:
    assert analysis.gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert analysis.gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)
    assert analysis.gini(np.array([0, 0])) == 0


def test_cosines_ignore_lengths_and_zero_vectors() -> None:
    vectors = np.array([[[2, 0], [0, 5], [1, 1], [0, 0]]], np.float32)
    half = 0.5**0.5
    assert interests.cosines(vectors)[0].tolist() == [
        pytest.approx(row) for row in ([1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0])
    ]


def test_which_interest_found_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    items = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.6]], np.float32)
    vectors = np.array([[[2, 0], [0, 1]], [[0, 1], [0, 1]]], np.float32)
    rows = nearest_items(vectors, items, 4)
    assert rows.tolist() == [[1, 3, 2, 0], [2, 3, 1, 0]]
    for cells in (analysis.CELLS, 1):
        monkeypatch.setattr(analysis, "CELLS", cells)
        assert interests.found_by(vectors, items, rows).tolist() == [[0, 0, 1, -1], [0, 0, 0, -1]]


def test_how_distinct_interests_are() -> None:
    vectors = np.array([[[1, 0], [0, 1]], [[1, 0], [1, 0]], [[0, 0], [0, 0]]], np.float32)
    interest = np.array([[0, 0, 1, 0], [1, 1, 1, -1], [0, 0, 0, 0]])  # the third user has no history and is left out
    own_rows = np.array([[[1, 2, 3], [3, 4, 5]]])
    found = interests.interests(vectors, interest, own_rows, np.array([0]), [0.25, 0.5], 0.75)
    assert found.users == 2
    assert found.cosine == [[1, 0.5], [0.5, 1]]
    assert found.cosine_quartiles == [0.25, 0.5, 0.75]
    assert (found.histogram_edges[0], found.histogram_edges[-1]) == (0, 1)
    assert found.histogram_users[0] == found.histogram_users[-1] == 1 and sum(found.histogram_users) == 2
    assert found.found == [3 / 7, 4 / 7]
    assert found.contributing == [0.5, 0.5]  # one user's list draws on one interest, the other's on two
    assert found.largest_part == pytest.approx((3 / 4 + 1) / 2)
    assert found.overlap == [[1, pytest.approx(1 / 3)], [pytest.approx(1 / 3), 1]]


def test_users_with_one_interest_say_nothing_of_how_distinct_interests_are() -> None:
    vectors = np.array([[[1, 0], [0, 0]], [[1, 0], [1, 0]], [[0, 2], [0, 0]]], np.float32)
    own_rows = np.array([[[1, 2], [0, 0]], [[1, 2], [2, 3]], [[3, 4], [0, 0]]])
    found = interests.interests(vectors, np.zeros((3, 2), np.int64), own_rows, np.arange(3), [0.5, 0.25], 0.5)
    assert found.having == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert found.cosine == [[1, 1], [1, 1]] and found.cosine_quartiles == [1, 1, 1]
    assert found.overlap == [[1, 0.5], [0.5, 1]]
    alone = interests.interests(vectors[:1], np.zeros((1, 2), np.int64), own_rows[:1], np.arange(1), [0.5, 0.0], 0.5)
    assert alone.having == [1, 0] and alone.overlap == [[1, 0], [0, 1]]


def test_agreement_of_served_and_exact_lists() -> None:
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 0]])
    served = np.array([[2, 1, 9, 3], [5, 6, 7, 0]])
    found = analysis.agreement(exact, served, (1, 4))
    assert found.found == {1: 0.5, 4: pytest.approx((3 / 4 + 1) / 2)}
    assert found.identical == 0.5


def test_example_users_are_chosen_by_rule() -> None:
    recall = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0.9, 0.8])
    chosen = analysis.example_users(recall, seed=1, each=2)
    assert chosen["highest recall"] == [8, 9]
    assert sorted(chosen["nearest to the median"]) == [2, 3]  # the median is 0.25
    assert len(chosen["no hit"]) == 2 and set(chosen["no hit"]) <= {0, 6, 7}
    assert chosen == analysis.example_users(recall, seed=1, each=2)
    assert sum(map(len, analysis.example_users(np.array([0.5]), 1).values())) == 1
