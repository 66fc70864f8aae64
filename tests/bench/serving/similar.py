"""What similar items cost: `python -m tests.bench.serving.similar`.

One real Milvus and one server. Requests for similar items by embedding, beside Recall for as many users, in turn; and
by embedding and neighbours, beside embedding alone.
"""

import json
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from clients import RecallClient
from mind.artifact import load_artifact
from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.bench.serving.bench import Bench, Row, Subject
from tests.bench.serving.report import pairs
from tests.bench.serving.world import TOP_K

LOADS = ((1, 1), (64, 1), (1, 64))
"""Users or queries of a request, and callers."""
CHECKED = 32

app = typer.Typer(add_completion=False)


def check(client: RecallClient, artifact: Path) -> None:
    """Compare some answers with the order of cosines in double precision. Raises SystemExit."""
    weights = load_artifact(artifact).weights
    table = weights.item_embedding[1:].astype(np.float64)
    units = table / np.linalg.norm(table, axis=1, keepdims=True)
    rows = np.linspace(0, len(units) - 1, CHECKED).astype(int)
    found = client.similar_items(weights.item_id[rows].tolist(), top_k=TOP_K)
    for row, item_ids in zip(rows.tolist(), found.item_ids, strict=True):
        cosines = units @ units[row]
        cosines[row] = -2
        best = set(weights.item_id[np.argpartition(-cosines, TOP_K)[:TOP_K]].tolist())
        if len(best & set(item_ids)) < TOP_K:
            raise SystemExit(f"the items similar to {weights.item_id[row]} are not the nearest by cosine")


@app.command()
def main(
    workdir: Annotated[Path, typer.Option(help="Model, collection and results; used again next time.")] = Path(
        "build/bench-similar"
    ),
    items: Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")] = 367_982,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each kind under a load.")] = 9,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 3,
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
) -> None:
    """Measure throughput of requests for similar items."""
    directory, artifact = world.begin(workdir, items)
    beside_recall: list[Row] = []
    beside_embedding: list[Row] = []
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        world.build_and_publish(artifact, uri)
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        address, pid = stack.enter_context(world.our_server(directory, uri))
        with RecallClient(address, timeout_s=60) as client:
            check(client, artifact)
        bench = Bench(milvus_pid, rounds, seconds)
        recall = Subject("recall", pid, partial(load.ask, kind="grpc", address=address), 1)
        similar = partial(load.ask, kind="similar", address=address)
        embedding, both = (
            Subject("similar", pid, similar, 1),
            Subject("both", pid, partial(similar, neighbours="on"), 1),
        )
        for users, callers in LOADS:
            question = {"users": users, "callers": callers}
            beside_recall += bench.compare(users, [(one, f"{callers}", question) for one in (recall, embedding)])
            beside_embedding += bench.compare(users, [(one, f"{callers}", question) for one in (embedding, both)])
    console.print(f"{items:,} items, top {TOP_K}; medians of {rounds} turns of {seconds:g} s each")
    console.print(pairs("Queries for similar items beside users of Recall, in turn", "of", beside_recall))
    console.print(pairs("By embedding and neighbours beside embedding, in turn", "by", beside_embedding))
    rows = [asdict(row) for row in beside_recall + beside_embedding]
    results = {"machine": describe(), "items": items, "rows": rows}
    (directory / "similar.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app()
