"""Milvus hangs, and is then killed, under a light load on a large catalogue: users get their own candidates still.

    python -m tests.faults.milvus_away --items 367982 --rate 20

One server with `--degraded`; single users who arrive at random and wait half a second at most.
"""

import asyncio
import random
from pathlib import Path

import typer

from clients import AsyncRecallClient
from clients.bench.loops import open_loop
from tests.faults.ground import Findings, make_models, own_milvus, release, say, serving
from tests.faults.load import POPULAR, Answers, Load
from tests.milvus_server import Milvus

TIMEOUT_S = 0.5
DIM, USERS = 64, 64
HUNG, KILLED = AWAY = "hung", "killed"
OWN = 0.95
"""Share of the calls while Milvus is away that must be answered with the exact candidates."""


async def drill(milvus: Milvus, directory: Path, items: int, rate: float, seconds: float) -> tuple[Findings, Load]:
    """Run it.

    Args:
        milvus: without item collections and release alias.
        directory: empty.
        items: size of the catalogue.
        rate: calls a second.
        seconds: how long each part lasts. Milvus ends itself when it is stopped for much longer than 10.
    """
    findings = Findings()
    models = make_models(directory / "artifacts", 1, items, DIM)
    say(f"build {items:,} items")
    await asyncio.to_thread(release, milvus.uri, *models)
    answers = Answers(models, USERS)
    rng = random.Random(0)
    async with (
        serving(milvus.uri, directory / "artifacts", "--degraded") as (server,),
        AsyncRecallClient(server.address, timeout_s=TIMEOUT_S) as client,
        Load([], answers, 0, TIMEOUT_S) as load,
    ):

        async def part(name: str) -> None:
            say(name)
            load.phase(name)
            await open_loop(lambda due: load.one(client, rng.randrange(USERS)), rate, seconds, rng)

        await part("before")
        await asyncio.to_thread(milvus.pause)
        await part(HUNG)
        await asyncio.to_thread(milvus.resume)
        await asyncio.sleep(1)
        await part("between")
        await asyncio.to_thread(milvus.kill)
        await part(KILLED)
    return findings, load


def judge(findings: Findings, load: Load) -> None:
    """Hold what the callers met against what they must meet."""
    for phase in load.phases:
        findings.expect(phase.wrong == 0, f"{phase.name}: {phase.wrong} wrong")
    for phase in (each for each in load.phases if each.name in AWAY):
        own = (phase.calls - phase.failed - phase.outcomes[POPULAR]) / max(phase.calls, 1)
        findings.measured[f"{phase.name}: own candidates, exact"] = f"{own:.1%}"
        findings.expect(own >= OWN, f"{phase.name}: {own:.1%} got their own candidates: {dict(phase.outcomes)}")


def main(items: int = 367_982, rate: float = 20, seconds: float = 10) -> None:
    """Take Milvus away under a light load."""
    with own_milvus() as (milvus, directory):
        findings, load = asyncio.run(drill(milvus, directory, items, rate, seconds))
        judge(findings, load)
        findings.close(load.table("--degraded"))


if __name__ == "__main__":
    typer.run(main)
