"""Makes training examples from sequences, one batch at a time and without a Python loop over rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.config import HyperParameters
from mind.errors import DataError
from mind.sequences import Float32, Int64, Sequences
from mind.vocabulary import Vocabulary

Rows = npt.NDArray[np.int32]


Gather = Callable[[Int64], Int64]
"""A function that gets the values of this process, and returns those of all processes in the order of their ranks."""


@dataclass(frozen=True)
class Batch:
    """The examples of one step. The parts of other processes are 0: the sum over the processes is the batch."""

    hist_index: Int64
    """[B, L] int64 rows, oldest first, 0-padded on the right."""
    seq_len: Int64
    """[B] int64: the number of items in each history."""
    candidates: Int64
    """[C] int64 rows: the targets of the B rows, then drawn negatives."""
    weight: Float32 | None = None
    """[B] float32: the weight of each row's target; None weighs all equally."""


@dataclass(frozen=True)
class _Place:
    """Where the values of this process are among those of all processes."""

    first: int
    end: int
    total: int

    @classmethod
    def of(cls, values: int, gather: Gather, rank: int) -> "_Place":
        """Return the place of so many values, if the processes have them one after the other by rank."""
        counts = gather(np.array([values]))
        first = int(counts[:rank].sum())
        return cls(first, first + values, int(counts.sum()))

    def own(self, numbers: Int64) -> tuple[Int64, Int64]:
        """Return the positions of the given numbers that belong to this process, and these numbers within it."""
        positions = np.flatnonzero((numbers >= self.first) & (numbers < self.end))
        return positions, numbers[positions] - self.first


@dataclass(frozen=True)
class _Targets:
    """The E examples of clicks that have roles, user after user."""

    first: Int64
    """[U + 1] int64: how many examples the users before have."""
    row: Rows
    """[E] int32 row of each target."""
    end: Int64
    """[E] int64: where its history ends, as a position among all clicks that are history."""
    click: Int64
    """[E] int64 position of each target among all clicks."""


