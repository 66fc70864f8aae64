"""Metrics, exact search and baselines on cases a reader can check by eye."""

import math

import numpy as np
import pytest

from mind.encoder import NumpyEncoder
from mind.evaluation import baselines, metrics
from mind.evaluation.baselines import Pairs, co_occurrence, item_knn, most_popular
from mind.evaluation.ease import ease, item_weights
from mind.evaluation.retrieval import LeftOut, encode_histories, nearest_items, top_rows
from mind.evaluation.returns import measure_returns, share_returning
from mind.sequences import EvalCases, Sequences, pad_last
from mind.vocabulary import Vocabulary
from tests.artifacts import hyper_parameters_of, make_weights


def sequences(*rows: list[int]) -> Sequences:
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    return Sequences(np.arange(len(rows)), offsets, np.array([item for row in rows for item in row], np.int64))


def test_metrics_by_hand() -> None:
    candidates = np.array([[7, 8, 9], [7, 8, -1]])
    targets = sequences([9, 7, 4, 4], [5])
    scores = metrics.report(candidates, targets, (1, 3))
    # user 0 wants 3 different items and finds two, at ranks 1 and 3; user 1 finds nothing
    assert scores["recall@1"] == pytest.approx((1 / 3 + 0) / 2)
    assert scores["recall@3"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["hit_rate@3"] == 0.5
    gained = 1 / math.log2(2) + 1 / math.log2(4)
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert scores["ndcg@3"] == pytest.approx(gained / ideal / 2)
    assert scores["ndcg@1"] == pytest.approx(1 / 2)


def test_a_target_of_one_user_is_no_hit_for_another() -> None:
    assert metrics.hits(np.array([[1], [2]]), sequences([2], [1])).tolist() == [[False], [False]]


def test_pad_last_keeps_the_newest_from_the_left() -> None:
    rows, seq_len = pad_last(np.array([1, 2, 3, 4, 5]), np.array([0, 4, 4, 5]), 3)
    assert rows.tolist() == [[2, 3, 4], [0, 0, 0], [5, 0, 0]]
    assert seq_len.tolist() == [3, 0, 1]


def test_vocabulary_of_any_int64() -> None:
    vocabulary = Vocabulary(np.array([-(2**63), -5, 0, 2**62 + 1, 2**63 - 1]))
    asked = np.array([2**63 - 1, 0, 1, -(2**63), 2**62])
    assert vocabulary.item_index(asked).tolist() == [5, 3, 0, 1, 0]


def test_top_rows_order_ties_by_row_and_pad() -> None:
    scores = np.array([[1.0, 3.0, 3.0, 0.0]], np.float32)
    assert top_rows(scores, 3).tolist() == [[2, 3, 1]]
    assert (
        top_rows(np.tile(np.array([0.0, 1.0, 1.0], np.float32), 40)[None], 50).tolist()[0]
        == [row for row in range(1, 121) if row % 3 != 1][:50]
    )
    assert top_rows(scores, 6).tolist() == [[2, 3, 1, 4, 0, 0]]


def test_exact_search_takes_the_best_interest_of_each_item() -> None:
    items = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.6]], np.float32)
    interests = np.array([[[2, 0], [0, 1]]], np.float32)  # scores 2, 1, 1.2
    assert nearest_items(interests, items, 3).tolist() == [[1, 3, 2]]


def test_batched_encoding_drops_unknown_items_and_keeps_the_newest() -> None:
    weights = make_weights(maxlen=8)
    histories = sequences([1000, 5, 1007], [], [1000 + 7 * i for i in range(20)])
    encoder = NumpyEncoder(weights, hyper_parameters_of(weights))
    vectors = encode_histories(encoder, Vocabulary(weights.item_id), histories, 8, batch_size=2)
    np.testing.assert_allclose(vectors[0], encoder.encode(np.array([[1, 2]]), np.array([2]))[0], rtol=1e-5, atol=1e-7)
    assert not vectors[1].any()
    np.testing.assert_allclose(
        vectors[2], encoder.encode(np.arange(13, 21)[None], np.array([8]))[0], rtol=1e-5, atol=1e-7
    )


def test_popular_is_the_same_for_everyone() -> None:
    ranked = most_popular(Vocabulary(np.array([10, 20, 30])), np.array([1, 5, 5]), sequences([10], []), 2)
    assert ranked.tolist() == [[20, 30], [20, 30]]


def test_co_occurrence_counts_users_and_prefers_new_history() -> None:
    train = sequences([10, 20], [10, 20, 20], [10, 30], [40, 30])
    vocabulary = Vocabulary(np.array([10, 20, 30, 40]))
    ranked = co_occurrence(Pairs.of(vocabulary, train), sequences([10], [10, 40], [99]), 2)
    # with 10: 20 twice, 30 once; with 10 then 40: 20 gets 0.8 * 2, 30 gets 0.8 * 1 + 1
    assert ranked.tolist() == [[20, 30], [30, 20], [-1, -1]]


