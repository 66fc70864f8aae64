"""Two servers that append to, replace and delete the same users at the same time, while a job encodes these users.

    python -m tests.faults.user_races --races 1000

Every race is one user. What is checked follows from when calls began and were answered. A click that was answered
before a deletion or replacement began is never seen or stored again once that is answered. A search for similar users
does not find a user who has no other clicks. A click whose call began after all deletions and replacements were
answered is there, and so is every click of a user whom nobody deletes or replaces.

Every call that brings clicks says that they were shown, too. The same holds for these, but a replacement of the history
does not touch them.
"""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from indexer.users.encode import encode_users, purge
from mind.artifact import Artifact
from mind.encoder import NumpyEncoder
from mind.milvus.aio_store import MilvusStore
from mind.milvus.aio_user_store import MilvusUserStore
from mind.milvus.connection import Connection
from mind.milvus.histories import HISTORIES, ROW_KEY, USER_HASH, Head, user_hash
from mind.milvus.shown import MAX_SHOWN, SHOWN, TTL_DAYS
from mind.milvus.store import Store
from mind.milvus.user_store import UserStore
from mind.milvus.users import HIST_ITEM, UserVectors, user_id_of
from mind.transfer import Models
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from server.users import ports
from server.users.histories import RememberedUsers, UserUpdate
from server.users.shown import ShownItems
from server.users.vectors import UserVectorIndex
from tests.fake_store import FakeStore
from tests.faults.ground import console, make_models, own_milvus, say
from tests.releases import item_store

FIRST_ITEM, ITEM_STEP = 1_000, 7
"""The items of `tests.artifacts`."""
PRINTED = 20
"""Problems that are printed."""
ROUND_USERS = 20
"""Races that run at the same time, and so share the servers' batches."""
MAX_SIMILAR = 2_000
"""Similar users that are searched for: all users, unless the drill is longer than that."""
SPREAD_S = 0.4
"""The calls of a race begin within this time."""
KINDS: tuple[tuple[str, ...], ...] = (
    ("append", "append"),
    ("append", "append", "append", "append"),
    ("delete", "append"),
    ("delete", "append", "append", "append"),
    ("replace", "append"),
    ("replace", "append", "append", "delete"),
    ("delete", "delete", "append"),
    ("replace", "replace", "append"),
)


@dataclass
class Call:
    """A write or deletion of one user, and when it was under way."""

    kind: str
    clicks: list[int] = field(default_factory=list)
    began: float = 0
    ended: float = float("inf")

    @property
    def cuts(self) -> bool:
        """Whether it makes an end of the clicks from before."""
        return self.kind != "append"


@dataclass
class Race:
    """One user, the calls for this user, and what was read meanwhile."""

    user_id: str
    calls: list[Call] = field(default_factory=list)
    seen: list[tuple[float, float, list[int]]] = field(default_factory=list)
    """When a read began and ended, and the history that it found."""
    were_shown: list[tuple[float, float, list[int]]] = field(default_factory=list)
    """The same for items that were shown."""
    found: list[tuple[float, float]] = field(default_factory=list)
    """When a search for similar users that found this user began and ended."""

    @property
    def of_shown(self) -> "Race":
        """The race for what the user was shown, of which a replacement of the history makes no end."""
        return Race(self.user_id, [replace(one, kind="append") if one.kind == "replace" else one for one in self.calls])

    def gone(self, at: float) -> set[int]:
        """The clicks that no read may see that begins at this time."""
        ended = [call for call in self.calls if call.cuts and call.ended < at]
        return {c for call in self.calls for cut in ended if call.ended < cut.began for c in call.clicks}

    def deleted(self, at: float, until: float) -> bool:
        """Whether the user has no click that counts for a call that begins at a time and ends at another."""
        return {click for call in self.calls if call.began < until for click in call.clicks} <= self.gone(at)

    def there(self, at: float, until: float) -> set[int]:
        """The clicks that every read must see that begins at a time and ends at another."""
        cuts = [call for call in self.calls if call.cuts and call.began < until]
        safe = [
            call
            for call in self.calls
            if call.ended < at and not any(cut is not call and cut.ended > call.began for cut in cuts)
        ]
        return {click for call in safe for click in call.clicks}

    def wrong(self, at: float, until: float, found: Sequence[int]) -> str:
        """What is wrong with a history that a read found between two times; empty if nothing is."""
        if back := self.gone(at) & set(found):
            return f"{sorted(back)} are from before a deletion"
        if lost := self.there(at, until) - set(found):
            return f"{sorted(lost)} are lost"
        if len(set(found)) < len(found):
            return "a click is there twice"
        place = {click: number for number, click in enumerate(found)}
        for first in self.calls:
            for second in self.calls:
                if first.ended < second.began:
                    pairs = ((a, b) for a in first.clicks for b in second.clicks if a in place and b in place)
                    if any(place[a] > place[b] for a, b in pairs):
                        return "the clicks are in the wrong order"
        return ""


