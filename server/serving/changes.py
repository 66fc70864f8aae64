"""Follows the changes of a collection's items, for code that stores something that was read from Milvus.

The indexer writes every batch of changes into a log (`mind.milvus.change_log`) after Milvus has accepted it. Milvus may
show the log a moment before it shows the items, so changed items are read again several times. The last time is late
enough: every answer of Milvus contains all changes that are older than 5 s (its bounded consistency).
"""

import asyncio
import time
from dataclasses import dataclass

from mind.milvus.change_log import ChangeLog
from mind.milvus.journal import rows_between
from server.ports import ItemStore

LOOK_S = 0.05
"""The log is not read again within so many seconds."""
READ_AGAIN_S = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0, 5.0)
"""When changed items are read again, in seconds since the change was seen."""
REMEMBERED_S = 300.0
"""How long a change is remembered. Values that were read before that must be read again."""


@dataclass(frozen=True)
class _Change:
    seen_at: float
    """When it was seen, on the clock of `time.monotonic`."""
    item_ids: frozenset[int] | None
    """The items that changed; None if any item may have."""

    def is_due(self, read_at: float, now: float) -> bool:
        """Whether values that were read at that time must be read again."""
        return any(read_at < self.seen_at + after <= now for after in READ_AGAIN_S)


class Changes:
    """The changes of one collection that were seen so far."""

    def __init__(self, store: ItemStore, collection: str) -> None:
        """Prepare to follow; `look` asks Milvus."""
        self.collection = collection
        self._store = store
        self._log: ChangeLog | None = None
        self._changes: list[_Change] = []
        self._since = time.monotonic()
        self._looked_at = -float("inf")
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Read the log, unless that was done a moment ago. Callers at the same time share one read.

        Raises:
            StoreError: Milvus cannot be asked.
        """
        if self._looking is None:
            if time.monotonic() - self._looked_at < LOOK_S:
                return
            self._looked_at = time.monotonic()
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    @property
    def never(self) -> bool:
        """Whether no change of an item of the collection was ever seen."""
        return self._log == ChangeLog()

    def to_read_again(self, read_at: float) -> set[int] | None:
        """Return the items that must be read again for values that were read at that time; None for all items.

        `read_at`: when Milvus was asked, on the clock of `time.monotonic`.
        """
        now = time.monotonic()
        if read_at < self._since or now - read_at > REMEMBERED_S:
            return None
        again: set[int] = set()
        for change in self._changes:
            if change.is_due(read_at, now):
                if change.item_ids is None:
                    return None
                again |= change.item_ids
        return again

    async def least_rows(self, built: int) -> int:
        """Return the least number of rows of the collection: those of the build, after the changes in its journal."""
        if self.never:
            return built
        changes = await self._store.changes(self.collection)
        return rows_between(changes, changes, built)[0]

    async def _look(self) -> None:
        log = await self._store.change_log(self.collection)
        now = time.monotonic()
        changed = log.changed_since(self._log or ChangeLog())
        if changed is None or changed:
            self._changes.append(_Change(now, changed if changed is None else frozenset(changed)))
        self._changes = [change for change in self._changes if now - change.seen_at <= REMEMBERED_S]
        self._log = log

    def _looked(self, look: "asyncio.Task[None]") -> None:
        self._looking = None
        if look.cancelled() or look.exception():
            self._looked_at = -float("inf")
