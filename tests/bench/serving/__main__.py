"""What serving costs, beside the article's stack and beside the floor: `python -m tests.bench.serving`.

One real Milvus server, four subjects, one run: they take turns in every cell, so that all meet the same neighbours on
a shared machine. Prints the tables, writes results.json and latency.svg.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress

from mind.artifact import load_artifact
from tests.bench.machine import console
from tests.bench.serving import catalogue, features, report, world
from tests.bench.serving.bench import Bench, Row, Subject, recall_of
from tests.bench.serving.stage import ITEMS, WORKDIR, Items, MilvusUri, Rounds, Seconds, Stage, Workdir, save, staged
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
    "3 filters": {"filters": [f"{catalogue.RANDOM} < {most}" for most in (10, 50, 100)]},
}
"""Single-user requests that differ: histories of so many clicks, which are left out, and several top_k; neighbours of
the newest clicks among the candidates; or filters that match 1, 5 and 10 % of the items."""
MIXED_LOADS = (0.5, 0.8)
"""Open loop: shares of what our server managed when all requests were alike."""
OVERLOAD, OVERLOAD_USERS, DEADLINE_S = 4, (8, 64), 1.0

PARTS = ("closed", "open", "overload", "sweep", "mixed", "features")

app = typer.Typer(add_completion=False)


@contextmanager
def subjects(stage: Stage, options: Sequence[str]) -> Iterator[list[Subject]]:
    """The four, each having answered for the same users."""
    directory, artifact, uri = stage.directory, stage.artifact, stage.uri
    with ExitStack() as stack:
        floor = stack.enter_context(
            world.worker("tests.bench.serving.floor", str(directory), str(artifact), uri, stage.collection)
        )
        local, local_pid = stack.enter_context(
            world.our_server(directory, uri, *options, "--search", "local", log="local.log")
        )
        article, article_pid = stack.enter_context(world.article_server(directory, artifact, uri))
        exact = world.exact_candidates(artifact, directory, CHECKED_USERS)
        asked: dict[str, Callable[..., Any]] = {
            OURS: stage.subject(OURS).ask,
            ARTICLE: partial(stage.load.ask, kind="http", address=article),
            FLOOR: floor.ask,
            LOCAL: partial(stage.load.ask, kind="grpc", address=local),
        }
        lists = {name: ask(check=CHECKED_USERS) for name, ask in asked.items()}
        pids = {OURS: stage.pid, ARTICLE: article_pid, FLOOR: floor.pid, LOCAL: local_pid}
        recall = {name: recall_of(found, exact) for name, found in lists.items()}
        through_milvus = (lists[name] for name in (OURS, ARTICLE, FLOOR))
        same = np.mean([set(a) == set(b) == set(c) for a, b, c in zip(*through_milvus, strict=True)])
        console.print(f"the same candidates from all three that search Milvus for {same:.1%} of {CHECKED_USERS} users")
        yield [Subject(name, pids[name], asked[name], recall[name]) for name in asked]


@app.command()
def main(
    workdir: Workdir = WORKDIR,
    items: Items = ITEMS,
    rounds: Rounds = 3,
    seconds: Seconds = 4,
    only: Annotated[str, typer.Option(help="Parts to run.")] = ",".join(PARTS),
    users: Annotated[str, typer.Option(help="Users of a request in the closed loop.")] = "1,8,64",
    callers: Annotated[str, typer.Option(help="Callers of the closed loop.")] = "1,16,64",
    milvus_uri: MilvusUri = "",
    server_option: Annotated[list[str] | None, typer.Option(help="Option of our server. Repeatable.")] = None,
) -> None:
    """Measure our server, with Milvus and with its own memory, the article's stack and the floor side by side.

    Then measure what each feature of a request costs.
    """
    parts = only.split(",")
    if wrong := set(parts) - set(PARTS):
        raise typer.BadParameter(f"{min(wrong)!r} is no part, there are {', '.join(PARTS)}", param_hint="--only")
    options = server_option or []
    results: dict[str, Any] = {}
    needed = features.SERVER_OPTIONS if "features" in parts else ()
    with staged(workdir, items, milvus_uri, *options, *needed) as stage:
        directory = stage.directory
        dim = load_artifact(stage.artifact).hyper_parameters.embedding_dim
        console.print(f"{items:,} items of {dim} numbers, top_k {TOP_K}, {rounds} turns of {seconds:g} s each, medians")
        bench = Bench(stage.milvus_pid, rounds, seconds)
        if parts != ["features"]:
            cells = list(product(_numbers(users), _numbers(callers)))
            results |= _side_by_side(stage, bench, options, parts, cells)
        if "features" in parts:
            rows = features.measure(stage, bench)
            console.print(report.pairs("Features, in turn with requests without", "feature", rows))
            results["features"] = [asdict(row) for row in rows]
    save(directory, "results", items=items, rounds=rounds, seconds=seconds, **results)
    console.print(f"results in {directory}")


def _side_by_side(
    stage: Stage, bench: Bench, options: list[str], parts: list[str], cells: list[tuple[int, int]]
) -> dict[str, Any]:
    """What the four subjects do; writes latency.svg. Gives the rows of each part, and memory."""
    rows: dict[str, list[Row]] = {}
    with subjects(stage, options) as four, Progress(console=console, transient=True) as progress:
        if "closed" in parts:
            rows["closed"] = _closed(bench, four, cells, progress)
            console.print(report.closed(rows["closed"]))
        if "open" in parts:
            rows["open"] = _open(bench, four[:2], progress)
            console.print(report.opened(rows["open"]))
        if "overload" in parts:
            rows["overload"] = _overload(bench, four[0], progress)
            console.print(report.overload(rows["overload"], DEADLINE_S))
        if "sweep" in parts:
            rows["sweep"] = _sweep(bench, four[0], progress)
            console.print(report.sweep(rows["sweep"]))
        if "mixed" in parts:
            rows["mixed"] = _mixed(bench, four[0], progress)
            console.print(report.mixed(rows["mixed"], len(MIXED)))
        pids = {each.name: each.pid for each in four} | ({"milvus": stage.milvus_pid} if stage.milvus_pid else {})
        memory = {name: round(world.memory_gb(pid), 2) for name, pid in pids.items()}
        console.print("memory, GB: " + ", ".join(f"{name} {gb}" for name, gb in memory.items()))
    if "open" in rows:
        report.plot(rows["open"], stage.directory / "latency.svg")
    return {"memory_gb": memory} | {part: [asdict(row) for row in found] for part, found in rows.items()}


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
