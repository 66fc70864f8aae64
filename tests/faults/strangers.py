"""What strangers cost the others: the memory of server and gateway, and the latency of a neighbour, under each attack.

A real Milvus, one server with a token file, one gateway. A neighbour with a token asks one user after the other, before
and during each attack; the attackers have no token but where it is said.

    python -m tests.faults.strangers
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import grpc
import httpx
import numpy as np
import psutil
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.table import Table

from clients import AsyncRecallClient, RecallError
from mind.artifact import load_artifact
from protos.recall.v1 import recall_pb2
from tests import ROOT
from tests.artifacts import make_artifact
from tests.faults.ground import Findings, console, own_milvus, release, say, serving

TOKEN = "a-token-of-the-neighbour"
ITEMS = 2_000
LARGE = 3_900_000
"""Bytes of a name or a request, a little less than gRPC admits."""
MAX_GROWTH_MB = 400
"""By which no attack may enlarge the server or the gateway: 64 requests of 4 MB, and what Python keeps."""
SAMPLE_S = 0.02
_OWN = [("grpc.use_local_subchannel_pool", 1)]


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


def _attack(attack: "Attacker", target: str) -> Counter[str]:
    async def run() -> Counter[str]:
        return await attack(target)

    return asyncio.run(run())


async def _code(call: Any) -> str:
    try:
        return str((await call.code()).name)
    except asyncio.CancelledError:
        return "still open"


async def watch_long_names(address: str) -> Counter[str]:
    """100 Health.Watch with names of 3.9 MB on one connection (row 5 of the table)."""
    async with grpc.aio.insecure_channel(address, _OWN) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        calls = [stub.Watch(health_pb2.HealthCheckRequest(service="x" * LARGE)) for _ in range(100)]
        codes = [asyncio.create_task(_code(call)) for call in calls]
        await asyncio.wait(codes, timeout=10)
        return Counter(code.result() if code.done() else "still open" for code in codes)


async def many_calls(address: str, number: int) -> Counter[str]:
    """Calls on one connection at once, with a token (row 6)."""
    request = recall_pb2.RecallRequest(users=[recall_pb2.User(hist_item=[1000, 1007])], top_k=10)
    async with grpc.aio.insecure_channel(address, _OWN) as channel:
        recall: Any = channel.unary_unary("/recall.v1.RecallService/Recall", recall_pb2.RecallRequest.SerializeToString)
        bearer = (("authorization", f"Bearer {TOKEN}"),)
        calls = [recall(request, metadata=bearer, timeout=60) for _ in range(number)]
        return Counter(await asyncio.gather(*map(_code, calls)))


async def many_large_requests(address: str, number: int) -> Counter[str]:
    """Requests of 4 MB with two million users each, with a token: 110 MB each when decoded."""
    body = b"\x0a\x00" * (LARGE // 2)
    async with grpc.aio.insecure_channel(address, _OWN) as channel:
        recall: Any = channel.unary_unary("/recall.v1.RecallService/Recall")
        bearer = (("authorization", f"Bearer {TOKEN}"),)
        calls = [recall(body, metadata=bearer, timeout=60) for _ in range(number)]
        return Counter(await asyncio.gather(*map(_code, calls)))


async def half_sent_requests(address: str, path: str, number: int) -> Counter[str]:
    """Requests of 3.9 MB on one connection of which the last bytes never come."""
    command = [sys.executable, "-m", "tests.faults.half_sent", address, path, str(number), str(LARGE)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    return Counter(json.loads(told))


async def half_sent_http(url: str, number: int) -> Counter[str]:
    """Connections from one address that send half a request and wait (row 9)."""
    return await asyncio.to_thread(_half_sent_http, url, number)


def _half_sent_http(url: str, number: int) -> Counter[str]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    got: Counter[str] = Counter()
    with ExitStack() as stack:
        held = []
        for _ in range(number):
            with suppress(OSError):
                connection = socket.create_connection((host, int(port)), 20, source_address=("127.0.0.2", 0))
                held.append(stack.enter_context(connection))
                connection.sendall(b"POST /v1/recall HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
        for connection in held:
            try:
                got[connection.recv(100).decode().partition("\r\n")[0] or "closed"] += 1
            except OSError:
                got["closed"] += 1
    return got


async def wrong_ids(url: str, number: int) -> Counter[str]:
    """Bodies of 1 MB with 190,000 wrong ids."""
    body = json.dumps({"users": [{"hist_item": [True] * 190_000}]}, separators=(",", ":"))
    async with httpx.AsyncClient(timeout=120) as client:
        asked = [client.post(f"{url}/v1/recall", content=body) for _ in range(number)]
        return Counter(str(answer.status_code) for answer in await asyncio.gather(*asked))


@contextmanager
def gateway(server: str, tokens: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A gateway process with 1,024 descriptors, as most systems give."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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


Attacker = Callable[[str], Awaitable[Counter[str]]]
"""Attacks an address or a URL."""


def on_server(calls: int) -> dict[str, Attacker]:
    """Attacks on a server."""
    recall, check = "/recall.v1.RecallService/Recall", "/grpc.health.v1.Health/Check"
    return {
        "100 Health.Watch with names of 3.9 MB": watch_long_names,
        "200 half-sent requests of 3.9 MB, no token": partial(half_sent_requests, path=recall, number=200),
        "200 half-sent health checks of 3.9 MB": partial(half_sent_requests, path=check, number=200),
        f"{calls:,} calls on one connection, with token": partial(many_calls, number=calls),
        "40 requests with 2 million users, with token": partial(many_large_requests, number=40),
    }


def on_gateway(connections: int) -> dict[str, Attacker]:
    """Attacks on a gateway."""
    return {
        f"gateway: {connections:,} half-sent requests": partial(half_sent_http, number=connections),
        "gateway: 3 bodies of 190,000 wrong ids": partial(wrong_ids, number=3),
    }


async def drill(uri: str, directory: Path, seconds: float, calls: int, connections: int) -> tuple[Findings, Table]:
    """Run each attack once, against a server or a gateway of its own."""
    artifact = load_artifact(make_artifact(directory / "artifacts", items=ITEMS, dim=16))
    await asyncio.to_thread(release, uri, artifact)
    tokens = directory / "tokens"
    tokens.write_text(TOKEN)
    found = [await _attack_server(uri, directory, name, attack, seconds) for name, attack in on_server(calls).items()]
    async with serving(uri, directory / "artifacts", "--token-file", str(tokens), token=TOKEN) as [server]:
        for name, attack in on_gateway(connections).items():
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
        findings, table = asyncio.run(drill(milvus.uri, directory, seconds, calls, connections))
    console.width = 200
    findings.close(table)


if __name__ == "__main__":
    typer.run(main)
