"""The indexer killed with SIGKILL at random moments of build, publish, upsert, rollback and prune, while callers call.

    python -m tests.faults.indexer_kills --kills 50

Whatever the moment, what is live must stay live and exact, the same command given again must end right, and what it
leaves must be exact.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from clients import AsyncRecallClient
from indexer.catalogue import ItemCollection, item_collections, with_changes
from mind.artifact import Artifact
from mind.milvus.collection import is_item_collection
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests.faults.ground import console, make_models, own_milvus, release, say, serving
from tests.faults.load import Answers, Load
from tests.milvus_server import ROOT

OPERATIONS = ("build", "publish", "upsert", "rollback", "prune")
NEW_ITEMS = range(10**9, 10**9 + 2_000)
"""What upsert adds; their vectors are next to nothing, so that candidates are the same with them and without."""
CALLERS, PAUSE_S, DEADLINE_S = 2, 0.02, 5.0
FOLLOW_S = 30.0
"""In which a server follows the alias."""
_MAIN = "from indexer.__main__ import main; print('ready', flush=True); main()"


class Fault(Exception):  # noqa: N818 - what the drill looks for
    """The indexer left something wrong behind."""


class Drill:
    """Operations on three models: old and live are released in this order, spare is what operations come and go with.

    Every operation begins and ends with old and live released.
    """

    def __init__(
        self,
        uri: str,
        artifacts: Path,
        models: Sequence[Artifact],
        released: Sequence[str],
        client: AsyncRecallClient,
    ) -> None:
        """`released`: collections of the first two models, the third has none yet; `client`: of the server."""
        self._uri = uri
        self._client = client
        self._artifacts = artifacts
        self._models = {model.model_version: model for model in models}
        self._versions = [model.model_version for model in models]
        self._old, self._live = released
        self._spare = ""
        self._vectors, self._ids = artifacts.parent / "new.csv", artifacts.parent / "new.txt"
        vector = "|".join(["1e-6"] * models[0].hyper_parameters.embedding_dim)
        self._vectors.write_text("\n".join(["item_id,embedding", *(f"{item},{vector}" for item in NEW_ITEMS)]))
        self._ids.write_text("\n".join(map(str, NEW_ITEMS)))
        self._took_s: dict[str, float] = {}
        self.moments: Counter[str] = Counter()
        """How far the commands had come."""

    async def measure(self) -> None:
        """Run every operation once, undisturbed, to know how long it takes."""
        for operation in OPERATIONS:
            await self._arrange(operation)
            self._took_s[operation] = await self._indexer(*self._words(operation)) or 0
            self._spare = self._spare or next(each.name for each in self._collections() if not each.published_at)
            await self._restore(operation)
        say("undisturbed: " + ", ".join(f"{name} {took_s:.1f} s" for name, took_s in self._took_s.items()))

    async def kill(self, operation: str, moment: float) -> str:
        """Kill one command at a share of the time that it takes; gives how far it had come. Raises Fault."""
        await self._arrange(operation)
        before = self._collections()
        ended = await self._indexer(*self._words(operation), kill_after_s=moment * self._took_s[operation])
        after = self._collections()
        done = self._done(operation, after)
        if not done:
            allowed = {"publish": {self._live}, "rollback": {self._spare}}.get(operation, {self._live})
            if {each.name for each in after if each.live} != allowed:
                raise Fault(f"{operation} was cut short, and live is not {allowed}: {after}")
            await self._indexer(*self._words(operation))
        last = self._collections()
        if not self._done(operation, last):
            raise Fault(f"{operation}, given again, left {last}")
        await asyncio.to_thread(self._check_contents, last, len(NEW_ITEMS) if operation == "upsert" else 0)
        await self._followed(next(each.name for each in last if each.live))
        await self._restore(operation)
        how_far = "ended" if ended is not None else "done" if done else "begun" if before != after else "not begun"
        self.moments[f"{operation}: {how_far}"] += 1
        return how_far

    def _words(self, operation: str) -> list[str]:
        return {
            "build": self._build(self._versions[2]),
            "publish": ["publish", self._spare],
            "upsert": ["upsert", "--artifact", str(self._artifacts), "--vectors", str(self._vectors)],
            "rollback": ["rollback"],
            "prune": ["prune", "--keep", "0", "--incomplete"],
        }[operation]

    def _build(self, version: str) -> list[str]:
        return ["build", "--artifact", str(self._artifacts / version), "--index-type", "FLAT"]

    async def _arrange(self, operation: str) -> None:
        there = {each.name for each in self._collections()}
        if operation == "build" and self._spare in there:
            await self._indexer("drop", self._spare, "--yes")
        if operation != "build" and self._spare not in there:
            await self._indexer(*self._build(self._versions[2]))
        if operation == "rollback":
            await self._indexer("publish", self._spare)

    async def _restore(self, operation: str) -> None:
        if operation == "publish":
            await self._indexer("rollback")
        if operation == "upsert":
            await self._indexer("delete", "--ids-file", str(self._ids))
        if operation == "prune":
            await self._indexer(*self._build(self._versions[0]))
            for name in (self._old, self._live):
                await self._indexer("publish", name)
        await self._followed(self._live)  # the next prune or drop, without --server, spares only what is live

    def _done(self, operation: str, found: list[ItemCollection]) -> bool:
        live = next(each.name for each in found if each.live)
        finished = {each.name for each in found if each.fingerprint}
        return {
            "build": live == self._live
            and finished >= {self._old, self._live, self._spare or live}
            and len(found) == 3,
            "publish": live == self._spare and len(found) == 3,
            "upsert": live == self._live and len(found) == 3 and self._new_items() == len(NEW_ITEMS),
            "rollback": live == self._live and len(found) == 3,
            "prune": [each.name for each in found] == [self._live],
        }[operation]

    def _collections(self) -> list[ItemCollection]:
        with Store(Connection(self._uri)) as store:
            finished = [one for one in item_collections(store) if is_item_collection(one.name)]
            return with_changes(store, finished)

    def _new_items(self) -> int:
        with Store(Connection(self._uri)) as store:
            return len(store.vectors(self._live, np.array(NEW_ITEMS)))

    def _check_contents(self, collections: list[ItemCollection], new_items: int) -> None:
        """Every collection holds its model's items and vectors, no others but the live one's new ones. Raises Fault."""
        with Store(Connection(self._uri)) as store:
            for each in collections:
                if each.fingerprint is None:
                    raise Fault(f"{each.name} is unfinished after all")
                weights = self._models[each.fingerprint.model_version].weights
                store.load(each.name)
                stored = store.vectors(each.name, weights.item_id)
                same = [
                    np.array_equal(stored.get(item, np.zeros(0)), vector)
                    for item, vector in zip(weights.item_id.tolist(), weights.item_embedding[1:], strict=True)
                ]
                more = new_items if each.name == self._live else 0
                if store.count(each.name) != len(same) + more or not all(same):
                    raise Fault(f"{each.name} holds {store.count(each.name)} items, {sum(same)} as in the model")

    async def _followed(self, collection: str) -> None:
        """Wait until the server serves what is live. Raises Fault."""
        deadline = time.monotonic() + FOLLOW_S
        while (await self._client.get_server_info()).collection != collection:
            if time.monotonic() > deadline:
                raise Fault(f"after {FOLLOW_S:g} s the server does not serve {collection}, which is live")
            await asyncio.sleep(0.1)

    async def _indexer(self, *words: str, kill_after_s: float | None = None) -> float | None:
        """Run a command, and kill it after so many seconds of its own work; how long it took, None if it was killed."""
        command = [sys.executable, "-c", _MAIN, *words, "--milvus-uri", self._uri]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
        assert process.stdout
        await process.stdout.readline()
        started = time.monotonic()
        talk = asyncio.create_task(process.communicate())
        await asyncio.wait([talk], timeout=kill_after_s)
        if not talk.done():
            process.kill()
        _, errors = await talk
        if process.returncode == -9:
            return None
        if process.returncode:
            raise Fault(f"indexer {' '.join(words)} ended with {process.returncode}: {errors.decode()}")
        return time.monotonic() - started


async def drill(uri: str, directory: Path, kills: int, seed: int) -> bool:
    """Kill so many commands; whether callers noticed nothing. Raises Fault for what a command left."""
    artifacts = directory / "artifacts"
    models = make_models(artifacts, 3)
    released = await asyncio.to_thread(release, uri, *models[:2])
    rng = random.Random(seed)
    async with serving(uri, artifacts, "--watch-interval-s", "0.3") as [server]:  # noqa: SIM117 - needs its address
        async with (
            Load([server.address], Answers(models), CALLERS, DEADLINE_S, PAUSE_S) as load,
            AsyncRecallClient(server.address, timeout_s=DEADLINE_S) as client,
        ):
            work = Drill(uri, artifacts, models, released, client)
            load.phase("undisturbed")
            await work.measure()
            phases = {operation: load.phase(f"during {operation}") for operation in OPERATIONS}
            for number in range(kills):
                operation = OPERATIONS[number % len(OPERATIONS)]
                load.phases.append(load.phases.pop(load.phases.index(phases[operation])))
                moment = rng.uniform(0, 1.05)
                how_far = await work.kill(operation, moment)
                say(f"kill {number + 1} of {kills}: {operation} at {moment:.0%} of its time: {how_far}")
    console.print(load.table(f"{kills} commands killed, seed {seed}"))
    for reason, times in load.reasons.most_common():
        console.print(f"failed {times} times: {reason}")
    console.print("they were: " + ", ".join(f"{name} {count}" for name, count in sorted(work.moments.items())))
    return not any(phase.failed or phase.wrong or phase.late for phase in load.phases)


def main(
    kills: Annotated[int, typer.Option(min=5, help="Commands to kill, the five kinds in turn.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 2024,
) -> None:
    """Kill the indexer while callers call."""
    with own_milvus() as (milvus, directory):
        calm = asyncio.run(drill(milvus.uri, directory, kills, seed))
    raise typer.Exit(int(not calm))


if __name__ == "__main__":
    typer.run(main)
