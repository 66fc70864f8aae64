"""What serving costs, beside the article's stack and beside the floor: `python -m tests.bench.serving`.

One real Milvus server, four subjects, one run: they take turns in every cell, so that all meet the same neighbours on
a shared machine. Prints the tables, writes results.json and latency.svg.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress

from mind.artifact import load_artifact
from tests.bench.machine import console, describe
from tests.bench.serving import filters, report, world
from tests.bench.serving.bench import Bench, Row, Subject, recall_of
from tests.bench.serving.world import TOP_K

CHECKED_USERS = 512
USERS, CALLERS = (1, 8, 64), (1, 16, 64)
OURS, ARTICLE, FLOOR, LOCAL = "ours", "article", "floor", "local"
"""Our server; the article's stack; encoding and searching in a bare loop; our server with `--search local`."""
LOADS = (0.25, 0.5, 0.8, 0.95)
"""Open loop: shares of what a subject managed in the closed loop."""
SWEEP: dict[str, dict[str, Any]] = {f"top_k {value}": {"top_k": [value]} for value in (10, 50, 200, 1_000)}
SWEEP |= {f"history {value}": {"history": value} for value in (1, 5, 20)}
TOP_KS = [20, 50, 100]
MIXED: dict[str, dict[str, Any]] = {
    "alike": {},
    "1-20 left out": {"up_to": 20, "exclude_history": True},
    "1-20, 3 top_k": {"up_to": 20, "exclude_history": True, "top_k": TOP_KS},
    "1-200 left out": {"up_to": 200, "exclude_history": True},
    "1-200, 3 top_k": {"up_to": 200, "exclude_history": True, "top_k": TOP_KS},
    "neighbours off": {"neighbours": "off"},
    "neighbours on": {"neighbours": "on"},
    "3 filters": {"filters": [f"{filters.RANDOM} < {most}" for most in (10, 50, 100)]},
}
"""Single-user requests that differ: histories of so many clicks, which are left out, and several top_k; neighbours of
the newest clicks among the candidates; or filters that match 1, 5 and 10 % of the items."""
MIXED_LOADS = (0.5, 0.8)
"""Open loop: shares of what our server managed when all requests were alike."""
OVERLOAD, OVERLOAD_USERS, DEADLINE_S = 4, (8, 64), 1.0

app = typer.Typer(add_completion=False)


@contextmanager
def subjects(
    directory: Path, artifact: Path, milvus_uri: str, options: list[str]
) -> Iterator[tuple[int | None, list[Subject]]]:
    """Milvus' process id if it is ours, and the four, each having answered for the same users."""
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        filters.write_items(directory, load_artifact(artifact))
        index = [*world.INDEX, "--attributes", str(directory / "items.csv")]
        collection = world.build_and_publish(artifact, uri, index)
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        floor = stack.enter_context(
            world.worker("tests.bench.serving.floor", str(directory), str(artifact), uri, collection)
        )
        ours, ours_pid = stack.enter_context(world.our_server(directory, uri, *options))
        local, local_pid = stack.enter_context(world.our_server(directory, uri, *options, "--search", "local"))
        article, article_pid = stack.enter_context(world.article_server(directory, artifact, uri))
        exact = world.exact_candidates(artifact, directory, CHECKED_USERS)

        def at(kind: str, address: str) -> Callable[..., Any]:
            return lambda **question: load.ask(kind=kind, address=address, **question)

        asked = {OURS: at("grpc", ours), ARTICLE: at("http", article), FLOOR: floor.ask, LOCAL: at("grpc", local)}
        lists = {name: ask(check=CHECKED_USERS) for name, ask in asked.items()}
        pids = {OURS: ours_pid, ARTICLE: article_pid, FLOOR: floor.pid, LOCAL: local_pid}
        recall = {name: recall_of(found, exact) for name, found in lists.items()}
        through_milvus = (lists[name] for name in (OURS, ARTICLE, FLOOR))
        same = np.mean([set(a) == set(b) == set(c) for a, b, c in zip(*through_milvus, strict=True)])
        console.print(f"the same candidates from all three that search Milvus for {same:.1%} of {CHECKED_USERS} users")
        yield milvus_pid, [Subject(name, pids[name], asked[name], recall[name]) for name in asked]


