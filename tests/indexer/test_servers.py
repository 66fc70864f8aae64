"""`publish --wait` and `prune --server`: what the indexer learns from running servers."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from indexer.__main__ import app
from indexer.errors import RefusedError, ServersError
from indexer.rollout.servers import Servers, Serving, collections_in_use, wait_until_serving
from mind.artifact import load_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from server.app import RecallServer
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.conftest import remove_item_collections
from tests.fake_store import FakeStore
from tests.server.test_service import running
from tests.server.test_store import build


class Fleet:
    """Two servers that follow one store."""

    def __init__(self, tmp_path: Path) -> None:
        self.artifacts = tmp_path / "artifacts"
        self.store = FakeStore()
        self.first = self.publish(seed=0)
        settings = Settings(listen="127.0.0.1:0", artifacts=str(self.artifacts), watch_interval_s=0.05)
        self.members = [RecallServer(settings, self.store) for _ in range(2)]
        self.servers = Servers(tuple(f"localhost:{member.port}" for member in self.members))

    def publish(self, seed: int) -> str:
        return self.store.publish(load_artifact(make_artifact(self.artifacts, seed=seed)))

    async def wait(self, collection: str, timeout_s: float = 20) -> int:
        return await asyncio.to_thread(
            wait_until_serving, self.servers, collection, timeout_s, lambda done, total: None
        )


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path)
    for member in fleet.members:
        await member.start()
    yield fleet
    for member in fleet.members:
        await member.stop(0)


async def test_waits_until_all_serve_it(fleet: Fleet) -> None:
    assert await fleet.wait(fleet.first) == 2
    second = fleet.publish(seed=1)
    assert await fleet.wait(second) == 2
    assert await asyncio.to_thread(collections_in_use, fleet.servers) == {fleet.first, second}


async def test_a_refusal_ends_the_wait(fleet: Fleet) -> None:
    await fleet.wait(fleet.first)
    second = fleet.publish(seed=1)
    fleet.store.collections[second].vectors[0] += 1
    with pytest.raises(ServersError, match=f"serves {fleet.first}, refused: collection {second}: the vector of item"):
        await fleet.wait(second)


async def test_a_release_that_milvus_cannot_load_yet_is_waited_for(fleet: Fleet) -> None:
    await fleet.wait(fleet.first)
    second = fleet.publish(seed=1)
    fleet.store.unloadable = second
    with pytest.raises(ServersError, match=f"after 0.5 s .* 2 of 2 servers do not serve {second}: .* out of memory"):
        await fleet.wait(second, timeout_s=0.5)
    fleet.store.unloadable = ""
    assert await fleet.wait(second) == 2


@pytest.mark.parametrize(
    ("refused", "refused_collection", "refuses"),
    [
        ("collection items_x: the vector of item 7 is not that of model x", "items_x", True),
        ("collection items_y: count is 2, the model says 3", "items_y", False),
        ("Milvus: collection items_x is not loaded", "", False),  # tried again, not refused
        ("collection items_x: the vector of item 7 is not that of model x", None, True),  # a server without the field
        ("collection items_y: count is 2, the model says 3", None, False),
        ("", None, False),
    ],
)
def test_which_release_a_server_refuses(refused: str, refused_collection: str | None, refuses: bool) -> None:
    serving = Serving("host:1", "a1", "items_a", "", refused, refused_collection)
    assert serving.refuses("items_x") == refuses


async def test_what_has_not_happened_in_time_is_told(fleet: Fleet) -> None:
    await fleet.wait(fleet.first)
    with pytest.raises(ServersError, match=r"after 0.3 s \(--wait-timeout-s\) 2 of 2 servers do not serve items_x"):
        await fleet.wait("items_x", timeout_s=0.3)


async def test_nothing_is_known_of_a_server_that_is_away(fleet: Fleet) -> None:
    await fleet.wait(fleet.first)
    servers = Servers((*fleet.servers.targets, "127.0.0.1:1"))
    with pytest.raises(ServersError, match=r"127\.0\.0\.1:1 did not answer \(connection refused\); `python -m server"):
        await asyncio.to_thread(collections_in_use, servers)


def test_every_process_of_a_port_is_asked(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    make_artifact(tmp_path / "artifacts")
    build(milvus_server_uri, tmp_path / "artifacts")
    with Store(Connection(milvus_server_uri)) as store:
        collection = store.alias()
    assert collection
    options = ("--milvus-uri", milvus_server_uri, "--artifacts", str(tmp_path / "artifacts"), "--processes", "3")
    with running(*options) as server:
        servers = Servers((server.address,))
        assert wait_until_serving(servers, collection, 60, lambda done, total: None) == 3


@pytest.mark.parametrize("target", ["localhost", "localhost:", ":50051", "localhost:port"])
def test_a_server_has_host_and_port(target: str) -> None:
    with pytest.raises(RefusedError, match=f"--server {target}: expected host:port"):
        Servers((target,))


async def test_publish_and_prune_from_the_command_line(fleet: Fleet, lite: str) -> None:
    """The command line moves an alias of its own; the servers follow the fake."""
    await fleet.wait(fleet.first)
    options = [option for target in fleet.servers.targets for option in ("--server", target)]
    runner = CliRunner(env={"RECALL_MILVUS_URI": lite})

    async def invoke(*arguments: str) -> Result:
        return await asyncio.to_thread(runner.invoke, app, [*arguments])

    built = await invoke("build", "--artifact", str(fleet.artifacts))
    assert built.exit_code == 0, built.output
    name = json.loads((await invoke("status", "--format", "json")).stdout)[0]["collection"]
    fleet.store.collections[name] = fleet.store.collections[fleet.first]
    fleet.store.alias = name
    done = await invoke("publish", "--wait", *options)
    assert done.exit_code == 0 and "on 2 server processes" in done.stdout
    unknown = await invoke("publish", "--wait")
    assert unknown.exit_code == 2 and "--wait needs at least one --server" in unknown.stderr
    away = await invoke("prune", "--keep", "0", "--server", "127.0.0.1:1")
    assert away.exit_code == 1 and "127.0.0.1:1 did not answer" in away.stderr
