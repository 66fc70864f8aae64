"""A server process on an exact store in memory: what a drill about callers needs when Milvus is not the question.

    python -m tests.faults.fake_server DIRECTORY [text]

Prints its address, and ends with its standard input. `text`: the items have text ids.
"""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mind.artifact import load_artifact
from mind.keys import key_ids
from server.app import RecallServer
from server.settings import Settings
from tests import ROOT
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.fake_user_store import FakeUserStore

TOKEN = "correct horse battery"
"""What its AdminService wants."""


async def main(directory: Path, text: bool) -> None:
    """Serve a random model until standard input ends."""
    (directory / "token").write_text(TOKEN)
    artifacts = directory / "artifacts"
    settings = Settings(
        listen="127.0.0.1:0",
        artifacts=str(artifacts),
        admin_token_file=directory / "token",
        users=True,
        feedback_log=str(directory / "feedback.jsonl"),
        feedback_sample=0.1,
        channel=("live", "b"),
        split=("b=0.3",),
    )
    store = FakeStore()
    model = load_artifact(make_artifact(artifacts, keyed=text))
    collection = store.publish(model)
    store.publish(load_artifact(make_artifact(artifacts, keyed=text, seed=1)), "b")
    if text:  # items that were added since, one of them under the key of another item
        added, vector = ["NEW-1", "NEW-2", "ключ"], model.weights.item_embedding[1] * 2
        for item_id, key in zip([*key_ids(added).tolist(), 4711], [*added, "NEW-1"], strict=True):
            store.add(collection, item_id, vector, key)
    server = RecallServer(settings, store, FakeUserStore())
    await server.start()
    while not all(releases.loaded for releases in server.channels):
        await asyncio.sleep(0.01)
    print(f"127.0.0.1:{server.port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(1)


@contextmanager
def fake_server(directory: Path, text: bool = False) -> Iterator[tuple[str, psutil.Popen]]:
    """Address and process of such a server; its log is DIRECTORY/server.log. `text`: the items have text ids."""
    command = [sys.executable, "-m", "tests.faults.fake_server", str(directory), *["text"] * text]
    pipe = subprocess.PIPE
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (
        (directory / "server.log").open("w") as log,
        psutil.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=log, text=True) as process,
    ):
        yield process.stdout.readline().strip(), process
        process.stdin.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(Path(sys.argv[1]), "text" in sys.argv[2:]))
