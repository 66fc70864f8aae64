"""Memory and start of servers by the size of the catalogue, and latency while releases change.

    python -m tests.bench.memory

The store in front of which they run costs nothing, so all that is measured is the server's own. "Own" memory is what
`/proc/PID/smaps_rollup` calls anonymous: what the kernel cannot take back. "Pss" counts a page that n processes share
as one n-th of a page for each.
"""

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import typer
from rich.table import Table

from mind.artifact import MANIFEST, TENSORS, content_version, read_manifest
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from tests.artifacts import make_artifact
from tests.bench.machine import console, describe
from tests.bench.memory_server import FIRST_ID, ID_STEP
from tests.bench.serving.world import Worker, worker

DIM, MAXLEN, TOP_K, GB = 64, 20, 50, 1e9
STARTS, PROCESSES = 3, 4
MODELS = 3
"""Releases that take turns, so that none is the one before, which would be in memory."""
QUESTIONS = 300
"""Requests that a server answers before its memory is read: what it needs for them is then there."""
STEADY_S, AFTER_S = 5.0, 0.5
"""How long latency is measured before each switch, and after the server says that it is done."""

app = typer.Typer(add_completion=False)


@dataclass
class Row:
    """What was measured with one size of the catalogue."""

    items: int
    file_gb: float
    start_s: list[tuple[float, float]] = field(default_factory=list)
    """By the clock, and processor time."""
    loading_s: list[tuple[float, float]] = field(default_factory=list)
    own_gb: float = 0
    pss_gb: float = 0
    pss_of_all_gb: float = 0
    steady_ms: list[float] = field(default_factory=list)
    """The p99 before each switch."""
    switching_ms: list[float] = field(default_factory=list)
    """The p99 during each."""
    switch_s: list[float] = field(default_factory=list)


def write_models(directory: Path, items: int) -> list[Path]:
    """Models with the same arrays in files of their own."""
    found = [path.parent for path in directory.glob(f"*/{TENSORS}")]
    if len(found) == MODELS:
        return found
    first = make_artifact(directory, items=items, dim=DIM, maxlen=MAXLEN)
    paths = [first]
    for number in range(1, MODELS):
        manifest = read_manifest(first) | {"data": {"copy": number}}
        manifest["model_version"] = content_version(manifest)
        path = directory / manifest["model_version"]
        path.mkdir(exist_ok=True)
        (path / MANIFEST).write_text(json.dumps(manifest))
        shutil.copyfile(first / TENSORS, path / TENSORS)
        paths.append(path)
    return paths


def memory_gb(pid: int, name: str) -> float:
    """A line of `/proc/PID/smaps_rollup`."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kilobytes[name] * 1024 / GB


def requests(items: int) -> Iterator[recall_pb2.RecallRequest]:
    """Single users with random histories, for ever."""
    rng = np.random.default_rng(0)
    while True:
        history = rng.integers(0, items, MAXLEN) * ID_STEP + FIRST_ID
        yield recall_pb2.RecallRequest(users=[recall_pb2.User(hist_item=history.tolist())], top_k=TOP_K)


async def ask(address: str, items: int) -> None:
    """Use a server: without filters, and with one that half of the items match."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = recall_pb2_grpc.RecallServiceStub(channel)
        for number, request in zip(range(QUESTIONS), requests(items), strict=False):
            if number % 30 == 0:
                request.filter = "item_id >= 0"
            await stub.Recall(request, timeout=60)


class Load:
    """An open loop of single users; keeps when each call began, and how long it took."""

    def __init__(self, address: str, items: int, rate: float) -> None:
        self.times: list[tuple[float, float]] = []
        self._address, self._items, self._rate = address, items, rate

    async def run(self) -> None:
        """Send until cancelled."""
        async with grpc.aio.insecure_channel(self._address) as channel, asyncio.TaskGroup() as group:
            stub = recall_pb2_grpc.RecallServiceStub(channel)
            due = time.perf_counter()
            for request in requests(self._items):
                group.create_task(self._call(stub, request, due))
                due += 1 / self._rate
                await asyncio.sleep(max(0, due - time.perf_counter()))

    async def _call(
        self, stub: recall_pb2_grpc.RecallServiceStub, request: recall_pb2.RecallRequest, due: float
    ) -> None:
        await stub.Recall(request, timeout=60)
        self.times.append((due, time.perf_counter() - due))

    def p99_ms(self, start: float, end: float) -> float:
        """The 99th percentile of what calls took that were due in a time."""
        return float(np.percentile([1000 * took for due, took in self.times if start <= due < end], 99))


