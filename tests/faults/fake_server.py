"""A server process on an exact store in memory: what a drill about callers needs when Milvus is not the question.

    python -m tests.faults.fake_server DIRECTORY

Prints its address, and ends with its standard input.
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
from server.app import RecallServer
from server.settings import Settings
from tests import ROOT
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore

TOKEN = "correct horse battery"
"""What its AdminService wants."""


async def main(directory: Path) -> None:
    """Serve a random model until standard input ends."""
    (directory / "token").write_text(TOKEN)
    artifacts = directory / "artifacts"
    settings = Settings(listen="127.0.0.1:0", artifacts=str(artifacts), admin_token_file=directory / "token")
    store = FakeStore()
    store.publish(load_artifact(make_artifact(artifacts)))
    server = RecallServer(settings, store)
    await server.start()
    while not server.releases.loaded:
        await asyncio.sleep(0.01)
    print(f"127.0.0.1:{server.port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(1)


@contextmanager
def fake_server(directory: Path) -> Iterator[tuple[str, psutil.Popen]]:
    """Address and process of such a server; its log is DIRECTORY/server.log."""
    command = [sys.executable, "-m", "tests.faults.fake_server", str(directory)]
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
    asyncio.run(main(Path(sys.argv[1])))
