"""The popular items of a release that are still in its collection, for users without a usable history.

The list comes from the model, which does not know which items were deleted since. So the server asks Milvus which items
are left, at most every `REFRESH_S`, in the background. Requests get the previous list while it is not older than
`OLD_S`. Otherwise a request that needs the list waits for it, at most `WAIT_S`, unless Milvus does not answer.
"""

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from mind.vocabulary import Mask
from server.errors import StoreError
from server.popular import Popular
from server.ports import ItemStore
from server.release import Release
from server.serving.matching import Matches

REFRESH_S = 0.5
"""Age in seconds from which Milvus is asked again."""
OLD_S = 1.0
"""Age in seconds up to which an answer of Milvus is used while it is asked again."""
WAIT_S = 0.25
"""Longest wait for a new answer."""


class PopularItems:
    """Gives the popular items that are left, and remembers them for the releases that were asked about last."""

    def __init__(self, store: ItemStore, channels: int = 1) -> None:
        """`store`: holds the collections; `channels`: number of channels, each with a release to remember."""
        self._store = store
        self._most = channels
        self._left: OrderedDict[str, _Left] = OrderedDict()
        """What is left of each collection."""

    def refresh(self, release: Release) -> None:
        """Begin to ask Milvus, unless it was asked a moment ago."""
        left = self._left_of(release)
        if not left.asking and time.monotonic() - left.asked_at > REFRESH_S:
            left.asked_at = time.monotonic()
            left.asking = asyncio.create_task(self._ask(release, left))

    async def of(self, release: Release, wait_s: float = WAIT_S) -> Popular:
        """Return the popular items of a release that are in its collection. `wait_s`: longest wait for Milvus."""
        self.refresh(release)
        left = self._left_of(release)
        if left.asking and left.answers and time.monotonic() - left.answered_at > OLD_S:
            await asyncio.wait([left.asking], timeout=min(WAIT_S, wait_s))
        return left.popular

    def last(self, release: Release) -> Popular:
        """Return the same items as far as they are known, without asking Milvus."""
        return self._left_of(release).popular

    def _left_of(self, release: Release) -> "_Left":
        left = self._left.get(release.collection)
        if left is None:
            self._left[release.collection] = left = _Left(release.popular)
            if len(self._left) > self._most:
                self._left.popitem(last=False)
        else:
            self._left.move_to_end(release.collection)
        return left

    async def _ask(self, release: Release, left: "_Left") -> None:
        asking = self._store.existing(release.collection, release.popular.item_ids.tolist())
        try:
            left.popular = _only(release.popular, await asyncio.wait_for(asking, WAIT_S))
            left.answers, left.answered_at = True, left.asked_at
        except (StoreError, TimeoutError):
            left.answers = False
        finally:
            left.asking = None


@dataclass
class _Left:
    """The popular items of one collection that are known to be left."""

    popular: Popular
    asked_at: float = -math.inf
    """When Milvus was asked last, on the clock of `time.monotonic`."""
    answered_at: float = -math.inf
    """When Milvus was asked the question that it answered last."""
    asking: asyncio.Task[None] | None = None
    """The question that Milvus has not answered yet."""
    answers: bool = True
    """Whether Milvus answered the last question."""


def popular_among(release: Release, matches: Matches) -> Popular:
    """Return the popular items that match a filter."""
    row = release.vocabulary.item_index(release.popular.item_ids)
    place = np.searchsorted(matches.rows, row)
    there = place < len(matches.rows)
    there[there] = matches.rows[place[there]] == row[there]
    return _kept(release.popular, there)


def _only(popular: Popular, item_ids: set[int]) -> Popular:
    return _kept(popular, np.isin(popular.item_ids, list(item_ids)))


def _kept(popular: Popular, keep: Mask) -> Popular:
    return Popular(popular.item_ids[keep], popular.scores[keep])
