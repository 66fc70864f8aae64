"""What callers without a token can cost: watchers, reflection, half-sent requests, and many calls on one connection."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mind.artifact import load_artifact
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server import app
from server.app import RecallServer
from server.edge import door, health, receiving, streams, wire
from server.edge.calls import Calls
from server.edge.door import Door
from server.errors import InvalidRequestError
from server.settings import Settings
from server.watching.telemetry import SILENT
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.waiting import until

RECALL = "/recall.v1.RecallService/Recall"
CHECK = "/grpc.health.v1.Health/Check"
REQUEST = recall_pb2.RecallRequest(users=[recall_pb2.User(hist_item=[1000])], top_k=5)
NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


class Stranger:
    """A server, and a connection to it."""

    def __init__(self, server: RecallServer, store: FakeStore) -> None:
        self.server, self.store = server, store
        self.channel = self.connect()
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)
        self.recall: Any = recall_pb2_grpc.RecallServiceStub(self.channel)
        self.reflection: Any = reflection_pb2_grpc.ServerReflectionStub(self.channel)

    def connect(self) -> grpc.aio.Channel:
        """A connection that is shared with nobody."""
        address = f"127.0.0.1:{self.server.port}"
        return grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])

    async def watch(self, service: str = "") -> Any:
        """A stream that told the first status."""
        watching = self.health.Watch(health_pb2.HealthCheckRequest(service=service))
        await watching.read()
        return watching

    def half_sent(self, path: str) -> Any:
        """A call whose request never comes."""
        return self.channel.stream_unary(path)()


Start = Callable[..., Awaitable[Stranger]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a server with some settings."""
    started: list[Stranger] = []

    async def start(**settings: Any) -> Stranger:
        store = FakeStore()
        store.publish(load_artifact(make_artifact(tmp_path)))
        server = RecallServer(Settings(listen="127.0.0.1:0", artifacts=str(tmp_path), **settings), store)
        await server.start()
        started.append(Stranger(server, store))
        return started[-1]

    yield start
    for stranger in started:
        await stranger.channel.close()
        await stranger.server.stop(0)


