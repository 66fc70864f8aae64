"""The popular list of a release without the items that were deleted from its collection.

The list comes from the model, which knows nothing of what was deleted since; so the collection is asked, at most every
`REFRESH_S`. Nobody waits long for it: while Milvus does not answer, what it said last is used.
"""

import asyncio
import time

import numpy as np

from server.errors import StoreError
from server.release import Popular, Release
from server.store import ItemStore

REFRESH_S = 0.5
"""Age up to which an answer is good."""
WAIT_S = 0.25
"""Longest wait for a new one."""


class PopularShelf:
    """Knows what is there of the popular list."""

    def __init__(self, store: ItemStore) -> None:
        """`store`: holds the collections."""
        self._store = store
        self._collection = ""
        self._shelf: Popular | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()

    async def of(self, release: Release) -> Popular:
        """The popular items of a release that are in its collection."""
        async with self._asking:
            if release.collection != self._collection:
                self._collection, self._shelf = release.collection, None
            if self._shelf is None or time.monotonic() - self._asked_at > REFRESH_S:
                self._shelf = await self._ask(release) or self._shelf or release.popular
                self._asked_at = time.monotonic()
            return self._shelf

    async def _ask(self, release: Release) -> Popular | None:
        popular = release.popular
        asking = self._store.matching(release.collection, popular.item_ids.tolist(), "")
        try:
            there = await asyncio.wait_for(asking, WAIT_S)
        except (StoreError, TimeoutError):
            return None
        keep = np.isin(popular.item_ids, list(there))
        return Popular(popular.item_ids[keep], popular.scores[keep])
