"""Servers killed with SIGKILL and stopped with SIGTERM under load, behind the shipped client's retries.

    python -m tests.faults.server_kills --rounds 20
    python -m tests.faults.server_kills --rounds 20 --processes 2

Two servers; every round ends one of them, brings it back and waits until it answers again. No call may fail for its
caller, and what was accepted before SIGTERM must be answered.
"""

import asyncio
import random
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from clients import AsyncRecallClient, RecallError
from tests.faults.ground import console, make_models, own_milvus, release, say, until_health
from tests.faults.load import Answers, Load
from tests.ports import free_port
from tests.server.test_service import Server

CALLERS, PAUSE_S, DEADLINE_S = 8, 0.01, 10.0
SETTLED_S = 1.5
"""Between a server's return and the next end, as in a rolling update: the client looks for it every second."""
BACK_S = 60.0
"""In which a server that was ended must answer calls again."""
STOP_S = 15.0
"""In which SIGTERM must have ended a server; it drains in less."""


async def drill(uri: str, directory: Path, rounds: int, processes: int, seed: int) -> bool:
    """End servers under load, in turn; whether no caller noticed."""
    artifacts = directory / "artifacts"
    models = make_models(artifacts, 1)
    await asyncio.to_thread(release, uri, *models)
    rng = random.Random(seed)
    common = ("--milvus-uri", uri, "--artifacts", str(artifacts), "--processes", str(processes))
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    servers = [Server(*common, "--listen", address) for address in addresses]
    clean = True
    try:
        for address in addresses:
            await until_health(address, True, 60)
        target = "ipv4:" + ",".join(addresses)
        async with Load([target], Answers(models), CALLERS, DEADLINE_S, PAUSE_S) as load:
            await asyncio.sleep(1)
            phases = {number: load.phase(number.name) for number in (signal.SIGTERM, signal.SIGKILL)}
            for round_ in range(rounds):
                number = (signal.SIGTERM, signal.SIGKILL)[round_ % 2]
                which = rng.randrange(2)
                load.phases.append(load.phases.pop(load.phases.index(phases[number])))
                await asyncio.sleep(SETTLED_S + rng.uniform(0, 0.5))
                started = time.monotonic()
                code = await asyncio.to_thread(servers[which].stop, number)
                ended = time.monotonic() - started
                log = "".join(servers[which].log)
                if number is signal.SIGTERM and (code or "Traceback" in log or ended > STOP_S):
                    clean = False
                    say(f"SIGTERM: exit code {code} after {ended:.1f} s:\n{log[-2000:]}")
                servers[which] = Server(*common, "--listen", addresses[which])
                back = await _answers_again(addresses[which], servers[which])
                say(
                    f"round {round_ + 1} of {rounds}: {number.name} to server {which}, ended in {ended:.2f} s, "
                    f"answers again {back:.1f} s later"
                )
            await asyncio.sleep(1)
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)
    console.print(load.table(f"two servers of {processes} process(es), ended {rounds} times, seed {seed}"))
    for reason, count in load.reasons.most_common(5):
        console.print(f"{count} x {reason}", markup=False)
    return clean and not any(phase.failed or phase.wrong or phase.late for phase in load.phases)


async def _answers_again(address: str, server: Server) -> float:
    """Wait until a server answers a call of its own; gives the seconds. Raises AssertionError if it never does."""
    started = time.monotonic()
    async with AsyncRecallClient(address, timeout_s=1) as client:
        while True:
            try:
                await client.get_server_info()
                return time.monotonic() - started
            except RecallError as error:
                if time.monotonic() - started > BACK_S:
                    raise AssertionError(
                        f"{address} does not answer: {error}\n{''.join(server.log)[-2000:]}"
                    ) from error
            await asyncio.sleep(0.1)


def main(
    rounds: Annotated[int, typer.Option(min=2, help="Ends of a server, SIGTERM and SIGKILL in turn.")] = 20,
    processes: Annotated[int, typer.Option(min=1, help="Processes of each server.")] = 1,
    seed: Annotated[int, typer.Option(help="Of moments and victims.")] = 2024,
) -> None:
    """End servers while callers call."""
    with own_milvus() as (milvus, directory):
        clean = asyncio.run(drill(milvus.uri, directory, rounds, processes, seed))
    raise typer.Exit(int(not clean))


if __name__ == "__main__":
    typer.run(main)