@pytest.fixture
async def stranger(start: Start) -> Stranger:
    return await start()


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
    asked = stranger.reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
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
    calls = [stranger.recall.Recall(REQUEST, timeout=100) for _ in range(3_000)]
    codes = {await call.code() for call in calls}
    assert grpc.StatusCode.OK in codes
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_nothing_is_received_of_callers_without_a_token(start: Start, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("0123456789abcdef")
    stranger = await start(token_file=tmp_path / "tokens")
    assert await code_of(stranger.half_sent(RECALL)) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("path", [RECALL, CHECK])
async def test_a_request_must_be_there_in_time(stranger: Stranger, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "RECEIVE_TIMEOUT_S", 0.1)
    assert await code_of(stranger.half_sent(path)) is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_half_sent_requests_give_way_to_others(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = await start(max_concurrent_requests=2)
    arriving = stranger.server._door._receiver._arriving
    half_sent = [stranger.half_sent(RECALL) for _ in range(2)]
    await until(lambda: len(arriving) == 2)
    assert await code_of(stranger.half_sent(RECALL)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    monkeypatch.setattr(receiving, "GRACE_S", 0)
    assert len((await stranger.recall.Recall(REQUEST)).results) == 1
    codes = [asyncio.ensure_future(code_of(call)) for call in half_sent]
    [gave_way], [waits] = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED)
    assert gave_way.result() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(arriving) == 1
    waits.cancel()


async def test_half_sent_health_checks_give_way_to_others(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    arriving = stranger.server._receiver._arriving
    _half_sent = [stranger.half_sent(CHECK) for _ in range(receiving.MAX_ARRIVING_OF_STRANGERS)]
    await until(lambda: len(arriving) == receiving.MAX_ARRIVING_OF_STRANGERS)
    assert await code_of(stranger.half_sent(CHECK)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    monkeypatch.setattr(receiving, "GRACE_S", 0)
    assert (await stranger.health.Check(health_pb2.HealthCheckRequest())).status == SERVING


async def test_requests_in_memory_have_a_limit(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "REQUESTS_IN_MEMORY", 2)
    stranger = await start(max_request_bytes=1_000)
    stranger.store.hold()
    large = recall_pb2.RecallRequest(users=[recall_pb2.User(hist_item=[1000] * 220)], top_k=5)
    assert 1_000 > large.ByteSize() > 400
    asked = [asyncio.ensure_future(stranger.recall.Recall(large)) for _ in range(4)]
    await until(lambda: stranger.server._door.in_progress == 4)
    with pytest.raises(grpc.aio.AioRpcError, match=r"request: has \d+ bytes, those in progress \d+, the limit is 2000"):
        await stranger.recall.Recall(large)
    stranger.store.let_go()
    assert [len((await each).results) for each in asked] == [1] * 4


async def test_a_refused_request_is_not_kept_while_the_caller_is_told() -> None:
    """A request of 4 MB can be 110 MB when decoded."""
    kept: list[weakref.ref[Any]] = []
    method = recall_pb2.DESCRIPTOR.services_by_name["RecallService"].methods_by_name["Recall"]

    class Held:
        """Lives as long as the request, which has no weak references."""

    async def refuse(request: Any, context: object) -> None:
        held = Held()
        kept.append(weakref.ref(held))
        raise InvalidRequestError("users", "are too many", "TOO_MANY_USERS")

    class Context:
        async def read(self) -> bytes:
            return REQUEST.SerializeToString()

        def add_done_callback(self, _: object) -> None:
            pass

        def peer(self) -> str:
            return "ipv4:127.0.0.1:1"

        def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
            return ()

        async def abort(self, code: grpc.StatusCode, *_: object) -> None:
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert [reference() for reference in kept] == [None]

    own_door = Door(Settings(), Calls(SILENT, access_log=True))
    guarded: Any = own_door._guard(refuse, method, counted=True, tokens=None)
    await guarded(None, Context())


async def test_connections_have_a_limit(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_CONNECTIONS", 2)
    stranger = await start()
    await stranger.recall.Recall(REQUEST)
    async with stranger.connect() as second, stranger.connect() as third:
        await health_pb2_grpc.HealthStub(second).Check(health_pb2.HealthCheckRequest())
        refused: Any = health_pb2_grpc.HealthStub(third)
        assert await code_of(refused.Check(health_pb2.HealthCheckRequest())) is grpc.StatusCode.UNAVAILABLE
        await stranger.recall.Recall(REQUEST)


async def test_metadata_have_a_limit(stranger: Stranger) -> None:
    def ask(size: int) -> Any:
        return stranger.recall.Recall(REQUEST, metadata=(("x-padding", "x" * size),))

    assert len((await ask(app.MAX_METADATA_BYTES - 1_000)).results) == 1
    assert await code_of(ask(app.MAX_METADATA_BYTES)) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_message_quotes_the_beginning_of_what_was_sent(stranger: Stranger) -> None:
    """A longer one would not fit into the metadata that clients accept."""
    for filter_ in ("a" * 2_000, "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 2_000):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stranger.recall.Recall(recall_pb2.RecallRequest(users=REQUEST.users, top_k=5, filter=filter_))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len((caught.value.details() or "").encode()) <= door.MAX_MESSAGE_BYTES + 3


@pytest.mark.parametrize(
    "path", [RECALL, "/recall.v1.RecallService/UpsertUsers", "/recall.v1.RecallService/DeleteUsers"]
)
@pytest.mark.parametrize("field", [b"\x0a\x00", b"\x0a\x02\x08\x01", b"\x82\x01\x00", b"\x79" + b"x" * 8])
async def test_a_large_request_of_many_fields_is_refused_before_it_is_decoded(
    stranger: Stranger, path: str, field: bytes
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="request: has more than 256 users, the limit is 256"):
        await stranger.channel.unary_unary(path)(field * 40_000)


async def test_a_large_request_of_few_users_is_answered(stranger: Stranger) -> None:
    users = [recall_pb2.User(hist_item=[1000] * 200)] * 256
    large = recall_pb2.RecallRequest(users=users, top_k=5, exclude_history=True)
    assert large.ByteSize() > wire.LARGE
    assert len((await stranger.recall.Recall(large)).results) == 256


async def test_a_call_without_a_request_is_told_so(stranger: Stranger) -> None:
    for path in (RECALL, CHECK):
        call = stranger.channel.stream_unary(path)
        assert await code_of(call(iter([]))) is grpc.StatusCode.INVALID_ARGUMENT


async def test_reflection_is_asked_by_short_requests_and_ends_when_nothing_is_asked(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "RECEIVE_TIMEOUT_S", 0.1)
    stream = stranger.reflection.ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    assert len((await stream.read()).list_services_response.service) == 3
    assert await stream.code() is grpc.StatusCode.OK
    long = reflection_pb2.ServerReflectionRequest(file_by_filename="x" * receiving.MAX_REQUEST_BYTES_OF_STRANGERS)
    asked = stranger.reflection.ServerReflectionInfo(iter([long]))
    assert await code_of(asked.read()) is grpc.StatusCode.INVALID_ARGUMENT
