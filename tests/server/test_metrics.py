"""Metrics, exact search and baselines on cases a reader can check by eye."""

import math

import numpy as np
import pytest

from mind.encoder import NumpyEncoder
from mind.evaluation import baselines, metrics
from mind.evaluation.baselines import Pairs, co_occurrence, item_knn, most_popular
from mind.evaluation.retrieval import encode_histories, nearest_items, top_rows
from mind.sequences import Sequences, pad_last
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
