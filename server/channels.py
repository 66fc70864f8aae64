"""The channels of a server: several releases that are served side by side, each found by the name of its channel.

A channel without a release, or one whose release is refused, does not affect the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from server.errors import InvalidRequestError
from server.release import Release
from server.releases import Releases, watch


class Channels:
    """The channels of a server. The first one is the default."""

    def __init__(self, channels: Sequence[Releases]) -> None:
        """`channels`: at least one, each with another name."""
        self.default = channels[0]
        """The channel of requests that name none."""
        self._by_name = {each.channel: each for each in channels}

    def __iter__(self) -> Iterator[Releases]:
        """The channels, the default one first."""
        return iter(self._by_name.values())

    def __len__(self) -> int:
        """The number of channels."""
        return len(self._by_name)

    def of(self, name: str) -> Releases:
        """The releases of a channel; those of the default channel if the name is empty.

        Raises:
            InvalidRequestError: the server does not serve a channel of this name.
        """
        if not name:
            return self.default
        if found := self._by_name.get(name):
            return found
        served = ", ".join(self._by_name)
        says = f"{name!r} is not served here; the channels of this server are {served}"
        raise InvalidRequestError("channel", says, "UNKNOWN_CHANNEL")

    def get(self, name: str) -> Releases | None:
        """The releases of a channel; None if the server does not serve it."""
        return self._by_name.get(name)

    @property
    def served(self) -> list[Release]:
        """The releases that serve now, each once, that of the default channel first if it has one."""
        found = [each.current for each in self if each.loaded]
        return found if len(found) < 2 else list({release.collection: release for release in found}.values())

    async def watch(self, interval_s: float, on_health: Callable[[str, bool], Awaitable[None]]) -> None:
        """Check all channels for releases again and again, every `interval_s`; one that takes long delays no other.

        `on_health`: is told the name of a channel, and whether its requests can be answered.
        """

        async def of_one(releases: Releases) -> None:
            await watch(releases, interval_s, lambda healthy: on_health(releases.channel, healthy))

        await asyncio.gather(*(of_one(releases) for releases in self))
