"""The attacks of `tests.faults.strangers`: each gets an address or a URL and counts what the attackers got."""

import asyncio
import json
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.recall.v1 import recall_pb2
from tests import ROOT

TOKEN = "a-token-of-the-neighbour"
LARGE = 3_900_000
"""Bytes of a name or a request, a little less than gRPC admits."""
_OWN = [("grpc.use_local_subchannel_pool", 1)]

Attacker = Callable[[str], Awaitable[Counter[str]]]
"""Attacks an address or a URL."""


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
        asked = [
            client.post(f"{url}/v1/recall", content=body, headers={"Content-Type": "application/json"})
            for _ in range(number)
        ]
        return Counter(str(answer.status_code) for answer in await asyncio.gather(*asked))


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
