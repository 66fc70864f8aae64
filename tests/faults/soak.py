"""A long run with a release every minute: memory, descriptors, threads and collections must not grow.

    python -m tests.faults.soak --minutes 30

Every minute builds another model, publishes it and prunes, while callers hold every answer against the exact one.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from rich.table import Table

from indexer.catalogue import item_collections
from indexer.rollout.retire import prune
from mind.artifact import Artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests.faults.ground import console, make_models, own_milvus, release, say, serving
from tests.faults.load import Answers, Load

MODELS = 4
"""They take turns; what is pruned is built anew."""
KEPT = 1
CALLERS, PAUSE_S, DEADLINE_S = 2, 0.05, 10.0
WARM = 0.3
"""Share of the run in which caches may still fill; the slope is that of the rest."""
MAX_SLOPE_MB = 1.0
"""A release; the model that the drill serves takes a quarter of it."""
MAX_SLOPE = 0.5
"""The same for descriptors, threads and collections."""


@dataclass(frozen=True)
class Reading:
    """What a server held after a release."""

    memory_mb: float
    descriptors: int
    threads: int
    collections: int


async def drill(uri: str, directory: Path, releases: int, period_s: float) -> bool:
    """Release so many times; whether callers noticed nothing and nothing grew."""
    artifacts = directory / "artifacts"
    models = make_models(artifacts, MODELS)
    await asyncio.to_thread(_release, uri, models[0])
    readings: list[Reading] = []
    async with serving(uri, artifacts, "--watch-interval-s", "0.5") as [server]:
        process = psutil.Process(server.process.pid)
        async with Load([server.address], Answers(models), CALLERS, DEADLINE_S, PAUSE_S) as load:
            for number in range(1, releases + 1):
                phase, started = load.phase(f"release {number}"), time.monotonic()
                collections = await asyncio.to_thread(_release, uri, models[number % MODELS])
                await asyncio.sleep(max(0.0, period_s - (time.monotonic() - started)))
                memory = process.memory_info().rss / 2**20
                readings.append(Reading(memory, process.num_fds(), process.num_threads(), collections))
                say(f"release {number}: {readings[-1]}, {sum(phase.outcomes.values()):,} calls, {phase.failed} failed")
        served = sum("serving model" in line for line in server.log)
    console.print(_table(load, readings))
    kept = readings[int(WARM * len(readings)) :]
    grown = {
        name: float(np.polyfit(np.arange(len(kept)), [getattr(reading, name) for reading in kept], 1)[0])
        for name in ("memory_mb", "descriptors", "threads", "collections")
    }
    console.print(
        f"the server took over {served} models; a release adds " + ", ".join(f"{v:+.3f} {k}" for k, v in grown.items())
    )
    steady = grown["memory_mb"] < MAX_SLOPE_MB and all(
        grown[name] < MAX_SLOPE for name in ("descriptors", "threads", "collections")
    )
    return steady and not any(phase.failed or phase.wrong or phase.late for phase in load.phases)


def _release(uri: str, model: Artifact) -> int:
    """Build, publish and prune; gives the number of collections that are left."""
    release(uri, model)
    with Store(Connection(uri)) as store:
        prune(store, KEPT, incomplete=True, in_use=set(), on_drop=lambda name: None)
        return len(item_collections(store))


def _table(load: Load, readings: list[Reading]) -> Table:
    table = Table(title="a release each", title_justify="left")
    for heading in (
        "release",
        "calls",
        "failed",
        "wrong",
        "late",
        "p99 ms",
        "MB",
        "descriptors",
        "threads",
        "collections",
    ):
        table.add_column(heading, justify="right")
    for number, (phase, reading) in enumerate(zip(load.phases[1:], readings, strict=True), 1):
        counts = [str(each) for each in (phase.failed, phase.wrong, phase.late)]
        held = [str(each) for each in (reading.descriptors, reading.threads, reading.collections)]
        calls, p99 = f"{sum(phase.outcomes.values()):,}", f"{phase.percentile_ms(99):,.0f}"
        table.add_row(str(number), calls, *counts, p99, f"{reading.memory_mb:.1f}", *held)
    return table


def main(
    minutes: Annotated[int, typer.Option(min=3, help="As many releases.")] = 30,
    period_s: Annotated[float, typer.Option(min=1, help="Between two releases.")] = 60,
) -> None:
    """Release every minute while callers call."""
    with own_milvus() as (milvus, directory):
        steady = asyncio.run(drill(milvus.uri, directory, minutes, period_s))
    raise typer.Exit(int(not steady))


if __name__ == "__main__":
    typer.run(main)
