"""Searches the items of a collection in memory, without Milvus, as far as the collection is known.

The vectors of the model are in memory anyway. What was added to the collection and deleted from it since its build is
read from Milvus beside the requests, again and again, so that it is known when Milvus does not answer any more.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits
from mind.nearest import Rows
from mind.sequences import Int64
from server.errors import StoreError
from server.ports import ItemStore
from server.release import Release
from server.serving.changes import Changes
from server.serving.filtered import PAIRS_PER_ITEM, nearest_among
from server.serving.matching import Matches
from server.serving.offload import computed
from server.serving.search import Found

logger = logging.getLogger(__name__)

FOLLOW_S = 0.2
"""Time between two looks at what changed."""
READ_ITEMS = 10_000
"""Most items that Milvus is asked about at once."""
COLLECTIONS = 2
"""Collections of which the items are known: that of the release being served, and of the one before."""


@dataclass(frozen=True)
class Known:
    """The items of a collection, as they were seen last."""

    items: Matches
    """All of them."""
    gone: Rows
    """[G] int32, ascending: the items that the model knows and the collection has not, as rows of the item table."""
    read_at: float
    """When Milvus was asked, on the clock of `time.monotonic`."""


class LocalItems:
    """The items of the collections that are served."""

    def __init__(self, store: ItemStore) -> None:
        """`store`: holds the collections."""
        self._store = store
        self._changes: dict[str, Changes] = {}
        self._known: OrderedDict[str, Known] = OrderedDict()

    async def follow(self, current: Callable[[], Release | None]) -> None:
        """Keep up with the collection of the current release for ever. `current`: gives it; None without one."""
        while True:
            if release := current():
                try:
                    with suppress(StoreError):  # the next look may be answered
                        await self.look(release)
                except Exception:
                    logger.exception("looking for changes of collection %s failed", release.collection)
            await asyncio.sleep(FOLLOW_S)

    async def look(self, release: Release) -> None:
        """Bring what is known of a release's collection up to date. Raises StoreError."""
        collection = release.collection
        changes = self._changes.setdefault(collection, Changes(self._store, collection))
        await changes.look()
        known = self._known.get(collection)
        again = changes.to_read_again(known.read_at) if known else None
        if known and again == set():
            return
        read_at = time.monotonic()
        if known and again is not None:
            item_ids = np.array(sorted(again), np.int64)
        else:
            known = await computed(len(release.vocabulary), _as_built, release)
            item_ids = np.zeros(0, np.int64) if changes.never else await self._store.changed_items(collection)
        for start in range(0, len(item_ids), READ_ITEMS):
            known = await self._read(release, known, item_ids[start : start + READ_ITEMS])
        self._known[collection] = replace(known, read_at=read_at)
        self._known.move_to_end(collection)
        if len(self._known) > COLLECTIONS:
            del self._changes[self._known.popitem(last=False)[0]]

    def knows(self, release: Release) -> bool:
        """Whether the items of a release's collection were ever seen."""
        return release.collection in self._known

    def known(self, release: Release) -> Known:
        """The items of a release's collection, as they were seen last."""
        return self._known[release.collection]

    async def search_users(self, release: Release, vectors: Float32, limits: Int64) -> Found:
        """Search for each user among the items that were seen last, exactly.

        Args:
            release: its collection must be known.
            vectors: [B, K, D] float32, the interest vectors of B users; all-zero ones find nothing.
            limits: [B] int64, hits of each interest that each user gets.
        """
        user, interest = np.nonzero(np.any(vectors, axis=2))
        hits = await self.search(release, vectors[user, interest], int(limits.max(initial=0)))
        return Found(user, interest, await computed(len(hits.item_ids), hits.first, limits[user]))

    async def search(self, release: Release, vectors: Float32, limit: int) -> Hits:
        """The `limit` items nearest to each of the [Q, D] vectors, exactly, among those that were seen last."""
        items = self.known(release).items
        size = len(vectors) * len(items) // PAIRS_PER_ITEM
        item_ids, scores = await computed(size, nearest_among, release, vectors, items, limit)
        return Hits(item_ids.ravel(), scores.ravel(), np.full(len(vectors), item_ids.shape[1]))

    async def _read(self, release: Release, known: Known, item_ids: Int64) -> Known:
        """What is known after Milvus was asked about some items."""
        row = release.vocabulary.item_index(item_ids)
        built, new = item_ids[row > 0], item_ids[row == 0]
        there = await self._store.existing(release.collection, built.tolist()) if len(built) else set()
        vectors = await self._store.vectors(release.collection, new.tolist()) if len(new) else {}
        gone = _replaced(known.gone, row[row > 0], row[row > 0][~np.isin(built, list(there))])
        size = len(release.vocabulary) + len(known.items.fresh_ids)
        return await computed(size, _with, known, gone, new, vectors)


def _as_built(release: Release) -> Known:
    """The items of a collection to which nothing happened since its build."""
    rows = np.arange(1, len(release.vocabulary) + 1, dtype=np.int32)
    items = Matches(rows, np.zeros(0, np.int64), np.zeros((0, release.item_embedding.shape[1]), np.float32))
    return Known(items, rows[:0], -float("inf"))


def _replaced(gone: Rows, read: Int64, gone_of_read: Int64) -> Rows:
    """The rows that are gone after some were read, ascending."""
    return np.union1d(np.setdiff1d(gone, read), gone_of_read).astype(np.int32)


def _with(known: Known, gone: Rows, new: Int64, vectors: dict[int, Float32]) -> Known:
    """What is known after some items were read.

    Args:
        known: what was known before.
        gone: all rows that are gone.
        new: [F] int64, the items that were read and that the model does not know.
        vectors: of those of them that the collection has, [D] float32 each.
    """
    rows, ids = known.items.rows, known.items.fresh_ids
    if not np.array_equal(gone, known.gone):
        rows = np.delete(np.arange(1, len(rows) + len(known.gone) + 1, dtype=np.int32), gone - 1)
    kept = ~np.isin(ids, new)
    dim = known.items.fresh_vectors.shape[1]
    found = np.array(list(vectors.values()), np.float32).reshape(-1, dim)
    ids = np.concatenate([ids[kept], np.array(list(vectors), np.int64)])
    order = np.argsort(ids)
    items = Matches(rows, ids[order], np.concatenate([known.items.fresh_vectors[kept], found])[order])
    return Known(items, gone, known.read_at)
