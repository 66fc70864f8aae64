"""The training loop: it runs epochs over the sampler, validates by exact search, and keeps the best epoch.

Everything random is a function of seed, epoch, step and rank. So a run that continues from a checkpoint ends as if it
had never stopped. This module knows nothing of the command line or of files.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mind.artifact import Artifact
from mind.config import Config, HyperParameters
from mind.data.features import FeatureTable
from mind.errors import ArtifactError, ConfigError, DataError
from mind.evaluation import metrics
from mind.evaluation.metrics import CUTOFFS, SELECTED_BY
from mind.evaluation.retrieval import LeftOut, encode_histories, item_ids, knows, nearest_items
from mind.joining import joined
from mind.network import MIND
from mind.paddle_encoder import PaddleEncoder
from mind.paddle_runtime import paddle
from mind.sequences import EvalCases, Float32, Int64, Sequences
from mind.training.checkpoint import Arrays, Checkpoint
from mind.training.cooccurrence import MAX_CLICKS, Rows, cooccurrence_vectors
from mind.training.finish import WITHOUT_USERS, Choices, Finish, clear_golden
from mind.training.following import item_neighbours
from mind.training.lengths import with_length_weight
from mind.training.parallel import Ranks
from mind.training.recency import popularity_within, recency
from mind.training.sampler import Batch, TrainingSampler, item_rows, log_frequency
from mind.training.smoothing import neighbour_shares
from mind.training.warm import start_from
from mind.vocabulary import Vocabulary
from mind.weights import Weights

GOLDEN_HISTORIES = 128

OnStep = Callable[[int, int, int, float | None], None]
"""A function that gets the epoch, the steps done, those of an epoch, and the mean loss (None before the first)."""


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch."""

    number: int
    """The number of the epoch, from 1."""
    loss: float
    """The mean cross entropy of the epoch, in nats."""
    examples_per_s: float
    """Training examples per second, without the time of validation."""
    metrics: dict[str, float]
    """Validation metrics as fractions; empty without validation data."""


@dataclass(frozen=True)
class Trained:
    """The result of a run: the weights of its best epoch."""

    weights: Weights
    epochs: list[Epoch]
    best: Epoch
    """The epoch that these weights are from."""
    choices: Choices
    """The choices after training, which are part of the weights."""
    metrics: dict[str, float]
    """Validation metrics of these weights, as fractions; empty without validation data."""
    valid_users: int
    """The number of held-out users over whom the metrics are averaged."""