def test_of_too_many_pairs_whole_users_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    train = sequences(*([3 * user, 3 * user + 1, 3 * user + 2, 3 * user] for user in range(20)))  # 9 pairs each
    vocabulary = Vocabulary(np.arange(60))
    monkeypatch.setattr(baselines, "MAX_PAIRS", 20 * 9)
    assert Pairs.of(vocabulary, train).counted == 20
    monkeypatch.setattr(baselines, "MAX_PAIRS", 100)
    pairs = Pairs.of(vocabulary, train, seed=1)
    assert pairs.counted == 11 and pairs.users.sum() == 33  # 99 pairs
    one, other = pairs.together.nonzero()
    assert len(one) == 11 * 6 and (one // 3 == other // 3).all()
    assert (pairs.together != Pairs.of(vocabulary, train, seed=1).together).nnz == 0
    few = Vocabulary(np.arange(10))  # 100 pairs at most
    assert Pairs.of(few, sequences(*[list(range(10))] * 5)).counted == 5


def test_item_knn_discounts_items_that_everyone_has() -> None:
    train = sequences([10, 20, 30], [10, 20], [20], [20], [20])
    vocabulary = Vocabulary(np.array([10, 20, 30]))
    # with 10: 20 twice and 30 once, but 20 has five users: 2 / sqrt(2 * 5) = 0.63 and 1 / sqrt(2 * 1) = 0.71
    assert item_knn(Pairs.of(vocabulary, train), sequences([10]), 2).tolist() == [[30, 20]]
    assert co_occurrence(Pairs.of(vocabulary, train), sequences([10]), 2).tolist() == [[20, 30]]


def test_what_is_left_out_is_in_no_list_whatever_the_method() -> None:
    items = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.6]], np.float32)
    interests = np.array([[[2, 0], [0, 1]]] * 3, np.float32)  # scores 2, 1, 1.2
    vocabulary = Vocabulary(np.array([10, 20, 30]))
    histories = sequences([10, 99, 10], [], [30, 20, 10])
    left_out = LeftOut.history(vocabulary, histories)
    expected = [[3, 2, 0], [1, 3, 2], [0, 0, 0]]
    assert nearest_items(interests, items, 3, left_out=left_out).tolist() == expected
    assert nearest_items(interests, items, 3, batch_size=2, left_out=left_out).tolist() == expected
    assert nearest_items(interests[1:], items, 3, left_out=left_out.part(1, 3)).tolist() == expected[1:]
    popular = most_popular(vocabulary, np.array([9, 5, 7]), histories, 2, left_out)
    assert popular.tolist() == [[30, 20], [10, 30], [-1, -1]]
    pairs = Pairs.of(vocabulary, sequences([10, 20], [10, 20, 30], [20, 30]))
    for ranked in (
        co_occurrence(pairs, histories, 3, 2, left_out),
        item_knn(pairs, histories, 3, 2, left_out),
        ease(pairs, None, histories, 3, 2, exclude_history=True).ranked,
    ):
        assert not {10} & set(ranked[0].tolist()) and {20, 30} < set(ranked[0].tolist()) and (ranked[2] == -1).all()


def test_ease_is_its_closed_form_and_validation_chooses_its_settings() -> None:
    rng = np.random.default_rng(5)
    rows = [np.sort(rng.choice(30, 6, replace=False)).tolist() for _ in range(80)]
    train = sequences(*rows)
    vocabulary = Vocabulary(np.arange(30))
    had = np.zeros((80, 30))
    had[np.repeat(np.arange(80), 6), train.item_id] = 1
    pairs = Pairs.of(vocabulary, train)
    inverse = np.linalg.inv(had.T @ had + 7 * np.eye(30))
    expected = np.where(np.eye(30) == 1, 0, -inverse / np.diag(inverse))
    np.testing.assert_allclose(item_weights(pairs, 7), expected, atol=1e-5)
    # whoever had 0 and then 1 wants 2, whoever had 1 and then 0 wants 3: only the order tells, so old items must fade
    mostly = sequences(*[[0, 2]] * 30, *[[1, 3]] * 30, *[[0, 4]] * 40, *[[1, 4]] * 40)
    valid = EvalCases(sequences([1, 0], [0, 1]), sequences([2], [3]))
    chosen = ease(Pairs.of(Vocabulary(np.arange(5)), mostly), valid, sequences([1, 0]), 4, exclude_history=True)
    assert chosen.ranked.tolist()[0][:2] == [4, 2] and chosen.recency in (0.8, 0.9, 1.0)


def test_ease_of_many_items_is_symmetric_across_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    train = sequences(*(rng.choice(70, 8, replace=False).tolist() for _ in range(60)))
    pairs = Pairs.of(Vocabulary(np.arange(70)), train)
    whole = item_weights(pairs, 3)
    monkeypatch.setattr("mind.evaluation.ease._BLOCK", 16)
    np.testing.assert_allclose(item_weights(pairs, 3), whole, atol=1e-6)


def test_whether_people_return_is_measured_on_later_clicks() -> None:
    cases = EvalCases(sequences([1, 2], [3], [5]), sequences([1, 1, 7], [4], [5]))
    assert share_returning(cases) == 2 / 4  # 1 and 5 of 1, 7, 4 and 5
    rng = np.random.default_rng(0)
    groups = [np.arange(80) + 100 * group for group in range(4)]

    def users(count: int, clicks: int) -> list[list[int]]:
        return [rng.choice(groups[user % 4], clicks, replace=False).tolist() for user in range(count)]

    train, rows = sequences(*users(200, 20)), users(60, 40)
    new = measure_returns(
        train, EvalCases(sequences(*(row[:36] for row in rows)), sequences(*(row[36:] for row in rows)))
    )
    assert new is not None and new.returning == 0 and new.exclude_history and new.without > new.within
    again = measure_returns(
        train, EvalCases(sequences(*(row[:36] for row in rows)), sequences(*(row[:4] for row in rows)))
    )
    assert again is not None and again.returning == 1 and not again.exclude_history and again.without == 0
    assert measure_returns(train, EvalCases(sequences([-5]), sequences([1]))) is None
