"""What the drills stand on: a real Milvus, small released models, real server processes."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from rich.console import Console
from rich.table import Table

from clients import AsyncRecallClient, RecallError, UnavailableError
from indexer.build import build, choose_index
from indexer.items.attributes import Attributes
from mind.artifact import Artifact, load_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests.artifacts import make_artifact
from tests.milvus_server import ROOT, Milvus
from tests.releases import publish, rollback
from tests.server.test_service import Server

console = Console(highlight=False, width=150)
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # a traceback for every call that finds nothing
_STARTED = time.monotonic()
ITEMS, DIM = 2_000, 16
HURRY_S, TRIES = 0.5, 10
"""Deadline of the calls that end a drill, and how many of them a server may miss on a busy machine."""


def say(text: str) -> None:
    """Print a step, with the seconds since the drill began."""
    console.print(f"[dim]{time.monotonic() - _STARTED:7.1f} s[/]  {text}", soft_wrap=True)


@contextmanager
def own_milvus(settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[Milvus, Path]]:
    """A Milvus server with fresh data, and an empty directory, for a drill that was started by hand."""
    with TemporaryDirectory() as directory:
        say("start Milvus")
        with Milvus(Path(directory) / "milvus", ROOT / ".pytest_cache" / "d" / "milvus-2.3.5", settings) as milvus:
            yield milvus, Path(directory)


@dataclass
class Findings:
    """What a drill measured, and what was not as it should be."""

    measured: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def expect(self, right: bool, what: str) -> None:
        """Note a fault unless all is right."""
        if not right:
            self.faults.append(what)
            say(f"[bold red]not as it should be:[/] {what}")

    def seconds(self, what: str, seconds: float, most: float = float("inf")) -> None:
        """Note a time, and a fault if it is longer than `most`."""
        self.measured[what] = f"{seconds:.1f} s"
        say(f"{what}: {seconds:.1f} s")
        self.expect(seconds <= most, f"{what}: {seconds:.1f} s, expected {most:g} s at most")

    def close(self, *tables: Table) -> None:
        """Print everything; ends a drill that was started by hand with exit code 1 if there are faults."""
        for table in tables:
            console.print(table)
        times = Table(box=None, show_header=False)
        for what, value in self.measured.items():
            times.add_row(what, value)
        console.print(times)
        console.print("[bold green]all as it should be" if not self.faults else f"[bold red]{len(self.faults)} faults")
        if self.faults:
            sys.exit(1)


def make_models(directory: Path, models: int, items: int = ITEMS, dim: int = DIM) -> list[Artifact]:
    """Random models over the same items, so that answers of one are plausible and wrong for another."""
    return [load_artifact(make_artifact(directory, items=items, dim=dim, seed=seed)) for seed in range(models)]


def release(uri: str, *models: Artifact) -> list[str]:
    """Build and publish models one after the other, with an exact index; gives their collections."""
    index = choose_index(False, "FLAT", {}, {})
    with Store(Connection(uri)) as store:
        names = [build(store, model, Attributes(), index).collection for model in models]
        for name in names:
            publish(store, name)
    return names


def move_alias(uri: str, collection: str | None) -> str:
    """Publish a collection, or roll back if it is None; gives the one that is live now."""
    with Store(Connection(uri)) as store:
        return (publish(store, collection) if collection else rollback(store)).live


@asynccontextmanager
async def serving(
    uri: str, artifacts: Path, *options: str, processes: int = 1, wait: bool = True, token: str | None = None
) -> AsyncIterator[list[Server]]:
    """Separate servers, `python -m server`, each on a port of its own; SERVING when this yields, unless not waited for.

    At the end, each that still says SERVING must answer a caller with little time, whatever it went through.

    Args:
        uri: of Milvus or a proxy before it.
        artifacts: directory of the models.
        options: further options of the server.
        processes: how many.
        wait: until all are SERVING.
        token: that the options ask for.
    """
    servers = [Server("--milvus-uri", uri, "--artifacts", str(artifacts), *options) for _ in range(processes)]
    try:
        for server in servers:
            await asyncio.to_thread(server.wait_for, "listening on")
            if wait and await until_health(server.address, True, 60) == float("inf"):
                raise AssertionError(f"{server.address} does not serve:\n{''.join(server.log)}")
        yield servers
        for server in servers:
            await _answer_in_a_hurry(server.address, token)
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)


async def until_health(address: str, serving: bool, timeout_s: float) -> float:
    """Wait until a server says that it serves, or that it does not.

    Returns:
        The seconds that it took; infinite if it did not come.
    """
    started = time.monotonic()
    async with AsyncRecallClient(address, timeout_s=20) as client:  # a busy machine may answer late
        while await _is_serving(client) != serving:
            if time.monotonic() - started > timeout_s:
                return float("inf")
            await asyncio.sleep(0.05)
    return time.monotonic() - started


async def _answer_in_a_hurry(address: str, token: str | None) -> None:
    """Raise AssertionError if a server that says SERVING answers none of some calls with short deadlines."""
    async with AsyncRecallClient(address, timeout_s=HURRY_S, token=token) as client:
        if not await _is_serving(client):
            return
        for _ in range(TRIES):
            with suppress(RecallError):
                await client.recall([[1000]], top_k=5)
                return
    raise AssertionError(f"{address} says SERVING and answers none of {TRIES} calls within {HURRY_S} s")


async def _is_serving(client: AsyncRecallClient) -> bool:
    """What health says; False if nobody listens."""
    try:
        return await client.is_serving()
    except UnavailableError:
        return False
