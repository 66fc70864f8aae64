"""More than a server can do: four times its capacity, callers that do not read, idle connections, callers that leave.

    python -m tests.faults.overload --seconds 60 --connections 10000

After each the server must be what it was: the same answers, throughput, memory and descriptors. During it what it
accepts must be in time, and memory bounded.
"""

import asyncio
import random
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import psutil
import typer
from rich.table import Table

from mind.artifact import load_artifact
from tests.bench.serving.ways import Grpc
from tests.bench.serving.world import Worker, read_histories, worker, write_data
from tests.faults.ground import console, own_milvus, release, say, serving
from tests.faults.slow_reader import SlowReader

ITEMS, HISTORIES = 20_000, 2_000
USERS, CALLERS, TIMES = 8, 32, 4
DEADLINE_S = 1.0
MAX_LATE = 0.2
"""Of the calls that were accepted at four times the capacity."""
LATE = ("DEADLINE_EXCEEDED", "CANCELLED", "UNAVAILABLE")
"""How a deadline ends a call: by the caller's clock, by the server's, or by that of Milvus, which is a little early."""
CHECKED = 64
SLOW_USERS, SLOW_TOP_K = 32, 1_000
"""Of a request whose answer, half a megabyte, is not read."""
LEAVERS = 64
SAMPLE_S = 0.25
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
"""With which an HTTP/2 connection begins."""
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass
class Part:
    """A part of the drill."""

    name: str
    calls: int = 0
    failed: int = 0
    wrong: int = 0
    late: int = 0
    answered: int = 0
    users_per_s: float = 0
    memory_mb: list[float] = field(default_factory=list)
    """Of the server, every `SAMPLE_S`."""
    descriptors: int = 0
    """Most that the server had open."""
    outcomes: str = ""


