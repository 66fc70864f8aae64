"""Training examples from sequences, a whole batch at a time and without a Python loop over rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.config import HyperParameters
from mind.errors import DataError
from mind.sequences import Float32, Int64, Sequences
from mind.vocabulary import Vocabulary


@dataclass(frozen=True)
class Batch:
    """One step's worth of examples; shapes as in `mind.network.MIND.loss`."""

    hist_index: Int64
    """[B, L] int64 rows, oldest first, 0-padded on the right."""
    seq_len: Int64
    """[B] int64: the items of each history."""
    candidates: Int64
    """[C] int64 rows: the targets of the B rows, those of the other processes' rows, then drawn negatives."""
    weight: Float32 | None = None
    """[B] float32: the weight of each row's target, 1 on average over the rows of all processes; None: all weigh 1."""


class TrainingSampler:
    """Every position with `min_history` clicks before it is a target once an epoch; what came before is its history."""

    def __init__(
        self,
        sequences: Sequences,
        vocabulary: Vocabulary,
        hyper_parameters: HyperParameters,
        batch_size: int,
        seed: int,
        world: int = 1,
        weight: Float32 | None = None,
    ) -> None:
        """Look up the rows of all clicks.

        Args:
            sequences: the training users.
            vocabulary: all items.
            hyper_parameters: of these, those of histories and negatives.
            batch_size: examples of a batch, those of all processes together.
            seed: of the order, and of drawn negatives.
            world: the number of processes that share every batch.
            weight: [n] float32, the weight of each click as a target; None: all weigh 1.

        Raises:
            DataError: no user has so many items.
        """
        self._weight = weight
        least = hyper_parameters.min_history
        self.item_index = _rows(vocabulary, sequences.item_id)
        """[n] int32 rows of all clicks, user after user."""
        self.offsets = sequences.offsets
        """[U + 1] int64, where each user's clicks begin."""
        self._first_target = sequences.offsets[:-1] + least  # of each user, as a position in item_index
        self._first_example = np.append(0, np.cumsum(np.maximum(sequences.lengths - least, 0)))
        if not self.examples:
            raise DataError(f"training data: no user has {least + 1} items or more, so there is nothing to predict")
        self._maxlen = hyper_parameters.maxlen
        self._batch_size = batch_size
        self._neg_samples = hyper_parameters.neg_samples
        self._seed = seed
        self._world = world

    @property
    def examples(self) -> int:
        """Training examples an epoch has."""
        return int(self._first_example[-1])

    @property
    def steps(self) -> int:
        """Batches an epoch has; the last may be smaller, and is left out if not every process would get an example."""
        whole, rest = divmod(self.examples, self._batch_size)
        return whole + (rest >= self._world)

    def epoch(self, number: int, done: int = 0, rank: int = 0) -> Iterator[Batch]:
        """All examples once, in a random order that depends on the seed and the number of the epoch alone.

        Args:
            number: of the epoch, from 1.
            done: batches to skip: an epoch that was left is taken up where it stood.
            rank: of this process. Each gets its share of every batch, and all get all candidates; what does not divide
                evenly is left out.
        """
        world = self._world
        order = np.random.default_rng([self._seed, number]).permutation(self.examples)
        for step in range(done, self.steps):
            examples = order[step * self._batch_size : (step + 1) * self._batch_size]
            examples = examples[: len(examples) // world * world]
            mine_first = np.roll(examples.reshape(-1, world), -rank, axis=1).T.ravel()
            yield self.batch(mine_first, [self._seed, number, step], world)

    def batch(self, examples: Int64, seed: list[int], world: int = 1) -> Batch:
        """A batch of the first `1 / world` of the given example numbers, [B * world] int64; the rest are candidates."""
        user = np.searchsorted(self._first_example, examples, side="right") - 1
        target = self._first_target[user] + examples - self._first_example[user]
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, len(self.item_index), self._neg_samples)  # a random click: by item frequency
        candidates = self.item_index[np.concatenate([target, drawn])]
        mine = slice(len(examples) // world)
        weight = None
        if self._weight is not None:
            of_target = self._weight[target]
            weight = (of_target / of_target.mean())[mine]
        target, start = target[mine], np.maximum(self.offsets[user[mine]], target[mine] - self._maxlen)
        position = start[:, None] + np.arange(self._maxlen)
        hist_index = np.where(position < target[:, None], self.item_index[np.minimum(position, target[:, None])], 0)
        return Batch(hist_index.astype(np.int64), target - start, candidates.astype(np.int64), weight)

    def latest(self, users: int, rng: np.random.Generator) -> Batch:
        """The newest example of so many users, or of all if there are fewer: the histories that requests will have."""
        ends = np.unique(self._first_example)[1:]  # of the users who have an example
        return self.batch(rng.permutation(ends)[:users] - 1, [self._seed])


def _rows(vocabulary: Vocabulary, item_id: Int64, size: int = 1 << 22) -> npt.NDArray[np.int32]:
    """Look up the rows of many items, some at a time to save memory: int32, same shape."""
    parts = [vocabulary.item_index(item_id[i : i + size]).astype(np.int32) for i in range(0, len(item_id), size)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def log_frequency(popularity: Int64) -> npt.NDArray[np.float32]:
    """Log of each item's share of all interactions, by row: [N + 1] float32, 0 where it is never drawn.

    Args:
        popularity: [N] int64 counts.
    """
    share = np.log(np.maximum(popularity, 1) / popularity.sum())
    return np.concatenate([[0.0], np.where(popularity > 0, share, 0)]).astype(np.float32)
