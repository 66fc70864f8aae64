"""Finds the items that match a filter. It asks Milvus once, and then only about items that change.

Milvus evaluates every filter, so a filter means what it means in Milvus. Answers are kept; the least recently used
ones are evicted. Each answer is brought up to date before it is used again.
"""

import asyncio
import json
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from mind.artifact import Float32
from mind.cells import Cells, Members
from mind.milvus.collection import ITEM_ID
from mind.nearest import Rows
from mind.sequences import Int64
from server.errors import StoreUnavailableError
from server.ports import ItemStore
from server.release import Release
from server.serving.changes import REMEMBERED_S, Changes
from server.serving.offload import computed

MAX_BYTES = 64 * 2**20
"""Memory for answers: 24 filters that match 331,000 items each, or 210 that match 36,000."""
COLLECTIONS = 2
"""Collections that are followed for each channel: that of its release, and of the one before."""
REFRESH_S = REMEMBERED_S / 2
"""Age from which an answer is read again in the background.

This finds changes that did not come from the indexer, such as rows that somebody deleted in Milvus by hand.
"""

DOUBTED_S = 1.0
"""How long an answer is kept if Milvus did not count all rows before it: it may still have been loading them."""
READS = 4
"""Most filters whose matches are read at a time. Milvus needs 1.2 µs per item."""
BROAD = 0.5
"""If a filter matches more than this share of the items, the server reads those that do not match."""
EVERY = f"{ITEM_ID} >= {-(2**63) + 1}"
"""The filter that every item matches."""

Key = tuple[str, str]
"""A collection and a filter."""


@dataclass(frozen=True)
class Matches:
    """The items that match a filter."""

    rows: Rows
    """[M] int32, ascending: those that the model knows, as rows of its item table."""
    fresh_ids: Int64
    """[F] int64, ascending: those that were added to the collection since."""
    fresh_vectors: Float32
    """[F, D] float32."""
    members: Members | None = None
    """The rows in the order of the cells that are searched; None if they are so few that all are scored."""

    def __len__(self) -> int:
        """The number of items."""
        return len(self.rows) + len(self.fresh_ids)

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        members = self.members.nbytes if self.members else 0
        return self.rows.nbytes + self.fresh_ids.nbytes + self.fresh_vectors.nbytes + members

    def in_cells(self, cells: Cells | None) -> "Matches":
        """Return these matches, ready to be searched with the cells of the item table."""
        return replace(self, members=cells.members(self.rows)) if cells else self

    def without(self, others: "Matches") -> "Matches":
        """Return these matches without the given ones."""
        kept = ~np.isin(self.fresh_ids, others.fresh_ids)
        rows = np.setdiff1d(self.rows, others.rows, assume_unique=True)
        return Matches(rows, self.fresh_ids[kept], self.fresh_vectors[kept])

    def updated(self, rows: Int64, fresh_ids: Int64, again: "Matches") -> "Matches":
        """Return the matches after some items were read again: known ones by row, fresh ones by id."""
        kept = ~np.isin(self.fresh_ids, fresh_ids)
        ids = np.concatenate([self.fresh_ids[kept], again.fresh_ids])
        vectors = np.concatenate([self.fresh_vectors[kept], again.fresh_vectors])
        order = np.argsort(ids)
        known = np.union1d(np.setdiff1d(self.rows, rows, assume_unique=True), again.rows)
        return Matches(known.astype(np.int32), ids[order], vectors[order])


@dataclass(frozen=True)
class _Read:
    matches: Matches
    read_at: float
    """When Milvus was asked, on the clock of `time.monotonic`."""
    doubted: bool
    """Whether a count just before lacked rows of the collection."""

    @property
    def usable(self) -> bool:
        """Whether the answer may be kept, as far as Milvus is concerned."""
        return not self.doubted or time.monotonic() - self.read_at < DOUBTED_S


