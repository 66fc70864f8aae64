"""What filters find and what they cost: `python -m tests.bench.serving.filters`.

One real Milvus and one server. For each share of items that match, at random and following the clusters of the items,
the candidates are compared with an exact search among the items that match, and the throughput with requests without a
filter, which are measured in turn.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from tests.bench.machine import console
from tests.bench.serving import world
from tests.bench.serving.bench import Bench, Subject
from tests.bench.serving.catalogue import CLUSTERS, RANDOM, VALUES
from tests.bench.serving.stage import ITEMS, WORKDIR, Items, MilvusUri, Rounds, Seconds, Workdir, save, staged
from tests.bench.serving.world import TOP_K

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
    workdir: Workdir = WORKDIR,
    items: Items = ITEMS,
    rounds: Rounds = 3,
    seconds: Seconds = 3,
    share: Annotated[list[float] | None, typer.Option(help="Share of items that match. Repeatable.")] = None,
    index_option: Annotated[
        list[str] | None, typer.Option(help="Option of `indexer build`, such as --index-type=IVF_FLAT. Repeatable.")
    ] = None,
    milvus_uri: MilvusUri = "",
) -> None:
    """Measure recall and throughput with filters."""
    rows: list[Filtered] = []
    index = index_option or list(world.INDEX)
    with staged(workdir, items, milvus_uri, "--search-timeout-ms", "30000", index=index) as stage:
        directory, columns, artifact = stage.directory, stage.numbers, load_artifact(stage.artifact)
        subjects = stage.subject("without"), stage.subject("filtered")
        ask = subjects[0].ask
        bench = Bench(stage.milvus_pid, rounds, seconds)
        found = found_of(ask(check=CHECKED_USERS), artifact, directory, np.ones(items, bool))
        console.print(f"without a filter: recall@50 {found[0]:.3f}, {found[1]} users short")
        for attribute in (RANDOM, CLUSTERS):
            for one in share or SHARES:
                filter_, passing = f"{attribute} < {round(VALUES * one)}", columns[attribute] < round(VALUES * one)
                cold = cold_ms(stage.address, attribute, one)
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
    save(directory, "filters", items=items, index=index, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    app()
