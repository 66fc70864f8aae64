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
from indexer.rollout.servers import Servers, Serving, collections_in_use, serving_in, wait_until_serving
from mind.artifact import load_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from protos.recall.v1 import recall_pb2
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


@pytest.mark.parametrize("server_knows_channels", [True, False])
def test_what_a_server_serves_in_each_channel(server_knows_channels: bool) -> None:
    info = recall_pb2.GetServerInfoResponse(collection="items_a", instance="a1", refused_collection="items_c")
    if server_knows_channels:
        info.channels.add(name="b", collection="items_b", refused_collection="items_x", refused_release="why")
        info.channels.add(name="live", collection="items_a", previous_collection="items_c")
    live = serving_in("live", info, "host:1")
    assert (live.collection, live.refuses("items_c")) == ("items_a", not server_knows_channels)
    if server_knows_channels:
        in_b = serving_in("b", info, "host:1")
        assert (in_b.collection, in_b.refuses("items_x"), in_b.refuses("items_c")) == ("items_b", True, False)
        assert str(in_b) == "host:1 serves items_b in channel b, refused: why"
    served = "b, live" if server_knows_channels else "live"
    with pytest.raises(ServersError, match=f"host:1 does not serve channel uk-home, but {served}; start it with `--ch"):
        serving_in("uk-home", info, "host:1")


async def test_channels_are_waited_for_and_in_use(tmp_path: Path) -> None:
    artifacts, store = tmp_path / "artifacts", FakeStore()
    models = [load_artifact(make_artifact(artifacts, seed=seed)) for seed in range(3)]
    live, second = store.publish(models[0]), store.publish(models[1], "b")
    settings = Settings(listen="127.0.0.1:0", artifacts=str(artifacts), watch_interval_s=0.05, channel=("live", "b"))
    server = RecallServer(settings, store)
    servers = Servers((f"127.0.0.1:{server.port}",))

    async def wait(collection: str, channel: str) -> int:
        return await asyncio.to_thread(wait_until_serving, servers, collection, 20, lambda done, total: None, channel)

    await server.start()
    try:
        assert (await wait(live, "live"), await wait(second, "b")) == (1, 1)
        third = store.publish(models[2], "b")
        assert await wait(third, "b") == 1
        assert await asyncio.to_thread(collections_in_use, servers) == {live, second, third}
        fourth = store.publish(load_artifact(make_artifact(artifacts, seed=3)), "b")
        store.collections[fourth].vectors[0] += 1
        with pytest.raises(ServersError, match=r"in channel b, refused: .*`.* rollback --channel b` takes the release"):
            await wait(fourth, "b")
        with pytest.raises(ServersError, match="does not serve channel uk-home, but live, b; start it with"):
            await wait(third, "uk-home")
    finally:
        await server.stop(0)


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


async def test_publish_in_a_channel_waits_for_it(fleet: Fleet, lite: str) -> None:
    """The servers serve the channel live alone."""
    await fleet.wait(fleet.first)
    runner = CliRunner(env={"RECALL_MILVUS_URI": lite})
    built = await asyncio.to_thread(runner.invoke, app, ["build", "--artifact", str(fleet.artifacts)])
    assert built.exit_code == 0, built.output
    options = ["--server", fleet.servers.targets[0]]
    done = await asyncio.to_thread(runner.invoke, app, ["publish", "--channel", "b", "--wait", *options])
    assert done.exit_code == 1 and "does not serve channel b, but live; start it with `--channel b` too" in done.stderr
    assert done.stdout.startswith("channel    b: items_")  # the release is done
