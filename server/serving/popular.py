"""The popular list of a release without the items that were deleted from its collection.

The list comes from the model, which knows nothing of what was deleted since; so the collection is asked, at most every
`REFRESH_S`. Nobody waits long for it, nor for a Milvus that did not answer the last time: what it said last is used.
"""

import asyncio
import math
import time
from dataclasses import dataclass

import numpy as np

from server.errors import StoreError
from server.ports import ItemStore
from server.release import Popular, Release

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
        self._shelf = _Shelf(Popular(np.zeros(0, np.int64), np.zeros(0, np.float32)))

    async def of(self, release: Release) -> Popular:
        """The popular items of a release that are in its collection."""
        shelf = self._shelf_of(release)
        if not shelf.asking and time.monotonic() - shelf.asked_at > REFRESH_S:
            shelf.asked_at = time.monotonic()
            shelf.asking = asyncio.create_task(self._ask(release, shelf))
        if shelf.asking and shelf.answers:
            await asyncio.wait([shelf.asking])
        return shelf.popular

    def last(self, release: Release) -> Popular:
        """The same as far as it is known, without asking."""
        return self._shelf_of(release).popular

    def _shelf_of(self, release: Release) -> "_Shelf":
        if release.collection != self._collection:
            self._collection, self._shelf = release.collection, _Shelf(release.popular)
        return self._shelf

    async def _ask(self, release: Release, shelf: "_Shelf") -> None:
        popular = release.popular
        asking = self._store.matching(release.collection, popular.item_ids.tolist(), "")
        try:
            keep = np.isin(popular.item_ids, list(await asyncio.wait_for(asking, WAIT_S)))
            shelf.popular = Popular(popular.item_ids[keep], popular.scores[keep])
            shelf.answers = True
        except (StoreError, TimeoutError):
            shelf.answers = False
        finally:
            shelf.asking = None


@dataclass
class _Shelf:
    """What is there of one collection's popular list."""

    popular: Popular
    asked_at: float = -math.inf
    """On the clock of `time.monotonic`."""
    asking: asyncio.Task[None] | None = None
    """The question that is on its way."""
    answers: bool = True
    """Whether Milvus answered the last one."""