class Races:
    """Runs races on two servers and collects what went wrong."""

    def __init__(
        self,
        stores: Sequence[ports.UserStore],
        release: Release,
        encode_on: Executor,
        clicks_of: Callable[[str, Sequence[str]], Awaitable[dict[str, list[int]]]],
    ) -> None:
        """Two servers.

        Args:
            stores: of each server.
            release: that both serve.
            encode_on: as in `server.serving.pipeline`.
            clicks_of: gives the ids in all rows of users in a collection, whether they count or not.
        """
        self._stores = stores
        self._release = release
        self._clicks_of = clicks_of
        self._vectors = [UserVectorIndex(store, encode_on) for store in stores]
        self._shown = [ShownItems(store, MAX_SHOWN, TTL_DAYS, 4_096) for store in stores]
        own = zip(stores, self._vectors, self._shown, strict=True)
        self._servers = [RememberedUsers(*of_server, 500, 4_096) for of_server in own]
        self.problems: list[str] = []

    async def round(self, number: int, users: int, rng: random.Random, spread_s: float = SPREAD_S) -> None:
        """Race for some users at once, and check what is left."""
        for vectors in self._vectors:
            await vectors.open(self._release)
        races = [Race(f"r{number}u{one}") for one in range(users)]
        reading = asyncio.create_task(self._read(races, rng))
        await asyncio.gather(*(self._call(race, "replace", 3, 0) for race in races))
        work: list[Awaitable[None]] = []
        for race in races:
            first = rng.randrange(2)
            for one, kind in enumerate(rng.choice(KINDS)):
                work.append(self._call(race, kind, 1 + rng.randrange(2), (first + one) % 2, rng.uniform(0, spread_s)))
        await asyncio.gather(*work)
        await self._check(races, "after the race")
        for server in (0, 1):
            await asyncio.gather(*(self._call(race, "append", 1, server) for race in races))
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await self._check(races, "at the end")
        for race in races:
            for at, until, found in race.seen:
                self._note(race, "a read", race.wrong(at, until, found))
            for at, until, found in race.were_shown:
                self._note(race, "a read of what was shown", race.of_shown.wrong(at, until, found))
            if any(race.deleted(at, until) for at, until in race.found):
                self._note(race, "a search", "a deleted user was found")

    async def _call(self, race: Race, kind: str, clicks: int, server: int, after_s: float = 0) -> None:
        await asyncio.sleep(after_s)
        call = Call(kind)
        race.calls.append(call)
        call.began = time.monotonic()
        users, release = self._servers[server], self._release
        if kind == "delete":
            await users.delete([release], [race.user_id], None)
        else:
            first = sum(len(one.clicks) for one in race.calls)
            call.clicks = [FIRST_ITEM + ITEM_STEP * (first + one) for one in range(clicks)]
            ids = np.array(call.clicks, np.int64)
            update = UserUpdate(race.user_id, ids, append=kind == "append", shown=ids)
            await users.upsert([release], [update], None)
        call.ended = time.monotonic()

    async def _read(self, races: list[Race], rng: random.Random) -> None:
        """Read all users and search for similar ones again and again, through both servers in turn."""
        query = await self._vectors[0].encode(self._release, [np.array([FIRST_ITEM])])
        while True:
            for store, vectors, shown in zip(self._stores, self._vectors, self._shown, strict=True):
                at = time.monotonic()
                [similar] = await vectors.similar(self._release, query, [""], MAX_SIMILAR, 60)
                names, until = {user_id for user_id, _ in similar}, time.monotonic()
                for race in races:
                    if race.user_id in names:
                        race.found.append((at, until))
                at = time.monotonic()
                found = await store.histories([race.user_id for race in races])
                for race in races:
                    history = found.get(race.user_id)
                    race.seen.append((at, time.monotonic(), [] if history is None else history.tolist()))
                at = time.monotonic()
                found = await shown.of([race.user_id for race in races], None)
                for race in races:
                    items = found.get(race.user_id)
                    race.were_shown.append((at, time.monotonic(), [] if items is None else items.tolist()))
                await asyncio.sleep(rng.uniform(0, 0.02))

    async def _check(self, races: list[Race], when: str) -> None:
        """Hold what is stored, as any server sees it, against the calls that were answered."""
        ids = [race.user_id for race in races]
        at = time.monotonic()
        for store in self._stores:
            found, heads = await store.histories(ids), await store.heads(ids)
            encoded = await self._until_encoded(store, heads)
            for race in races:
                history = found.get(race.user_id)
                self._note(race, when, race.wrong(at, at, [] if history is None else history.tolist()))
                head = heads.get(race.user_id)
                if (history is not None) != bool(head and head.remembered):
                    self._note(race, when, f"the history is {history}, and its head {head}")
                expected = head.version if head and head.remembered else None
                if encoded.get(race.user_id) != expected and history is not None:
                    self._note(race, when, f"vectors are of {encoded.get(race.user_id)}, the history is {head}")
                if history is None and race.user_id in encoded:
                    self._note(race, when, "vectors of a deleted user")
        for name in (HISTORIES, SHOWN):
            stored = await self._clicks_of(name, ids)
            for race in races:
                gone = (race if name == HISTORIES else race.of_shown).gone(at)
                if back := gone & set(stored.get(race.user_id, [])):
                    self._note(race, when, f"{sorted(back)} are stored in {name}, and from before a deletion")

    async def _until_encoded(self, store: ports.UserStore, heads: dict[str, Head]) -> dict[str, int]:
        """The versions that the vectors of these users are of, once they are those of the histories, or after 3 s."""
        sizes = self._release.hyper_parameters.num_interests, self._release.hyper_parameters.embedding_dim
        vectors = UserVectors(model_version=self._release.model_version, num_interests=sizes[0], dim=sizes[1])
        expected = {user_id: head.version for user_id, head in heads.items() if head.remembered}
        for _ in range(30):
            encoded = await store.encoded_at(vectors, heads)
            if encoded == expected:
                break
            await asyncio.sleep(0.1)
        return encoded

    def _note(self, race: Race, when: str, problem: str) -> None:
        if problem:
            calls = "; ".join(f"{c.kind} {c.clicks} {c.began % 1000:.3f} to {c.ended % 1000:.3f}" for c in race.calls)
            self.problems.append(f"{race.user_id}, {when}: {problem} ({calls})")
            if len(self.problems) <= PRINTED:
                console.print(self.problems[-1], markup=False, soft_wrap=True)


