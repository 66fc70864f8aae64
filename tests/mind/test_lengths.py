"""The lengths of embeddings in the loss: how much they weigh, and what they do."""

import numpy as np
import pytest

from mind.config import Config, HyperParameters
from mind.network import HISTORY_LENGTHS, MIND
from mind.paddle_runtime import paddle
from mind.training.lengths import LENGTH_WEIGHT, SHORT_HISTORIES, with_length_weight
from tests.server.test_metrics import sequences


def config(weight: float | None) -> Config:
    return Config(hyper_parameters=HyperParameters(length_weight=weight))


@pytest.mark.parametrize(
    ("lengths", "given", "expected"),
    [
        ((3, SHORT_HISTORIES - 1, 90), None, LENGTH_WEIGHT),
        ((3, SHORT_HISTORIES, 90), None, 0),
        ((3, 3, 3), 0.0, 0),
        ((90, 90, 90), 0.05, 0.05),
    ],
)
def test_the_median_user_says_what_lengths_weigh_unless_a_setting_does(
    lengths: tuple[int, ...], given: float | None, expected: float
) -> None:
    clicks = sequences(*(list(range(length)) for length in lengths))
    assert with_length_weight(config(given), clicks).hyper_parameters.length_weight == expected


def test_the_loss_counts_the_squared_lengths_of_candidates_and_histories() -> None:
    hyper = HyperParameters(embedding_dim=4, hidden_size=4, maxlen=3, num_interests=2, dropout=0, length_weight=0.0)
    logits = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    paddle.seed(1)
    network = MIND(6, hyper, logits)
    hist, seq_len, candidates = np.array([[1, 2, 3], [4, 0, 0]]), np.array([3, 1]), np.array([5, 6])
    arrays = [paddle.to_tensor(each) for each in (hist, seq_len, candidates, np.zeros(2, np.float32))]
    without = float(network(*arrays))
    network.hyper_parameters = hyper.model_copy(update={"length_weight": 0.5})
    square = np.square(network.items.dense()).sum(axis=1)  # of each item; 0 of padding
    lengths = square[candidates].mean() + HISTORY_LENGTHS * square[hist].sum() / 2
    assert float(network(*arrays)) == pytest.approx(without + 0.5 * lengths, rel=1e-5)