def train(
    config: Config,
    sequences: Sequences,
    valid: EvalCases | None,
    on_step: OnStep = lambda epoch, step, steps, loss: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    *,
    features: FeatureTable | None = None,
    ages: Float32 | None = None,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks | None = None,
    last_epoch: int | None = None,
    exclude_history: bool = False,
    choices: Choices | None = None,
    warm: Artifact | None = None,
) -> Trained:
    """Train the MIND network, and return the weights of its best epoch.

    Args:
        config: sizes, seed, epochs, patience.
        sequences: the training users. With several processes, each has its own users, and ids ascend from rank to rank.
        valid: held-out users that choose the best epoch by `SELECTED_BY`, if the model knows something of their
            history; None keeps the last epoch.
        on_step: called when an epoch begins or continues, and every `print_interval` steps with the mean loss since.
        on_epoch: called after every epoch, also for those that a checkpoint contains.
        features: of the items. Items that no training user clicked become items of the model too.
        ages: [n] float32, days since each click, if hyper_parameters.half_life_days or trending_days is set.
        checkpoint: stores the progress, and tells where to continue. The caller removes it after the model is stored.
            A finished checkpoint ends the run at once with the same result.
        ranks: this process among those that train together; None finds out.
        last_epoch: training ends after this epoch; the learning rate falls as if it went on until `runner.epochs`.
        exclude_history: whether the lists of held-out users have no item of their history.
        choices: the choices after training; None lets the held-out users choose.
        warm: the model whose weights training begins with, if `mind.training.warm.why_not` finds nothing against it.

    Raises:
        DataError: there is nothing to predict, `item_count` disagrees with the data, or the model knows no history of a
            held-out user.
        ConfigError: a GPU is wanted and there is none, or the loss is no longer finite.
        ArtifactError: the checkpoint is damaged or cannot be written.
    """
    config = with_length_weight(config, sequences)
    with (
        paddle.utils.unique_name.guard()
    ):  # the state of the optimizer has these names, which must not depend on earlier runs
        joined = ranks or Ranks.join(config.runner.use_gpu)
        run = _Run(config, sequences, features, ages, joined, warm)
        valid = _known(valid, run.vocabulary) if valid else None
        if checkpoint:
            run.restore(checkpoint)
        for epoch in run.epochs:
            on_epoch(epoch)
        while not run.finished and len(run.epochs) != last_epoch:
            loss, speed = run.finish_epoch(on_step, checkpoint)
            epoch = Epoch(len(run.epochs) + 1, loss, speed, run.validate(valid, exclude_history) if valid else {})
            run.add(epoch)
            if checkpoint and run.ranks.leads:
                checkpoint.save(*run.state())
            on_epoch(epoch)
        weights, choices, measured = run.finished_weights(valid, exclude_history, choices)
    return Trained(weights, run.epochs, run.best_epoch, choices, measured, len(valid) if valid else 0)


@dataclass
class _Progress:
    """How far the current epoch has come."""

    step: int = 0
    loss: float = 0.0
    """The sum of the losses of the steps done, each the mean over the processes."""
    started: float = field(default_factory=time.perf_counter)
    examples: int = 0
    """Training examples seen since `started`."""


