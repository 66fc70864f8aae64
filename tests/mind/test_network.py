"""The Paddle network against a plain reference, written as one reads the paper; and the encoders against each other."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mind.artifact import Artifact, Float32
from mind.config import HyperParameters
from mind.encoder import NumpyEncoder, check_golden
from mind.errors import ArtifactError, ConfigError
from mind.network import MIND
from mind.paddle_encoder import PaddleEncoder
from mind.paddle_runtime import has_gpu, paddle
from mind.routing import squash
from mind.weights import Weights
from tests.artifacts import hyper_parameters_of, make_weights


def plain_interests(
    weights: Weights,
    history: list[int],
    iterations: int,
    residual: bool,
    softmax: str = "interests",
    bounded: bool = False,
    init: str = "random",
) -> Float32:
    """Algorithm 1 of arXiv 1904.08030 for one user, one behaviour and one interest at a time; PaddleRec's choices."""
    behaviours = [weights.item_embedding[row] @ weights.bilinear for row in history]
    logits = weights.routing_logits[:, : len(history)].astype(np.float64).copy()
    if init == "history":
        logits = plain_beginning(behaviours, len(logits))
    for iteration in range(iterations):
        last = iteration == iterations - 1
        over_interests = softmax == "interests" or (softmax == "history_then_interests" and last)
        coupling = np.exp(logits) / np.exp(logits).sum(axis=0 if over_interests else 1, keepdims=True)
        capsules = []
        for k in range(len(logits)):
            s = sum(coupling[k, i] * behaviour for i, behaviour in enumerate(behaviours))
            length = np.linalg.norm(s)
            capsules.append(length**2 / (1 + length**2) * s / length)
        if not last:
            for k, capsule in enumerate(capsules):
                agreement = np.array([capsule @ behaviour for behaviour in behaviours])
                logits[k] += agreement / max(np.linalg.norm(agreement), 1) if bounded else agreement
    if residual:
        recency = np.exp(weights.recency_logits[: len(history)])[::-1]  # the newest has age 0 and stands last
        own = (np.exp(logits) / np.exp(logits).sum(axis=0)) ** weights.focus  # of each interest in each behaviour
        for k in range(len(capsules)):
            weight = recency * own[k]
            capsules[k] = capsules[k] + (weight / weight.sum()) @ np.array(behaviours)
    if weights.projection is not None:
        capsules = [np.maximum(np.append(capsule, 1) @ weights.projection, 0) for capsule in capsules]
    return np.array(capsules, np.float32)


@pytest.mark.parametrize("softmax", ["interests", "history", "history_then_interests"])
@pytest.mark.parametrize("residual", [False, True])
def test_an_interest_is_the_sum_of_its_clicks_by_their_weights(softmax: str, residual: bool) -> None:
    weights = make_weights()
    encoder = numpy_encoder(weights, routing_softmax=softmax, residual=residual)
    hist_index, seq_len = np.array([[1, 2, 3, 4, 5, 6, 7, 8], [3, 9, 4, 0, 0, 0, 0, 0]]), np.array([8, 3])
    shares = encoder.click_weights(hist_index, seq_len)
    np.testing.assert_allclose(shares.sum(axis=2), 1, rtol=1e-5)
    assert not shares[1, :, 3:].any()
    summed = shares @ (weights.item_embedding[hist_index] @ weights.bilinear)
    lengths = np.linalg.norm(summed, axis=2, keepdims=True)
    vectors = encoder.encode(hist_index, seq_len)
    np.testing.assert_allclose(summed / lengths, vectors / np.linalg.norm(vectors, axis=2, keepdims=True), atol=1e-5)


def test_interests_that_become_one_have_the_mean_of_their_clicks() -> None:
    weights = dataclasses.replace(make_weights(), join_cosine=np.array([-1], np.float32))
    shares = numpy_encoder(weights).click_weights(np.array([[3, 9, 4]]), np.array([3]))
    assert shares[0].any(axis=1).tolist() == [True, False, False, False]
    np.testing.assert_allclose(shares[0, 0].sum(), 1, rtol=1e-5)


def plain_beginning(behaviours: list[Float32], interests: int) -> npt.NDArray[np.float64]:
    """Begin at the newest behaviour, then where the nearest beginning is furthest, and so on: 5 times the cosines."""
    unit = [behaviour / np.linalg.norm(behaviour) for behaviour in behaviours]
    begun = [len(unit) - 1]
    while len(begun) < interests:
        nearest = [max(round(float(one @ unit[seed]), 4) for seed in begun) for one in unit]
        begun.append(int(np.argmin(nearest)))
    return np.array([[5 * float(one @ unit[seed]) for one in unit] for seed in begun])


def numpy_encoder(weights: Weights, **changes: Any) -> NumpyEncoder:
    return NumpyEncoder(weights, hyper_parameters_of(weights, **changes))


def paddle_encoder(weights: Weights, **changes: Any) -> PaddleEncoder:
    return PaddleEncoder.from_artifact(as_artifact(weights, **changes))


