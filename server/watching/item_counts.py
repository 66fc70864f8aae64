"""Counts in how many lists items are more or fewer than before, for the items of which this is most."""

import heapq

import numpy as np

from mind.sequences import Int64

MAX_ITEMS = 10_000
"""Maximum number of items to count. Beyond it the half that changed least is forgotten."""


class ItemCounts:
    """The net number of lists that items are new in, by item."""

    def __init__(self, most: int = MAX_ITEMS) -> None:
        """`most`: maximum number of items to count."""
        self._most = most
        self._net: dict[int, int] = {}

    def add(self, item_ids: Int64, step: int) -> None:
        """Count items, [n] int64 with repeats. `step`: 1 for lists that got them, -1 for lists that lost them."""
        items, counts = np.unique(item_ids, return_counts=True)
        for item_id, count in zip(items.tolist(), counts.tolist(), strict=True):
            self._net[item_id] = self._net.get(item_id, 0) + step * count

    def trim(self) -> None:
        """Forget items if there are too many."""
        if len(self._net) > self._most:
            kept = heapq.nlargest(self._most // 2, self._net.items(), key=lambda pair: abs(pair[1]))
            self._net = dict(kept)

    def top(self, number: int, step: int) -> list[tuple[int, int]]:
        """The items with the largest counts, and these counts; with `step` -1 the smallest. Ties go by id."""
        found = [(item_id, net) for item_id, net in self._net.items() if net * step > 0]
        return heapq.nsmallest(number, found, key=lambda pair: (-step * pair[1], pair[0]))
