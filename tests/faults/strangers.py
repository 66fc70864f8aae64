"""What strangers cost the others: the memory of server and gateway, and the latency of a neighbour, under each attack.

A real Milvus, one server with a token file, one gateway. A neighbour with a token asks one user after the other, before
and during each attack; the attackers have no token but where it is said.

    python -m tests.faults.strangers
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer
from rich.table import Table

from clients import AsyncRecallClient, RecallError
from mind.artifact import load_artifact
from tests import ROOT
from tests.artifacts import make_artifact
from tests.faults.attacks import TOKEN, Attacker, on_gateway, on_server
from tests.faults.ground import Findings, console, own_milvus, release, say, serving
from tests.ports import free_port

ITEMS = 2_000
MAX_GROWTH_MB = 400
"""By which no attack may enlarge the server or the gateway: 64 requests of 4 MB, and what Python keeps."""
SAMPLE_S = 0.02


@dataclass
class Attack:
    """What an attack cost."""

    name: str
    before_ms: list[float]
    during_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    """From before it to its end."""
    failed: int = 0
    """Calls of the neighbour."""
    outcomes: str = ""
    """What the attackers got."""

    def row(self) -> list[str]:
        """For the table."""
        times = [f"{np.percentile(ms or [np.nan], p):.1f}" for ms in (self.before_ms, self.during_ms) for p in (50, 99)]
        memory = [f"{self.memory_mb[0]:.0f}", f"{max(self.memory_mb):.0f}"]
        return [self.name, *memory, *times, str(self.failed), self.outcomes]


@contextmanager
def sampled(process: psutil.Process, into: list[float]) -> Iterator[None]:
    """Sample the memory of a process in MB."""
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            into.append(process.memory_info().rss / 1e6)

    into.append(process.memory_info().rss / 1e6)
    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        yield
    finally:
        done.set()
        sampling.join()


Ask = Callable[[], Awaitable[None]]


async def timed(ask: Ask, seconds: float, into: list[float]) -> int:
    """Ask again and again for some time; gives the number of failures."""
    end, failed = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        started = time.perf_counter()
        try:
            await ask()
        except (RecallError, httpx.HTTPError):
            failed += 1
        into.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.005)
    return failed


async def under(
    name: str, process: psutil.Process, ask: Ask, attack: Callable[[], Counter[str]], seconds: float
) -> Attack:
    """Ask before an attack and during it. The attackers are a process of their own."""
    found = Attack(name, [])
    await timed(ask, seconds, found.before_ms)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, sampled(process, found.memory_mb):
        await asyncio.get_running_loop().run_in_executor(pool, _begin)
        running = asyncio.get_running_loop().run_in_executor(pool, attack)
        while not running.done():
            found.failed += await timed(ask, 0.5, found.during_ms)
        found.outcomes = ", ".join(f"{what} {count:,}" for what, count in (await running).most_common(4))
    say(f"{name}: done")
    return found


def _begin() -> None:
    """The imports of the process are no part of the attack."""


def _attack(attack: Attacker, target: str) -> Counter[str]:
    async def run() -> Counter[str]:
        return await attack(target)

    return asyncio.run(run())


@contextmanager
def gateway(server: str, tokens: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A gateway process with 1,024 descriptors, as most systems give."""
    port = free_port()
    options = ["--server", server, "--server-token-file", str(tokens), "--listen", f"127.0.0.1:{port}"]
    command = ["/bin/sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh", sys.executable, "-m", "clients.gateway", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ)
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            with suppress(httpx.TransportError):
                httpx.get(f"{url}/healthz", timeout=5)
                break
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


async def drill(
    uri: str,
    directory: Path,
    seconds: float,
    server_attacks: Mapping[str, Attacker],
    gateway_attacks: Mapping[str, Attacker],
) -> tuple[Findings, Table]:
    """Run each attack once, against a server or a gateway of its own."""
    artifact = load_artifact(make_artifact(directory / "artifacts", items=ITEMS, dim=16))
    await asyncio.to_thread(release, uri, artifact)
    tokens = directory / "tokens"
    tokens.write_text(TOKEN)
    found = [await _attack_server(uri, directory, name, attack, seconds) for name, attack in server_attacks.items()]
    async with serving(uri, directory / "artifacts", "--token-file", str(tokens), token=TOKEN) as [server]:
        for name, attack in gateway_attacks.items():
            found.append(await _attack_gateway(server.address, tokens, name, attack, seconds))
    return _judged(found)


async def _attack_server(uri: str, directory: Path, name: str, attack: Attacker, seconds: float) -> Attack:
    options = ["--token-file", str(directory / "tokens")]
    async with (
        serving(uri, directory / "artifacts", *options, token=TOKEN) as [server],
        AsyncRecallClient(server.address, token=TOKEN, timeout_s=30) as client,
    ):

        async def ask() -> None:
            await client.recall([[1000, 1007]], top_k=10)

        return await under(
            name, psutil.Process(server.process.pid), ask, partial(_attack, attack, server.address), seconds
        )


async def _attack_gateway(server: str, tokens: Path, name: str, attack: Attacker, seconds: float) -> Attack:
    body = {"users": [{"hist_item": [1000, 1007]}], "top_k": 10}
    with gateway(server, tokens) as (url, process):
        async with httpx.AsyncClient(timeout=30) as http:

            async def ask() -> None:
                (await http.post(f"{url}/v1/recall", json=body)).raise_for_status()

            return await under(name, process, ask, partial(_attack, attack, url), seconds)


def _judged(attacks: list[Attack]) -> tuple[Findings, Table]:
    findings = Findings()
    table = Table(title="strangers", title_justify="left")
    for heading in ("attack", "MB", "most", "p50 ms", "p99", "p50 during", "p99 during", "failed", "attackers got"):
        table.add_column(heading, justify="left" if heading.startswith("attack") else "right", overflow="fold")
    for found in attacks:
        table.add_row(*found.row())
        grown = max(found.memory_mb) - found.memory_mb[0]
        findings.expect(grown < MAX_GROWTH_MB, f"{found.name}: {grown:.0f} MB more, expected {MAX_GROWTH_MB} at most")
        findings.expect("CANCELLED" not in found.outcomes, f"{found.name}: {found.outcomes}")
    return findings, table


def main(
    seconds: Annotated[float, typer.Option(min=1, help="For which the neighbour asks before each attack.")] = 5,
    calls: Annotated[int, typer.Option(min=1, help="At once on one connection.")] = 10_000,
    connections: Annotated[int, typer.Option(min=1, help="That send half a request to the gateway.")] = 1_100,
) -> None:
    """Attack a server and a gateway as strangers can, and measure what it costs the others."""
    with own_milvus() as (milvus, directory):
        findings, table = asyncio.run(drill(milvus.uri, directory, seconds, on_server(calls), on_gateway(connections)))
    console.width = 200
    findings.close(table)


if __name__ == "__main__":
    typer.run(main)