class MatchingItems:
    """Gives the matches of filters."""

    def __init__(self, store: ItemStore, max_bytes: int = MAX_BYTES, channels: int = 1) -> None:
        """`store`: holds the collections; `max_bytes`: memory for what is kept; `channels`: number of them served."""
        self._store = store
        self._most = COLLECTIONS * channels
        self._max_bytes = max_bytes
        self._changes: OrderedDict[str, Changes] = OrderedDict()
        self._known: OrderedDict[Key, _Read] = OrderedDict()
        self._reading: dict[Key, asyncio.Task[Matches]] = {}
        self._room = asyncio.Semaphore(READS)

    async def of(self, release: Release, filter_: str, timeout_s: float) -> Matches:
        """Return the items of a release's collection that match a canonical filter.

        A caller without time leaves; the read continues for later callers.

        Raises:
            FilterError: Milvus cannot use the filter.
            StoreUnavailableError: Milvus did not answer in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._of(release, filter_)
        except TimeoutError as error:
            raise StoreUnavailableError("Milvus does not answer: it was asked which items match the filter") from error

    def last(self, release: Release, filter_: str) -> Matches | None:
        """The matches as they were read last, without asking Milvus; None if they are not kept."""
        known = self._known.get((release.collection, filter_))
        return known.matches if known else None

    async def _of(self, release: Release, filter_: str) -> Matches:
        key = release.collection, filter_
        changes = self._follow(release.collection)
        await changes.look()
        joined = self._reading.get(key)
        if known := self._current(key, changes):
            if time.monotonic() - known.read_at > REFRESH_S and not joined:
                self._read(release, filter_, None)
            return known.matches
        if joined:  # it may have begun before the last change
            await asyncio.shield(joined)
            if known := self._current(key, changes):
                return known.matches
        return await asyncio.shield(self._reading.get(key) or self._read(release, filter_, changes))

    def _follow(self, collection: str) -> Changes:
        changes = self._changes.pop(collection, None) or Changes(self._store, collection)
        self._changes[collection] = changes
        if len(self._changes) > self._most:
            self._changes.popitem(last=False)
        return changes

    def _current(self, key: Key, changes: Changes) -> _Read | None:
        """Return the stored answer, if it is up to date."""
        known = self._known.get(key)
        if known is None or not known.usable or changes.to_read_again(known.read_at) != set():
            return None
        self._known.move_to_end(key)
        return known

    def _read(self, release: Release, filter_: str, changes: Changes | None) -> "asyncio.Task[Matches]":
        """Begin to read all matches or, if `changes` allow it, those among the items that changed."""
        key = release.collection, filter_
        known = self._known.get(key) if changes else None
        again = changes.to_read_again(known.read_at) if changes and known and not known.doubted else None
        read_at = time.monotonic()

        async def read() -> Matches:
            doubted = False
            try:
                if known is None or again is None:
                    rows = await self._store.count(release.collection, strong=False)
                    least_rows = self._follow(release.collection).least_rows(release.fingerprint.count)
                    matches, least = await asyncio.gather(self._all(release, filter_), least_rows)
                    doubted = rows < least
                else:
                    matches = await self._again(release, filter_, known.matches, sorted(again))
                matches = await computed(len(matches), matches.in_cells, release.cells)
                self._keep(key, _Read(matches, read_at, doubted))
                return matches
            finally:
                del self._reading[key]

        self._reading[key] = task = asyncio.create_task(read())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it any more
        return task

    def _keep(self, key: Key, read: _Read) -> None:
        self._known[key] = read
        self._known.move_to_end(key)
        size = sum(each.matches.nbytes for each in self._known.values())
        while size > self._max_bytes and len(self._known) > 1:
            size -= self._known.popitem(last=False)[1].matches.nbytes

    async def _all(self, release: Release, filter_: str) -> Matches:
        collection = release.collection
        if filter_ == EVERY and self._follow(collection).never:
            return Matches(
                np.arange(1, len(release.vocabulary) + 1, dtype=np.int32),
                np.zeros(0, np.int64),
                np.zeros((0, release.item_embedding.shape[1]), np.float32),
            )
        if filter_ != EVERY:
            matching = await self._store.count(collection, filter_, strong=False)
            if matching > BROAD * len(release.vocabulary):
                every = await self._of(release, EVERY)
                async with self._room:
                    others = await self._located(release, await self._store.matching(collection, f"not ({filter_})"))
                if len(matches := every.without(others)) == matching:
                    return matches
        async with self._room:
            return await self._located(release, await self._store.matching(collection, filter_))

    async def _again(self, release: Release, filter_: str, known: Matches, changed: list[int]) -> Matches:
        both = f"({filter_}) and {ITEM_ID} in {json.dumps(changed)}"
        matches = await self._located(release, await self._store.matching(release.collection, both))
        row = release.vocabulary.item_index(np.array(changed, np.int64))
        return known.updated(row[row > 0], np.array(changed, np.int64)[row == 0], matches)

    async def _located(self, release: Release, item_ids: Int64) -> Matches:
        row = await computed(len(item_ids), release.vocabulary.item_index, item_ids)
        fresh = item_ids[row == 0]
        vectors = await self._store.vectors(release.collection, fresh.tolist()) if len(fresh) else {}
        there = [item_id for item_id in fresh.tolist() if item_id in vectors]
        dim = release.item_embedding.shape[1]
        stacked = np.array([vectors[item_id] for item_id in there], np.float32).reshape(-1, dim)
        return Matches(row[row > 0].astype(np.int32), np.array(there, np.int64), stacked)
