"""The baselines that a model must beat: the most popular items, and items that were clicked together."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse

from mind.artifact import Float32
from mind.evaluation.retrieval import LeftOut, item_ids, top_rows
from mind.sequences import Int64, Sequences
from mind.vocabulary import Vocabulary

RECENCY = 0.8
"""The weight of a history item, relative to the weight of the item that was clicked after it."""
MAX_PAIRS = 100_000_000
"""Maximum number of pairs of items in users' clicks that are counted, 3 GB. If there are more, only the pairs of
randomly drawn users are counted. A catalogue with no more possible pairs than this is counted completely.
"""


def most_popular(
    vocabulary: Vocabulary, popularity: Int64, histories: Sequences, top_n: int, left_out: LeftOut | None = None
) -> Int64:
    """Return the most clicked items, the same for all users except for left-out items: [U, top_n] int64 ids."""
    longest = int(np.diff(left_out.offsets).max(initial=0)) if left_out else 0
    first = top_rows(popularity[None, :].astype(np.float32), top_n + longest)[0]
    if left_out is None:
        return np.repeat(item_ids(vocabulary, first[None]), len(histories), axis=0)
    rows = np.zeros((len(histories), top_n), np.int64)
    for user, (start, end) in enumerate(pairwise(left_out.offsets.tolist())):
        own = first[~np.isin(first, left_out.item_index[start:end])][:top_n]
        rows[user, : len(own)] = own
    return item_ids(vocabulary, rows)


@dataclass(frozen=True)
class Pairs:
    """The number of users who had both items of a pair. Both baselines with pairs of items use it."""

    vocabulary: Vocabulary
    together: sparse.csr_array
    """[N, N]: the number of users who had both items, for every pair of different items."""
    users: Float32
    """[N]: the number of users who had each item."""
    counted: int
    """The number of users that were counted: all users, or those drawn to stay within `MAX_PAIRS`."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, train: Sequences, seed: int = 0, most: int | None = None) -> "Pairs":
        """Count pairs of items. A user counts once for each pair.

        If there are more than `most` pairs (`MAX_PAIRS` if None), only users that are drawn with `seed` are counted.
        """
        most = MAX_PAIRS if most is None else most
        had = had_matrix(vocabulary, train)
        pairs = np.diff(had.indptr).astype(np.int64) ** 2
        if min(pairs.sum(), len(vocabulary) ** 2) > most:
            drawn = np.random.default_rng(seed).permutation(len(pairs))
            had = had[np.sort(drawn[np.cumsum(pairs[drawn]) <= most])]
        together = (had.T @ had).tocsr()
        together -= sparse.diags_array(together.diagonal())  # setdiag makes room for items that nobody has
        return cls(vocabulary, together, np.asarray(had.sum(axis=0), np.float32), had.shape[0])


def co_occurrence(
    pairs: Pairs, histories: Sequences, top_n: int, batch_size: int = 256, left_out: LeftOut | None = None
) -> Int64:
    """Rank items that other users had together with those of the history. Newer items of the history count more.

    score(j) = sum over history items i of RECENCY^age(i) * |users with both i and j|, where the newest item has age 0.

    Returns:
        [U, top_n] int64 item ids, best first, -1 where no further item was seen together with the history.
    """
    return _by_neighbours(pairs.vocabulary, pairs.together, histories, top_n, batch_size, left_out)


def item_knn(
    pairs: Pairs, histories: Sequences, top_n: int, batch_size: int = 256, left_out: LeftOut | None = None
) -> Int64:
    """Rank like `co_occurrence`, with the cosine |users with i and j| / sqrt(|users with i| |users with j|)."""
    scale = sparse.diags_array(1 / np.sqrt(np.maximum(pairs.users, 1)))
    cosine = (scale @ pairs.together @ scale).tocsr()
    return _by_neighbours(pairs.vocabulary, cosine, histories, top_n, batch_size, left_out)


def _by_neighbours(
    vocabulary: Vocabulary,
    together: sparse.csr_array,
    histories: Sequences,
    top_n: int,
    batch_size: int,
    left_out: LeftOut | None,
) -> Int64:
    recent, rows = recency_matrix(vocabulary, histories, RECENCY), []
    for start in range(0, len(histories), batch_size):
        scores = (recent[start : start + batch_size] @ together).toarray()
        if left_out:
            left_out.hide(scores, start)
        best = top_rows(scores, top_n)
        found = np.take_along_axis(scores, np.maximum(best, 1) - 1, axis=1) > 0
        rows.append(np.where(found, best, 0))
    return item_ids(vocabulary, np.concatenate(rows))


def had_matrix(vocabulary: Vocabulary, sequences: Sequences) -> sparse.csr_array:
    """Return which users had which items, once or more often: [U, N] float32 of ones."""
    had = _matrix(vocabulary, sequences, np.ones(len(sequences.item_id), np.float32))
    had.data[:] = 1
    return had


def recency_matrix(vocabulary: Vocabulary, histories: Sequences, recency: float) -> sparse.csr_array:
    """Return the items of each history, weighted by recency^age: [U, N] float32.

    The newest has age 0; repeats add up.
    """
    age = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(histories.item_id))
    return _matrix(vocabulary, histories, (recency**age).astype(np.float32))


def _matrix(vocabulary: Vocabulary, sequences: Sequences, weight: Float32) -> sparse.csr_array:
    item_index = vocabulary.item_index(sequences.item_id)
    known = item_index > 0
    user = np.repeat(np.arange(len(sequences)), sequences.lengths)
    entries = (weight[known], (user[known], item_index[known] - 1))
    return sparse.csr_array(entries, shape=(len(sequences), len(vocabulary)), dtype=np.float32)
