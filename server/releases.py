"""Follows the release of one channel: the alias in Milvus names it, model and collection together.

A release that fails a check is refused, and the one before it keeps serving. A release is taken over in one assignment.
The one before it stays in memory, for requests in progress and for a quick rollback.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from mind.milvus.channels import LIVE, alias_of
from server.errors import (
    FAILURES,
    Failure,
    NotReadyError,
    ReleaseRefusedError,
    StoreError,
    StoreUnavailableError,
)
from server.loader import Loader
from server.ports import ItemStore
from server.release import Release

logger = logging.getLogger(__name__)

REFUSED_AGAIN_S = (5, 300)
"""Pause in seconds before a refused release is checked again: the first, which doubles each time, and the longest."""
COUNT_EVERY_S = 60.0
"""How often the rows of the collection being served are counted."""
HEALTH_S = 1.0
"""Longest time between two looks whether the collection being served can be searched."""


@dataclass(frozen=True)
class _Refusal:
    """A release that failed a check."""

    collection: str
    reason: str
    times: int
    again_at: float
    """When it is checked again, on the clock of `time.monotonic`."""


class Releases:
    """Follows the alias of one channel. Requests use `current`."""

    def __init__(
        self,
        store: ItemStore,
        loader: Loader,
        channel: str = LIVE,
        keep_previous: bool = True,
        on_check: Callable[[Release | None, Failure | None], None] = lambda *_: None,
    ) -> None:
        """Prepare to follow; nothing is loaded yet.

        Args:
            store: Milvus.
            loader: loads releases; other channels may share it.
            channel: the name of the channel.
            keep_previous: whether the release before the current one stays in memory.
            on_check: called after every check with the release that serves, and with the error if the check failed.
        """
        self.channel = channel
        """The name of the channel."""
        self._of_channel = "" if channel == LIVE else f"channel {channel}: "
        self._on_check = on_check
        self._store = store
        self._loader = loader
        self._keep_previous = keep_previous
        self._current: Release | None = None
        self._refusal: _Refusal | None = None
        self._checking = asyncio.Lock()
        self.previous: Release | None = None
        """The release before the current one; None without one, or if it made room for one that is being loaded."""
        self._left: list[Release] = []
        """Releases that the channel does not need any more, to be freed."""
        self.refused = ""
        """Why the newest release was not taken over; empty if it was."""
        self.miscounted = ""
        """What is wrong with the number of rows of the collection being served; empty if nothing is."""
        self.unloaded = ""
        """Why the collection being served cannot be searched, as far as is known; empty if it can."""
        self._counted_at = 0.0

    @property
    def current(self) -> Release:
        """The release to serve with. Raises NotReadyError before the first."""
        if self._current is None:
            raise NotReadyError(f"{self._of_channel}no release is loaded: {self.refused or 'starting'}")
        return self._current

    @property
    def refused_collection(self) -> str:
        """The collection of the release that a check refused; empty if none is refused."""
        return self._refusal.collection if self._refusal else ""

    @property
    def loaded(self) -> bool:
        """Whether a release is loaded."""
        return self._current is not None

    def of_collection(self, collection: str) -> Release | None:
        """The current release or the one before, if it has this collection."""
        return next((each for each in (self._current, self.previous) if each and each.collection == collection), None)

    async def can_serve(self) -> bool:
        """Whether the collection of the current release is still in Milvus, whatever the alias says.

        True while Milvus does not answer: the circuit breaker decides how long requests wait for it. True, too, while
        the collection is not in memory, which `unloaded` says; the next `check` loads it.
        """
        try:
            collection = self.current.collection
            loaded = await self._store.loaded(collection)
        except StoreUnavailableError:
            return True
        except (NotReadyError, StoreError):
            return False
        self.unloaded = "" if loaded else f"collection {collection} is not in Milvus' memory; it is being loaded"
        return True

    async def check(self, insist: bool = False) -> tuple[Release | None, Release]:
        """Look at the alias, take over the release that it names, and make sure that its collection is in memory.

        Args:
            insist: check a refused release now, without the pause that grows with every refusal.

        Returns:
            The release before and the release now.

        Raises:
            ReleaseRefusedError: the named release fails a check.
            StoreError: Milvus cannot be asked, or the collection being served is gone.
        """
        async with self._checking:
            before = self._current
            await self._free_left()
            if before is not None and self.unloaded:
                with suppress(StoreError):  # first, because nothing else is asked of Milvus while searches fail
                    await self._store.load(before.collection)
            try:
                name = await self._store.released_collection(self.channel)
                if name is None:
                    raise ReleaseRefusedError(self._unpublished())
                if before is not None and before.collection == name:
                    await self._store.load(name)
                    await self._count_again(before)
                    self._current = before = release = await self._loader.with_rules(before)
                else:
                    release = await self._take_over(name, insist)
                    self.miscounted, self._counted_at = "", time.monotonic()
            except FAILURES as error:
                if self.refused != str(error):
                    stays = f"; model {before.model_version} stays" if before else ""
                    logger.warning("%s%s%s", self._of_channel, error, stays)
                self._on_check(before, error)
                self.refused = str(error)
                raise
            self.refused, self._refusal = "", None
            if release is not before:
                if self.previous and self.previous is not release:
                    self._left.append(self.previous)  # which stayed, because another channel has the new one
                self._current, self.previous = release, before if self._keep_previous else None
                if before and not self._keep_previous:
                    self._left.append(before)  # freed by the next check, when requests in progress have ended
                told = self._of_channel, release.model_version, name
                logger.info("%sserving model %s from collection %s", *told)
            self._on_check(release, None)
            return before, release

    def _unpublished(self) -> str:
        """The reason of a channel without an alias."""
        option = "" if self.channel == LIVE else f" --channel {self.channel}"
        return f"Milvus has no alias {alias_of(self.channel)!r}; `python -m indexer publish{option}` sets it"

    async def _take_over(self, collection: str, insist: bool) -> Release:
        """Check a release that is not the current one."""
        refusal = self._refusal if self._refusal and self._refusal.collection == collection else None
        if refusal and not insist and time.monotonic() < refusal.again_at:
            raise ReleaseRefusedError(refusal.reason)
        try:
            if self.previous is not None and not self._loader.has(collection):
                self._left.append(self.previous)  # otherwise there would be three in memory
                self.previous = None
                await self._free_left()
            return await self._loader.take(collection)
        except ReleaseRefusedError as error:
            times = refusal.times + 1 if refusal else 1
            first, longest = REFUSED_AGAIN_S
            pause = min(first * 2 ** (times - 1), longest)
            self._refusal = _Refusal(collection, str(error), times, time.monotonic() + pause)
            raise

    async def _free_left(self) -> None:
        """Free releases in a thread, because it takes 10 ms to unmap a model of 1 GB."""
        if self._left:
            await asyncio.to_thread(self._left.clear)

    async def _count_again(self, release: Release) -> None:
        """Count the rows of the collection being served now and then, because anybody may write to Milvus."""
        if time.monotonic() - self._counted_at < COUNT_EVERY_S:
            return
        self._counted_at = time.monotonic()
        problem = await self._loader.count(release)
        if problem and problem != self.miscounted:
            logger.error("%s; it is served nevertheless: build it again and publish it", problem)
        self.miscounted = problem


async def watch(releases: Releases, interval_s: float, on_health: Callable[[bool], Awaitable[None]]) -> None:
    """Check for releases again and again, every `interval_s`, and tell `on_health` whether requests can be answered.

    A check that takes long, because a model is downloaded or a collection loaded, does not delay what `on_health` is
    told, at least every `HEALTH_S`.
    """
    checked = asyncio.Event()
    checking = asyncio.create_task(_keep_checking(releases, interval_s, checked))
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(checked.wait(), interval_s)
        while True:
            try:
                healthy = await releases.can_serve()
            except Exception:
                logger.exception("asking for the collection being served failed")
                healthy = False
            await on_health(healthy)
            await asyncio.sleep(min(interval_s, HEALTH_S))
    finally:
        checking.cancel()


async def _keep_checking(releases: Releases, interval_s: float, checked: asyncio.Event) -> None:
    """Check again and again. `checked`: set after every check."""
    while True:
        try:
            with suppress(*FAILURES):  # check has logged it
                await releases.check()
        except Exception:
            logger.exception("checking for a release failed")
        checked.set()
        await asyncio.sleep(interval_s)
