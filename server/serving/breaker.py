"""A circuit breaker for Milvus: while Milvus does not answer, calls fail at once.

A call that fails or takes long starts probes, which are real searches. If the probes fail too, the breaker opens: new
calls fail at once, and calls in progress are ended. It closes with the first probe that Milvus answers. An error from
Milvus is an answer too.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar, cast

from server.errors import FAILURES, StoreTimeoutError, StoreUnavailableError

logger = logging.getLogger(__name__)

SLOW_S = 1.0
"""A call that takes longer starts a probe."""
MISSES = 2
"""So many probes in a row must fail before the breaker opens; a probe that times out counts as two."""
PAUSE_S = 0.5
"""Time between two probes."""

Store = TypeVar("Store")
T = TypeVar("T")


class Breaker:
    """Watches the calls of all stores that it guards, and opens and closes for all of them together."""

    def __init__(self, probe: Callable[[], Awaitable[Any]], on_change: Callable[[], Awaitable[None]]) -> None:
        """Make a closed breaker.

        Args:
            probe: searches Milvus without the breaker; raises StoreUnavailableError if Milvus does not answer.
            on_change: called after `open` has changed.
        """
        self._probe = probe
        self._on_change = on_change
        self._waiting: set[asyncio.Timeout] = set()
        self._probing: asyncio.Task[None] | None = None
        self._silence = ""
        """The error of the last failed probe. Callers get it while the breaker is open."""
        self.open = False
        """Whether the breaker assumes that Milvus does not answer."""

    def guard(self, store: Store, unguarded: Collection[str] = ()) -> Store:
        """Return the same store with every method behind this breaker, except the `unguarded` ones.

        All methods of the store must be coroutines. If a method calls others of the store, only the outer call is
        guarded.
        """
        return cast(Store, _Guarded(store, self, unguarded))

    def close(self) -> None:
        """Stop the probes of this breaker."""
        if self._probing:
            self._probing.cancel()

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call to Milvus. Raises StoreUnavailableError at once while the breaker is open."""
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
            except FAILURES:
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


class _Guarded:
    """Replaces a store, and passes every method call to the breaker."""

    def __init__(self, store: object, breaker: Breaker, unguarded: Collection[str]) -> None:
        self._store = store
        self._breaker = breaker
        self._unguarded = unguarded

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name in self._unguarded:
            return method

        async def guarded(*args: Any, **options: Any) -> Any:
            return await self._breaker.run(lambda: method(*args, **options))

        return guarded
