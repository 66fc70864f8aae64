"""External item ids (any int64) and their rows in the embedding table (1 to N; 0 is padding and "unknown")."""

from dataclasses import dataclass

import numpy as np

from mind.sequences import Int64


@dataclass(frozen=True)
class Vocabulary:
    """`item_id`: [N] int64, strictly ascending; row `i + 1` of the embedding table belongs to `item_id[i]`."""

    item_id: Int64

    def __len__(self) -> int:
        """Number of items (N)."""
        return len(self.item_id)

    def item_index(self, item_id: Int64) -> Int64:
        """Rows of external ids; same shape, int64, 0 where the id is unknown."""
        if not len(self.item_id):
            return np.zeros_like(item_id)
        position = np.minimum(np.searchsorted(self.item_id, item_id), len(self.item_id) - 1)
        return np.where(self.item_id[position] == item_id, position + 1, 0)
