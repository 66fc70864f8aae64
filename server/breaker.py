"""A circuit breaker before Milvus: once it does not answer, nobody waits for it until it does again.

A call that fails or takes long starts probes, real searches. When these fail too, the breaker opens: calls fail at
once, those in progress are given up. It closes with the first probe that is answered, whatever the answer: an error
that Milvus gives is not silence.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mind.artifact import Float32
from mind.hits import Hits
from mind.milvus.collection import Fingerprint
from mind.milvus.journal import Changes
from server.errors import ServerError, StoreTimeoutError, StoreUnavailableError
from server.store import ItemStore

logger = logging.getLogger(__name__)

SLOW_S = 1.0
"""A call that takes longer is a reason to probe."""
MISSES = 2
"""Probes in a row that fail, after the call that was the reason; one that waits in vain counts for both."""
PAUSE_S = 0.5
"""Between two probes."""

T = TypeVar("T")


class GuardedStore:
    """An `ItemStore` behind a circuit breaker."""

    def __init__(
        self, store: ItemStore, probe: Callable[[], Awaitable[Any]], on_change: Callable[[], Awaitable[None]]
    ) -> None:
        """`probe` searches, and raises StoreUnavailableError if nobody answers; `on_change` is told of `open`."""
        self._store = store
        self._probe = probe
        self._on_change = on_change
        self._waiting: set[asyncio.Timeout] = set()
        self._probing: asyncio.Task[None] | None = None
        self._silence = ""
        self.open = False
        """Whether Milvus is believed to be away."""

    async def live_collection(self) -> str | None:
        """See `ItemStore`."""
        return await self.guarded(self._store.live_collection)

    async def fingerprint(self, collection: str) -> Fingerprint | None:
        """See `ItemStore`."""
        return await self.guarded(lambda: self._store.fingerprint(collection))

    async def load(self, collection: str) -> None:
        """See `ItemStore`. Not guarded: it takes minutes, and may be what makes searches possible again."""
        await self._store.load(collection)

    async def count(self, collection: str, filter_: str = "", timeout_s: float | None = None) -> int:
        """See `ItemStore`."""
        return await self.guarded(lambda: self._store.count(collection, filter_, timeout_s))

    async def vectors(self, collection: str, item_ids: list[int]) -> dict[int, Float32]:
        """See `ItemStore`."""
        return await self.guarded(lambda: self._store.vectors(collection, item_ids))

    async def changes(self, collection: str) -> Changes:
        """See `ItemStore`."""
        return await self.guarded(lambda: self._store.changes(collection))

    async def deleted(self, collection: str, item_ids: list[int]) -> set[int]:
        """See `ItemStore`."""
        return await self.guarded(lambda: self._store.deleted(collection, item_ids))

    async def matching(self, collection: str, item_ids: list[int], filter_: str) -> set[int]:
        """See `ItemStore`."""
        return await self.guarded(lambda: self._store.matching(collection, item_ids, filter_))

    async def search(
        self, collection: str, vectors: Float32, limit: int, filter_: str, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """See `ItemStore`."""
        return await self.guarded(lambda: self._store.search(collection, vectors, limit, filter_, params, timeout_s))

    async def drop(self, collection: str) -> None:
        """See `ItemStore`."""
        await self.guarded(lambda: self._store.drop(collection))

    async def close(self) -> None:
        """See `ItemStore`."""
        if self._probing:
            self._probing.cancel()
        await self._store.close()

    async def guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do something that asks Milvus. Raises StoreUnavailableError at once while it does not answer."""
        if self.open:
            raise StoreUnavailableError(self._silence)
        slow = asyncio.get_running_loop().call_later(SLOW_S, self._suspect)
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waiting.add(wait)
                try:
                    return await call()
                finally:
                    self._waiting.discard(wait)
        except TimeoutError as error:  # `_set_open` ended the wait
            raise StoreUnavailableError(self._silence) from error
        except StoreUnavailableError:
            self._suspect()
            raise
        finally:
            slow.cancel()

    def _suspect(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe_until_answered())

    async def _probe_until_answered(self) -> None:
        misses = 0
        while True:
            try:
                await self._probe()
                break
            except StoreUnavailableError as error:
                misses += MISSES if isinstance(error, StoreTimeoutError) else 1
                self._silence = str(error)
            except ServerError:
                break
            if misses >= MISSES and not self.open:
                logger.warning("%s; nobody waits for it until a search is answered", self._silence)
                await self._set_open(True)
            await asyncio.sleep(PAUSE_S)
        if self.open:
            logger.info("Milvus answers again")
            await self._set_open(False)

    async def _set_open(self, is_open: bool) -> None:
        self.open = is_open
        if is_open:
            now = asyncio.get_running_loop().time()
            for wait in self._waiting:
                wait.reschedule(now)
        await self._on_change()
