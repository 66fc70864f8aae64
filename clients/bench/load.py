"""Runs a load test: sends requests, each once, and counts their results."""

import asyncio
import gc
import random
import selectors
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.aio_client import AsyncRecallClient
from clients.bench import histories, mix
from clients.bench.loops import closed_loop, open_loop
from clients.bench.mix import Shape
from clients.bench.traffic import Traffic
from clients.errors import RecallError
from clients.ids import has_text_ids
from clients.requests import MAX_HISTORY
from clients.statuses import UserStatus
from protos.recall.v1 import recall_pb2

Report = Callable[[float, int, int], None]
"""A function that gets the seconds since the beginning, the requests that ended and those of them that failed."""
_REPORT_S = 0.2
_MAXLEN = 20
"""Items of a history that a model uses, if the server does not tell."""


@dataclass(frozen=True)
class Plan:
    """How much is sent, and for how long."""

    calls_per_s: float | None
    """Requests per second of an open loop; None for a closed loop."""
    callers: int
    """Requests in progress of a closed loop."""
    warm_up_s: float
    """Seconds before requests are counted."""
    duration_s: float
    connections: int = 1
    seed: int = 0


@dataclass
class Tally:
    """The results of the requests of one shape."""

    shape: Shape
    latency_s: "array[float]" = field(default_factory=lambda: array("d"))
    """Latencies of the answered requests, from the moment when each was due."""
    failed: Counter[str] = field(default_factory=Counter)
    """The number of failed requests by status and reason."""
    statuses: Counter[str] = field(default_factory=Counter)
    """The number of answered users by status."""

    @property
    def requests(self) -> int:
        """The number of all requests, answered or not."""
        return len(self.latency_s) + self.failed.total()


@dataclass
class Outcome:
    """The results of a load test."""

    plan: Plan
    tallies: list[Tally]
    info: recall_pb2.GetServerInfoResponse
    """The server, as it was before the load."""
    users_from: str
    """The source of the histories."""
    model_versions: set[str] = field(default_factory=set)
    late_s: "array[float]" = field(default_factory=lambda: array("d"))
    """How long after it was due each request was sent."""
    elapsed_s: float = 0.0
    """Seconds until the last answer, without the time to warm up."""
    busy: float = 0.0
    """Share of that time in which the loop of the load generator worked."""
    interrupted: bool = False


class Sender(AsyncRecallClient):
    """Sends finished requests unchanged and once, over its own connection."""

    async def send(self, request: recall_pb2.RecallRequest) -> recall_pb2.RecallResponse:
        """Send a request and return the answer. Raises RecallError."""
        response: recall_pb2.RecallResponse = await self._call(
            self._stubs().recall.Recall, request, self._deadline(None)
        )
        return response

    def _options(self) -> list[tuple[str, str | int]]:
        return [*super()._options(), ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]


def run(
    connection: Mapping[str, Any], shapes: Sequence[Shape], file: Path | None, plan: Plan, report: Report
) -> Outcome:
    """Put load on a service. Ctrl-C ends it early and returns the results so far.

    Args:
        connection: arguments of AsyncRecallClient.
        shapes: what is sent.
        file: of histories; None makes them from the service's popular items.
        plan: how much, and for how long.
        report: called several times a second.

    Raises:
        RecallError: the server does not answer, or refuses a shape.
        MixError: a shape exceeds a limit of the server.
        FileError: the file cannot be used.
        OSError: the file cannot be read.
    """
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        return runner.run(_run(connection, shapes, file, plan, report))