class TrainingSampler:
    """Samples examples: once per epoch, every target that has `min_history` clicks of history before it.

    Where clicks have no roles, every click is both history and target. Where they have roles, histories consist of the
    history clicks alone, and a batch weighs its examples.
    """

    def __init__(
        self,
        sequences: Sequences,
        vocabulary: Vocabulary,
        hyper_parameters: HyperParameters,
        batch_size: int,
        seed: int,
        world: int = 1,
        weight: Float32 | None = None,
        rank: int = 0,
        gather: Gather = lambda values: values,
    ) -> None:
        """Look up the rows of all clicks.

        Args:
            sequences: the training users, or those of this process, which come after the users of lower ranks.
            vocabulary: all items.
            hyper_parameters: of these, those of histories and negatives.
            batch_size: examples per batch, of all processes together.
            seed: of the order, and of drawn negatives.
            world: the number of processes that share every batch; each has its own users.
            weight: [n] float32, the weight of each click as a target by its age; None weighs all equally. Where clicks
                have roles, it is multiplied by the weight of their kind.
            rank: the rank of this process.
            gather: returns the values of all processes.

        Raises:
            DataError: no user has `min_history` items and a target after them.
        """
        self._weight = _product(weight, sequences.weight)
        self._least = least = hyper_parameters.min_history
        self.item_index = item_rows(vocabulary, sequences.item_id)
        """[n] int32 rows of all clicks, user after user."""
        self.offsets = sequences.offsets
        """[U + 1] int64, where each user's clicks begin."""
        self._history, self._begin = self.item_index, self.offsets  # the clicks that are history
        self._targets: _Targets | None = None
        self._first_example = np.append(0, np.cumsum(np.maximum(sequences.lengths - least, 0)))
        if sequences.is_history is not None and sequences.weight is not None:
            before = np.append(0, np.cumsum(sequences.is_history))
            self._history, self._begin = self.item_index[sequences.is_history], before[self.offsets]
            self._targets = self._find_targets(sequences.weight, before)
            self._first_example = self._targets.first
        self._drawn = self.item_index if self._targets is None else self._targets.row
        self._gather = gather
        self._place = _Place.of(int(self._first_example[-1]), gather, rank)
        self._drawn_place = _Place.of(len(self._drawn), gather, rank)
        if not self.examples:
            what = (
                f"{least + 1} items or more" if self._targets is None else f"a target after {least} clicks of history"
            )
            raise DataError(f"training data: no user has {what}, so there is nothing to predict")
        self._maxlen = hyper_parameters.maxlen
        self._batch_size = batch_size
        self._neg_samples = hyper_parameters.neg_samples
        self._seed = seed
        self._world = world

    def _find_targets(self, weight: Float32, before: Int64) -> _Targets:
        """Return the examples. `weight`: [n], of each click as a target; `before`: [n + 1], history before it."""
        position = np.flatnonzero(weight > 0)
        user = np.searchsorted(self.offsets, position, side="right") - 1
        enough = before[position] - self._begin[user] >= self._least
        position, user = position[enough], user[enough]
        first = np.append(0, np.cumsum(np.bincount(user, minlength=len(self.offsets) - 1)))
        return _Targets(first, self.item_index[position], before[position], position)

    @property
    def examples(self) -> int:
        """The number of training examples per epoch, of all processes."""
        return self._place.total

    @property
    def steps(self) -> int:
        """The number of batches per epoch. The last may be smaller; it is skipped if a process would get no example."""
        whole, rest = divmod(self.examples, self._batch_size)
        return whole + (rest >= self._world)

    def epoch(self, number: int, done: int = 0) -> Iterator[Batch]:
        """Yield all examples once, in a random order that depends only on the seed and the number of the epoch.

        Args:
            number: the number of the epoch, from 1.
            done: batches to skip, because the epoch continues after them.
        """
        order = np.arange(self.examples, dtype=np.int32 if self.examples < 2**31 else np.int64)
        np.random.default_rng([self._seed, number]).shuffle(order)
        for step in range(done, self.steps):
            examples = order[step * self._batch_size : (step + 1) * self._batch_size].astype(np.int64)
            yield self.batch(examples[: len(examples) // self._world * self._world], [self._seed, number, step])

    def batch(self, examples: Int64, seed: list[int]) -> Batch:
        """Return a batch of the given example numbers, [B] int64."""
        rows, mine = self._place.own(examples)
        user = np.searchsorted(self._first_example, mine, side="right") - 1
        targets = self._targets
        if targets is None:
            end = clicks = self._begin[user] + self._least + mine - self._first_example[user]
            target = self.item_index[clicks]
        else:
            target, end, clicks = targets.row[mine], targets.end[mine], targets.click[mine]
        weight = None
        if self._weight is not None:
            weight = np.zeros(len(examples), np.float32)
            weight[rows] = self._weight[clicks]
        candidates = np.zeros(len(examples) + self._neg_samples, np.int64)
        candidates[rows] = target
        drawn = np.random.default_rng(seed).integers(0, self._drawn_place.total, self._neg_samples)
        places, mine = self._drawn_place.own(drawn)
        candidates[len(examples) + places] = self._drawn[mine]  # a random target: by frequency
        start = np.maximum(self._begin[user], end - self._maxlen)
        position = start[:, None] + np.arange(self._maxlen)
        hist_index, seq_len = np.zeros((len(examples), self._maxlen), np.int64), np.zeros(len(examples), np.int64)
        if len(rows):
            own = self._history[np.minimum(position, len(self._history) - 1)]
            hist_index[rows], seq_len[rows] = np.where(position < end[:, None], own, 0), end - start
        return Batch(hist_index, seq_len, candidates, weight)

    def target_counts(self, items: int) -> Int64:
        """Count how often each of `items` items is a target of this process per epoch, [items] int64."""
        return np.bincount(self._drawn, minlength=items + 1)[1:]

    def latest(self, users: int, rng: np.random.Generator) -> Batch:
        """Return the newest example of so many users, or of all if there are fewer. Requests have such histories."""
        ends = self._gather(self._place.first + np.unique(self._first_example)[1:])  # of the users that have an example
        return self.batch(rng.permutation(ends)[:users] - 1, [self._seed])


def _product(one: Float32 | None, other: Float32 | None) -> Float32 | None:
    """Return the product of two weights. None stands for equal weights."""
    if one is None or other is None:
        return other if one is None else one
    return one * other


def item_rows(vocabulary: Vocabulary, item_id: Int64, size: int = 1 << 22) -> Rows:
    """Look up the rows of many items, in parts to save memory: int32, same shape."""
    parts = [vocabulary.item_index(item_id[i : i + size]).astype(np.int32) for i in range(0, len(item_id), size)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def log_frequency(popularity: Int64) -> Float32:
    """Return the log of each item's share of the draws, by row: [N + 1] float32, 0 for items that are never drawn.

    Args:
        popularity: [N] int64 counts.
    """
    share = np.log(np.maximum(popularity, 1) / popularity.sum())
    return np.concatenate([[0.0], np.where(popularity > 0, share, 0)]).astype(np.float32)
