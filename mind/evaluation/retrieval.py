"""Searches exactly over the whole item table. Training, evaluation and the ANN index are compared with this search."""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Float32
from mind.encoder import Encoder
from mind.neighbours import ItemNeighbours, Near
from mind.sequences import Int64, Sequences
from mind.vocabulary import Mask, Vocabulary


@dataclass(frozen=True)
class LeftOut:
    """Items to leave out of the lists of U users, such as those of the history.

    `item_index`: [n] int64 rows of the item table, user by user, 0 for an unknown item. `offsets`: [U + 1] int64.
    """

    item_index: Int64
    offsets: Int64

    @classmethod
    def history(cls, vocabulary: Vocabulary, histories: Sequences) -> "LeftOut":
        """Return all items of the histories, also those that are too old for the model to use."""
        return cls(vocabulary.item_index(histories.item_id), histories.offsets)

    def hide(self, scores: Float32, start: int) -> None:
        """Set the scores of these items to -inf.

        `scores`: [B, N] of the users from position `start` on, rows 1 to N.
        """
        offsets = self.offsets[start : start + len(scores) + 1]
        user = np.repeat(np.arange(len(scores)), np.diff(offsets))
        item_index = self.item_index[offsets[0] : offsets[-1]]
        known = item_index > 0
        scores[user[known], item_index[known] - 1] = -np.inf

    def part(self, start: int, end: int) -> "LeftOut":
        """Return the items of the users at positions `start` to `end` - 1."""
        return LeftOut(self.item_index, self.offsets[start : end + 1])


def encode_histories(
    encoder: Encoder, vocabulary: Vocabulary, histories: Sequences, maxlen: int, batch_size: int
) -> Float32:
    """Encode histories of external ids, [U, K, D] float32.

    Unknown items are dropped, and the newest `maxlen` are used.
    """
    hist_index, seq_len, _ = vocabulary.look_up(histories.item_id, histories.offsets, maxlen)
    batches = range(0, len(histories), batch_size)
    return np.concatenate(
        [encoder.encode(hist_index[i : i + batch_size], seq_len[i : i + batch_size]) for i in batches]
    )


def near_histories(
    neighbours: ItemNeighbours, vocabulary: Vocabulary, histories: Sequences, maxlen: int, bonus: float | None = None
) -> Near:
    """Return the neighbours of the newest clicks of histories of external ids. `bonus`: as in `ItemNeighbours.near`."""
    hist_index, seq_len, _ = vocabulary.look_up(histories.item_id, histories.offsets, maxlen)
    return neighbours.near(hist_index, seq_len, bonus)


def knows(vocabulary: Vocabulary, histories: Sequences) -> Mask:
    """Return which histories have an item that the model knows, [U] bool. The others have no interest vectors."""
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    known: Mask = np.bincount(owner[vocabulary.item_index(histories.item_id) > 0], minlength=len(histories)) > 0
    return known


def nearest_items(
    interest_vectors: Float32,
    item_embedding: Float32,
    top_n: int,
    batch_size: int = 256,
    left_out: LeftOut | None = None,
    near: Near | None = None,
) -> Int64:
    """Return the rows with the highest inner product to any interest of a user, plus the bonus of neighbours.

    Args:
        interest_vectors: [U, K, D] float32.
        item_embedding: [N + 1, D] float32. Row 0 is padding and never returned.
        top_n: the number of rows to return.
        batch_size: the number of users that are scored at a time. It needs memory for two [batch_size, N] float32.
        left_out: items to leave out of the lists of the U users.
        near: the neighbours of the U users' newest clicks.

    Returns:
        [U, top_n] int64, best first, 0 where there are fewer items.
    """
    rows = []
    for start in range(0, len(interest_vectors), batch_size):
        scores = _best_scores(interest_vectors[start : start + batch_size], item_embedding)
        if near:
            near.add(scores, start)
        if left_out:
            left_out.hide(scores, start)
        rows.append(top_rows(scores, top_n))
    return np.concatenate(rows)


def top_rows(scores: Float32, top_n: int) -> Int64:
    """Return the rows with the `top_n` highest scores. Ties go to the lower row.

    Args:
        scores: [U, N] float32, for rows 1 to N. Rows with -inf are never returned.
        top_n: the number of rows to return.

    Returns:
        [U, top_n] int64, best first, 0 where there are fewer rows.
    """
    wanted = min(top_n, scores.shape[1])
    last = -np.partition(-scores, wanted - 1, axis=1)[:, wanted - 1]  # the lowest score that may be in
    rows = np.zeros((len(scores), top_n), np.int64)
    for user, score in enumerate(scores):
        above = np.flatnonzero(score > last[user])
        level = np.flatnonzero(score == last[user])[: wanted - len(above)]  # ties at the cut: the lower rows
        best = np.sort(np.concatenate([above, level]))
        best = best[np.argsort(-score[best], kind="stable")]
        rows[user, :wanted] = np.where(score[best] > -np.inf, best + 1, 0)
    return rows


def item_ids(vocabulary: Vocabulary, rows: Int64) -> Int64:
    """Return the external ids of rows, in the same shape; -1 where the row is 0."""
    return np.where(rows > 0, vocabulary.item_id[np.maximum(rows, 1) - 1], -1)


def _best_scores(interest_vectors: Float32, item_embedding: Float32) -> Float32:
    items = item_embedding[1:].T
    best: Float32 = interest_vectors[:, 0] @ items
    for k in range(1, interest_vectors.shape[1]):
        np.maximum(best, interest_vectors[:, k] @ items, out=best)
    return best
