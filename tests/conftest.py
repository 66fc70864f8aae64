"""Fixtures of the tests that need Milvus: the embedded engine, the real server, and both in turn."""

import json
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.milvus_server import Milvus


def pytest_configure() -> None:
    """Heed Ctrl-C, and let child processes heed it: a run in the background starts with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Milvus]:
    """A real Milvus server that can be broken: the one of the PyPI package `milvus`, with fresh data."""
    if os.environ.get("RECALL_TEST_MILVUS_URI"):
        pytest.skip("the Milvus server of RECALL_TEST_MILVUS_URI is not ours to break")
    if find_spec("milvus") is None:
        pytest.skip("the package milvus is not installed: it exists for Linux x86-64 only")
    with Milvus(tmp_path_factory.mktemp("milvus"), pytestconfig.cache.mkdir("milvus-2.3.5")) as server:
        yield server


@pytest.fixture(scope="session")
def milvus_server_uri(request: pytest.FixtureRequest) -> str:
    """A real Milvus server: `RECALL_TEST_MILVUS_URI`, or the one of `milvus_server`."""
    return os.environ.get("RECALL_TEST_MILVUS_URI") or request.getfixturevalue("milvus_server").uri


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


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[str]:
    """Path of a fresh Milvus Lite file."""
    path = str(tmp_path / "milvus.db")
    yield path
    release_lite(path)


def remove_item_collections(uri: str) -> None:
    """Remove what the test before left on a server."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri, timeout=30)
    remove_item_collections_of(client)
    client.close()


def remove_item_collections_of(client: Any) -> None:
    """Remove everything of ours but histories from the database that a client uses."""
    from mind.milvus.collection import ALIAS, is_item_collection
    from mind.milvus.journal import collection_of
    from mind.milvus.records import NAME, RECORDS
    from mind.milvus.users import is_user_vectors

    client.drop_alias(ALIAS, timeout=30)
    names = client.list_collections(timeout=30)
    ours = [name for name in names if is_item_collection(name) or collection_of(name) or is_user_vectors(name)]
    if RECORDS in names and ours:  # making that collection anew would take seconds
        client.delete(RECORDS, filter=f"{NAME} in {json.dumps(ours)}", timeout=30)
    for name in ours:
        client.drop_collection(name, timeout=30)


def release_lite(path: str) -> None:
    """Let go of a Milvus Lite file that this process opened, so that another process can."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(path)
