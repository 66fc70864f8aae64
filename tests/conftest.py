"""Fixtures of the tests that need Milvus: the embedded engine, the real server, and both in turn."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def pytest_configure() -> None:
    """Heed Ctrl-C, and let child processes heed it: a run in the background starts with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def milvus_server_uri(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[str]:
    """A real Milvus server: `RECALL_TEST_MILVUS_URI`, or the one of the PyPI package `milvus`, with fresh data."""
    if given := os.environ.get("RECALL_TEST_MILVUS_URI"):
        yield given
        return
    if find_spec("milvus") is None:
        pytest.skip("the package milvus is not installed: it exists for Linux x86-64 only")
    data = tmp_path_factory.mktemp("milvus")
    command = [sys.executable, "-m", "tests.milvus_server", data, pytestconfig.cache.mkdir("milvus-2.3.5")]
    errors = data / "errors.txt"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command,
            cwd=pytestconfig.rootpath,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as server,
    ):
        try:
            uri = server.stdout.readline().strip()
            assert uri, f"the Milvus server did not start:\n{errors.read_text()}"
            yield uri
        finally:
            server.stdin.close()  # the end of its input is the end of the server
            server.wait(timeout=30)


@pytest.fixture(params=["lite", "server"])
def milvus_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Milvus without item collections and release alias: the embedded engine, then a real server."""
    if request.param == "server":
        uri = request.getfixturevalue("milvus_server_uri")
        remove_item_collections(uri)
        yield uri
        return
    uri = str(tmp_path / "milvus.db")
    yield uri
    release_lite(uri)


def remove_item_collections(uri: str) -> None:
    """Remove what the test before left on a server."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri, timeout=30)
    remove_item_collections_of(client)
    client.close()


def remove_item_collections_of(client: Any) -> None:
    """Remove the item collections, their journals and the release alias from the database that a client uses."""
    from mind.collection import ALIAS, is_item_collection
    from mind.journal import collection_of

    client.drop_alias(ALIAS, timeout=30)
    for name in client.list_collections(timeout=30):
        if is_item_collection(name) or collection_of(name):
            client.drop_collection(name, timeout=30)


def release_lite(path: str) -> None:
    """Let go of a Milvus Lite file that this process opened, so that another process can."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(path)
