"""The load generator: `Worker("tests.bench.serving.load", DIRECTORY)` asks it, see `answer` for what.

A process of its own that shares nothing but the machine with what it measures. Bodies are made beforehand and answers
are not decoded, so that it costs little; its processor time is in every answer.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from clients.bench.loops import closed_loop, open_loop
from protos.recall.v1 import recall_pb2
from tests.bench.serving.http2 import CallError, Channel
from tests.bench.serving.world import TOP_K, answer_lines, read_histories, watching

Call = Callable[[bytes], Awaitable[bytes]]
"""Sends a body, gives the answer's; raises CallError."""
BODIES = 4_096


class Grpc:
    """RecallService.Recall, bytes in and out; one connection for all callers."""

    def __init__(self, address: str, timeout_s: float) -> None:
        """Calls take turns among the addresses, if there are several."""
        parts = [each.rpartition(":") for each in address.removeprefix("ipv4:").split(",")]
        addresses = [(host, int(port)) for host, _, port in parts]
        self._channel = Channel(addresses, "/recall.v1.RecallService/Recall", timeout_s)

    async def __call__(self, body: bytes) -> bytes:
        """See `Call`."""
        return await self._channel(body)

    async def close(self) -> None:
        """Give the connections back."""
        self._channel.close()

    @staticmethod
    def body(histories: list[list[int]], top_k: int, filter_: str = "") -> bytes:
        """A request."""
        users = [recall_pb2.User(hist_item=history) for history in histories]
        return recall_pb2.RecallRequest(users=users, top_k=top_k, filter=filter_).SerializeToString()

    @staticmethod
    def item_ids(answer: bytes) -> list[list[int]]:
        """The candidates of every user."""
        return [list(result.item_ids) for result in recall_pb2.RecallResponse.FromString(answer).results]


class Http:
    """POST /rec/recall over connections that are kept; as many as there are calls at the same time."""

    def __init__(self, address: str, timeout_s: float) -> None:
        """Connects when it must."""
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._timeout_s = timeout_s

    async def __call__(self, body: bytes) -> bytes:
        """See `Call`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    kept = bool(self._idle)
                    connection = self._idle.pop() if kept else await asyncio.open_connection(*self._address)
                    try:
                        status, answer = await self._post(*connection, body)
                        break
                    except (asyncio.IncompleteReadError, ConnectionError):
                        if not kept:  # one that was kept may have been closed meanwhile
                            raise
        except TimeoutError as error:
            raise CallError("DEADLINE_EXCEEDED") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise CallError("UNAVAILABLE") from error
        self._idle.append(connection)
        if status != 200:
            raise CallError(f"HTTP {status}")
        return answer

    @staticmethod
    async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, bytes]:
        head = "POST /rec/recall HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        writer.write(head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        return int(status.split()[1]), await reader.readexactly(length)

    async def close(self) -> None:
        """Give the connections back."""
        for _, writer in self._idle:
            writer.close()

    @staticmethod
    def body(histories: list[list[int]], top_k: int, filter_: str = "") -> bytes:
        """A request. The article's service knows no filters."""
        return json.dumps({"top_k": top_k, "hist_item": histories}).encode()

    @staticmethod
    def item_ids(answer: bytes) -> list[list[int]]:
        """The candidates of every user."""
        found: list[list[int]] = json.loads(answer)["item_ids"]
        return found


class Run:
    """What calls met."""

    def __init__(self, call: Call, bodies: list[bytes]) -> None:
        """Bodies are sent in turn."""
        self._call = call
        self._bodies = bodies
        self._sent = 0
        self.latency_s: list[float] = []
        self.outcomes: Counter[str] = Counter()

    async def one(self, due: float) -> None:
        """One call; its latency counts from when it was due, so that a late sender cannot hide a slow service."""
        body = self._bodies[self._sent % len(self._bodies)]
        self._sent += 1
        try:
            await self._call(body)
        except CallError as error:
            self.outcomes[str(error)] += 1
        else:
            self.outcomes["OK"] += 1
            self.latency_s.append(time.perf_counter() - due)

    async def closed(self, callers: int, seconds: float) -> None:
        """Callers that each wait for an answer before they ask again."""
        await closed_loop(self.one, callers, seconds)

    async def open(self, calls_per_s: float, seconds: float, seed: int) -> None:
        """Calls that come when they come, whatever became of those before: Poisson arrivals."""
        await open_loop(self.one, calls_per_s, seconds, random.Random(seed))


