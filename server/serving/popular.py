"""The popular items of a release that are still in its collection, for users without a usable history.

The list comes from the model, which does not know which items were deleted since. So Milvus is asked which are left, at
most every `REFRESH_S`. No request waits for it longer than `WAIT_S`; while Milvus does not answer, its last answer is
used without waiting.
"""

import asyncio
import math
import time
from dataclasses import dataclass

import numpy as np

from mind.vocabulary import Mask
from server.errors import StoreError
from server.ports import ItemStore
from server.release import Popular, Release
from server.serving.matching import Matches

REFRESH_S = 0.5
"""Age in seconds up to which an answer of Milvus is used again."""
WAIT_S = 0.25
"""Longest wait for a new answer."""


class PopularItems:
    """Gives the popular items that are left, and remembers them for one release at a time."""

    def __init__(self, store: ItemStore) -> None:
        """`store`: holds the collections."""
        self._store = store
        self._collection = ""
        self._left = _Left(Popular(np.zeros(0, np.int64), np.zeros(0, np.float32)))

    async def of(self, release: Release) -> Popular:
        """The popular items of a release that are in its collection."""
        left = self._left_of(release)
        if not left.asking and time.monotonic() - left.asked_at > REFRESH_S:
            left.asked_at = time.monotonic()
            left.asking = asyncio.create_task(self._ask(release, left))
        if left.asking and left.answers:
            await asyncio.wait([left.asking])
        return left.popular

    def last(self, release: Release) -> Popular:
        """The same as far as it is known, without asking Milvus."""
        return self._left_of(release).popular

    def _left_of(self, release: Release) -> "_Left":
        if release.collection != self._collection:
            self._collection, self._left = release.collection, _Left(release.popular)
        return self._left

    async def _ask(self, release: Release, left: "_Left") -> None:
        asking = self._store.existing(release.collection, release.popular.item_ids.tolist())
        try:
            left.popular = _only(release.popular, await asyncio.wait_for(asking, WAIT_S))
            left.answers = True
        except (StoreError, TimeoutError):
            left.answers = False
        finally:
            left.asking = None


@dataclass
class _Left:
    """What is known to be left of one collection's popular items."""

    popular: Popular
    asked_at: float = -math.inf
    """When Milvus was asked last, on the clock of `time.monotonic`."""
    asking: asyncio.Task[None] | None = None
    """The question that Milvus has not answered yet."""
    answers: bool = True
    """Whether Milvus answered the last question."""


def popular_among(release: Release, matches: Matches) -> Popular:
    """The popular items that match a filter."""
    row = release.vocabulary.item_index(release.popular.item_ids)
    return _kept(release.popular, np.isin(row, matches.rows))


def _only(popular: Popular, item_ids: set[int]) -> Popular:
    return _kept(popular, np.isin(popular.item_ids, list(item_ids)))


def _kept(popular: Popular, keep: Mask) -> Popular:
    return Popular(popular.item_ids[keep], popular.scores[keep])
