"""Fixtures of the tests that need Milvus: the embedded engine, the real server, and both in turn."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.milvus_server import FAILED_FILE, QUICK, Milvus

hypothesis.settings.register_profile("tests", deadline=None)  # how fast an example runs is no result of a test
hypothesis.settings.load_profile("tests")

_URI_TIMEOUT_S = 200
CHANNELS = ("live", "b", "uk-home")
"""The channels that tests open on a server that they share."""
_shared = pytest.StashKey[Milvus]()


def pytest_configure(config: pytest.Config) -> None:
    """Heed Ctrl-C, and let child processes heed it: a run in the background starts with SIGINT ignored.

    A parallel run (-n) shares one Milvus server, which the process that hands out the tests starts here and now: it
    comes up while the first tests run.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None) and not os.environ.get("RECALL_TEST_MILVUS_URI") and find_spec("milvus"):
        directory = tempfile.TemporaryDirectory(prefix="milvus-")
        config.add_cleanup(directory.cleanup)
        config.stash[_shared] = Milvus(Path(directory.name), config.cache.mkdir("milvus-2.3.5"), QUICK)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the shared Milvus server."""
    if _shared in config.stash:
        config.stash[_shared].stop()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of a parallel run where the shared Milvus server leaves its address."""
    if _shared in node.config.stash:
        node.workerinput["milvus_uri_file"] = str(node.config.stash[_shared].uri_file)


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Milvus]:
    """A real Milvus server that can be broken: the one of the PyPI package `milvus`, with fresh data."""
    if os.environ.get("RECALL_TEST_MILVUS_URI"):
        pytest.skip("the Milvus server of RECALL_TEST_MILVUS_URI is not ours to break")
    if find_spec("milvus") is None:
        pytest.skip("the package milvus is not installed: it exists for Linux x86-64 only")
    if hasattr(pytestconfig, "workerinput"):
        pytest.fail("this test may break the Milvus server that the tests of a parallel run share: run it without -n")
    directory, cache = tmp_path_factory.mktemp("milvus"), pytestconfig.cache.mkdir("milvus-2.3.5")
    with Milvus(directory, cache, QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def milvus_server_uri(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> str:
    """A database of our own on a real Milvus server: of `RECALL_TEST_MILVUS_URI`, shared by all workers, or ours."""
    worker: dict[str, str] = getattr(pytestconfig, "workerinput", {})
    uri = os.environ.get("RECALL_TEST_MILVUS_URI")
    if not uri and "milvus_uri_file" in worker:
        uri = _announced(Path(worker["milvus_uri_file"]))
    return own_database(uri or request.getfixturevalue("milvus_server").uri, "tests_" + worker.get("workerid", "alone"))


def _announced(file: Path) -> str:
    """The address that the shared Milvus server leaves once it is healthy."""
    deadline = time.monotonic() + _URI_TIMEOUT_S
    while not file.exists():
        if time.monotonic() > deadline or (file.parent / FAILED_FILE).exists():
            why = (file.parent / "errors.txt").read_text()
            raise RuntimeError(f"the shared Milvus server did not start, or not within {_URI_TIMEOUT_S} s\n{why}")
        time.sleep(0.1)
    return file.read_text()


def own_database(uri: str, name: str) -> str:
    """Address of a database, made unless it is there. pymilvus takes the path of an address as the database's name."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri, timeout=30)
    if name not in client.list_databases(timeout=30):
        client.create_database(name, timeout=30)
    client.close()
    return f"{uri}/{name}"


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
    """Remove everything of ours from the database that a client uses. Collections of users become empty."""
    from pymilvus import MilvusException

    from mind.milvus.channels import alias_of
    from mind.milvus.collection import build_age_s, is_item_collection
    from mind.milvus.histories import HISTORIES, ROW_KEY
    from mind.milvus.journal import collection_of
    from mind.milvus.records import NAME, RECORDS, channels_of
    from mind.milvus.shown import SHOWN
    from mind.milvus.users import is_user_vectors

    for channel in CHANNELS:
        with suppress(MilvusException):  # a newer Milvus may refuse to drop an alias that is not there
            client.drop_alias(alias_of(channel), timeout=30)
    names = client.list_collections(timeout=30)
    ours = [name for name in names if is_item_collection(name) or collection_of(name) or is_user_vectors(name)]
    ours += [name for name in names if build_age_s(name) is not None]
    if RECORDS in names and ours:  # making that collection anew would take seconds
        rows = ours + [channels_of(name) for name in ours if is_item_collection(name)]
        client.delete(RECORDS, filter=f"{NAME} in {json.dumps(rows)}", timeout=30)
    for name in ours:
        client.drop_collection(name, timeout=30)
    for name in {HISTORIES, SHOWN}.intersection(names):  # for the same reason
        with suppress(MilvusException):  # not loaded
            client.delete(name, filter=f'{ROW_KEY} != ""', timeout=30)


def release_lite(path: str) -> None:
    """Let go of a Milvus Lite file that this process opened, so that another process can."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(path)
