"""Milvus is killed with SIGKILL under load and started again, beside a writer whose rows must all be there afterwards.

    python -m tests.faults.milvus_killed --down-s 20

Two servers are called all the time: one as it comes, one with `--degraded`.
"""

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import typer
from pymilvus import MilvusClient

from mind.milvus.collection import EMBEDDING, ITEM_ID
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError
from mind.milvus.store import Store
from tests.faults.ground import DIM, Findings, make_models, own_milvus, release, say, serving, until_health
from tests.faults.load import POPULAR, SETTLE_S, Answers, Load, begin
from tests.milvus_server import Milvus

CALLERS, TIMEOUT_S = 8, 2.0
RECOVERY_S = 90
_ROWS = "drill_rows"


class Writer:
    """Adds rows until Milvus is gone, and knows how many of them Milvus has acknowledged."""

    def __init__(self, uri: str) -> None:
        """Begin at once, in a thread."""
        self._store = Store(Connection(uri, timeout_s=5))
        self._store.create(_ROWS, DIM, {})
        self.acknowledged = 0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        vector = np.ones(DIM, np.float32)
        with suppress(StoreError):
            while True:
                ids = range(self.acknowledged, self.acknowledged + 50)
                self._store.insert(_ROWS, [{ITEM_ID: item_id, EMBEDDING: vector} for item_id in ids])
                self.acknowledged += 50
                time.sleep(0.02)

    def missing(self, uri: str) -> int:
        """How many of the acknowledged rows are not there."""
        self._thread.join()
        with Store(Connection(uri)) as store:
            store.index(_ROWS, "FLAT", {}, 0, lambda rows: None)
            store.load(_ROWS)
        client = MilvusClient(uri, timeout=30)
        found = client.query(
            _ROWS, f"{ITEM_ID} < {self.acknowledged}", output_fields=["count(*)"], consistency_level="Strong"
        )
        client.drop_collection(_ROWS)
        client.close()
        return self.acknowledged - int(found[0]["count(*)"])


async def drill(milvus: Milvus, directory: Path, steady_s: float, down_s: float) -> tuple[Findings, list[Load]]:
    """Run it.

    Args:
        milvus: without item collections and release alias.
        directory: empty.
        steady_s: seconds of load before and after.
        down_s: seconds between kill and start.
    """
    findings = Findings()
    models = make_models(directory / "artifacts", 1)
    await asyncio.to_thread(release, milvus.uri, *models)
    answers = Answers(models)
    artifacts = directory / "artifacts"
    async with (
        serving(milvus.uri, artifacts) as (plain,),
        serving(milvus.uri, artifacts, "--degraded") as (degraded,),
        Load([plain.address], answers, CALLERS, TIMEOUT_S) as load,
        Load([degraded.address], answers, CALLERS, TIMEOUT_S) as fallen_back,
    ):
        both = (load, fallen_back)
        await asyncio.sleep(1)
        writer = Writer(milvus.uri)
        say("load on both servers, rows are being added")
        begin("before", *both)
        await asyncio.sleep(steady_s)
        begin("Milvus down", *both)
        await asyncio.sleep(SETTLE_S)
        say("kill -9")
        await asyncio.to_thread(milvus.kill)
        downs = await asyncio.gather(
            until_health(plain.address, False, 10), fallen_back.until("DEGRADED", 10), asyncio.sleep(down_s)
        )
        findings.seconds("killed to NOT_SERVING", downs[0], 3)
        findings.seconds("killed to the first degraded answer", downs[1], 3)
        findings.expect(await until_health(degraded.address, True, 0) < 1, "with --degraded, health stays SERVING")
        say("start Milvus again")
        begin("starting again", *both)
        await asyncio.to_thread(milvus.start)
        ups = await asyncio.gather(
            load.until("OK", RECOVERY_S),
            fallen_back.until("OK", RECOVERY_S),
            until_health(plain.address, True, RECOVERY_S),
        )
        findings.seconds("started to the first answer", ups[0], RECOVERY_S)
        findings.seconds("started to the first answer, --degraded", ups[1], RECOVERY_S)
        findings.seconds("started to SERVING", ups[2], RECOVERY_S)
        await asyncio.sleep(SETTLE_S)
        begin("after", *both)
        await asyncio.sleep(steady_s)
    missing = await asyncio.to_thread(writer.missing, milvus.uri)
    findings.measured["rows acknowledged before the kill"] = f"{writer.acknowledged:,}, of which {missing} are missing"
    findings.expect(missing == 0 < writer.acknowledged, f"{missing} acknowledged rows are missing")
    return findings, list(both)


def judge(findings: Findings, load: Load, fallen_back: Load) -> None:
    """Hold what the callers met against what they may meet."""
    for each in (load, fallen_back):
        for phase in each.phases[1:]:
            findings.expect(phase.wrong == phase.late == 0, f"{phase.name}: {phase.wrong} wrong, {phase.late} late")
        for phase in (each.phases[1], each.phases[-1]):
            findings.expect(phase.failed == 0, f"{phase.name}: {phase.failed} failed: {dict(phase.outcomes)}")
        for phase in each.phases[2:-1]:
            allowed = {"OK", "DEGRADED", POPULAR, "STORE_UNAVAILABLE", "DEADLINE_EXCEEDED"}
            findings.expect(set(phase.outcomes) <= allowed, f"{phase.name}: {dict(phase.outcomes)}")


def main(steady_s: float = 10, down_s: float = 20) -> None:
    """Kill Milvus under load and start it again."""
    with own_milvus() as (milvus, directory):
        findings, loads = asyncio.run(drill(milvus, directory, steady_s, down_s))
        judge(findings, *loads)
        say(str(loads[0].reasons.most_common(8)))
        findings.close(loads[0].table("as it comes"), loads[1].table("--degraded"))


if __name__ == "__main__":
    typer.run(main)
