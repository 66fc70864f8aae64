"""Releases, rollbacks and promotions of three channels back to back under full load: no call may fail or mix models.

    python -m tests.faults.releases --releases 20

Four models over the same items take turns, so an answer of one model out of the collection of another, or of another
channel, would look plausible. Every answer is compared with the exact one of the model that it names, and that model
must be the release of the channel that was asked.
"""

import asyncio
import itertools
from pathlib import Path

import numpy as np
import typer

from clients import AsyncRecallClient
from mind.milvus.channels import LIVE
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests import releases as rollouts
from tests.faults.ground import Findings, make_models, own_milvus, release, say, serving
from tests.faults.load import Answers, Load
from tests.milvus_server import Milvus

CALLERS, TIMEOUT_S = 32, 5.0
FOLLOWED_S = 20
WATCH_S = 0.2
"""Between looks at the aliases, so that releases can come back to back."""
CHANNELS = (LIVE, "b", "uk-home")
MODELS = 4
MOVES = (
    *(("publish", "b"), ("publish", "uk-home"), ("promote", "b"), ("publish", "b"), ("rollback", LIVE)),
    *(("rollback", "b"), ("publish", LIVE), ("publish", "uk-home"), ("rollback", LIVE), ("rollback", "uk-home")),
)
"""What an operator does, again and again: a command and its channel."""


class Shop:
    """The channels of a Milvus, and what each serves: moved by the commands of an operator."""

    def __init__(self, uri: str, collections: list[str]) -> None:
        self._uri = uri
        self._collections = collections
        self._releases: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        """The releases of each channel that count, the oldest first."""
        self.allowed: dict[str, set[str]] = {channel: set() for channel in CHANNELS}
        """The collections that each channel may answer from now."""

    def served(self, channel: str) -> str:
        """The collection of a channel."""
        return self._releases[channel][-1]

    def publish_all(self) -> None:
        """Give every channel its first release."""
        for channel, collection in zip(CHANNELS, self._collections, strict=False):
            self._releases[channel] = [collection]
            with Store(Connection(self._uri)) as store:
                rollouts.publish(store, collection, channel)
            self.followed(channel)

    def move(self, command: str, channel: str, findings: Findings) -> str:
        """Run a command; gives the channel that it moved. A publish takes a collection that no channel serves."""
        moved = LIVE if command == "promote" else channel
        before = self._releases[moved]
        if command == "rollback":
            self._releases[moved] = before[:-1]
        else:
            served = {own[-1] for own in self._releases.values()}
            free = next(name for name in self._collections if name not in served)
            new = self.served(channel) if command == "promote" else free
            self._releases[moved] = [*(name for name in before if name != new), new]
        self.allowed[moved] = {before[-1], self.served(moved)}
        with Store(Connection(self._uri)) as store:
            if command == "promote":
                found = rollouts.promote(store, channel).live
            elif command == "rollback":
                found = rollouts.rollback(store, channel=channel).live
            else:
                found = rollouts.publish(store, self.served(moved), channel).live
        findings.expect(found == self.served(moved), f"{command} {channel}: {found} is live, not {self.served(moved)}")
        return moved

    def followed(self, channel: str) -> None:
        """From now on a channel answers from its release alone."""
        self.allowed[channel] = {self.served(channel)}


async def drill(milvus: Milvus, directory: Path, releases: int, steady_s: float) -> tuple[Findings, Load]:
    """Run it.

    Args:
        milvus: without item collections and release aliases.
        directory: empty.
        releases: how often an alias moves, by a publish, a rollback or a promotion.
        steady_s: seconds of load before and after.
    """
    findings = Findings()
    models = make_models(directory / "artifacts", MODELS)
    shop = Shop(milvus.uri, await asyncio.to_thread(release, milvus.uri, *models))
    await asyncio.to_thread(shop.publish_all)
    options = [word for channel in CHANNELS for word in ("--channel", channel)]
    async with (
        serving(milvus.uri, directory / "artifacts", "--watch-interval-s", str(WATCH_S), *options) as (server,),
        AsyncRecallClient(server.address, timeout_s=TIMEOUT_S) as asking,
    ):
        for channel in CHANNELS:
            await _followed(asking, channel, shop.served(channel))
        async with Load([server.address], Answers(models), CALLERS, TIMEOUT_S, channels=shop.allowed) as load:
            await asyncio.sleep(2)
            say(f"{CALLERS} callers of the channels {', '.join(CHANNELS)}")
            before = load.phase("before")
            await asyncio.sleep(steady_s)
            switching = load.phase(f"{releases} releases, rollbacks and promotions")
            followed = []
            for command, channel in itertools.islice(itertools.cycle(MOVES), releases):
                moved = await asyncio.to_thread(shop.move, command, channel, findings)
                took = await _followed(asking, moved, shop.served(moved))
                shop.followed(moved)
                followed.append(took)
                say(f"{command} {channel}: {shop.served(moved)} serves in {moved} after {took:.1f} s")
            load.phase("after")
            await asyncio.sleep(steady_s)
    findings.seconds("alias moved to served, median", float(np.median(followed)), FOLLOWED_S)
    findings.seconds("alias moved to served, longest", max(followed), FOLLOWED_S)
    ratio = switching.percentile_ms(99) / before.percentile_ms(99)
    findings.measured["p99 during switches, times the p99 before"] = f"{ratio:.2f}"
    return findings, load


async def _followed(client: AsyncRecallClient, channel: str, collection: str) -> float:
    """Seconds until a server serves a collection in a channel; infinite if it does not."""
    started = asyncio.get_running_loop().time()
    while collection not in {
        each.collection for each in (await client.get_server_info()).channels if each.name == channel
    }:
        if asyncio.get_running_loop().time() - started > FOLLOWED_S:
            return float("inf")
        await asyncio.sleep(0.05)
    return asyncio.get_running_loop().time() - started


def judge(findings: Findings, load: Load) -> None:
    """Nothing may fail, be wrong or late."""
    for phase in load.phases[1:]:
        faults = phase.failed, phase.wrong, phase.late
        findings.expect(not any(faults), f"{phase.name}: {faults} failed, wrong, late of {dict(phase.outcomes)}")


def main(releases: int = 20, steady_s: float = 15) -> None:
    """Release, roll back and promote under load."""
    with own_milvus() as (milvus, directory):
        findings, load = asyncio.run(drill(milvus, directory, releases, steady_s))
        judge(findings, load)
        before, switching = load.phases[1:3]
        ratio = switching.percentile_ms(99) / before.percentile_ms(99)
        findings.expect(ratio <= 2, f"p99 during switches is {ratio:.2f} times the p99 before, expected 2 at most")
        findings.close(load.table("calls"))


if __name__ == "__main__":
    typer.run(main)
