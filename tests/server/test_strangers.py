"""What callers without a token can cost: watchers, reflection, and many calls at once on one connection."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mind.artifact import load_artifact
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.edge import health, streams
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore

NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


class Stranger:
    """A server, and a connection to it."""

    def __init__(self, server: RecallServer) -> None:
        self.server = server
        self.channel = self.connect()
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)
        self.recall: Any = recall_pb2_grpc.RecallServiceStub(self.channel)

    def connect(self) -> grpc.aio.Channel:
        """A connection that is shared with nobody."""
        address = f"127.0.0.1:{self.server.port}"
        return grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])

    async def watch(self, service: str = "") -> Any:
        """A stream that told the first status."""
        watching = self.health.Watch(health_pb2.HealthCheckRequest(service=service))
        await watching.read()
        return watching


@pytest.fixture
async def stranger(tmp_path: Path) -> AsyncIterator[Stranger]:
    store = FakeStore()
    store.publish(load_artifact(make_artifact(tmp_path)))
    server = RecallServer(Settings(listen="127.0.0.1:0", artifacts=str(tmp_path)), store)
    await server.start()
    found = Stranger(server)
    yield found
    await found.channel.close()
    await server.stop(0)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_names_of_services_have_a_limit(stranger: Stranger) -> None:
    longest = health_pb2.HealthCheckRequest(service="x" * health.MAX_NAME)
    assert await code_of(stranger.health.Check(longest)) is grpc.StatusCode.NOT_FOUND
    for ask in (stranger.health.Check, lambda request: stranger.health.Watch(request).read()):
        longer = health_pb2.HealthCheckRequest(service="x" * (health.MAX_NAME + 1))
        assert await code_of(ask(longer)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_streams_of_a_connection_have_a_limit(stranger: Stranger) -> None:
    watching = [await stranger.watch("unknown") for _ in range(streams.MAX_STREAMS_PER_CONNECTION)]
    assert await code_of(stranger.watch()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    reflecting: Any = reflection_pb2_grpc.ServerReflectionStub(stranger.channel)
    asked = reflecting.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    assert await code_of(asked.read()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    async with stranger.connect() as other:
        assert (await health_pb2_grpc.HealthStub(other).Watch(health_pb2.HealthCheckRequest()).read()).status == SERVING
    watching[0].cancel()
    while True:  # the server learns it a moment later
        try:
            await stranger.watch()
            return
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_streams_have_a_limit_in_all(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 3)
    _watching = [await stranger.watch() for _ in range(3)]
    async with stranger.connect() as other:
        asked = health_pb2_grpc.HealthStub(other).Watch(health_pb2.HealthCheckRequest()).read()
        assert await code_of(asked) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_watcher_that_leaves_takes_nothing_from_the_others(stranger: Stranger) -> None:
    leaving, staying = await stranger.watch("news"), await stranger.watch("news")
    leaving.cancel()
    while stranger.server._streams._open.total() > 1:
        await asyncio.sleep(0.01)
    stranger.server._health.set("news", NOT_SERVING)
    assert (await staying.read()).status == NOT_SERVING


async def test_many_calls_on_one_connection_are_answered_or_told_to_come_back(stranger: Stranger) -> None:
    """From 1,000 calls on, gRPC by itself ends some with a bare CANCELLED."""
    await stranger.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    request = recall_pb2.RecallRequest(users=[recall_pb2.User(hist_item=[1000])], top_k=5)
    calls = [stranger.recall.Recall(request, timeout=100) for _ in range(3_000)]
    codes = {await call.code() for call in calls}
    assert grpc.StatusCode.OK in codes
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
