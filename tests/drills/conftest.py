"""Where drills find Milvus: one that they share and never kill, or one of their own with the settings of users."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from tests import ROOT
from tests.milvus_server import Milvus
from tests.waiting import PATIENCE_S

LIMIT_S = 540
"""Longest run of a drill apart; below the limit of its test, so that what it printed is shown."""


def _apart() -> Sequence[str]:
    """The command that runs another one in a network and with mounts of its own; empty where the system grants none."""
    for words in (["unshare"], ["unshare", "--map-root-user"]):
        command = [*words, "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        with suppress(FileNotFoundError):
            if not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
                return command
    return ()


APART = _apart()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the shared Milvus, and what runs apart with its own; `make drills` runs both at once."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if "with_own_milvus" in used and APART:
            item.add_marker(pytest.mark.apart)
        elif {"milvus_server", "milvus_server_uri", "with_own_milvus"} & used:
            item.add_marker(pytest.mark.milvus)


@pytest.fixture
def alone(milvus_server: Milvus) -> Iterator[None]:
    """The machine without the Milvus that drills share, which holds the ports that cannot be moved."""
    milvus_server.terminate()
    yield
    milvus_server.start()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            client = MilvusClient(milvus_server.uri, timeout=5)
            client.list_collections(timeout=5)
            return client.close()
        except Exception as error:
            assert time.monotonic() < deadline, f"the Milvus that drills share did not come back: {error}"
            time.sleep(0.5)


@pytest.fixture
def with_own_milvus(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a module of tests.faults, which starts a Milvus of its own and may kill it; fails with what it printed.

    What Milvus loses when it is killed must not depend on how the tests hurry it. In a network of its own the drill
    runs beside the others; where the system grants none, the Milvus that they share makes room for it.
    """
    if not APART:
        request.getfixturevalue("alone")

    def run(module: str, *words: str) -> None:
        command = [*APART, sys.executable, "-m", f"tests.faults.{module}", *words]
        environment = os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "150"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, text=True, check=False, timeout=LIMIT_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    return run
