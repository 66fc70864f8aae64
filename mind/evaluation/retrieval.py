"""Exact search over the whole item table: the yardstick for training, evaluation and the ANN index."""

import numpy as np

from mind.artifact import Float32
from mind.encoder import Encoder
from mind.sequences import Int64, Sequences
from mind.vocabulary import Mask, Vocabulary


def encode_histories(
    encoder: Encoder, vocabulary: Vocabulary, histories: Sequences, maxlen: int, batch_size: int
) -> Float32:
    """Encode histories of external ids, [U, K, D] float32: unknown items are dropped, the newest `maxlen` are kept."""
    hist_index, seq_len, _ = vocabulary.look_up(histories.item_id, histories.offsets, maxlen)
    batches = range(0, len(histories), batch_size)
    return np.concatenate(
        [encoder.encode(hist_index[i : i + batch_size], seq_len[i : i + batch_size]) for i in batches]
    )


def knows(vocabulary: Vocabulary, histories: Sequences) -> Mask:
    """Tell which histories have an item that the model knows: [U] bool. The others give nothing to search with."""
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    known: Mask = np.bincount(owner[vocabulary.item_index(histories.item_id) > 0], minlength=len(histories)) > 0
    return known


def nearest_items(interest_vectors: Float32, item_embedding: Float32, top_n: int, batch_size: int = 256) -> Int64:
    """Rows of the items with the highest inner product to any interest of a user.

    Args:
        interest_vectors: [U, K, D] float32.
        item_embedding: [N + 1, D] float32; row 0 is padding and never returned.
        top_n: rows wanted.
        batch_size: users scored at a time; memory is two [batch_size, N] float32.

    Returns:
        [U, top_n] int64, best first, 0 where there are fewer items.
    """
    return np.concatenate(
        [
            top_rows(_best_scores(interest_vectors[i : i + batch_size], item_embedding), top_n)
            for i in range(0, len(interest_vectors), batch_size)
        ]
    )


def top_rows(scores: Float32, top_n: int) -> Int64:
    """Rows of the `top_n` highest scores; ties go to the lower row.

    Args:
        scores: [U, N] float32, for rows 1 to N.
        top_n: rows wanted.

    Returns:
        [U, top_n] int64, best first, 0 where N is smaller.
    """
    wanted = min(top_n, scores.shape[1])
    last = -np.partition(-scores, wanted - 1, axis=1)[:, wanted - 1]  # the lowest score that may be in
    rows = np.zeros((len(scores), top_n), np.int64)
    for user, score in enumerate(scores):
        above = np.flatnonzero(score > last[user])
        level = np.flatnonzero(score == last[user])[: wanted - len(above)]  # ties at the cut: the lower rows
        best = np.sort(np.concatenate([above, level]))
        rows[user, :wanted] = best[np.argsort(-score[best], kind="stable")] + 1
    return rows


def item_ids(vocabulary: Vocabulary, rows: Int64) -> Int64:
    """External ids of rows, same shape; -1 where the row is 0."""
    return np.where(rows > 0, vocabulary.item_id[np.maximum(rows, 1) - 1], -1)


def _best_scores(interest_vectors: Float32, item_embedding: Float32) -> Float32:
    items = item_embedding[1:].T
    best: Float32 = interest_vectors[:, 0] @ items
    for k in range(1, interest_vectors.shape[1]):
        np.maximum(best, interest_vectors[:, k] @ items, out=best)
    return best