async def drill(
    uri: str, models: Sequence[Artifact], artifacts: Path, races: int, seed: int, users: int = ROUND_USERS
) -> list[str]:
    """Race on Milvus while all users are encoded with the second model again and again; returns what went wrong."""
    rng = random.Random(seed)
    started = time.monotonic()
    async with AsyncExitStack() as stack:
        connections = [item_store(uri, timeout_s=60) for _ in range(1 if uri.endswith(".db") else 2)]
        for connection in connections:
            stack.push_async_callback(connection.close)
        stores = [MilvusUserStore(connections[0]), MilvusUserStore(connections[-1])]
        for store in stores:
            await store.open()
        encode_on = stack.enter_context(ThreadPoolExecutor(1))
        release = await served(models[0], artifacts)
        both = Races(stores, release, encode_on, partial(_clicks_of, connections[0]))
        stop = threading.Event()
        publishing = asyncio.create_task(asyncio.to_thread(_publish, uri, models[1], artifacts, stop))
        try:
            for number in range(-(-races // users)):
                await both.round(number, min(users, races - number * users), rng)
                if number % 5 == 4:
                    took = time.monotonic() - started
                    say(f"{(number + 1) * users} races in {took:.0f} s, {len(both.problems)} problems")
        finally:
            stop.set()
            published = await publishing
        both.problems += await asyncio.to_thread(_compare, uri, models[1], artifacts)
    say(f"{races} races, {published} times all users were encoded, {len(both.problems)} problems")
    return both.problems


async def served(model: Artifact, artifacts: Path) -> Release:
    """The release of a model, as a server loads it."""
    store = FakeStore()
    store.publish(model)
    releases = Releases(
        store, Loader(store, Models(artifacts), lambda one: NumpyEncoder(one.weights, one.hyper_parameters))
    )
    await releases.check()
    return releases.current


async def _clicks_of(milvus: MilvusStore, name: str, user_ids: Sequence[str]) -> dict[str, list[int]]:
    query = {
        "filter": f"{USER_HASH} in {[user_hash(user_id) for user_id in user_ids]}",
        "output_fields": [ROW_KEY, HIST_ITEM],
        "consistency_level": "Strong",
    }
    found: dict[str, list[int]] = {}
    for row in await milvus.session.call(lambda client: client.query(name, **query)):
        found.setdefault(user_id_of(row[ROW_KEY]), []).extend(row[HIST_ITEM])
    return found


def _publish(uri: str, model: Artifact, artifacts: Path, stop: threading.Event) -> int:
    """Encode all users, as `publish` does, until told to stop; returns how often."""
    times = 0
    with Store(Connection(uri)) as store:
        while not stop.is_set():
            encode_users(store, model.model_version, Models(artifacts), lambda stage, done, total: None)
            times += 1
    return times


def _compare(uri: str, model: Artifact, artifacts: Path) -> list[str]:
    """Encode and purge once more, in quiet: all who are remembered have vectors of their histories, and nobody else."""
    with Store(Connection(uri)) as store:
        encode_users(store, model.model_version, Models(artifacts), lambda stage, done, total: None)
        purge(store, lambda name: None)
        users = UserStore(store)
        [vectors] = [one for one in users.vectors() if one.model_version == model.model_version]
        store.load(vectors.collection)
        encoded: dict[str, int] = {}
        for user_ids in users.encoded(vectors, 10_000):
            encoded |= users.encoded_at(vectors, user_ids)
        heads = users.heads(sorted(encoded))
        problems = []
        for user_id, version in encoded.items():
            head = heads.get(user_id)
            if head is None or not head.remembered or head.version != version:
                problems.append(f"{user_id}, published: vectors are of {version}, the history is {head}")
        if len(encoded) != users.count():
            problems.append(f"published: {len(encoded)} users are encoded, {users.count()} remembered")
    return problems


def main(
    races: Annotated[int, typer.Option(min=1, help="Users to race for.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of the choice of calls.")] = 2024,
) -> None:
    """Race on two servers."""
    with own_milvus() as (milvus, directory):
        artifacts = directory / "artifacts"
        models = make_models(artifacts, 2)
        problems = asyncio.run(drill(milvus.uri, models, artifacts, races, seed))
    for problem in problems[PRINTED:]:
        console.print(problem, markup=False, soft_wrap=True)
    raise typer.Exit(int(bool(problems)))


if __name__ == "__main__":
    typer.run(main)
