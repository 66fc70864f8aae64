"""Searches the items of a collection in memory, without Milvus, as far as the collection is known.

The vectors of the model are in memory anyway. What was added to the collection and deleted from it since its build is
read from Milvus beside the requests, again and again, so that it is known when Milvus does not answer any more. So are
the items that users clicked soon before the added ones.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mind.artifact import Artifact, Float32
from mind.cells import Cells
from mind.errors import ConfigError
from mind.hits import Hits
from mind.nearest import Rows, nearest
from mind.neighbours import AddedNeighbours
from mind.sequences import Int64
from server.errors import StoreError, StoreUnavailableError
from server.ports import ItemStore
from server.release import Release
from server.serving.added import LINK_ITEMS, Links
from server.serving.changes import Changes
from server.serving.depth import TOGETHER as MOST_HITS
from server.serving.filtered import with_fresh
from server.serving.matching import Matches
from server.serving.offload import computed
from server.serving.search import Found

if TYPE_CHECKING:  # FAISS may not be installed
    from mind.item_index import ItemIndex

logger = logging.getLogger(__name__)

EXACT_ITEMS = 50_000
"""Tables with at most so many items are scored completely; larger ones are searched with an index (`mind.item_index`).
"""
SEEN_S = 1.0
"""While Milvus answers, it must have been asked for changes within so many seconds."""
FOLLOW_S = 0.2
"""Time between two reads of the changes."""
READ_ITEMS = 10_000
"""Most items that Milvus is asked about at once."""
COLLECTIONS = 2
"""Collections of which the items are known, for each channel: that of its release, and of the one before."""


@dataclass(frozen=True)
class Known:
    """The items of a collection, as they were seen last."""

    items: Matches
    """All of them."""
    gone: Rows
    """[G] int32, ascending: the items that the model knows and the collection has not, as rows of the item table."""
    read_at: float
    """When Milvus was asked about them, on the clock of `time.monotonic`."""
    index: "ItemIndex | None"
    """The index of the items that the model knows; None if all are scored."""
    links: Links = field(default_factory=Links)
    """Which items users clicked soon before the added ones; none where the model has no neighbours."""
    added: AddedNeighbours | None = None
    """The added items as neighbours, in the rows of `server.serving.added.ItemRows`; None if there are none."""


class LocalItems:
    """The items of the collections that are served."""

    def __init__(self, store: ItemStore, channels: int = 1) -> None:
        """`store`: holds the collections; `channels`: number of channels that are served."""
        self._store = store
        self._most = COLLECTIONS * channels
        self._changes: dict[str, Changes] = {}
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._looked_at: dict[str, float] = {}
        """When Milvus was last asked for changes of a collection, on the clock of `time.monotonic`."""
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def follow(self, served: Callable[[], Sequence[Release]]) -> None:
        """Keep up with the collections of releases until cancelled. `served`: gives the releases."""
        while True:
            for release in served():
                try:
                    with suppress(StoreError):  # the next look may be answered
                        await self.look(release)
                except Exception:
                    logger.exception("looking for changes of collection %s failed", release.collection)
            await asyncio.sleep(FOLLOW_S)

    async def look(self, release: Release) -> None:
        """Read the changes of a release's collection. Callers at the same time share one read.

        Raises:
            StoreError: Milvus cannot be asked.
        """
        looking = self._looking.get(release.collection)
        if not looking:
            self._looking[release.collection] = looking = asyncio.create_task(self._look(release))
            looking.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it
            looking.add_done_callback(lambda _: self._looking.pop(release.collection))
        await asyncio.shield(looking)

    async def _look(self, release: Release) -> None:
        collection, looked_at = release.collection, time.monotonic()
        changes = self._changes.setdefault(collection, Changes(self._store, collection))
        await changes.look()
        known = self._known.get(collection)
        again = changes.to_read_again(known.read_at) if known else None
        if known and again == set():
            self._looked_at[collection] = looked_at
            self._known.move_to_end(collection)  # it is served: others are forgotten first
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
        self._looked_at[collection] = looked_at
        if len(self._known) > self._most:
            oldest, _ = self._known.popitem(last=False)
            del self._changes[oldest], self._looked_at[oldest]

    def knows(self, release: Release) -> bool:
        """Whether the items of a release's collection were ever seen."""
        return release.collection in self._known

    def known(self, release: Release) -> Known:
        """Return the items of a release's collection, as they were seen last."""
        return self._known[release.collection]

    async def search_users(self, release: Release, vectors: Float32, limits: Int64) -> Found:
        """Search for each user among the items that were seen last.

        Args:
            release: its collection must be known.
            vectors: [B, K, D] float32, the interest vectors of B users; all-zero ones find nothing.
            limits: [B] int64, hits of each interest that each user gets.
        """
        user, interest = np.nonzero(np.any(vectors, axis=2))
        hits = await self.search(release, vectors[user, interest], int(limits.max(initial=0)))
        return Found(user, interest, await computed(len(hits.item_ids), hits.first, limits[user]))

    async def search_now(self, release: Release, vectors: Float32, limit: int, timeout_s: float) -> Hits:
        """Search as `search` does, after all changes up to `SEEN_S` ago have been seen.

        Raises:
            StoreUnavailableError: Milvus cannot be asked for changes, or does not answer in time.
        """
        await self.catch_up(release, timeout_s)
        return await self.search(release, vectors, limit)

    async def seen(self, release: Release, timeout_s: float) -> bool:
        """Whether all changes up to `SEEN_S` ago are known. If necessary, this asks Milvus, for `timeout_s` at most."""
        try:
            await self.catch_up(release, timeout_s)
        except StoreError:
            return False
        return True

    async def catch_up(self, release: Release, timeout_s: float) -> None:
        """Ask Milvus for changes, unless that was done `SEEN_S` ago at most. Then the release's collection is known.

        Raises:
            StoreError: Milvus cannot be asked, or does not answer in time.
        """
        if time.monotonic() - self._looked_at.get(release.collection, -float("inf")) > SEEN_S:
            try:
                async with asyncio.timeout(timeout_s):
                    await self.look(release)
            except TimeoutError as error:
                raise StoreUnavailableError("Milvus does not answer: it was asked which items changed") from error

    async def search(self, release: Release, vectors: Float32, limit: int) -> Hits:
        """Return the `limit` items nearest to each of the [Q, D] vectors among those that were seen last.

        It always runs in a thread, so that requests that come meanwhile share the next batch. Searching for many users
        together costs less than half of searching for one after the other.
        """
        known = self.known(release)
        find = _nearest_by_index if known.index and limit <= MOST_HITS else _nearest
        item_ids, scores = await asyncio.to_thread(find, release, known, vectors, limit)
        return Hits(item_ids.ravel(), scores.ravel(), np.full(len(vectors), item_ids.shape[1]))

    async def _read(self, release: Release, known: Known, item_ids: Int64) -> Known:
        """Return what is known after Milvus was asked about some items."""
        row = release.vocabulary.item_index(item_ids)
        built, new = item_ids[row > 0], item_ids[row == 0]
        there = await self._store.existing(release.collection, built.tolist()) if len(built) else set()
        vectors = await self._store.vectors(release.collection, new.tolist()) if len(new) else {}
        told = {}
        if vectors and release.neighbours is not None:
            told = await self._store.clicked(release.collection, list(vectors))
        gone = _replaced(known.gone, row[row > 0], row[row > 0][~np.isin(built, list(there))])
        size = len(release.vocabulary) + len(known.items.fresh_ids) + LINK_ITEMS * len(told) + len(known.links.added)
        return await computed(size, _with, release, known, gone, new, vectors, told)


