"""External item ids (any int64) and their rows in the embedding table (1 to N; 0 is padding and "unknown")."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.sequences import Int64, pad_last

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Vocabulary:
    """The items of a model.

    `item_id`: [N] int64, strictly ascending; row `i + 1` of the item table is for `item_id[i]`.
    """

    item_id: Int64

    def __len__(self) -> int:
        """Return the number of items (N)."""
        return len(self.item_id)

    def item_index(self, item_id: Int64) -> Int64:
        """Return the rows of external ids, in the same shape: int64, 0 if the id is unknown."""
        if not len(self.item_id):
            return np.zeros_like(item_id)
        position = np.minimum(np.searchsorted(self.item_id, item_id), len(self.item_id) - 1)
        return np.where(self.item_id[position] == item_id, position + 1, 0)

    def look_up(self, item_id: Int64, offsets: Int64, maxlen: int) -> tuple[Int64, Int64, Mask]:
        """Turn histories into the inputs of an encoder. Unknown items are dropped, then the newest `maxlen` are kept.

        Args:
            item_id: [n] int64, external ids of all histories, oldest first, one history after the other.
            offsets: [B + 1] int64, the position at which each history starts.
            maxlen: L, the maximum number of items of a history.

        Returns:
            hist_index: [B, L] int64 rows, oldest first, 0-padded on the right.
            seq_len: [B] int64, the number of items of each row.
            known: [n] bool, whether each id is known.
        """
        item_index = self.item_index(item_id)
        known: Mask = item_index > 0
        known_offsets = np.concatenate([[0], np.cumsum(known)])[offsets]
        return *pad_last(item_index[known], known_offsets, maxlen), known
