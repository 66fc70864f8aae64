"""How soon a change is seen: from its acknowledgement until a search as servers make it finds the item, or no longer.

    python -m tests.bench.freshness --milvus-uri http://127.0.0.1:19530

Builds a collection of random items, changes it one item at a time, and drops it; what is live is not touched.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from indexer.build import build, choose_index
from indexer.items.attributes import Attributes
from indexer.items.changes import Proposal, Summary, Upsert, delete
from indexer.items.journal import Journal
from mind.artifact import load_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests.artifacts import make_artifact
from tests.bench.machine import console, describe


def main(
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server.")],
    items: Annotated[int, typer.Option(min=1000)] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Items added, and deleted, one at a time.")] = 200,
) -> None:
    """Add and delete items one by one, and search until it shows."""
    console.print(describe())
    with tempfile.TemporaryDirectory() as directory, Store(Connection(milvus_uri)) as store:
        model = load_artifact(make_artifact(Path(directory), items=items, dim=64))
        index = choose_index(False, None, {}, {})
        collection = build(store, model, Attributes(), index, 0).collection
        try:
            _measure(store, Journal(store, collection), model, rounds)
        finally:
            store.drop(collection)


def _measure(store, journal, model, rounds):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {"added": [], "deleted": []}
    took: dict[str, list[float]] = {"added": [], "deleted": []}
    for item_id in range(-rounds, 0):
        vector = rng.normal(size=(1, 64)).astype(np.float32) * 10
        started = time.perf_counter()
        Upsert(journal, model, Summary()).stage([Proposal(item_id, vector=vector[0])])
        journal.apply(_quiet)
        took["added"].append(time.perf_counter() - started)
        spent["added"].append(_until(store, journal.collection, vector, item_id, True))
        started = time.perf_counter()
        delete(journal, np.array([item_id]), _quiet)
        took["deleted"].append(time.perf_counter() - started)
        spent["deleted"].append(_until(store, journal.collection, vector, item_id, False))
    for what, seconds in spent.items():
        shown = " ".join(f"p{p} {np.percentile(seconds, p) * 1000:,.0f} ms" for p in (50, 95, 100))
        own = " ".join(f"p{p} {np.percentile(took[what], p) * 1000:,.0f} ms" for p in (50, 95))
        console.print(f"{what}: {len(seconds)} items; acknowledged to seen {shown}; the change itself {own}")


def _quiet(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def _until(store, collection, vector, item_id, wanted):  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    while (item_id in store.search_columns(collection, vector, 10, {"ef": 128}).item_ids) != wanted:
        time.sleep(0.002)
    return time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
