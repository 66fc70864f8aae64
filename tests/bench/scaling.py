"""One server against three behind client-side round-robin: `python -m tests.bench.scaling`.

Twice: with a real Milvus, where three servers and Milvus share the cores of this machine, so that these bound what
three can give; and with a store that takes 250 ms and no processor, where nothing but the servers themselves does.
"""

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.bench.serving.world import Worker
from tests.ports import free_port

SERVERS = 3
SLOW_ITEMS, SLOW_USERS, SLOW_MS = 1_000, 2_000, 250
SLOW_REQUEST, SLOW_CALLERS = 8, 96
"""Users a request; callers, who keep twice as many users waiting as three servers search for at a time."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Replica:
    """A server of several."""

    address: str
    pid: int
    answered: Callable[[], float]
    """What it has answered so far, in whatever unit."""


@dataclass(frozen=True)
class Row:
    """Some servers under one load."""

    servers: int
    users_per_s: float
    shares: tuple[float, ...]
    """Of what was answered, by server."""
    server_cpu: tuple[float, ...]
    """Busy cores, by server."""
    milvus_cpu: float
    """Busy cores."""
    refused: int
    """Calls that were not answered with OK."""


def measure(load: Worker, replicas: list[Replica], milvus_pid: int | None, **question: Any) -> Row:
    """Put a load on servers that a client takes turns among."""
    address = "ipv4:" + ",".join(replica.address for replica in replicas)
    pids = [replica.pid for replica in replicas] + ([milvus_pid] if milvus_pid else [])
    answered = [replica.answered() for replica in replicas]
    answer = load.ask(kind="grpc", address=address, watch=pids, **question)
    busy = [spent_s / answer["seconds"] for spent_s in answer["watched_cpu_s"]]
    counts = [replica.answered() - was for replica, was in zip(replicas, answered, strict=True)]
    return Row(
        servers=len(replicas),
        users_per_s=answer["users_per_s"],
        shares=tuple(count / sum(counts) for count in counts),
        server_cpu=tuple(busy[: len(replicas)]),
        milvus_cpu=busy[-1] if milvus_pid else 0,
        refused=sum(calls for status, calls in answer["outcomes"].items() if status != "OK"),
    )


def compare(load: Worker, replicas: list[Replica], milvus_pid: int | None, rounds: int, **question: Any) -> list[Row]:
    """The first server alone and all of them, in turn so that both meet the same neighbours; the median of each."""
    alone, together = [], []
    for _ in range(rounds):
        alone.append(measure(load, replicas[:1], milvus_pid, **question))
        together.append(measure(load, replicas, milvus_pid, **question))
    return [sorted(rows, key=lambda row: row.users_per_s)[rounds // 2] for rows in (alone, together)]


@contextmanager
def slow_servers(directory: Path) -> Iterator[list[Replica]]:
    """Servers with a store that takes its time."""
    directory.mkdir(parents=True, exist_ok=True)
    world.write_data(directory, SLOW_ITEMS, SLOW_USERS)
    with ExitStack() as stack:
        command = ("tests.bench.slow_server", str(directory / "artifacts"), str(SLOW_MS))
        workers = [stack.enter_context(world.worker(*command)) for _ in range(SERVERS)]

        def replica(worker: Worker) -> Replica:
            return Replica(worker.ask()["address"], worker.pid, lambda: worker.ask()["searched"])

        yield [replica(worker) for worker in workers]


@contextmanager
def milvus_servers(directory: Path, uri: str) -> Iterator[list[Replica]]:
    """Servers of one Milvus."""
    with ExitStack() as stack:
        replicas = []
        for _ in range(SERVERS):
            metrics = f"127.0.0.1:{free_port()}"
            options = ("--metrics-listen", metrics, "--recall-sample-rate", "0")
            address, pid = stack.enter_context(world.our_server(directory, uri, *options))
            replicas.append(Replica(address, pid, lambda metrics=metrics: _users_answered(metrics)))  # type: ignore[misc]
        yield replicas


def _users_answered(metrics: str) -> float:
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return sum(sample.value for family in families for sample in family.samples if sample.name == "recall_users_total")


def table(title: str, rows: list[Row]) -> Table:
    """One server and three, and the ratio."""
    shown = Table(title=title, title_justify="left")
    headings = "servers|users/s|ratio|answered by each|busy cores of each|of Milvus|CPU s/1,000|refused"
    for heading in headings.split("|"):
        shown.add_column(heading, justify="right")
    for row in rows:
        ratio = f"{row.users_per_s / rows[0].users_per_s:.2f}"
        shares = ", ".join(f"{each:.1%}" for each in row.shares)
        cores = ", ".join(f"{each:.2f}" for each in row.server_cpu)
        cost = 1000 * (sum(row.server_cpu) + row.milvus_cpu) / row.users_per_s
        milvus = f"{row.milvus_cpu:.2f}" if row.milvus_cpu else ""
        cells = (f"{row.users_per_s:,.0f}", ratio, shares, cores, milvus, f"{cost:.2f}", f"{row.refused}")
        shown.add_row(f"{row.servers}", *cells)
    return shown


def slow(directory: Path, seconds: float) -> list[Row]:
    """One server and three whose store is slow and costs no processor."""
    question = {"users": SLOW_REQUEST, "callers": SLOW_CALLERS, "seconds": seconds}
    with slow_servers(directory) as replicas, world.worker("tests.bench.serving.load", str(directory)) as load:
        return compare(load, replicas, None, rounds=1, **question)


@app.command()
def main(
    directory: Annotated[Path, typer.Option(help="Where model, Milvus and logs go.")] = Path("build/scaling"),
    items: Annotated[int, typer.Option(help="Items in Milvus.")] = 100_000,
    seconds: Annotated[float, typer.Option(help="Of every measurement.")] = 10,
    rounds: Annotated[int, typer.Option(help="Turns with Milvus, of which the median counts.")] = 5,
) -> None:
    """Print machine, figures and ratios."""
    console.print(describe())
    rows = slow(directory / "slow", seconds)
    console.print(table(f"a store that takes {SLOW_MS} ms and no processor, requests of {SLOW_REQUEST} users", rows))
    real = directory / "milvus"
    real.mkdir(parents=True, exist_ok=True)
    artifact = world.write_data(real, items)
    with world.milvus(real) as (uri, milvus_pid):
        world.build_and_publish(artifact, uri)
        with milvus_servers(real, uri) as replicas, world.worker("tests.bench.serving.load", str(real)) as load:
            for users, callers in ((1, 64), (64, 16)):
                question = {"users": users, "callers": callers, "seconds": seconds}
                rows = compare(load, replicas, milvus_pid, rounds, **question)
                console.print(table(f"one Milvus, {items:,} items, requests of {users}, {callers} callers", rows))


if __name__ == "__main__":
    app()