@app.command()
def main(
    workdir: Annotated[Path, typer.Option(help="Model, collection and results; used again next time.")] = Path(
        "build/bench-serve"
    ),
    items: Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")] = 367_982,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each subject in a cell.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 4,
    only: Annotated[str, typer.Option(help="Parts to run.")] = "closed,open,overload,sweep,mixed",
    users: Annotated[str, typer.Option(help="Users of a request in the closed loop.")] = "1,8,64",
    callers: Annotated[str, typer.Option(help="Callers of the closed loop.")] = "1,16,64",
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
    server_option: Annotated[list[str] | None, typer.Option(help="Option of our server. Repeatable.")] = None,
) -> None:
    """Measure our server, with Milvus and with its own memory, the article's stack and the floor side by side."""
    directory, artifact = world.begin(workdir, items)
    dim = load_artifact(artifact).hyper_parameters.embedding_dim
    console.print(f"{items:,} items of {dim} numbers, top_k {TOP_K}, {rounds} turns of {seconds:g} s each, medians")
    rows: dict[str, list[Row]] = {}
    with subjects(directory, artifact, milvus_uri, server_option or []) as (milvus_pid, four):
        bench = Bench(milvus_pid, rounds, seconds)
        cells = list(product(_numbers(users), _numbers(callers)))
        with Progress(console=console, transient=True) as progress:
            if "closed" in only:
                rows["closed"] = _closed(bench, four, cells, progress)
                console.print(report.closed(rows["closed"]))
            if "open" in only:
                rows["open"] = _open(bench, four[:2], progress)
                console.print(report.opened(rows["open"]))
            if "overload" in only:
                rows["overload"] = _overload(bench, four[0], progress)
                console.print(report.overload(rows["overload"], DEADLINE_S))
            if "sweep" in only:
                rows["sweep"] = _sweep(bench, four[0], progress)
                console.print(report.sweep(rows["sweep"]))
            if "mixed" in only:
                rows["mixed"] = _mixed(bench, four[0], progress)
                console.print(report.mixed(rows["mixed"], len(MIXED)))
        pids = {each.name: each.pid for each in four} | ({"milvus": milvus_pid} if milvus_pid else {})
        memory = {name: round(world.memory_gb(pid), 2) for name, pid in pids.items()}
        console.print("memory, GB: " + ", ".join(f"{name} {gb}" for name, gb in memory.items()))
    results = {"machine": describe(), "items": items, "rounds": rounds, "seconds": seconds, "memory_gb": memory}
    results |= {part: [asdict(row) for row in found] for part, found in rows.items()}
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if "open" in rows:
        report.plot(rows["open"], directory / "latency.svg")
    console.print(f"results in {directory}")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _closed(bench: Bench, four: list[Subject], cells: list[tuple[int, int]], progress: Progress) -> list[Row]:
    rows = []
    for users, callers in progress.track(cells, description="closed loop"):
        question = {"users": users, "callers": callers}
        # The floor is as fast as it gets: full batches, two at a time, unless a single caller is all there is.
        floor = {"users": users, "in_flight": 1} if callers == 1 else {"users": 64, "in_flight": 2}
        rows += bench.compare(users, [(s, f"{callers}", floor if s.name == FLOOR else question) for s in four])
    return rows


def _open(bench: Bench, two: list[Subject], progress: Progress) -> list[Row]:
    """Single-user requests that arrive at random, at shares of what each subject can do."""
    peak = bench.compare(1, [(subject, "peak", {"users": 1, "callers": 64}) for subject in two])
    rows = []
    for turn, share in enumerate(progress.track(LOADS, description="open loop")):
        rates = [{"users": 1, "calls_per_s": share * row.users_per_s, "seed": turn} for row in peak]
        rows += bench.compare(1, [(s, f"{share:.0%}", rate) for s, rate in zip(two, rates, strict=True)])
    return rows


def _overload(bench: Bench, ours: Subject, progress: Progress) -> list[Row]:
    """What is still answered in time when four times as much is asked as can be."""
    rows = []
    for users in progress.track(OVERLOAD_USERS, description="overload"):
        question = {"users": users, "timeout_s": DEADLINE_S}
        peak = ours, "peak", question | {"callers": 16}
        (capacity,) = bench.compare(users, [peak])
        flood = question | {"calls_per_s": OVERLOAD * capacity.users_per_s / users}
        rows += bench.compare(users, [peak, (ours, f"{OVERLOAD}x", flood)])
    return rows


def _sweep(bench: Bench, ours: Subject, progress: Progress) -> list[Row]:
    """What more candidates and longer histories cost."""
    rows = []
    for name, change in progress.track(SWEEP.items(), description="sweep"):
        rows += bench.compare(1, [(ours, name, {"users": 1, "callers": 64} | change)])
    return rows


def _mixed(bench: Bench, ours: Subject, progress: Progress) -> list[Row]:
    """What requests cost that differ from each other, beside requests that are alike: closed loop, then open loop."""
    shapes = [(name, {"users": 1} | shape) for name, shape in MIXED.items()]
    rows = bench.compare(1, [(ours, f"{name}; 64", shape | {"callers": 64}) for name, shape in shapes])
    peak = rows[0].users_per_s
    for turn, share in enumerate(progress.track(MIXED_LOADS, description="mixed requests")):
        rate = {"calls_per_s": share * peak, "seed": turn}
        rows += bench.compare(1, [(ours, f"{name}; {share:.0%}", shape | rate) for name, shape in shapes])
    return rows


if __name__ == "__main__":
    app()
