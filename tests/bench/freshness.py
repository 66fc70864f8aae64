"""How soon a change is seen: from its acknowledgement until servers find the item or no longer do, also with a filter.

For neighbours, the time is from the change log, the last write of a change before servers can see it, because they have
seen it when the command is acknowledged.

    python -m tests.bench.freshness --milvus-uri http://127.0.0.1:19530

Builds a collection of random items, changes it one item at a time, and drops it; what is live is not touched.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer

from indexer.build import build, choose_index
from indexer.items.attributes import Attributes
from indexer.items.changes import ChangeSummary, Proposal, Upsert, delete
from indexer.items.journal import Journal
from mind.artifact import Float32, load_artifact, write_artifact
from mind.milvus.aio_session import AioSession
from mind.milvus.aio_store import MilvusStore
from mind.milvus.change_log import ChangeLog
from mind.milvus.collection import VECTOR_SOURCE
from mind.milvus.connection import Connection
from mind.milvus.journal import Clicked
from mind.milvus.store import Store
from server.serving.added import ItemRows
from server.serving.local import LocalItems
from server.serving.matching import MatchingItems
from tests.artifacts import hyper_parameters_of, make_weights, with_neighbours
from tests.bench.machine import console, describe


def main(
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server.")],
    items: Annotated[int, typer.Option(min=1000)] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Items added, and deleted, one at a time.")] = 200,
) -> None:
    """Add and delete items one by one, and search until it shows."""
    console.print(describe())
    with tempfile.TemporaryDirectory() as directory, Store(Connection(milvus_uri)) as store:
        weights = with_neighbours(make_weights(items=items, dim=64))
        model = load_artifact(write_artifact(Path(directory), hyper_parameters_of(weights), weights, {}, {}))
        index = choose_index(False, None, {}, {})
        built = build(store, model, Attributes(), index, 0)
        release = SimpleNamespace(
            collection=built.collection,
            fingerprint=built.fingerprint,
            vocabulary=model.vocabulary,
            item_embedding=model.weights.item_embedding,
            neighbours=model.weights.neighbours,
            cells=None,
            index=None,
        )
        try:
            _measure(store, Journal(store, built.collection), model, release, rounds)
        finally:
            store.drop(built.collection)


def _measure(store, journal, model, release, rounds):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {
        "added": [],
        "added, with a filter": [],
        "deleted": [],
        "deleted, with a filter": [],
    }
    near: dict[str, list[float]] = {"added": [], "deleted": []}
    took: dict[str, list[float]] = {"added": [], "deleted": []}
    with asyncio.Runner() as runner:
        matches = _Matches(runner, store.connection.uri, release)
        neighbours = _Neighbours(store.connection.uri, release)
        logged = _log_times(store)
        for item_id in range(-rounds, 0):
            vector = rng.normal(size=(1, 64)).astype(np.float32) * 10
            for what in took:
                wanted = what == "added"
                searches, filtered = partial(_finds, store, journal, vector, item_id), partial(matches.have, item_id)
                logged.clear()
                with ThreadPoolExecutor(2) as pool:
                    is_near = pool.submit(_until, partial(neighbours.have, item_id), wanted)
                    started = time.perf_counter()
                    if wanted:
                        proposal = Proposal(item_id, vector=vector[0], clicked=Clicked([], [(1000, 0.5)]))
                        Upsert(journal, model, ChangeSummary()).stage([proposal])
                        journal.apply(_quiet)
                    else:
                        delete(journal, np.array([item_id]), _quiet)
                    acknowledged = time.perf_counter()
                    took[what].append(acknowledged - started)
                    searched = pool.submit(_until, searches, wanted)
                    spent[f"{what}, with a filter"].append(_until(filtered, wanted) - acknowledged)
                    spent[what].append(searched.result() - acknowledged)
                    near[what].append(is_near.result() - logged[0])
        matches.close()
        neighbours.close()
    for what, seconds in spent.items():
        shown = " ".join(f"p{p} {np.percentile(seconds, p) * 1000:,.0f} ms" for p in (50, 95, 100))
        console.print(f"{what}: {len(seconds)} items; acknowledged to seen {shown}")
    for what, seconds in near.items():
        shown = " ".join(f"p{p} {np.percentile(seconds, p) * 1000:,.0f} ms" for p in (50, 95, 100))
        console.print(f"{what}, as a neighbour: {len(seconds)} items; in the change log to seen {shown}")
    for what, seconds in took.items():
        own = " ".join(f"p{p} {np.percentile(seconds, p) * 1000:,.0f} ms" for p in (50, 95))
        console.print(f"{what}: the change itself {own}")


def _log_times(store: Store) -> list[float]:
    """When change logs are written, on the clock of `time.perf_counter`, as they are."""
    times: list[float] = []
    write = store.records.write_change_log

    def noted(collection: str, log: ChangeLog) -> None:
        write(collection, log)
        times.append(time.perf_counter())

    store.records.write_change_log = noted  # type: ignore[method-assign]
    return times


class _Matches:
    """The ids that match a filter, as a server keeps them."""

    def __init__(self, runner: asyncio.Runner, uri: str, release: Any) -> None:
        self._runner = runner
        self._store = MilvusStore(AioSession(Connection(uri)))
        self._items = MatchingItems(self._store)
        self._release = release

    def have(self, item_id: int) -> bool:
        matches = self._runner.run(self._items.of(self._release, f'{VECTOR_SOURCE} == "given"', 10))
        return item_id in matches.fresh_ids

    def close(self) -> None:
        self._runner.run(self._store.close())


class _Neighbours:
    """The added items that are neighbours, as a server follows them."""

    def __init__(self, uri: str, release: Any) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._release = release
        self._store = MilvusStore(AioSession(Connection(uri)))
        self._items = LocalItems(self._store)
        self._run(self._items.look(self._release))
        following = self._items.follow(lambda: self._release)
        self._following = asyncio.run_coroutine_threadsafe(following, self._loop)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def have(self, item_id: int) -> bool:
        known = self._items.known(self._release)
        if known.added is None:
            return False
        ids = ItemRows(self._release, known.items).item_ids(known.added.row)
        return item_id in ids[known.added.item == 1]  # the row of item 1000

    def close(self) -> None:
        self._following.cancel()
        self._run(self._store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)


def _quiet(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def _finds(store: Store, journal: Journal, vector: Float32, item_id: int) -> bool:
    return item_id in store.search_columns(journal.collection, vector, 10, {"ef": 128}).item_ids


def _until(seen: Callable[[], bool], wanted: bool) -> float:
    """When it is as wanted, on the clock of `time.perf_counter`."""
    while seen() != wanted:
        time.sleep(0.002)
    return time.perf_counter()


if __name__ == "__main__":
    typer.run(main)
