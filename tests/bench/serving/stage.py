"""What benchmarks of serving share: options, a released catalogue with attributes, one server and a load generator."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from clients import RecallClient
from mind.artifact import load_artifact
from mind.sequences import Int64
from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.bench.serving.bench import Subject
from tests.bench.serving.catalogue import write_items
from tests.bench.serving.world import INDEX, TOP_K, Worker

Workdir = Annotated[Path, typer.Option(help="Model, collection and results; used again next time.")]
Items = Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")]
Rounds = Annotated[int, typer.Option(min=1, help="Turns of each kind under a load.")]
Seconds = Annotated[float, typer.Option(min=0.2, help="Length of a turn.")]
MilvusUri = Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")]

WORKDIR = Path("build/bench-serve")
ITEMS = 367_982
LOADS = ((64, 1), (64, 16), (1, 64))
"""Users of a request, and callers."""


@dataclass(frozen=True)
class Stage:
    """The parts that run."""

    directory: Path
    """Of model, histories, logs and results."""
    artifact: Path
    numbers: dict[str, Int64]
    """The attributes to filter by."""
    uri: str
    """Of Milvus."""
    milvus_pid: int | None
    """None for a Milvus that ran already."""
    collection: str
    load: Worker
    address: str
    """Of the server."""
    pid: int
    """Of the server."""

    def subject(self, name: str, kind: str = "grpc", **asked: Any) -> Subject:
        """The server, asked in one way; `asked`: fields of `load.Shape` that all questions have."""
        return Subject(name, self.pid, partial(self.load.ask, kind=kind, address=self.address, **asked), 1)

    def client(self) -> RecallClient:
        """A patient client of the server."""
        return RecallClient(self.address, timeout_s=60)

    def read_columns(self, names: Sequence[str]) -> tuple[float, float]:
        """Have the server read columns of attributes; gives their size in MB and the seconds that took."""
        with self.client() as client:
            return world.read_columns(client, self.directory / "server.log", names)


@contextmanager
def staged(workdir: Path, items: int, milvus_uri: str, *options: str, index: Sequence[str] = INDEX) -> Iterator[Stage]:
    """Release a catalogue of so many items, and run everything; `options`: of the server, `index`: of `build`."""
    directory, artifact = world.begin(workdir, items)
    numbers = write_items(directory, load_artifact(artifact))
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        collection = world.build_and_publish(artifact, uri, [*index, "--attributes", str(directory / "items.csv")])
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        address, pid = stack.enter_context(world.our_server(directory, uri, *options))
        yield Stage(directory, artifact, numbers, uri, milvus_pid, collection, load, address, pid)


def head(items: int, rounds: int, seconds: float) -> None:
    """Print what tables show."""
    console.print(f"{items:,} items, top {TOP_K}; medians of {rounds} turns of {seconds:g} s each")


def save(directory: Path, name: str, **results: Any) -> None:
    """Write results and the machine into a JSON file."""
    (directory / f"{name}.json").write_text(json.dumps({"machine": describe()} | results, indent=1) + "\n")