class LoadGenerator:
    """Answers questions; see `answer`."""

    def __init__(self, directory: Path) -> None:
        """Read the histories."""
        histories = read_histories(directory)
        self._histories = [histories[user].tolist() for user in range(len(histories))]
        self._bodies: dict[tuple[type, int, int, int, tuple[str, ...]], list[bytes]] = {}
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def answer(self, question: dict[str, Any]) -> Any:
        """Put load on a service, or ask it for candidates.

        Args:
            question: `address`, and `kind`, grpc or http; `users` of a request, `top_k`, `timeout_s`, `history`, the
                clicks that are sent, 0 for all, and `filters`, which requests have in turn (optional);
                with `check`, the number of users whose candidates are wanted, in their order; or else `seconds` and
                `callers` (closed loop) or `calls_per_s` and `seed` (open loop); `watch`, processes whose processor time
                is wanted.

        Returns:
            The candidates, or what became of the calls: `users_per_s`, `p50_ms`, `p95_ms`, `p99_ms`, `cpu_s`,
            `watched_cpu_s`, `seconds` and `outcomes`, which counts statuses; nothing of the calls before, that warm up.
        """
        return self._runner.run(self._answer(**question))

    async def _answer(
        self,
        address: str,
        kind: str,
        users: int = 1,
        top_k: int = TOP_K,
        history: int = 0,
        filters: Sequence[str] = ("",),
        timeout_s: float = 30,
        check: int = 0,
        seconds: float = 0,
        callers: int = 0,
        calls_per_s: float = 0,
        seed: int = 0,
        watch: Sequence[int] = (),
    ) -> Any:
        way: type[Grpc] | type[Http] = Grpc if kind == "grpc" else Http
        call = way(address, timeout_s)
        try:
            if check:
                parts = [self._histories[start : start + 64] for start in range(0, check, 64)]
                return [
                    found for part in parts for found in way.item_ids(await call(way.body(part, top_k, filters[0])))
                ][:check]
            run = Run(call, self._bodies_of(way, users, top_k, history, tuple(filters)))
            await run.closed(1, 0.1)  # connections open
            await run.closed(max(callers, 1), min(0.5, seconds))  # batches find their size
            run = Run(call, self._bodies_of(way, users, top_k, history, tuple(filters)))
            cpu, started = time.process_time(), time.perf_counter()
            with watching(watch) as watched_cpu_s:
                if calls_per_s:
                    await run.open(calls_per_s, seconds, seed)
                else:
                    await run.closed(callers, seconds)
            took = time.perf_counter() - started
        finally:
            await call.close()
        latency_ms = np.array(run.latency_s or [np.nan]) * 1000
        p50, p95, p99 = np.percentile(latency_ms, [50, 95, 99]).tolist()
        return {
            "users_per_s": len(run.latency_s) * users / took,
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "cpu_s": time.process_time() - cpu,
            "watched_cpu_s": watched_cpu_s,
            "seconds": took,
            "outcomes": run.outcomes,
        }

    def _bodies_of(
        self, way: type[Grpc] | type[Http], users: int, top_k: int, history: int, filters: tuple[str, ...]
    ) -> list[bytes]:
        key = way, users, top_k, history, filters
        if key not in self._bodies:
            starts = range(0, len(self._histories) - users + 1, users)[:BODIES]
            kept = [[ids[-history:] for ids in self._histories[start : start + users]] for start in starts]
            self._bodies[key] = [
                way.body(histories, top_k, filter_) for histories, filter_ in zip(kept, cycle(filters), strict=False)
            ]
        return self._bodies[key]


if __name__ == "__main__":
    answer_lines(LoadGenerator(Path(sys.argv[1])).answer)