class Drill:
    """Puts pressure on one server."""

    def __init__(self, address: str, pid: int, load: Worker, histories: list[list[int]], seed: int) -> None:
        """`load`: the benchmark's load generator."""
        self._address = address
        self._server = psutil.Process(pid)
        self._load = load
        self._histories = histories
        self._rng = random.Random(seed)
        self._answers: Any = None
        self.capacity = 0.0
        """Users per second before anything happened."""
        self.parts: list[Part] = []

    @contextmanager
    def part(self, name: str) -> Iterator[Part]:
        """Watch the server's memory and descriptors meanwhile."""
        part, over = Part(name), threading.Event()
        self.parts.append(part)

        def watch() -> None:
            while not over.wait(SAMPLE_S):
                part.memory_mb.append(self._server.memory_info().rss / 2**20)
                part.descriptors = max(part.descriptors, self._server.num_fds())

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield part
        finally:
            over.set()
            watching.join()
            say(f"{name}: {part.outcomes}; {max(part.memory_mb):.0f} MB and {part.descriptors} descriptors at most")

    def _ask(self, **question: Any) -> Any:
        return self._load.ask(address=self._address, kind="grpc", **question)

    def normal(self, name: str, seconds: float) -> Part:
        """A closed loop, which must be answered as it was before anything happened."""
        with self.part(name) as part:
            found = self._ask(users=USERS, callers=CALLERS, seconds=seconds)
            answers = self._ask(check=CHECKED)
            self._answers = self._answers or answers
            _count(part, found["outcomes"], {"OK"})
            part.wrong = sum(mine != first for mine, first in zip(answers, self._answers, strict=True))
            part.users_per_s = found["users_per_s"]
            self.capacity = self.capacity or part.users_per_s
        return part

    def overload(self, seconds: float) -> None:
        """An open loop of several times the capacity."""
        with self.part(f"{TIMES} times the capacity") as part:
            calls_per_s = TIMES * self.capacity / USERS
            found = self._ask(users=USERS, calls_per_s=calls_per_s, seconds=seconds, seed=1, timeout_s=DEADLINE_S)
            _count(part, found["outcomes"], {"OK", "RESOURCE_EXHAUSTED", *LATE})
            part.users_per_s = found["users_per_s"]

    async def slow_readers(self, calls: int, seconds: float) -> None:
        """Calls whose answers nobody takes off the wire, while another caller goes on."""
        users = [self._histories[row] for row in range(SLOW_USERS)]
        body, small = Grpc.body(users, SLOW_TOP_K), Grpc.body(self._histories[:1], 10)
        with self.part("slow readers") as part:
            async with SlowReader(self._address) as wire:  # noqa: SIM117 - needs its address
                async with grpc.aio.insecure_channel(wire.address, options=_OWN) as channel:
                    recall = channel.unary_unary("/recall.v1.RecallService/Recall")
                    await recall(small)
                    wire.reads.clear()
                    waiting = []
                    outcomes: Counter[str] = Counter()
                    end = time.monotonic() + seconds
                    while time.monotonic() < end:
                        if len(waiting) < calls:
                            waiting.append(asyncio.ensure_future(recall(body)))
                        outcomes[await self._one(small)] += 1
                    for call in waiting:
                        call.cancel()
                    await asyncio.gather(*waiting, return_exceptions=True)
            _count(part, outcomes, {"OK", "RESOURCE_EXHAUSTED"})
            part.outcomes += f"; {len(waiting)} answers not read"

    async def _one(self, body: bytes) -> str:
        async with grpc.aio.insecure_channel(self._address, options=_OWN) as channel:
            try:
                await channel.unary_unary("/recall.v1.RecallService/Recall")(body, timeout=10)
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(0.05)
                return str(error.code().name)
            return "OK"

    def idle_connections(self, connections: int, seconds: float) -> None:
        """Connections that say hello and nothing more, while others call."""
        host, _, port = self._address.rpartition(":")
        with ExitStack() as held, self.part("idle connections") as part:
            for _ in range(connections):
                held.enter_context(connection := socket.create_connection((host, int(port)), timeout=30))
                connection.sendall(HELLO)
                connection.recv(9)
            found = self._ask(users=USERS, callers=CALLERS, seconds=seconds)
            _count(part, found["outcomes"], {"OK"})
            part.users_per_s = found["users_per_s"]
            part.outcomes += f"; {connections:,} connections"

    async def leavers(self, seconds: float) -> None:
        """Callers that cancel at random moments."""
        bodies = [Grpc.body([history] * USERS, 50) for history in self._histories[:200]]
        outcomes: Counter[str] = Counter()
        with self.part("callers that leave") as part:
            async with grpc.aio.insecure_channel(self._address, options=_OWN) as channel:
                recall = channel.unary_unary("/recall.v1.RecallService/Recall")
                end = time.monotonic() + seconds

                async def leave() -> None:
                    while time.monotonic() < end:
                        call = recall(self._rng.choice(bodies), timeout=10)
                        try:
                            await asyncio.wait_for(asyncio.shield(call), self._rng.expovariate(1 / 0.05))
                            outcomes["OK"] += 1
                        except TimeoutError:
                            call.cancel()
                            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                                await call
                            outcomes["CANCELLED"] += 1
                        except grpc.aio.AioRpcError as error:
                            outcomes[error.code().name] += 1

                await asyncio.gather(*(leave() for _ in range(LEAVERS)))
            outcomes["left"] = outcomes.pop("CANCELLED", 0)
            _count(part, outcomes, {"OK", "left", "RESOURCE_EXHAUSTED"})

    def table(self) -> Table:
        """All parts."""
        table = Table(title="pressure", title_justify="left")
        table.add_column("part")
        for heading in ("calls", "failed", "wrong", "late", "users/s", "MB", "descriptors"):
            table.add_column(heading, justify="right")
        table.add_column("memory")
        lowest = min(min(part.memory_mb) for part in self.parts)
        highest = max(max(part.memory_mb) for part in self.parts)
        for part in self.parts:
            numbers = [f"{number:,}" for number in (part.calls, part.failed, part.wrong, part.late)]
            speed = f"{part.users_per_s:,.0f}" if part.users_per_s else ""
            memory = f"{part.memory_mb[0]:.0f} to {max(part.memory_mb):.0f}"
            curve = _curve(part.memory_mb, lowest, highest)
            table.add_row(part.name, *numbers, speed, memory, f"{part.descriptors:,}", curve)
        return table

    def plot(self, path: Path) -> None:
        """The memory of the server over the whole drill."""
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(9, 3), layout="constrained")
        start = 0.0
        for part in self.parts:
            seconds = start + SAMPLE_S * np.arange(len(part.memory_mb))
            axes.plot(seconds, part.memory_mb, label=part.name)
            start = float(seconds[-1]) + SAMPLE_S
        axes.set(xlabel="seconds", ylabel="MB")
        axes.legend(fontsize="x-small", ncols=3)
        figure.savefig(path)