async def switch(row: Row, server: Worker, paths: list[Path], turns: int, rate: float) -> None:
    """Change the release under load, again and again."""
    load = Load(server.ask()["address"], row.items, rate)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(1)
    for turn in range(1, turns + 1):
        began = time.perf_counter()
        await asyncio.sleep(STEADY_S)
        published, path = time.perf_counter(), paths[turn % MODELS]
        served = await asyncio.to_thread(server.ask, publish=str(path))
        while served["model_version"] != path.name:
            await asyncio.sleep(0.05)
            served = await asyncio.to_thread(server.ask)
        switched = time.perf_counter()
        await asyncio.sleep(AFTER_S)
        row.switch_s.append(switched - published)
        row.steady_ms.append(load.p99_ms(began, published))
        row.switching_ms.append(load.p99_ms(published, switched + AFTER_S))
    running.cancel()
    await asyncio.wait([running])


def measure(directory: Path, items: int, turns: int, rate: float) -> Row:
    """Start one server, then several, and change releases under the first."""
    paths = write_models(directory / f"{items}", items)
    row = Row(items, (paths[0] / TENSORS).stat().st_size / GB)
    for _ in range(STARTS):
        with worker("tests.bench.memory_server", str(paths[0])) as server:
            known = server.ask()
            row.start_s.append(known["start"])
            row.loading_s.append(known["loading"])
            asyncio.run(ask(known["address"], items))
            row.own_gb, row.pss_gb = memory_gb(server.pid, "Anonymous"), memory_gb(server.pid, "Pss")
    with ExitStack() as stack:
        servers = [stack.enter_context(worker("tests.bench.memory_server", str(paths[0]))) for _ in range(PROCESSES)]
        for server in servers:
            asyncio.run(ask(server.ask()["address"], items))
        row.pss_of_all_gb = sum(memory_gb(server.pid, "Pss") for server in servers)
    with worker("tests.bench.memory_server", *map(str, paths)) as server:
        asyncio.run(switch(row, server, paths, turns, rate))
    return row


def table(rows: list[Row], rate: float) -> list[Table]:
    """Memory and start; latency while releases change."""
    memory = Table(title=f"memory and start, {DIM} numbers an item", title_justify="left")
    for heading in (
        "items",
        "model GB",
        "start s (processor)",
        "of it loading",
        "own GB",
        "Pss GB",
        f"Pss of {PROCESSES} GB",
        "ratio",
    ):
        memory.add_column(heading, justify="right")
    latency = Table(
        title=f"single users, {rate:g} a second, while releases change (medians of the switches)", title_justify="left"
    )
    for heading in ("items", "switches", "each s", "p99 ms before", "during", "ratio"):
        latency.add_column(heading, justify="right")
    for row in rows:
        medians = [np.median(each, axis=0) for each in (row.start_s, row.loading_s)]
        seconds = [f"{clock:.2f} ({processor:.2f})" for clock, processor in medians]
        sizes = [f"{each:.2f}" for each in (row.own_gb, row.pss_gb, row.pss_of_all_gb, row.pss_of_all_gb / row.pss_gb)]
        memory.add_row(f"{row.items:,}", f"{row.file_gb:.2f}", *seconds, *sizes)
        if row.switch_s:
            ratio = np.median(np.array(row.switching_ms) / row.steady_ms)
            medians = [np.median(each) for each in (row.switch_s, row.steady_ms, row.switching_ms)]
            shown = (f"{medians[0]:.2f}", f"{medians[1]:.1f}", f"{medians[2]:.1f}", f"{ratio:.2f}")
            latency.add_row(f"{row.items:,}", f"{len(row.switch_s)}", *shown)
    return [memory, latency]


@app.command()
def main(
    items: Annotated[list[int] | None, typer.Option(help="Items of a catalogue; may be given again.")] = None,
    directory: Annotated[Path, typer.Option(help="Where models go: 0.8 GB for a million items.")] = Path(
        "build/memory"
    ),
    turns: Annotated[int, typer.Option(help="Switches of the release.")] = 6,
    rate: Annotated[float, typer.Option(help="Users a second while releases change.")] = 100,
) -> None:
    """Print machine, memory, start and latency."""
    console.print(describe())
    rows = [measure(directory, each, turns, rate) for each in items or (367_982, 3_700_000, 10_000_000)]
    for shown in table(rows, rate):
        console.print(shown)


if __name__ == "__main__":
    app()