def as_artifact(weights: Weights, **changes: Any) -> Artifact:
    return Artifact("test", hyper_parameters_of(weights, **changes), weights)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("history", [[3], [7, 7, 7], [9, 9, 4], [1, 2, 3, 4, 5, 6, 7, 8]])
@pytest.mark.parametrize("init", ["history", "random"])
def test_both_encoders_are_the_paper(history: list[int], iterations: int, residual: bool, init: str) -> None:
    weights = make_weights()
    expected = plain_interests(weights, history, iterations, residual, init=init)
    hist_index, seq_len = np.array([history]), np.array([len(history)])
    for make in (numpy_encoder, paddle_encoder):
        encoder = make(weights, routing_iterations=iterations, residual=residual, routing_init=init)
        np.testing.assert_allclose(encoder.encode(hist_index, seq_len)[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("softmax", ["history", "history_then_interests"])
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("projection", ["none", "relu"])
def test_both_encoders_can_be_paddlerecs(softmax: str, bounded: bool, projection: str) -> None:
    weights = make_weights()
    if projection == "relu":
        linear = np.random.default_rng(4).normal(size=(17, 16)).astype(np.float32)
        weights = dataclasses.replace(weights, projection=linear)
    options = {"routing_softmax": softmax, "bounded_update": bounded, "projection": projection, "residual": False}
    options |= {"routing_init": "random"}
    for history in ([3], [7, 7, 7], [1, 2, 3, 4, 5, 6, 7, 8]):
        expected = plain_interests(weights, history, 3, False, softmax, bounded)
        hist_index, seq_len = np.zeros((1, 8), np.int64), np.array([len(history)])
        hist_index[0, : len(history)] = history
        for make in (numpy_encoder, paddle_encoder):
            found = make(weights, **options).encode(hist_index, seq_len)[0]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    several = np.array([[1, 2, 3, 4, 5, 6, 7, 8], [3, 0, 0, 0, 0, 0, 0, 0]]), np.array([8, 1])
    one, other = (make(weights, **options).encode(*several) for make in (numpy_encoder, paddle_encoder))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [numpy_encoder, paddle_encoder])
def test_padding_changes_nothing(make) -> None:  # type: ignore[no-untyped-def]
    encoder = make(make_weights())
    bare = encoder.encode(np.array([[4, 9, 2]]), np.array([3]))
    padded = encoder.encode(np.array([[4, 9, 2, 0, 0, 0, 0, 0], [1] * 8]), np.array([3, 8]))
    np.testing.assert_allclose(padded[0], bare[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", [numpy_encoder, paddle_encoder])
def test_an_empty_history_gives_zeros(make) -> None:  # type: ignore[no-untyped-def]
    assert not make(make_weights()).encode(np.zeros((1, 8), np.int64), np.array([0])).any()


def test_encoders_agree_on_random_batches() -> None:
    weights = make_weights(items=5_000, dim=32, maxlen=20)
    rng = np.random.default_rng(3)
    seq_len = rng.integers(1, 21, 500)
    hist_index = rng.integers(1, 5_001, (500, 20)) * (np.arange(20) < seq_len[:, None])
    one, other = numpy_encoder(weights), paddle_encoder(weights)
    np.testing.assert_allclose(one.encode(hist_index, seq_len), other.encode(hist_index, seq_len), rtol=1e-4, atol=1e-5)


def test_interests_begin_at_the_items_that_are_furthest_apart_whatever_the_library() -> None:
    """Two topics in five items: two interests, one of each, and all others are alike to one of them."""
    weights = make_weights(dim=4, items=4)
    table = np.array([[0] * 4, [3, 0, 0, 0], [3, 0.1, 0, 0], [0, 0, 3, 0], [0, 0, 3, 0.1]], np.float32)
    weights = dataclasses.replace(weights, item_embedding=table, bilinear=np.eye(4, dtype=np.float32))
    hist_index, seq_len = np.array([[1, 2, 3, 4, 4, 0, 0, 0], [1, 1, 1, 2, 0, 0, 0, 0]]), np.array([5, 4])
    apart = numpy_encoder(weights).encode(hist_index, seq_len)
    together = dataclasses.replace(weights, join_cosine=np.array([0.9], np.float32))
    for make in (numpy_encoder, paddle_encoder):
        found = make(together).encode(hist_index, seq_len)
        assert np.any(found, axis=2).tolist() == [[True, True, False, False], [True, False, False, False]]
        assert found[0, 0, 2] > 2 > 1 > found[0, 0, 0] and found[0, 1, 0] > 2 > 1 > found[0, 1, 2], "the newest first"
        np.testing.assert_allclose(found[1, 0], apart[1].mean(axis=0), rtol=1e-4, atol=1e-5)


def test_squash_keeps_direction_and_shortens() -> None:
    short = squash(np, np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(short, [[25 / 26 * 0.6, 25 / 26 * 0.8], [0, 0]], rtol=1e-6)


def test_an_encoder_that_is_off_is_refused() -> None:
    weights = make_weights()
    check_golden(numpy_encoder(weights), as_artifact(weights))
    with pytest.raises(ArtifactError, match=r"the numpy encoder is off by a relative .* the limit is 1e-04"):
        check_golden(numpy_encoder(weights, routing_iterations=2), as_artifact(weights))


def test_rows_outside_the_table_are_refused_before_they_reach_a_device() -> None:
    encoder = paddle_encoder(make_weights(items=200))
    with pytest.raises(ValueError, match="rows 201 to 201, the table has 0 to 200"):
        encoder.encode(np.array([[201]]), np.array([1]))


def test_batches_are_padded_to_the_sizes_a_gpu_is_set_up_for_and_nobody_notices() -> None:
    weights = make_weights()
    plain = paddle_encoder(weights)
    padded = PaddleEncoder(plain._network, batch_sizes=(1, 4))
    rng = np.random.default_rng(2)
    for users in (0, 1, 3, 4, 9):
        seq_len = rng.integers(1, 9, users)
        hist_index = rng.integers(1, 201, (users, 8)) * (np.arange(8) < seq_len[:, None])
        expected = plain.encode(hist_index, seq_len)
        assert expected.shape == (users, 4, 16)
        np.testing.assert_allclose(padded.encode(hist_index, seq_len), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_and_auto_does_without() -> None:
    artifact = as_artifact(make_weights())
    with pytest.raises(ConfigError, match="device is gpu, but this Paddle has no GPU"):
        PaddleEncoder.from_artifact(artifact, "gpu")
    check_golden(PaddleEncoder.from_artifact(artifact, "auto"), artifact)


def test_label_aware_attention_leans_to_the_target_with_its_power() -> None:
    interests = paddle.to_tensor(np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32))
    target = paddle.to_tensor(np.array([[2.0, 0.0]], np.float32))  # scores 2 and 0
    for power, share in ((1.0, np.exp(2) / (np.exp(2) + 1)), (3.0, np.exp(8) / (np.exp(8) + 1))):
        network = MIND(5, HyperParameters(embedding_dim=2, hidden_size=2, pow_p=power), np.zeros((2, 3), np.float32))
        user = network.label_aware_attention(interests, target).numpy()[0]
        np.testing.assert_allclose(user, [share, 1 - share], rtol=1e-5)


@pytest.mark.parametrize("readout", ["label_aware", "logsumexp"])
def test_the_loss_is_a_corrected_softmax_that_masks_accidental_hits(readout: str) -> None:
    paddle.seed(5)
    hyper = HyperParameters(embedding_dim=4, hidden_size=4, maxlen=3, dropout=0, readout=readout)  # type: ignore[arg-type]
    network = MIND(6, hyper, np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32))
    hist_index, seq_len = np.array([[1, 2, 0], [3, 0, 0]]), np.array([2, 1])
    candidates = np.array([4, 5, 4, 6])  # targets 4 and 5, then negatives; the second 4 is no negative of row 0
    log_frequency = np.log(np.array([0.5, 0.2, 0.5, 0.3], np.float32))
    loss = network(*(paddle.to_tensor(array) for array in (hist_index, seq_len, candidates, log_frequency)))

    table = network.items.embedding.weight.numpy()
    vectors = PaddleEncoder(network).encode(hist_index, seq_len)
    expected = []
    for row, target in enumerate((4, 5)):
        fits = vectors[row] @ table[candidates].T  # [K, C]
        attention = np.exp(vectors[row] @ table[target])
        by_target = attention / attention.sum() @ fits
        logits = (by_target if readout == "label_aware" else np.log(np.exp(fits).sum(axis=0))) - log_frequency
        kept = [c for c in range(4) if c == row or candidates[c] != target]
        expected.append(np.log(np.exp(logits[kept]).sum()) - logits[row])
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_padding_row_stays_zero_and_every_weight_learns() -> None:
    paddle.seed(1)
    hyper = HyperParameters(embedding_dim=8, hidden_size=8, maxlen=4)
    network = MIND(10, hyper, np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32))
    learnt = (network.items.embedding.weight, network.bilinear, network.recency_logits, network.focus)
    before = [weight.numpy().copy() for weight in learnt]
    optimizer = paddle.optimizer.Adam(0.1, parameters=network.parameters(), lazy_mode=True)
    batch = np.array([[1, 2, 0, 0], [3, 4, 5, 0]]), np.array([2, 3]), np.array([6, 7, 8]), np.zeros(3, np.float32)
    network(*(paddle.to_tensor(array) for array in batch)).backward()
    optimizer.step()
    after = [weight.numpy() for weight in learnt]
    assert not after[0][0].any()
    changed = np.flatnonzero((after[0] != before[0]).any(axis=1))
    assert changed.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]  # lazy: rows 9 and 10 took no part
    assert all((new != old).any() for new, old in zip(after[1:], before[1:], strict=True))