_OWN = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


def _count(part: Part, outcomes: Any, allowed: set[str]) -> None:
    part.calls += sum(outcomes.values())
    part.failed += sum(count for outcome, count in outcomes.items() if outcome not in allowed)
    part.late += sum(outcomes.get(outcome, 0) for outcome in LATE)
    part.answered += outcomes.get("OK", 0)
    part.outcomes = ", ".join(f"{name} {count:,}" for name, count in sorted(outcomes.items()))


def _curve(values: list[float], lowest: float, highest: float) -> str:
    step = max(1, len(values) // 16)
    places = [(max(values[at : at + step]) - lowest) / max(highest - lowest, 1) for at in range(0, len(values), step)]
    return "".join(BLOCKS[int(place * (len(BLOCKS) - 1))] for place in places)


async def drill(
    uri: str,
    directory: Path,
    seconds: float,
    connections: int,
    slow_calls: int,
    items: int,
    max_late: float = 1,
    plot: Path | None = None,
) -> bool:
    """Put a server under all kinds of pressure; whether it stood them.

    `max_late`: share of the calls accepted under overload that may be late.
    """
    artifact = load_artifact(write_data(directory, items, HISTORIES))
    await asyncio.to_thread(release, uri, artifact)
    kept = read_histories(directory)
    histories = [kept[user].tolist() for user in range(len(kept))]
    with worker("tests.bench.serving.load", str(directory)) as load:
        async with serving(uri, directory / "artifacts") as [server]:
            run = Drill(server.address, server.process.pid, load, histories, seed=1)
            short = min(10.0, seconds)

            async def then_normal(press: Callable[[], None]) -> None:
                await asyncio.to_thread(press)
                await asyncio.to_thread(run.normal, "after it", short)

            await asyncio.to_thread(run.normal, "before", short)
            await then_normal(lambda: run.overload(seconds))
            await run.slow_readers(slow_calls, seconds)
            await then_normal(lambda: None)
            await then_normal(lambda: run.idle_connections(connections, short))
            await run.leavers(short)
            await then_normal(lambda: None)
            alive = server.process.poll() is None
            tracebacks = sum("Traceback" in line for line in server.log)
    console.print(run.table())
    if plot:
        run.plot(plot)
    console.print(f"server {'alive' if alive else 'DEAD'}, tracebacks in its log: {tracebacks}")
    if tracebacks:
        console.print("".join(server.log)[-4000:], markup=False)
    pressed = run.parts[1]
    late = pressed.late / max(1, pressed.late + pressed.answered)
    console.print(f"late under overload: {late:.1%} of the calls that were accepted")
    return alive and not tracebacks and late < max_late and not any(part.failed or part.wrong for part in run.parts)


def main(
    seconds: Annotated[float, typer.Option(min=1, help="Of overload, and of slow readers.")] = 60,
    connections: Annotated[int, typer.Option(min=1, help="Idle ones; as many as RLIMIT_NOFILE allows.")] = 10_000,
    slow_calls: Annotated[int, typer.Option(min=1, help="Answers that are not read.")] = 400,
    plot: Annotated[Path | None, typer.Option(help="Image file for the server's memory over time.")] = None,
) -> None:
    """Ask more of a server than it can do."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with own_milvus() as (milvus, directory):
        able = min(connections, most - 500)
        stood = asyncio.run(drill(milvus.uri, directory, seconds, able, slow_calls, ITEMS, MAX_LATE, plot))
    raise typer.Exit(int(not stood))


if __name__ == "__main__":
    typer.run(main)