class _Run:
    """Everything that changes while training, and how to save and restore it."""

    def __init__(
        self,
        config: Config,
        sequences: Sequences,
        features: FeatureTable | None,
        ages: Float32 | None,
        ranks: Ranks,
        warm: Artifact | None = None,
    ) -> None:
        self.hyper, self.runner, self.ranks = config.hyper_parameters, config.runner, ranks
        hyper, seed = self.hyper, self.runner.seed
        batch_size, world = self.runner.train_batch_size, ranks.world
        if batch_size < world:
            raise ConfigError(f"runner.train_batch_size is {batch_size}, too few for {world} processes")
        self.sequences = sequences
        self.vocabulary, clicks = _vocabulary(sequences, features, ranks)
        self.popularity = popularity_within(sequences, self.vocabulary, ages, hyper.trending_days, clicks, ranks)
        items = len(self.vocabulary)
        if hyper.item_count not in (None, items):
            raise DataError(f"hyper_parameters.item_count is {hyper.item_count}, the training data have {items} items")
        weight = recency(ages, hyper.half_life_days)
        place = (ranks.rank, ranks.gather)
        self.sampler = TrainingSampler(sequences, self.vocabulary, hyper, batch_size, seed, world, weight, *place)
        if self.sampler.examples < world:
            raise DataError(f"training data: there are {self.sampler.examples} examples, too few for {world} processes")
        rng = np.random.default_rng(seed)
        routing_logits = rng.normal(size=(hyper.num_interests, hyper.maxlen)).astype(np.float32)
        golden = self.sampler.latest(GOLDEN_HISTORIES, rng)
        self.golden_hist_index, self.golden_seq_len = map(ranks.total, (golden.hist_index, golden.seq_len))
        trained = np.append(False, clicks > 0)
        paddle.seed(seed)
        aligned = features.align(self.vocabulary, trained) if features else None
        self.network = MIND(items, hyper, routing_logits, aligned)
        if warm:
            start = start_from(warm, self.vocabulary, of_all(sequences, ranks, seed))
            self.network.begin_as(start.weights, start.item_embedding)
        elif hyper.item_init == "cooccurrence":
            vectors = cooccurrence_vectors(*self._clicksof_all(), items, hyper.embedding_dim, seed)
            self.network.items.begin_near(vectors)
        self.parallel = ranks.averaged(self.network)
        linear, steps = hyper.optimizer.decay == "linear", self.sampler.steps * self.runner.epochs
        self.schedule = paddle.optimizer.lr.LambdaDecay(
            hyper.optimizer.learning_rate, lambda step: 1 - step / steps if linear else 1.0
        )
        self.optimizer = paddle.optimizer.Adam(self.schedule, parameters=self.network.parameters(), lazy_mode=True)
        flat = np.zeros(items + 1, np.float32)
        drawn = clicks if sequences.roles is None else ranks.total(self.sampler.target_counts(items))
        self.frequency = paddle.to_tensor(log_frequency(drawn) if hyper.correct_frequency else flat)
        self.now = _Progress()
        self.saved_at = time.monotonic()
        self.epochs: list[Epoch] = []
        self.best: Weights | None = None

    @property
    def best_epoch(self) -> Epoch:
        """The first epoch that no other epoch beats; the last one without validation."""
        if not self.epochs[-1].metrics:
            return self.epochs[-1]
        return max(self.epochs, key=lambda epoch: epoch.metrics[SELECTED_BY])

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` epochs in a row were no better than the best one."""
        done = len(self.epochs)
        return done >= self.runner.epochs or (done > 0 and done - self.best_epoch.number >= self.runner.patience)

    def finish_epoch(self, on_step: OnStep, checkpoint: Checkpoint | None) -> tuple[float, float]:
        """Do the remaining steps of the epoch; return its mean loss and the speed in examples per second."""
        number, steps, now = len(self.epochs) + 1, self.sampler.steps, self.now
        self.network.train()
        on_step(number, now.step, steps, None)
        losses: list[paddle.Tensor] = []
        for batch in self.sampler.epoch(number, now.step):
            losses.append(self._step(batch, number))
            now.step += 1
            now.examples += len(batch.seq_len)
            if now.step % self.runner.print_interval and now.step != steps:
                continue
            recent = self.ranks.mean([loss.item() for loss in losses])  # only here must the device catch up
            if not np.isfinite(sum(recent)):
                raise ConfigError(
                    f"the loss became {sum(recent)} by step {now.step} of epoch {number}: "
                    f"optimizer.learning_rate is {self.hyper.optimizer.learning_rate}, try less"
                )
            for value in recent:
                now.loss += value
            losses.clear()
            on_step(number, now.step, steps, sum(recent) / len(recent))
            if checkpoint and self.ranks.leads and now.step != steps:
                self._save_in_time(checkpoint)
        self.network.eval()
        speed = now.examples / (time.perf_counter() - now.started)
        return now.loss / max(now.step, 1), speed

    def _step(self, batch: Batch, number: int) -> paddle.Tensor:
        """Update the weights once; return the loss, which is still on the device."""
        seed = [self.runner.seed, number, self.now.step, self.ranks.rank]
        paddle.seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        hist_index, seq_len, candidates, *weight = self.ranks.share(batch)
        frequency = paddle.gather(self.frequency, candidates)
        with paddle.amp.auto_cast(self.runner.precision != "float32", dtype="bfloat16"):
            loss = self.parallel(hist_index, seq_len, candidates, frequency, *weight)
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        self.schedule.step()
        return loss.detach()

    def validate(self, cases: EvalCases, exclude_history: bool) -> dict[str, float]:
        """Measure held-out users at `CUTOFFS`, by exact search over all items; all ranks get the metrics of rank 0."""
        names = metrics.names(CUTOFFS)
        scores = dict.fromkeys(names, 0.0)
        if self.ranks.leads:
            batch = self.runner.infer_batch_size
            vectors = encode_histories(
                PaddleEncoder(self.network), self.vocabulary, cases.history, self.hyper.maxlen, batch
            )
            left_out = LeftOut.history(self.vocabulary, cases.history) if exclude_history else None
            rows = nearest_items(vectors, self.network.items.dense(), max(CUTOFFS), batch, left_out)
            scores = metrics.report(item_ids(self.vocabulary, rows), cases.target, CUTOFFS)
        return dict(zip(names, self.ranks.of_leader(list(scores.values())), strict=True))

    def add(self, epoch: Epoch) -> None:
        """Add a finished epoch, and keep its weights if it is the best so far."""
        self.epochs.append(epoch)
        self.now = _Progress()
        if self.best_epoch is epoch:
            self.best = self._snapshot()

    def finished_weights(
        self, valid: EvalCases | None, exclude_history: bool, choices: Choices | None
    ) -> tuple[Weights, Choices, dict[str, float]]:
        """Return the weights of the best epoch with the choices after training, and their metrics on held-out users.

        Only the leader computes; the other processes get what the epoch gave.
        """
        assert self.best is not None  # noqa: S101 - epochs is at least 1
        items, seed = len(self.vocabulary), self.runner.seed
        clicks, offsets = self._clicksof_all()
        if not self.ranks.leads:
            return self.best, choices or Choices(), self.best_epoch.metrics
        shares = neighbour_shares(clicks, offsets, items, seed)
        neighbours = item_neighbours(clicks, offsets, items, seed)
        finish = Finish(self.hyper, self.best, shares, neighbours, exclude_history, self.runner.infer_batch_size)
        if choices is None:
            cosine, bonus = self.hyper.join_cosine, self.hyper.neighbour_bonus
            unchosen = Choices(join_cosine=WITHOUT_USERS if cosine is None else cosine, neighbour_bonus=bonus or 0.0)
            choices = finish.choose(valid) if valid else unchosen
        weights = with_golden(self.hyper, finish.apply(choices))
        return weights, choices, finish.measured(weights, valid) if valid else {}

    def _clicksof_all(self) -> tuple[Rows, Int64]:
        """Return the rows of the items that users of all processes clicked, and where each user's begin (`of_all`)."""
        every = of_all(self.sequences, self.ranks, self.runner.seed)
        if every is self.sequences:
            return self.sampler.item_index, self.sampler.offsets
        return item_rows(self.vocabulary, every.item_id), every.offsets

    def _snapshot(self) -> Weights:
        """Return the current weights; encoders will be checked against the golden histories."""
        network, projection = self.network, self.network.projection
        golden = self.golden_hist_index, self.golden_seq_len
        return Weights(
            item_id=self.vocabulary.item_id,
            item_embedding=network.items.dense(),
            popularity=self.popularity,
            bilinear=np.array(network.bilinear.numpy()),
            routing_logits=np.array(network.routing_logits.numpy()),
            recency_logits=np.array(network.recency_logits.numpy()),
            focus=np.array(network.focus.numpy()),
            golden_hist_index=golden[0],
            golden_seq_len=golden[1],
            golden_interest_vectors=PaddleEncoder(network).encode(*golden),
            projection=np.vstack([projection.weight.numpy(), projection.bias.numpy()]) if projection else None,
        )

    def _save_in_time(self, checkpoint: Checkpoint) -> None:
        if time.monotonic() - self.saved_at >= self.runner.checkpoint_interval_s:
            checkpoint.save(*self.state())
            self.saved_at = time.monotonic()

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the state of the training for a checkpoint."""
        arrays: Arrays = {f"network/{name}": value.numpy() for name, value in self.network.state_dict().items()}
        for name, value in self.optimizer.state_dict().items():
            if isinstance(value, paddle.Tensor):
                arrays[f"optimizer/{name}"] = value.numpy()
        if self.best:
            arrays |= {f"best/{name}": value for name, value in self.best.tensors().items()}
        epochs = [asdict(epoch) for epoch in self.epochs]
        return arrays, {"epochs": epochs, "step": self.now.step, "loss": self.now.loss}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint, if there is one.

        Raises:
            ArtifactError: it is damaged, or processes that train together do not see the same one.
        """
        saved = checkpoint.load()
        if saved:
            arrays, progress = saved
            self.network.set_state_dict(_take(arrays, "network/"))
            self.optimizer.set_state_dict(
                {name: paddle.to_tensor(value) for name, value in _take(arrays, "optimizer/").items()}
            )
            best = _take(arrays, "best/")
            self.best = Weights(**best) if best else None
            self.epochs = [Epoch(**epoch) for epoch in progress["epochs"]]
            self.now = _Progress(progress["step"], progress["loss"])
            self.schedule.step(len(self.epochs) * self.sampler.steps + self.now.step)
        stand = [float(len(self.epochs)), float(self.now.step)]
        if self.ranks.of_leader(stand) != stand:
            raise ArtifactError(
                f"{checkpoint.path}: rank {self.ranks.rank} does not see what rank 0 sees; "
                "runner.model_save_path must be a directory that all machines share"
            )


def with_golden(hyper: HyperParameters, weights: Weights) -> Weights:
    """Return the weights with golden vectors by the Paddle network, for clear histories (`clear_golden`)."""
    apart = PaddleEncoder.from_artifact(Artifact("", hyper, replace(weights, join_cosine=None)))
    vectors = apart.encode(weights.golden_hist_index, weights.golden_seq_len)
    kept = clear_golden(vectors, weights.joins_from)
    return replace(
        weights,
        golden_hist_index=weights.golden_hist_index[kept],
        golden_seq_len=weights.golden_seq_len[kept],
        golden_interest_vectors=joined(vectors[kept], weights.joins_from),
    )


def _vocabulary(sequences: Sequences, features: FeatureTable | None, ranks: Ranks) -> tuple[Vocabulary, Int64]:
    """Return all items, and how often each occurs in the training data of all processes, [N] int64."""
    item_id, counts = np.unique(sequences.item_id, return_counts=True)
    if ranks.world > 1:
        counts = ranks.gather(counts)
        item_id, place = np.unique(ranks.gather(item_id), return_inverse=True)
        counts = np.bincount(place, counts).astype(np.int64)
    if features is None:
        return Vocabulary(item_id), counts
    vocabulary = Vocabulary(np.union1d(item_id, features.item_id))
    popularity = np.zeros(len(vocabulary), np.int64)
    popularity[vocabulary.item_index(item_id) - 1] = counts
    return vocabulary, popularity


def of_all(sequences: Sequences, ranks: Ranks, seed: int) -> Sequences:
    """Return the users of all processes, without roles; if they have more than `MAX_CLICKS` clicks, some of them."""
    if ranks.world == 1:
        return sequences
    clicks = int(ranks.total(np.array([len(sequences.item_id)]))[0])
    drawn = np.random.default_rng([seed, ranks.rank]).random(len(sequences)) * clicks < MAX_CLICKS
    own = replace(sequences, role=None).take(np.flatnonzero(drawn))
    user_id, lengths, item_id = map(ranks.gather, (own.user_id, own.lengths, own.item_id))
    return Sequences(user_id, np.append(0, np.cumsum(lengths)), item_id)


def _known(valid: EvalCases, vocabulary: Vocabulary) -> EvalCases:
    """Return the held-out users of whose history the model knows something; an evaluation compares the same users."""
    known = valid.take(np.flatnonzero(knows(vocabulary, valid.history)))
    if not len(known):
        raise DataError(
            f"none of {len(valid):,} validation users has an item of the training data in the history: "
            "runner.valid_data_dir is of other data than runner.train_data_dir"
        )
    return known


def _take(arrays: Arrays, prefix: str) -> Arrays:
    """Remove the arrays whose names have this prefix, and return them without it."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays.pop(name) for name in names}