def _as_built(release: Release) -> Known:
    """Return the items of a collection that has not changed since its build."""
    rows = np.arange(1, len(release.vocabulary) + 1, dtype=np.int32)
    items = Matches(rows, np.zeros(0, np.int64), np.zeros((0, release.item_embedding.shape[1]), np.float32))
    return Known(items, rows[:0], -float("inf"), release.index)


def _replaced(gone: Rows, read: Int64, gone_of_read: Int64) -> Rows:
    """Return the rows that are gone after some were read, ascending."""
    return np.union1d(np.setdiff1d(gone, read), gone_of_read).astype(np.int32)


def _with(
    release: Release, known: Known, gone: Rows, new: Int64, vectors: dict[int, Float32], told: Mapping[int, str]
) -> Known:
    """What is known after some items were read.

    Args:
        release: whose items.
        known: what was known before.
        gone: all rows that are gone.
        new: [F] int64, the items that were read and that the model does not know.
        vectors: of those of them that the collection has, [D] float32 each.
        told: what the journal says of clicks on these.
    """
    rows, ids = known.items.rows, known.items.fresh_ids
    if not np.array_equal(gone, known.gone):
        rows = np.delete(np.arange(1, len(rows) + len(known.gone) + 1, dtype=np.int32), gone - 1)
    kept = ~np.isin(ids, new)
    dim = known.items.fresh_vectors.shape[1]
    found = np.array(list(vectors.values()), np.float32).reshape(-1, dim)
    ids = np.concatenate([ids[kept], np.array(list(vectors), np.int64)])
    order = np.argsort(ids)
    ids = ids[order]
    items = Matches(rows, ids, np.concatenate([known.items.fresh_vectors[kept], found])[order])
    index = known.index
    if index and rows is not known.items.rows:
        index = index.among(rows, gone)
    links, added = known.links.updated(new, told, release.vocabulary), known.added
    if links is not known.links or not np.array_equal(ids, known.items.fresh_ids):
        added = links.neighbours(ids, len(release.vocabulary)) if len(links.added) else None
    return Known(items, gone, known.read_at, index, links, added)


