"""Releases and rollbacks back to back under full load: no call may fail, no answer may mix two models.

    python -m tests.faults.releases --releases 20

Two models over the same items take turns, so an answer of one model out of the collection of the other would look
plausible; every answer is held against the exact one of the model that it names.
"""

import asyncio
from pathlib import Path

import numpy as np
import typer

from clients import AsyncRecallClient
from tests.faults.ground import Findings, make_models, move_alias, own_milvus, release, say, serving
from tests.faults.load import Answers, Load
from tests.milvus_server import Milvus

CALLERS, TIMEOUT_S = 32, 5.0
FOLLOWED_S = 20
WATCH_S = 0.2
"""Between looks at the alias, so that releases can come back to back."""


async def drill(milvus: Milvus, directory: Path, releases: int, steady_s: float) -> tuple[Findings, Load]:
    """Run it.

    Args:
        milvus: without item collections and release alias.
        directory: empty.
        releases: how often the alias moves; every second time by a rollback.
        steady_s: seconds of load before and after.
    """
    findings = Findings()
    models = make_models(directory / "artifacts", 2)
    first, second = await asyncio.to_thread(release, milvus.uri, *models)
    await asyncio.to_thread(move_alias, milvus.uri, None)
    async with (
        serving(milvus.uri, directory / "artifacts", "--watch-interval-s", str(WATCH_S)) as (server,),
        Load([server.address], Answers(models), CALLERS, TIMEOUT_S) as load,
        AsyncRecallClient(server.address, timeout_s=TIMEOUT_S) as asking,
    ):
        await asyncio.sleep(2)
        say(f"{CALLERS} callers")
        before = load.phase("before")
        await asyncio.sleep(steady_s)
        switching = load.phase(f"{releases} releases and rollbacks")
        followed = []
        for number in range(releases):
            wanted = second if number % 2 == 0 else first
            moved = await asyncio.to_thread(move_alias, milvus.uri, second if wanted == second else None)
            findings.expect(moved == wanted, f"{moved} is live, not {wanted}")
            took = await _followed(asking, wanted)
            followed.append(took)
            say(f"{'publish' if wanted == second else 'rollback'}: {wanted} serves after {took:.1f} s")
        load.phase("after")
        await asyncio.sleep(steady_s)
    findings.seconds("alias moved to served, median", float(np.median(followed)), FOLLOWED_S)
    findings.seconds("alias moved to served, longest", max(followed), FOLLOWED_S)
    ratio = switching.percentile_ms(99) / before.percentile_ms(99)
    findings.measured["p99 during switches, times the p99 before"] = f"{ratio:.2f}"
    return findings, load


async def _followed(client: AsyncRecallClient, collection: str) -> float:
    """Seconds until a server serves a collection; infinite if it does not."""
    started = asyncio.get_running_loop().time()
    while (await client.get_server_info()).collection != collection:
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
    """Release and roll back under load."""
    with own_milvus() as (milvus, directory):
        findings, load = asyncio.run(drill(milvus, directory, releases, steady_s))
        judge(findings, load)
        before, switching = load.phases[1:3]
        ratio = switching.percentile_ms(99) / before.percentile_ms(99)
        findings.expect(ratio <= 2, f"p99 during switches is {ratio:.2f} times the p99 before, expected 2 at most")
        findings.close(load.table("calls"))


if __name__ == "__main__":
    typer.run(main)
