"""A server in front of a store that knows every item and holds none: `Worker("tests.bench.memory_server", *ARTIFACTS)`.

It serves the first of the models. It answers `{}`, and `{"publish": ARTIFACT}` once the alias has moved, with its
address, the model it serves, and the seconds until the first release was loaded, from the start of the process and of
the server in it.
"""

import asyncio
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import uvloop

from mind.artifact import Float32, load_artifact
from mind.hits import Hits
from mind.sequences import Int64
from server.app import SWITCH_S, RecallServer
from server.loader import COMPARED_VECTORS
from server.processes import keep_little_memory
from server.settings import Settings
from tests.bench.serving.world import START_S, answer_lines
from tests.fake_store import FakeCollection, FakeStore, fingerprint_of

SEARCH_S = 0.002
"""What a search takes."""
FIRST_ID, ID_STEP = 1_000, 7
"""The item ids of `tests.artifacts.make_weights`."""


Clocks = npt.NDArray[np.float64]
"""[2] float64: seconds by the clock, and of this process on processors."""


def _clocks() -> Clocks:
    return np.array([time.perf_counter(), time.process_time()])


class EndlessStore(FakeStore):
    """A collection for each model, as large as it; only the vectors that a server compares are kept."""

    def add_model(self, path: Path) -> None:
        """Add the collection of a model."""
        artifact = load_artifact(path)
        fingerprint, weights = fingerprint_of(artifact), artifact.weights
        compared = np.linspace(0, fingerprint.count - 1, min(COMPARED_VECTORS, fingerprint.count)).astype(int)
        self.collections[fingerprint.collection] = FakeCollection(
            fingerprint, weights.item_id[compared], weights.item_embedding[compared + 1]
        )

    def publish_path(self, path: Path) -> None:
        """Point the alias at the collection of a model. Reads nothing, because servers do not publish."""
        (self.alias,) = (name for name, each in self.collections.items() if path.name in name)

    async def count(
        self, collection: str, filter_: str = "", timeout_s: float | None = None, strong: bool = True
    ) -> int:
        """Every item, or every second one for whatever filter."""
        items = self.collections[collection].fingerprint.count  # type: ignore[union-attr]
        return (items + 1) // 2 if filter_ else items

    async def matching(self, collection: str, filter_: str, timeout_s: float | None = None) -> Int64:
        """Every second item."""
        items = self.collections[collection].fingerprint.count  # type: ignore[union-attr]
        return np.arange(0, items, 2) * ID_STEP + FIRST_ID

    async def search(
        self, collection: str, vectors: Float32, limit: int, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """The first items, for every query."""
        await asyncio.sleep(SEARCH_S)
        queries = len(vectors)
        item_ids = np.tile(np.arange(limit) * ID_STEP + FIRST_ID, queries)
        scores = np.tile(np.linspace(1, 0.5, limit, dtype=np.float32), queries)
        return Hits(item_ids, scores, np.full(queries, limit))


async def _serve(settings: Settings, store: EndlessStore, servers: "SimpleQueue[tuple[RecallServer, Clocks]]") -> None:
    server, began = RecallServer(settings, store), _clocks()
    await server.start()
    while not server.releases.loaded:
        await asyncio.sleep(0.01)
    servers.put((server, _clocks() - began))
    await asyncio.Event().wait()


def main(artifacts: list[Path]) -> None:
    """Serve until standard input ends."""
    keep_little_memory()
    sys.setswitchinterval(SWITCH_S)
    store, began = EndlessStore(), _clocks()
    for artifact in artifacts:
        store.add_model(artifact)
    store.publish_path(artifacts[0])
    publishing = _clocks() - began
    settings = Settings(
        listen="127.0.0.1:0", artifacts=str(artifacts[0].parent), milvus_uri="http://unused", watch_interval_s=0.2
    )
    servers: SimpleQueue[tuple[RecallServer, Clocks]] = SimpleQueue()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, store, servers))

    threading.Thread(target=run, daemon=True).start()
    server, loading = servers.get(timeout=START_S)
    started = np.array([psutil.Process().create_time() - time.time() + time.perf_counter(), 0])
    start = _clocks() - started - publishing

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if "publish" in question:
            store.publish_path(Path(question["publish"]))
        version = server.releases.current.model_version
        times = {"start": start.tolist(), "loading": loading.tolist()}
        return {"address": f"127.0.0.1:{server.port}", "model_version": version} | times

    answer_lines(answer)


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])