def _precise_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with timers exact to some microseconds; epoll and uvloop round up to a millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _run(
    connection: Mapping[str, Any], shapes: Sequence[Shape], file: Path | None, plan: Plan, report: Report
) -> Outcome:
    senders = [Sender(**connection) for _ in range(plan.connections)]
    try:
        info = await senders[0].get_server_info()
        mix.check(shapes, info.limits)
        rng = random.Random(plan.seed)
        if file:
            users, users_from = histories.read_histories(file, has_text_ids(info)), str(file)
        else:
            item_ids = await histories.popular_items(senders[0], info)
            shapes = mix.with_lengths(shapes, info.maxlen or _MAXLEN)
            longest = max(shape.history[1] for shape in shapes if shape.history)
            users = histories.draw_histories(item_ids, longest, rng)
            users_from = f"random items of the {len(item_ids):,} most popular"
        traffic = Traffic(shapes, users, info.limits.max_history or MAX_HISTORY, plan.seed)
        outcome = Outcome(plan, [Tally(shape) for shape in shapes], info, users_from)
        load = Load(senders, traffic, outcome)
        await load.try_each_shape()
        await load.run(rng, report)
        return outcome
    finally:
        for sender in senders:
            await sender.close()


class Load:
    """One run of a load test."""

    def __init__(self, senders: Sequence[Sender], traffic: Traffic, outcome: Outcome) -> None:
        """Fill `outcome` with the results of `traffic`, which `senders` send in turn."""
        self._senders = senders
        self._traffic = traffic
        self._outcome = outcome
        self._counts_from = self._last_answer = 0.0
        self._cpu_s = 0.0
        self._sent = self._ended = self._failed = 0

    async def try_each_shape(self) -> None:
        """Send one request of each shape. If the server refuses one, the run ends with the message of the server."""
        for number in range(len(self._outcome.tallies)):
            await self._senders[0].send(self._traffic.of(number))

    async def run(self, rng: random.Random, report: Report) -> None:
        """Send until the end, and wait for the last answers."""
        plan, loop = self._outcome.plan, asyncio.get_running_loop()
        gc.collect()
        gc.freeze()  # thousands of requests; a garbage collection would walk through them while answers wait
        started = time.perf_counter()
        self._counts_from = started + plan.warm_up_s
        loop.call_later(plan.warm_up_s, self._note_cpu_time)
        reporting = asyncio.create_task(self._report(started, report))
        seconds = plan.warm_up_s + plan.duration_s
        try:
            if plan.calls_per_s:
                await open_loop(self.one, plan.calls_per_s, seconds, rng)
            else:
                await closed_loop(self.one, plan.callers, seconds)
            end = max(self._counts_from + plan.duration_s, self._last_answer)
        except asyncio.CancelledError:
            self._outcome.interrupted, end = True, time.perf_counter()
        finally:
            reporting.cancel()
            gc.unfreeze()
        self._outcome.elapsed_s = max(end - self._counts_from, 0.0)
        worked_s, passed_s = time.thread_time() - self._cpu_s, time.perf_counter() - self._counts_from
        self._outcome.busy = worked_s / passed_s if passed_s > 0 else 0.0

    def _note_cpu_time(self) -> None:
        self._cpu_s = time.thread_time()

    async def _report(self, started: float, report: Report) -> None:
        while True:
            report(time.perf_counter() - started, self._ended, self._failed)
            await asyncio.sleep(_REPORT_S)

    async def one(self, due: float) -> None:
        """Send one request. Its latency begins when it was due, so that a late sender cannot hide a slow service."""
        number, request = self._traffic.next()
        sender = self._senders[self._sent % len(self._senders)]
        self._sent += 1
        outcome, counts = self._outcome, due >= self._counts_from
        if counts:
            outcome.late_s.append(time.perf_counter() - due)
        tally = outcome.tallies[number]
        try:
            response = await sender.send(request)
        except RecallError as error:
            self._failed += 1
            if counts:
                tally.failed[f"{error.code.name} {error.reason}".strip()] += 1
        else:
            now = time.perf_counter()
            if counts:
                self._last_answer = now
                tally.latency_s.append(now - due)
                tally.statuses.update([UserStatus(user.status).name for user in response.results])
                outcome.model_versions.add(response.model_version)
        self._ended += 1
