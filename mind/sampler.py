"""Training examples from sequences, a whole batch at a time and without a Python loop over rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.config import HyperParameters
from mind.errors import DataError
from mind.sequences import Int64, Sequences
from mind.vocabulary import Vocabulary


@dataclass(frozen=True)
class Batch:
    """One step's worth of examples; shapes as in `mind.network.MIND.loss`."""

    hist_index: Int64
    """[B, L] int64 rows, oldest first, 0-padded on the right."""
    seq_len: Int64
    """[B] int64."""
    candidates: Int64
    """[B + neg_samples] int64 rows; the first B are the targets."""


class TrainingSampler:
    """Every position with `min_history` clicks before it is a target once an epoch; what came before is its history."""

    def __init__(
        self,
        sequences: Sequences,
        vocabulary: Vocabulary,
        hyper_parameters: HyperParameters,
        batch_size: int,
        seed: int,
    ) -> None:
        """Raises DataError if no user has so many items."""
        self._item_index = vocabulary.item_index(sequences.item_id).astype(np.int32)
        start = np.repeat(sequences.offsets[:-1], sequences.lengths)
        least = hyper_parameters.min_history
        self._targets = np.flatnonzero(np.arange(len(start)) >= start + least)  # positions in item_index
        if not len(self._targets):
            raise DataError(f"training data: no user has {least + 1} items or more, so there is nothing to predict")
        self._start = start[self._targets]
        self._maxlen = hyper_parameters.maxlen
        self._batch_size = batch_size
        self._neg_samples = hyper_parameters.neg_samples
        self._rng = np.random.default_rng(seed)

    @property
    def examples(self) -> int:
        """Training examples an epoch has."""
        return len(self._targets)

    @property
    def steps(self) -> int:
        """Batches an epoch has; the last may be smaller."""
        return -(-len(self._targets) // self._batch_size)

    def epoch(self) -> Iterator[Batch]:
        """All examples once, in a new random order."""
        order = self._rng.permutation(len(self._targets))
        for first in range(0, len(order), self._batch_size):
            yield self.batch(order[first : first + self._batch_size])

    def batch(self, examples: Int64) -> Batch:
        """The batch of the given example numbers, [B] int64. Negatives are drawn anew at every call."""
        target = self._targets[examples]
        start = np.maximum(self._start[examples], target - self._maxlen)
        position = start[:, None] + np.arange(self._maxlen)
        hist_index = np.where(position < target[:, None], self._item_index[np.minimum(position, target[:, None])], 0)
        drawn = self._rng.integers(0, len(self._item_index), self._neg_samples)  # a random click: by item frequency
        candidates = self._item_index[np.concatenate([target, drawn])]
        return Batch(hist_index.astype(np.int64), target - start, candidates.astype(np.int64))


def log_frequency(popularity: Int64) -> npt.NDArray[np.float32]:
    """Log of each item's share of all interactions, by row: [N + 1] float32 (row 0 is never drawn and gets 0).

    Args:
        popularity: [N] int64 counts, all positive.
    """
    share = np.log(popularity / popularity.sum())
    return np.concatenate([[0.0], share]).astype(np.float32)
