"""A server whose store takes its time and no processor: `Worker("tests.bench.slow_server", DIRECTORY, DELAY_MS)`.

It answers `{}` with its address and the number of interest vectors searched for so far.
"""

import asyncio
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import uvloop

from mind.artifact import load_artifact, newest_artifact
from server.app import RecallServer
from server.settings import Settings
from tests.bench.serving.world import START_S, answer_lines
from tests.fake_store import FakeStore


async def _serve(artifacts: Path, store: FakeStore, ports: SimpleQueue[int]) -> None:
    server = RecallServer(Settings(listen="127.0.0.1:0", artifacts=str(artifacts), milvus_uri="http://unused"), store)
    await server.start()
    while not server.releases.loaded:
        await asyncio.sleep(0.01)
    ports.put(server.port)
    await asyncio.Event().wait()


def main(artifacts: Path, delay_s: float) -> None:
    """Serve until standard input ends."""
    store = FakeStore()
    store.publish(load_artifact(newest_artifact(artifacts)))
    ports: SimpleQueue[int] = SimpleQueue()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(artifacts, store, ports))

    threading.Thread(target=run, daemon=True).start()
    port = ports.get(timeout=START_S)
    store.delay_s = delay_s
    store.searches.clear()

    def answer(_: dict[str, Any]) -> dict[str, Any]:
        return {"address": f"127.0.0.1:{port}", "searched": sum(queries for queries, _ in store.searches)}

    answer_lines(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) / 1000)
