"""The training loop: epochs over the sampler, validation by exact search, the best epoch kept.

Knows nothing of the command line or of files; `mind.train` is the command.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mind import metrics
from mind.artifact import Float32, Weights
from mind.config import Config, HyperParameters, Runner
from mind.errors import ConfigError, DataError
from mind.network import MIND
from mind.paddle_encoder import PaddleEncoder
from mind.paddle_runtime import paddle
from mind.retrieval import encode_histories, item_ids, nearest_items
from mind.sampler import Batch, TrainingSampler, log_frequency
from mind.sequences import EvalCases, Int64, Sequences
from mind.vocabulary import Vocabulary

CUTOFFS = (20, 50)
SELECTED_BY = "recall@50"
GOLDEN_HISTORIES = 32


@dataclass(frozen=True)
class Epoch:
    """How one epoch went."""

    number: int
    """From 1."""
    loss: float
    """Mean cross entropy, nats."""
    examples_per_s: float
    """Training examples a second, validation not counted."""
    metrics: dict[str, float]
    """Validation metrics as fractions; empty without validation data."""


@dataclass(frozen=True)
class Trained:
    """The result of a run: the weights of its best epoch."""

    weights: Weights
    epochs: list[Epoch]
    best: Epoch
    """The epoch whose weights these are."""


def train(
    config: Config,
    sequences: Sequences,
    valid: EvalCases | None,
    on_step: Callable[[int, int, int, float], None],
    on_epoch: Callable[[Epoch], None],
) -> Trained:
    """Train MIND.

    Args:
        config: sizes, seed, epochs, patience.
        sequences: the training users.
        valid: held-out users that choose the best epoch by `SELECTED_BY`; None keeps the last epoch.
        on_step: called every `print_interval` steps with epoch, step, steps of an epoch and the mean loss since then.
        on_epoch: called after every epoch.

    Raises:
        DataError: nothing to predict, or `item_count` disagrees with the data.
        ConfigError: a GPU is asked for and there is none.
    """
    hyper, runner = config.hyper_parameters, config.runner
    item_id, popularity = np.unique(sequences.item_id, return_counts=True)
    if hyper.item_count not in (None, len(item_id)):
        raise DataError(
            f"hyper_parameters.item_count is {hyper.item_count}, the training data have {len(item_id)} items"
        )
    vocabulary = Vocabulary(item_id)
    sampler = TrainingSampler(sequences, vocabulary, hyper, runner.train_batch_size, runner.seed)
    _use_device(runner)
    rng = np.random.default_rng(runner.seed)
    routing_logits = rng.normal(size=(hyper.num_interests, hyper.maxlen)).astype(np.float32)
    golden = sampler.batch(rng.integers(0, sampler.examples, GOLDEN_HISTORIES))
    network = MIND(len(item_id), hyper, routing_logits)
    optimizer, schedule = _make_optimizer(network, hyper, sampler.steps * runner.epochs)
    frequency = log_frequency(popularity) if hyper.correct_frequency else np.zeros(len(item_id) + 1, np.float32)

    epochs: list[Epoch] = []
    best, weights = None, None
    for number in range(1, runner.epochs + 1):
        started = time.perf_counter()
        loss = _run_epoch(network, optimizer, schedule, sampler, frequency, runner.print_interval, number, on_step)
        speed = sampler.examples / (time.perf_counter() - started)
        scores = validate(network, vocabulary, valid, hyper.maxlen, runner.infer_batch_size) if valid else {}
        epoch = Epoch(number, loss, speed, scores)
        epochs.append(epoch)
        on_epoch(epoch)
        if best is None or not valid or epoch.metrics[SELECTED_BY] > best.metrics[SELECTED_BY]:
            best, weights = epoch, _snapshot(network, item_id, popularity, golden)
        elif number - best.number >= runner.patience:
            break
    assert best is not None and weights is not None  # noqa: S101 - epochs is at least 1
    return Trained(weights, epochs, best)


def _use_device(runner: Runner) -> None:
    if runner.use_gpu and not (paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count()):
        raise ConfigError("runner.use_gpu is true, but this Paddle has no GPU: install paddlepaddle-gpu, or say false")
    paddle.set_device("gpu" if runner.use_gpu else "cpu")
    paddle.seed(runner.seed)


def _make_optimizer(
    network: MIND, hyper: HyperParameters, steps: int
) -> tuple[paddle.optimizer.Optimizer, paddle.optimizer.lr.LRScheduler]:
    """Adam and the schedule of its step size, which falls to 0 in `steps` steps unless the decay is off."""
    linear = hyper.optimizer.decay == "linear"
    schedule = paddle.optimizer.lr.LambdaDecay(
        hyper.optimizer.learning_rate, lambda step: 1 - step / steps if linear else 1.0
    )
    return paddle.optimizer.Adam(schedule, parameters=network.parameters(), lazy_mode=True), schedule


def _snapshot(network: MIND, item_id: Int64, popularity: Int64, golden: Batch) -> Weights:
    """The weights as they are now; `golden` gives the histories to hold encoders to."""
    return Weights(
        item_id=item_id,
        item_embedding=network.item_embedding.weight.numpy().copy(),
        popularity=popularity,
        bilinear=network.bilinear.numpy().copy(),
        routing_logits=network.routing_logits.numpy().copy(),
        recency_logits=network.recency_logits.numpy().copy(),
        golden_hist_index=golden.hist_index,
        golden_seq_len=golden.seq_len,
        golden_interest_vectors=PaddleEncoder(network).encode(golden.hist_index, golden.seq_len),
    )


def validate(network: MIND, vocabulary: Vocabulary, cases: EvalCases, maxlen: int, batch_size: int) -> dict[str, float]:
    """Metrics at `CUTOFFS` of a network on held-out users, by exact search over all items."""
    vectors = encode_histories(PaddleEncoder(network), vocabulary, cases.history, maxlen, batch_size)
    table = network.item_embedding.weight.numpy()
    rows = nearest_items(vectors, table, max(CUTOFFS), batch_size)
    return metrics.report(item_ids(vocabulary, rows), cases.target, CUTOFFS)


def _run_epoch(
    network: MIND,
    optimizer: paddle.optimizer.Optimizer,
    schedule: paddle.optimizer.lr.LRScheduler,
    sampler: TrainingSampler,
    frequency: Float32,
    interval: int,
    number: int,
    on_step: Callable[[int, int, int, float], None],
) -> float:
    network.train()
    total, recent = 0.0, 0.0
    for step, batch in enumerate(sampler.epoch(), 1):
        loss = network.loss(
            paddle.to_tensor(batch.hist_index),
            paddle.to_tensor(batch.seq_len),
            paddle.to_tensor(batch.candidates),
            paddle.to_tensor(frequency[batch.candidates]),
        )
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
        recent += loss.item()
        if not np.isfinite(recent):
            rate = schedule.base_lr
            raise ConfigError(f"the loss became {recent} in step {step}: optimizer.learning_rate is {rate}, try less")
        if step % interval == 0 or step == sampler.steps:
            on_step(number, step, sampler.steps, recent / ((step - 1) % interval + 1))
            total, recent = total + recent, 0.0
    network.eval()
    return total / sampler.steps
