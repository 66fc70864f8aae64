"""What is chosen after training: neighbours, and from which cosine interests are joined."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from mind.encoder import NumpyEncoder
from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
from mind.joining import counts, joined
from mind.neighbours import ItemNeighbours
from mind.sequences import EvalCases
from mind.training import smoothing
from mind.training.finish import JOIN_COSINES, MIN_GOLDEN, Choices, Finish, clear_golden
from mind.training.smoothing import neighbour_shares, smoothed
from mind.vocabulary import Vocabulary
from mind.weights import Weights
from tests.artifacts import hyper_parameters_of, make_weights, with_neighbours
from tests.server.test_metrics import sequences


def clicks(*rows: list[int]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    return np.array([item for row in rows for item in row], np.int32), np.cumsum([0, *map(len, rows)])


def test_items_lean_on_what_users_had_close_to_them() -> None:
    shares = neighbour_shares(*clicks([1, 2], [1, 2], [1, 3, 3]), items=4, seed=0).toarray()
    # with 1: 2 twice, 2 clicks; 3 right after it and once more, 2 clicks too
    assert shares[1].round(4).tolist() == pytest.approx([0, 0, 2 / 3.8, 1.8 / 3.8, 0], abs=1e-4)
    assert shares[2].tolist() == [0, 1, 0, 0, 0] and not shares[4].any() and not shares[0].any()
    table = np.array([[0, 0], [2, 0], [0, 4], [1, 1], [5, 5]], np.float32)
    assert smoothed(table, sparse.csr_array(shares), 0.5).tolist()[2] == [1, 4]
    assert smoothed(table, sparse.csr_array(shares), 0.5).tolist()[4] == [5, 5]
    assert smoothed(table, sparse.csr_array(shares), 0) is table


def test_neighbours_are_the_nearest_few_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 31, 12).tolist() for _ in range(60)]
    monkeypatch.setattr(smoothing, "NEIGHBOURS", 5)
    whole = neighbour_shares(*clicks(*rows), items=30, seed=0)
    monkeypatch.setattr(smoothing, "_BLOCK", 40)
    assert (neighbour_shares(*clicks(*rows), items=30, seed=0) != whole).nnz == 0
    assert np.diff(whole.indptr).tolist() == [0] + [5] * 30
    np.testing.assert_allclose(whole.sum(axis=1), [0] + [1] * 30, rtol=1e-5)


def made(
    weights: Weights,
    shares: sparse.csr_array | None = None,
    join_cosine: float | None = None,
    neighbours: ItemNeighbours | None = None,
    neighbour_bonus: float | None = None,
) -> Finish:
    hyper = hyper_parameters_of(weights, join_cosine=join_cosine, neighbour_bonus=neighbour_bonus)
    size = len(weights.item_id) + 1
    shares = sparse.csr_array((size, size), dtype=np.float32) if shares is None else shares
    return Finish(hyper, weights, shares, neighbours or with_neighbours(weights).neighbours, False, 64)


def best_items(weights: Weights, users: int, of: int) -> EvalCases:
    """Users who click afterwards what the model finds for them with all interests, `of` items each."""
    rng = np.random.default_rng(4)
    histories = sequences(*(rng.choice(weights.item_id, 6, replace=False).tolist() for _ in range(users)))
    vocabulary = Vocabulary(weights.item_id)
    encoder = NumpyEncoder(weights, hyper_parameters_of(weights))
    vectors = encode_histories(encoder, vocabulary, histories, 8, 64)
    found = item_ids(vocabulary, nearest_items(vectors, weights.item_embedding, of))
    return EvalCases(histories, sequences(*found.tolist()))


def test_joining_is_left_where_it_would_cost_much_and_taken_where_it_costs_nothing() -> None:
    weights = make_weights(items=400)
    valid = best_items(weights, 60, 50)
    choices = made(weights).choose(valid)
    assert choices.smoothing == 0 and choices.interests is not None
    anything = EvalCases(valid.history, sequences(*([-1 - user] for user in range(60))))  # nothing can be found
    free = made(weights).choose(anything)
    assert free.join_cosine == JOIN_COSINES[-1] and free.interests is not None
    assert free.interests <= choices.interests
    assert made(weights, join_cosine=0.33).choose(valid).join_cosine == pytest.approx(0.33)
    assert made(weights, join_cosine=1).choose(valid).interests == 4


def test_interests_are_joined_where_neighbours_find_the_same_without_them() -> None:
    weights = make_weights(items=400)
    valid = best_items(weights, 30, 20)
    row = Vocabulary(weights.item_id).item_index
    wanted = {
        int(row(valid.history.item_id[end - 1 : end])[0]): user for user, end in enumerate(valid.history.offsets[1:])
    }
    of_user = row(valid.target.item_id).reshape(30, 20)
    lengths = [20 * (number in wanted) for number in range(401)]
    follower = np.concatenate([of_user[wanted[number]] for number in range(401) if number in wanted])
    weight = np.full(len(follower), 1, np.float16)
    near = ItemNeighbours(np.append(0, np.cumsum(lengths)), follower.astype(np.int32), weight, 0)
    alone = made(weights, neighbours=near, neighbour_bonus=0).choose(valid)
    served = made(weights, neighbours=near, neighbour_bonus=1000).choose(valid)
    assert served.join_cosine < alone.join_cosine and served.interests == 1


def test_neighbours_are_taken_only_if_validation_users_gain() -> None:
    weights = make_weights(items=300)
    valid = best_items(weights, 40, 20)
    rng = np.random.default_rng(1)
    noise = sparse.csr_array(np.eye(301, dtype=np.float32)[np.append(0, 1 + rng.permutation(300))])
    assert made(weights, noise).choose(valid).smoothing == 0
    worse = weights.item_embedding + rng.normal(size=weights.item_embedding.shape).astype(np.float32)
    spoiled = np.where(np.arange(301)[:, None] > 0, worse, 0).astype(np.float32)
    mixed = replace(weights, item_embedding=spoiled)
    # neighbours that turn the spoiled table into the true one at 0.8 of them
    turn = np.linalg.lstsq(spoiled.T, ((weights.item_embedding - spoiled) / 0.8).T, rcond=None)[0]
    assert made(mixed, sparse.csr_array(turn.T.astype(np.float32))).choose(valid).smoothing > 0


def test_the_bonus_of_neighbours_is_what_validation_users_gain_most_by() -> None:
    weights = make_weights(items=300)
    alone = best_items(weights, 40, 20)
    assert made(weights).choose(alone).neighbour_bonus == 0
    assert made(weights, neighbour_bonus=1.5).choose(alone).neighbour_bonus == 1.5
    rng = np.random.default_rng(5)
    follower = (rng.permutation(300) + 1).astype(np.int32)  # of each item
    neighbours = ItemNeighbours(np.append(0, np.arange(301)), follower, np.full(300, 4, np.float16), 0)
    newest = alone.history.item_id[alone.history.offsets[1:] - 1]
    after = weights.item_id[follower[(newest - 1000) // 7 - 1 + 1] - 1]
    finish = made(weights, neighbours=neighbours)
    valid = EvalCases(alone.history, sequences(*([item] for item in after.tolist())))
    choices = finish.choose(valid)
    assert choices.neighbour_bonus > 0 and choices.neighbour_gain > 0
    done = finish.apply(choices)
    assert done.neighbours is not None and done.neighbours.bonus == choices.neighbour_bonus
    without = finish.measured(finish.apply(replace(choices, neighbour_bonus=0)), valid)["recall@50"]
    gained = finish.measured(done, valid)["recall@50"]
    assert gained / without - 1 == pytest.approx(choices.neighbour_gain)


def test_golden_histories_are_those_that_rounding_cannot_join() -> None:
    vectors = np.random.default_rng(3).normal(size=(60, 4, 6)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    near = float(unit[5, 0] @ unit[5, 1])
    kept = clear_golden(vectors, near)
    assert not kept[5] and kept.sum() > 50
    assert clear_golden(vectors[:, :1], 0.5).all(), "one interest is joined with none"
    same = np.repeat(vectors[:1], 20, axis=0)
    assert clear_golden(same, float(unit[0, 0] @ unit[0, 1])).sum() == MIN_GOLDEN


def test_what_was_chosen_is_in_the_weights() -> None:
    weights = make_weights()
    finish = made(weights)
    done = finish.apply(Choices(0.0, 0.7))
    assert done.joins_from == np.float32(0.7) and done.item_embedding is weights.item_embedding
    valid = best_items(weights, 20, 20)
    encoder = NumpyEncoder(done, hyper_parameters_of(done))
    vectors = encode_histories(encoder, Vocabulary(done.item_id), valid.history, 8, 64)
    apart = encode_histories(
        NumpyEncoder(weights, hyper_parameters_of(weights)), Vocabulary(done.item_id), valid.history, 8, 64
    )
    np.testing.assert_array_equal(vectors, joined(apart, done.joins_from))
    assert counts(vectors).mean() <= 4 and finish.measured(done, valid)["recall@50"] > 0