def _nearest(release: Release, known: Known, vectors: Float32, limit: int) -> tuple[Int64, Float32]:
    rows, scores = nearest(vectors, release.item_embedding, known.items.rows, limit)
    return with_fresh(release, vectors, known.items, rows, scores, limit)


def _nearest_by_index(release: Release, known: Known, vectors: Float32, limit: int) -> tuple[Int64, Float32]:
    assert known.index  # noqa: S101 - the caller looked
    rows, scores = known.index.nearest(vectors, limit)
    return with_fresh(release, vectors, known.items, rows, scores, limit)


def index_maker(search: str) -> Callable[[Artifact, Cells | None], "ItemIndex | None"]:
    """Return a function that makes the index of a model's items for the option `--search`.

    Raises:
        ConfigError: FAISS is not installed.
    """
    if search == "milvus":
        return lambda *_: None
    try:
        from mind.item_index import index_of  # not above: it needs FAISS
    except ModuleNotFoundError as error:
        raise ConfigError("--search local: FAISS is not installed; it is the extra local") from error

    def make(artifact: Artifact, cells: Cells | None) -> "ItemIndex | None":
        table, interests = artifact.weights.item_embedding, artifact.weights.golden_interest_vectors
        items, index, how = len(table) - 1, None, "all are scored for each interest"
        if cells and items > EXACT_ITEMS:
            index = index_of(table, cells, interests.reshape(-1, table.shape[1]))
        if index and cells:
            looked_into = f"{index.cells} of {len(cells.centre):,} cells are looked into"
            how = f"index of {index.nbytes / 1e6:,.0f} MB, {looked_into}, recall@{MOST_HITS} {index.recall:.4f}"
        logger.info("the %s items of model %s are searched in memory: %s", f"{items:,}", artifact.model_version, how)
        return index

    return make
