"""What similar items cost: `python -m tests.bench.serving.similar`.

One real Milvus and one server. Requests for similar items by embedding, beside Recall for as many users, in turn; and
by embedding and neighbours, beside embedding alone.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import typer

from clients import RecallClient
from mind.artifact import load_artifact
from tests.bench.machine import console
from tests.bench.serving.bench import Bench
from tests.bench.serving.report import pairs
from tests.bench.serving.stage import ITEMS, WORKDIR, Items, MilvusUri, Rounds, Seconds, Workdir, head, save, staged
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
    workdir: Workdir = WORKDIR,
    items: Items = ITEMS,
    rounds: Rounds = 9,
    seconds: Seconds = 3,
    milvus_uri: MilvusUri = "",
) -> None:
    """Measure throughput of requests for similar items."""
    with staged(workdir, items, milvus_uri) as stage:
        with stage.client() as client:
            check(client, stage.artifact)
        bench = Bench(stage.milvus_pid, rounds, seconds)
        embedding = stage.subject("similar", "similar")
        beside_recall = bench.beside(LOADS, [(stage.subject("recall"), embedding)])
        beside_embedding = bench.beside(LOADS, [(embedding, stage.subject("both", "similar", neighbours="on"))])
    head(items, rounds, seconds)
    console.print(pairs("Queries for similar items beside users of Recall, in turn", "of", beside_recall))
    console.print(pairs("By embedding and neighbours beside embedding, in turn", "by", beside_embedding))
    save(stage.directory, "similar", items=items, rows=[asdict(row) for row in beside_recall + beside_embedding])


if __name__ == "__main__":
    app()
