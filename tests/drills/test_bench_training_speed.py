"""The benchmark of training speed at toy size, and its baseline against ours and against plain arithmetic."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mind.config import HyperParameters
from mind.network import MIND
from mind.paddle_runtime import paddle
from tests.bench.paddlerec_formulation import PaddleRecMIND, RowReader, log_uniform
from tests.bench.training_speed import WAYS, Cell, Measured, Shape, load, make, save, synthetic, table, timed_steps

SHAPE = Shape(items=300, users=100, interactions=1_500)


def random_histories(rng: np.random.Generator) -> tuple[paddle.Tensor, paddle.Tensor]:
    """64 histories of 1 to 20 items: [64, 20] and [64, 1] int64."""
    seq_len = rng.integers(1, 21, (64, 1))
    hist_index = rng.integers(1, 301, (64, 20)) * (np.arange(20) < seq_len)
    return paddle.to_tensor(hist_index), paddle.to_tensor(seq_len)


def test_both_ways_train_and_stand_in_the_table(tmp_path: Path) -> None:
    save(tmp_path, SHAPE)
    ways = {}
    for way in WAYS:
        speeds = timed_steps(make(way, load(tmp_path), SHAPE.items, 16, 0), 0, least=2)
        ways[way] = Measured.of(speeds, 0.5)
    assert [way.steps for way in ways.values()] == [2, 2]
    cell = Cell(SHAPE.items, 16, ways)
    text = io.StringIO()
    Console(file=text, width=200).print(table([cell, Cell(301, 16, ways | {"PaddleRec": Measured(fault="gone")})], 0))
    row = next(line for line in text.getvalue().splitlines() if " 300 " in line)
    for way in WAYS:
        assert f" {ways[way].samples_per_s:,.0f} " in row
    assert f" {ways['ours'].samples_per_s / ways['PaddleRec'].samples_per_s:.1f} " in row
    assert " gone " in text.getvalue()


def test_both_ways_learn() -> None:
    sequences = synthetic(SHAPE)
    for way in WAYS:
        training = make(way, sequences, SHAPE.items, 16, 0)
        weights = (training._run if way == "ours" else training).network.parameters()
        before = [weight.numpy().copy() for weight in weights if not weight.stop_gradient]
        training.step()
        after = [weight.numpy() for weight in weights if not weight.stop_gradient]
        assert all((old != new).any() for old, new in zip(before, after, strict=True)), way


@pytest.mark.parametrize("tiled", [True, False])
def test_the_baseline_routes_as_ours_does(tiled: bool) -> None:
    paddle.seed(3)
    theirs = PaddleRecMIND(301, tiled=tiled, negatives=10)
    theirs.embedding.weight.set_value(theirs.embedding.weight * 10)  # so that routing has something to agree on
    hyper = HyperParameters(residual=False, routing_init="random", routing_softmax="history_then_interests")
    ours = MIND(300, hyper, theirs.routing_logits.numpy()[0])
    ours.items.embedding.weight.set_value(theirs.embedding.weight)
    ours.bilinear.set_value(theirs.bilinear)
    ours.eval()
    hist_index, seq_len = random_histories(np.random.default_rng(3))
    expected = ours.interest_vectors(hist_index, seq_len.squeeze(1)).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(theirs.capsules(hist_index, seq_len).numpy(), expected, rtol=1e-4, atol=5e-6)


def test_the_baseline_loses_what_a_sampled_softmax_loses() -> None:
    theirs = PaddleRecMIND(301, dim=8, negatives=5)
    rng = np.random.default_rng(4)
    user, target, negatives = (
        rng.normal(size=(2, 8)).astype(np.float32),
        np.array([[7], [9]]),
        np.array([1, 9, 30, 4, 200]),
    )
    loss = theirs.sampled_softmax(*map(paddle.to_tensor, (user, target, negatives))).item()
    embedding, probability = theirs.embedding.weight.numpy(), log_uniform(301)
    expected = []
    for row, own in enumerate((7, 9)):
        classes = np.array([own, *(item for item in negatives if item != own)])
        logits = embedding[classes] @ user[row] - np.log(1 - (1 + probability[classes]) ** -10.0)
        expected.append(np.log(np.exp(logits).sum()) - logits[0])
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_baseline_draws_different_items_and_never_padding() -> None:
    drawn = PaddleRecMIND(301, dim=8, negatives=300).draw().numpy()
    assert sorted(drawn.tolist()) == list(range(1, 301))
    assert log_uniform(301).sum() == pytest.approx(1 - np.log(2) / np.log(302))  # the rest is padding's share


def test_the_reader_gives_a_click_and_what_came_before_it() -> None:
    sequences = synthetic(SHAPE)
    clicks = {
        tuple(sequences[user][:k][-6:]): int(sequences[user][k])
        for user in range(100)
        for k in range(4, len(sequences[user]))
    }
    examples = iter(RowReader(sequences, 8, maxlen=6))
    for _ in range(50):
        history, target, length = next(examples)
        assert clicks[tuple(history[: length[0]])] == target[0]
        assert not history[length[0] :].any()


def test_synthetic_data_have_the_shape_asked_for() -> None:
    sequences = synthetic(SHAPE)
    assert (len(sequences), len(sequences.item_id)) == (SHAPE.users, SHAPE.interactions)
    assert np.unique(sequences.item_id).tolist() == list(range(1, SHAPE.items + 1))
    assert sequences.lengths.min() >= 5
    popular, rare = (np.isin(sequences.item_id, items).sum() for items in (range(1, 31), range(271, 301)))
    assert popular > 5 * rare
