"""Counts which items users clicked soon before items that are not in the training data.

A new item becomes a neighbour of these items (`mind.neighbours`), with the weight that a training on the same clicks
would give it. This module knows nothing of Milvus.
"""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Float32
from mind.neighbours import APART_FADING, UNSEEN, WINDOW
from mind.sequences import Int64, Sequences
from mind.vocabulary import Vocabulary

MAX_BEFORE = 50
"""Maximum number of items that a new item is a neighbour of."""


@dataclass(frozen=True)
class Before:
    """The items that users clicked soon before a new item."""

    item_id: Int64
    """[n] int64, those first that the new item followed most often; n is 0 to `MAX_BEFORE`."""
    weight: Float32
    """[n] float32, above 0: the square root of the share of the clicks on the item that the new item followed."""


class ClicksBefore:
    """The clicks before items that a model does not know."""

    def __init__(self, sequences: Sequences, vocabulary: Vocabulary) -> None:
        """Look the clicks up.

        Args:
            sequences: the clicks of each user on new and known items, oldest first.
            vocabulary: the vocabulary of the model.
        """
        self._vocabulary = vocabulary
        self._row = vocabulary.item_index(sequences.item_id)
        self._clicks = np.bincount(self._row, minlength=len(vocabulary) + 1)  # [N + 1]
        new = np.flatnonzero(self._row == 0)
        order = np.argsort(sequences.item_id[new], kind="stable")
        self._place, self._item_id = new[order], sequences.item_id[new[order]]
        self._first = np.repeat(sequences.offsets[:-1], sequences.lengths)[self._place]  # of the user's clicks

    def of(self, new: int) -> Before:
        """Return the items of the model that users clicked soon before a new one."""
        own = slice(*np.searchsorted(self._item_id, (new, new + 1)))
        apart = np.arange(1, WINDOW + 1)
        place = self._place[own, None] - apart
        row = np.where(place >= self._first[own, None], self._row[np.maximum(place, 0)], 0)
        rows, which = np.unique(row, return_inverse=True)
        followed = np.bincount(which.ravel(), np.broadcast_to(APART_FADING ** (apart - 1), row.shape).ravel())
        rows, followed = rows[rows > 0], followed[rows > 0]
        best = np.argsort(-followed, kind="stable")[:MAX_BEFORE]
        weight = np.sqrt(followed[best] / (self._clicks[rows[best]] + UNSEEN)).astype(np.float32)
        return Before(self._vocabulary.item_id[rows[best] - 1], weight)
