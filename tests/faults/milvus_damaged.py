"""What the server relies on in Milvus is taken away underneath it: memory, alias, rows, the collection itself.

    python -m tests.faults.milvus_damaged --seconds 8

For each: what callers get, what health says, and what happens when it is repaired.
"""

import asyncio
from pathlib import Path

import typer
from pymilvus import MilvusClient

from clients import AsyncRecallClient
from mind.artifact import Artifact
from mind.milvus.collection import ALIAS, ITEM_ID
from tests.faults.ground import Findings, make_models, own_milvus, release, say, serving, until_health
from tests.faults.load import SETTLE_S, Answers, Load
from tests.milvus_server import Milvus

CALLERS, TIMEOUT_S = 4, 1.0
BACK_S = 20
WATCH_S = 5
"""The server's default."""


class Drill:
    """One server under load, and a client that does the damage."""

    def __init__(self, milvus: Milvus, model: Artifact, collection: str, address: str, load: Load) -> None:
        """`collection` is the one that the server uses, built from `model`."""
        self.findings = Findings()
        self._milvus = milvus
        self._model = model
        self._collection = collection
        self._address = address
        self._load = load
        self._admin = MilvusClient(milvus.uri, timeout=20)

    async def unload(self) -> None:
        """The collection is released from memory: the server loads it again by itself."""
        await self._begin("unloaded")
        await asyncio.to_thread(self._admin.release_collection, self._collection)
        self.findings.seconds("unloaded: to failing", await self._load.until("STORE_UNAVAILABLE", 5), 2)
        self._load.phase("unloaded, noticed")
        self.findings.seconds("unloaded: to the first answer, by itself", await self._load.until("OK", BACK_S), BACK_S)
        await self._recover("unloaded")

    async def take_alias(self, seconds: float) -> None:
        """The alias is dropped: the release that is loaded keeps serving, and the server says what is wrong."""
        await self._begin("alias missing")
        await asyncio.to_thread(self._admin.drop_alias, ALIAS)
        await asyncio.sleep(max(seconds, WATCH_S + 1))
        self.findings.expect(self._load.phases[-1].failed == 0, f"alias missing: {self._load.phases[-1].outcomes}")
        self.findings.expect(await until_health(self._address, True, 0) < 1, "alias missing: health stays SERVING")
        async with AsyncRecallClient(self._address, timeout_s=5) as client:
            refused = (await client.get_server_info()).refused_release
        self.findings.expect("no alias" in refused, f"alias missing: GetServerInfo says {refused!r}")
        await asyncio.to_thread(release, self._milvus.uri, self._model)
        await self._recover("alias missing")

    async def delete_rows(self, answers: Answers, seconds: float) -> None:
        """Half of the rows are deleted: answers are exact for the rows that are left."""
        await self._begin("rows being deleted")
        item_ids = self._model.weights.item_id
        middle = int(item_ids[len(item_ids) // 2])
        answers.known = False
        await asyncio.to_thread(self._admin.delete, self._collection, filter=f"{ITEM_ID} < {middle}")
        await asyncio.sleep(2)  # until every search sees it
        answers.forget(item_ids[item_ids < middle].tolist())
        answers.known = True
        self._load.phase("half the rows deleted")
        await asyncio.sleep(seconds)
        self.findings.expect(self._load.phases[-1].failed == 0, f"rows deleted: {self._load.phases[-1].outcomes}")

    async def drop(self, answers: Answers) -> None:
        """The collection is dropped: an error that says so, until it is built again."""
        await self._begin("dropped")
        await asyncio.to_thread(self._admin.drop_collection, self._collection)  # the alias dangles
        to_failing, to_down = await asyncio.gather(
            self._load.until("COLLECTION_GONE", 10), until_health(self._address, False, 20)
        )
        self.findings.seconds("dropped: to COLLECTION_GONE", to_failing, 5)
        self.findings.seconds("dropped: to NOT_SERVING", to_down, WATCH_S + 2)
        answers.remember()
        await asyncio.to_thread(release, self._milvus.uri, self._model)
        say("built and published again")
        await self._recover("dropped")

    async def _begin(self, name: str) -> None:
        say(name)
        self._load.phase(name)
        await asyncio.sleep(SETTLE_S)

    async def _recover(self, fault: str) -> None:
        self._load.phase(f"{fault}, repaired")
        to_answer, to_serving = await asyncio.gather(
            self._load.until("OK", BACK_S), until_health(self._address, True, BACK_S)
        )
        self.findings.seconds(f"{fault}, repaired: to the first answer", to_answer, BACK_S)
        self.findings.seconds(f"{fault}, repaired: to SERVING", to_serving, BACK_S)
        await asyncio.sleep(SETTLE_S)
        self._load.phase("well")
        await asyncio.sleep(1)
        self.findings.expect(self._load.phases[-1].failed == 0, f"after {fault}: {self._load.phases[-1].outcomes}")

    def close(self) -> None:
        """Hang up."""
        self._admin.close()


async def drill(milvus: Milvus, directory: Path, seconds: float) -> tuple[Findings, Load]:
    """Run it.

    Args:
        milvus: without item collections and release alias.
        directory: empty.
        seconds: how long damage that is borne lasts.
    """
    models = make_models(directory / "artifacts", 1)
    (collection,) = await asyncio.to_thread(release, milvus.uri, *models)
    answers = Answers(models)
    async with (
        serving(milvus.uri, directory / "artifacts") as (server,),
        Load([server.address], answers, CALLERS, TIMEOUT_S) as load,
    ):
        damage = Drill(milvus, models[0], collection, server.address, load)
        await asyncio.sleep(1)
        await damage.unload()
        await damage.take_alias(seconds)
        await damage.delete_rows(answers, seconds)
        await damage.drop(answers)
        damage.close()
    return damage.findings, load


def judge(findings: Findings, load: Load) -> None:
    """Hold what the callers met against what they may meet."""
    for phase in load.phases[1:]:
        findings.expect(phase.wrong == phase.late == 0, f"{phase.name}: {phase.wrong} wrong, {phase.late} late")
        allowed = {"OK", "STORE_UNAVAILABLE", "DEADLINE_EXCEEDED", "COLLECTION_GONE"}
        findings.expect(set(phase.outcomes) <= allowed, f"{phase.name}: {dict(phase.outcomes)}")


def main(seconds: float = 8) -> None:
    """Damage what the server relies on, and repair it."""
    with own_milvus() as (milvus, directory):
        findings, load = asyncio.run(drill(milvus, directory, seconds))
        judge(findings, load)
        say(str(load.reasons.most_common(8)))
        findings.close(load.table("calls"))


if __name__ == "__main__":
    typer.run(main)
