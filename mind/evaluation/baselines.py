"""What any model must beat: the popular list, and counting which items are clicked together."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from mind.artifact import Float32
from mind.evaluation.retrieval import item_ids, top_rows
from mind.sequences import Int64, Sequences
from mind.vocabulary import Vocabulary

RECENCY = 0.8
"""The weight of a history item, as a share of the weight of the item that was clicked after it."""
MAX_PAIRS = 100_000_000
"""Pairs of items in users' clicks that are counted, 3 GB; of more, those of users drawn at random. A catalogue that has
no more pairs than this is counted whole."""


def most_popular(vocabulary: Vocabulary, popularity: Int64, histories: Sequences, top_n: int) -> Int64:
    """The most clicked items, the same for everyone: [U, top_n] int64 item ids."""
    rows = top_rows(popularity[None, :].astype(np.float32), top_n)
    return np.repeat(item_ids(vocabulary, rows), len(histories), axis=0)


@dataclass(frozen=True)
class Pairs:
    """How many users had each pair of items together; both baselines of item pairs use it."""

    vocabulary: Vocabulary
    together: sparse.csr_array
    """[N, N]: the users who had both items, for every pair of different items."""
    users: Float32
    """[N]: the users who had each item."""
    counted: int
    """The users that were counted: all of them, or those drawn to stay within `MAX_PAIRS`."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, train: Sequences, seed: int = 0) -> "Pairs":
        """Count pairs of items, each user once for a pair; `seed` draws the users if there are too many."""
        had = _matrix(vocabulary, train, np.ones(len(train.item_id), np.float32))
        had.data[:] = 1
        pairs = np.diff(had.indptr).astype(np.int64) ** 2
        if min(pairs.sum(), len(vocabulary) ** 2) > MAX_PAIRS:
            drawn = np.random.default_rng(seed).permutation(len(pairs))
            had = had[np.sort(drawn[np.cumsum(pairs[drawn]) <= MAX_PAIRS])]
        together = (had.T @ had).tocsr()
        together -= sparse.diags_array(together.diagonal())  # setdiag makes room for items that nobody has
        return cls(vocabulary, together, np.asarray(had.sum(axis=0), np.float32), had.shape[0])


def co_occurrence(pairs: Pairs, histories: Sequences, top_n: int, batch_size: int = 256) -> Int64:
    """Items that other users had together with the history, newer history counting more.

    score(j) = sum over history items i of RECENCY^age(i) * |users with both i and j|, age 0 being the newest.

    Returns:
        [U, top_n] int64 item ids, best first, -1 where no further item was ever seen with the history.
    """
    return _by_neighbours(pairs.vocabulary, pairs.together, histories, top_n, batch_size)


def item_knn(pairs: Pairs, histories: Sequences, top_n: int, batch_size: int = 256) -> Int64:
    """Like `co_occurrence`, with the cosine |users with i and j| / sqrt(|users with i| |users with j|) as the count."""
    scale = sparse.diags_array(1 / np.sqrt(np.maximum(pairs.users, 1)))
    return _by_neighbours(pairs.vocabulary, (scale @ pairs.together @ scale).tocsr(), histories, top_n, batch_size)


def _by_neighbours(
    vocabulary: Vocabulary, together: sparse.csr_array, histories: Sequences, top_n: int, batch_size: int
) -> Int64:
    age = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(histories.item_id))
    recent = _matrix(vocabulary, histories, (RECENCY**age).astype(np.float32))
    rows = []
    for start in range(0, len(histories), batch_size):
        scores = (recent[start : start + batch_size] @ together).toarray()
        best = top_rows(scores, top_n)
        found = np.take_along_axis(scores, np.maximum(best, 1) - 1, axis=1) > 0
        rows.append(np.where(found, best, 0))
    return item_ids(vocabulary, np.concatenate(rows))


def _matrix(vocabulary: Vocabulary, sequences: Sequences, weight: Float32) -> sparse.csr_array:
    item_index = vocabulary.item_index(sequences.item_id)
    known = item_index > 0
    user = np.repeat(np.arange(len(sequences)), sequences.lengths)
    entries = (weight[known], (user[known], item_index[known] - 1))
    return sparse.csr_array(entries, shape=(len(sequences), len(vocabulary)), dtype=np.float32)
