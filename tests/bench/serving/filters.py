"""What filters find and what they cost: `python -m tests.bench.serving.filters`.

One real Milvus and one server. For each share of items that match, at random and following the clusters of the items,
the candidates are compared with an exact search among the items that match, and the throughput with requests without a
filter, which are measured in turn.
"""

import csv
import json
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from clients import RecallClient
from mind.artifact import Artifact, load_artifact
from mind.encoder import NumpyEncoder
from mind.evaluation.retrieval import nearest_items
from mind.sequences import Int64
from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.bench.serving.bench import Bench, Subject
from tests.bench.serving.world import TOP_K

VALUES = 1_000
"""Values of the two attributes, about equally frequent."""
RANDOM, CLUSTERS = "bucket", "shelf"
"""An attribute that is independent of the vectors, and one that items near to each other share."""
NEIGHBOURS = 200
"""Items in a row that have the same shelf: the benchmark's items are ordered by cluster."""
SHARES = (0.001, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
CHECKED_USERS = 200
USERS, CALLERS = 50, 8
"""Users of a request, and callers at the same time."""
OWN_CALLERS = 64
"""Callers of single-user requests that each have a filter of their own."""
COLD = 9
"""Filters that were never asked for, to measure the first answer."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Filtered:
    """What was measured with a filter, or with several in turn."""

    name: str
    share: float
    recall: float
    """Of the exact best 50 that match, mean over users."""
    short: int
    """Users who got fewer than 50 candidates though more items match."""
    users_per_s: float
    ratio: float
    """Of the throughput without a filter, in turn with this."""
    p50_ms: float
    cpu_s: float
    """Processor time of server and Milvus for 1,000 users, in seconds; unknown for a Milvus that ran already."""
    cpu_ratio: float
    """Of that without a filter."""
    cold_ms: float
    """Median time of the first answer, for one user."""


def write_items(directory: Path, artifact: Artifact) -> dict[str, Int64]:
    """Write the attributes of all items where the indexer reads them; gives them by name."""
    rng = np.random.default_rng(world.SEED)
    item_id = artifact.weights.item_id
    shelves = len(item_id) // NEIGHBOURS + 1
    shelf = rng.permutation(shelves) * VALUES // shelves
    columns = {RANDOM: rng.integers(0, VALUES, len(item_id)), CLUSTERS: shelf[np.arange(len(item_id)) // NEIGHBOURS]}
    with (directory / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", *columns])
        writer.writerows(zip(item_id.tolist(), *(column.tolist() for column in columns.values()), strict=True))
    return columns


def found_of(found: list[list[int]], artifact: Artifact, directory: Path, passing: Any) -> tuple[float, int]:
    """The recall of candidates among the items that pass, [N] bool, and how many users are short."""
    encoder = NumpyEncoder(artifact.weights, artifact.hyper_parameters)
    histories = world.read_histories(directory)
    vectors = encoder.encode(*world.pad_histories(artifact.vocabulary, histories, len(found)))
    rows = np.flatnonzero(passing) + 1
    table = np.concatenate([artifact.weights.item_embedding[:1], artifact.weights.item_embedding[rows]])
    wanted = min(TOP_K, len(rows))
    nearest = np.concatenate([nearest_items(part, table, wanted) for part in np.array_split(vectors, 25)])
    exact = artifact.weights.item_id[rows[nearest - 1] - 1]
    right = [len(set(own) & set(best)) / wanted for own, best in zip(found, exact.tolist(), strict=True)]
    return float(np.mean(right)), sum(len(own) < wanted for own in found)


def cold_ms(address: str, attribute: str, share: float) -> float:
    """Median time of the first answer to a filter, in milliseconds; every filter is another one."""
    took = []
    with RecallClient(address, timeout_s=30) as client:
        client.recall([[]], top_k=1)
        for number in range(COLD):
            started = time.perf_counter()
            never_asked = f"{attribute} < {round(VALUES * share)} and {attribute} != {-number - 1}"
            client.recall([[]], top_k=1, filter=never_asked)
            took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took)


def measure(
    bench: Bench,
    subjects: tuple[Subject, Subject],
    users: int,
    callers: int,
    filters: Sequence[str],
) -> tuple[float, float, float, float, float]:
    """Throughput with filters and its ratio to that without, median latency, processor time and its ratio."""
    question = {"users": users, "callers": callers}
    plain, filtered = subjects
    rows = bench.compare(users, [(plain, "", question), (filtered, "", question | {"filters": filters})])
    assert all(set(row.outcomes) == {"OK"} for row in rows), [row.outcomes for row in rows]
    before, after = rows
    cpu_s = [row.service_cpu + row.milvus_cpu for row in rows]
    return after.users_per_s, after.users_per_s / before.users_per_s, after.p50_ms, cpu_s[1], cpu_s[1] / cpu_s[0]


def own_filters(bucket: Int64) -> dict[str, Any]:
    """For each caller, a filter that another tenth of the items matches, and which items match, [N] bool."""
    width, starts = VALUES // 10, np.linspace(0, VALUES * 9 // 10, OWN_CALLERS).astype(int).tolist()
    return {
        f"{RANDOM} >= {start} and {RANDOM} < {start + width}": (bucket >= start) & (bucket < start + width)
        for start in starts
    }


def table(rows: list[Filtered]) -> Table:
    """The rows as people read them."""
    shown = Table(title="Filters beside requests without one, in turn", title_justify="left")
    headings = (
        "items that match",
        "share",
        "recall@50",
        "users short",
        "users/s",
        "of unfiltered",
        "p50 ms",
        "cpu s / 1,000",
        "of unfiltered",
        "cold ms",
    )
    for heading in headings:
        shown.add_column(heading, justify="right")
    for row in rows:
        cells = (f"{row.recall:.3f}", f"{row.short}", f"{row.users_per_s:,.0f}", f"{row.ratio:.0%}")
        spent = f"{row.cpu_s:.2f}", f"{row.cpu_ratio:.0%}"
        shown.add_row(row.name, f"{row.share:.1%}", *cells, f"{row.p50_ms:.1f}", *spent, f"{row.cold_ms:.0f}")
    return shown


@app.command()
def main(
    workdir: Annotated[Path, typer.Option(help="Model, collection and results; used again next time.")] = Path(
        "build/bench-filters"
    ),
    items: Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")] = 367_982,
    rounds: Annotated[int, typer.Option(min=1, help="Turns with a filter, and as many without.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 3,
    share: Annotated[list[float] | None, typer.Option(help="Share of items that match. Repeatable.")] = None,
    index_option: Annotated[
        list[str] | None, typer.Option(help="Option of `indexer build`, such as --index-type=IVF_FLAT. Repeatable.")
    ] = None,
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
) -> None:
    """Measure recall and throughput with filters."""
    directory, path = world.begin(workdir, items)
    artifact = load_artifact(path)
    columns = write_items(directory, artifact)
    rows: list[Filtered] = []
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        index = index_option or list(world.INDEX)
        world.build_and_publish(path, uri, [*index, "--attributes", str(directory / "items.csv")])
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        address, pid = stack.enter_context(world.our_server(directory, uri, "--search-timeout-ms", "30000"))
        ask = partial(load.ask, kind="grpc", address=address)
        subjects = Subject("without", pid, ask, 1), Subject("filtered", pid, ask, 1)
        bench = Bench(milvus_pid, rounds, seconds)
        found = found_of(ask(check=CHECKED_USERS), artifact, directory, np.ones(items, bool))
        console.print(f"without a filter: recall@50 {found[0]:.3f}, {found[1]} users short")
        for attribute in (RANDOM, CLUSTERS):
            for one in share or SHARES:
                filter_, passing = f"{attribute} < {round(VALUES * one)}", columns[attribute] < round(VALUES * one)
                cold = cold_ms(address, attribute, one)
                found = found_of(ask(check=CHECKED_USERS, filters=[filter_]), artifact, directory, passing)
                speed = measure(bench, subjects, USERS, CALLERS, [filter_])
                rows.append(Filtered(attribute, float(passing.mean()), *found, *speed, cold))
                console.print(table(rows[-1:]))
        filters = own_filters(columns[RANDOM])
        checks = [
            found_of(ask(check=CHECKED_USERS // 4, filters=[own]), artifact, directory, passing)
            for own, passing in filters.items()
        ]
        found = statistics.mean(recall for recall, _ in checks), sum(short for _, short in checks)
        speed = measure(bench, subjects, 1, OWN_CALLERS, list(filters))
        rows.append(Filtered(f"{OWN_CALLERS} callers, each its own", 0.1, *found, *speed, math.nan))
    console.print(f"{items:,} items, {USERS} users a request, {CALLERS} callers; {rounds} turns of {seconds:g} s each")
    console.print(table(rows))
    results = {"machine": describe(), "items": items, "index": index, "rows": [asdict(row) for row in rows]}
    (directory / "filters.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app()
