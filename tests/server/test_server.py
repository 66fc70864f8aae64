"""The server through real gRPC, on an exact store in memory: answers, every status it can return, health, stopping."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from mind.artifact import Artifact, Float32, load_artifact
from mind.encoder import Encoder, NumpyEncoder
from mind.sequences import Int64
from mind.transfer import Models
from protos.recall.v1 import admin_pb2, admin_pb2_grpc, recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.edge.door import CLOSING_S
from server.edge.health import LIVENESS
from server.errors import CollectionGoneError, ReleaseRefusedError, StoreError, StoreTimeoutError, StoreUnavailableError
from server.loader import Loader
from server.releases import Releases
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.waiting import PATIENCE_S, until

TOKEN = "correct horse battery"
USER = recall_pb2.User(hist_item=[1000, 1007])


@dataclass
class Running:
    """A started server and stubs that talk to it."""

    server: RecallServer
    store: FakeStore
    recall: Any
    admin: Any
    health: Any
    collection: str

    @property
    def in_progress(self) -> int:
        """Requests that the server has let in."""
        return self.server._door.in_progress


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    running: list[tuple[RecallServer, grpc.aio.Channel]] = []

    async def start(published: bool = True, **options: Any) -> Running:
        token_file = tmp_path / "token"
        token_file.write_text(TOKEN + "\n")
        settings = Settings(
            listen="127.0.0.1:0",
            artifacts=str(tmp_path / "artifacts"),
            **({"watch_interval_s": 0.05, "admin_token_file": token_file} | options),
        )
        store = FakeStore()
        artifact = load_artifact(make_artifact(tmp_path / "artifacts"))
        collection = store.publish(artifact)
        store.alias = collection if published else None
        server = RecallServer(settings, store)
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        running.append((server, channel))
        health = health_pb2_grpc.HealthStub(channel)
        if published:
            await until_health(health, health_pb2.HealthCheckResponse.SERVING)
        return Running(
            server,
            store,
            recall_pb2_grpc.RecallServiceStub(channel),
            admin_pb2_grpc.AdminServiceStub(channel),
            health,
            collection,
        )

    yield start
    for server, channel in running:
        await channel.close()
        await server.stop(0)


async def until_health(health: Any, wanted: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await health.Check(health_pb2.HealthCheckRequest())).status != wanted:
            await asyncio.sleep(0.02)


def bearer(token: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {token}"),)}


async def failure(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, str, list[Any]]:
    """Code, reason, message and the google.rpc details of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    details = []
    for packed in status.details if status else []:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                details.append(kind())
                packed.Unpack(details[-1])
    reasons = [value for key, value in error.trailing_metadata() or () if key == "error-reason"]
    return error.code(), str(reasons[0]) if reasons else "", error.details() or "", details


async def test_recall_answers_in_request_order_and_says_what_answered(start: Start) -> None:
    running = await start()
    users = [USER, recall_pb2.User(), recall_pb2.User(hist_item=[5, 5, 6, 1014])]
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=users, top_k=7))
    assert [result.status for result in answer.results] == [
        recall_pb2.USER_STATUS_OK,
        recall_pb2.USER_STATUS_EMPTY_HISTORY,
        recall_pb2.USER_STATUS_OK,
    ]
    assert [len(result.item_ids) for result in answer.results] == [7, 7, 7]
    assert all(len(r.item_ids) == len(r.scores) == len(r.interest) for r in answer.results)
    assert list(answer.results[2].unknown_item_ids) == [5, 6]
    assert answer.results[2].unknown_count == 3
    assert answer.collection == running.collection
    assert answer.model_version in running.collection
    assert answer.timings.total_ms >= answer.timings.search_ms > 0


@pytest.mark.parametrize(
    ("request_", "reason", "field", "says"),
    [
        (recall_pb2.RecallRequest(top_k=5), "EMPTY_BATCH", "users", "1 user or more"),
        (recall_pb2.RecallRequest(users=[USER] * 5, top_k=5), "TOO_MANY_USERS", "users", "has 5 users, the limit is 4"),
        (recall_pb2.RecallRequest(users=[USER]), "TOP_K_OUT_OF_RANGE", "top_k", "is 0, must be 1 to 50"),
        (recall_pb2.RecallRequest(users=[USER], top_k=-3), "TOP_K_OUT_OF_RANGE", "top_k", "is -3, must be 1 to 50"),
        (recall_pb2.RecallRequest(users=[USER], top_k=51), "TOP_K_OUT_OF_RANGE", "top_k", "is 51, must be 1 to 50"),
        (
            recall_pb2.RecallRequest(users=[USER] * 4, top_k=50),
            "TOO_MANY_CANDIDATES",
            "top_k",
            "is 200, the limit is 100",
        ),
        (
            recall_pb2.RecallRequest(users=[USER], top_k=5, filter="x" * 41),
            "FILTER_TOO_LONG",
            "filter",
            "has 41 characters, the limit is 40",
        ),
        (recall_pb2.RecallRequest(users=[USER], top_k=5, filter="year >="), "FILTER_INVALID", "filter", "'year >='"),
        (
            recall_pb2.RecallRequest(users=[USER], top_k=5, filter="item_id / 0 == 1"),
            "FILTER_INVALID",
            "filter",
            "column 11: divides by 0",
        ),
        (
            recall_pb2.RecallRequest(users=[USER], top_k=5, merge_strategy=9),  # type: ignore[arg-type]
            "UNKNOWN_MERGE_STRATEGY",
            "merge_strategy",
            "is 9, must be 0 to 2",
        ),
    ],
)
async def test_bad_requests_name_field_value_and_limit(
    start: Start, request_: recall_pb2.RecallRequest, reason: str, field: str, says: str
) -> None:
    running = await start(max_users=4, max_top_k=50, max_candidates=100, max_filter_chars=40)
    code, found, message, details = await failure(running.recall.Recall(request_))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert found == reason
    assert says in message
    info, bad_request = details
    assert (info.reason, info.domain) == (reason, "recall.v1")
    assert bad_request.field_violations[0].field == field


@pytest.mark.parametrize(
    ("user", "detail"),
    [
        (recall_pb2.User(hist_item=[1000] * 100_000), "hist_item has 100000 ids, the limit is 10000"),
        (
            recall_pb2.User(hist_item=[1000], exclude_item_ids=range(1_001)),
            "exclude_item_ids has 1001 ids, the limit is 1000",
        ),
    ],
)
async def test_one_user_over_a_limit_is_that_users_status(start: Start, user: recall_pb2.User, detail: str) -> None:
    running = await start()
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=[USER, user], top_k=5))
    assert answer.results[0].status == recall_pb2.USER_STATUS_OK
    assert answer.results[1].status == recall_pb2.USER_STATUS_INVALID
    assert answer.results[1].detail == detail
    assert not answer.results[1].item_ids


async def test_odd_ids_are_unknown_or_repeat(start: Start) -> None:
    running = await start()
    odd = recall_pb2.User(hist_item=[0, -1, 2**63 - 1, -(2**63), 1000, 1000, 1000])
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=[odd], top_k=5))
    assert answer.results[0].status == recall_pb2.USER_STATUS_OK
    assert list(answer.results[0].unknown_item_ids) == [0, -1, 2**63 - 1, -(2**63)]


async def test_an_over_long_message_is_refused_by_grpc(start: Start) -> None:
    running = await start(max_request_bytes=1_000)
    request = recall_pb2.RecallRequest(users=[recall_pb2.User(hist_item=[2**40] * 500)], top_k=5)
    code, _, message, _ = await failure(running.recall.Recall(request))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1000" in message


@pytest.mark.parametrize("path", ["/recall.v1.RecallService/Recall", "/recall.v1.AdminService/Reload"])
async def test_what_is_no_message_is_refused(start: Start, caplog: pytest.LogCaptureFixture, path: str) -> None:
    running = await start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.server.port}") as channel:
        code, reason, message, details = await failure(channel.unary_unary(path)(b"\xff\xff", **bearer(TOKEN)))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
        assert message.startswith("request: 2 bytes that are no recall.v1.Re")
        assert details[1].field_violations[0].field == "request"
        code, reason, *_ = await failure(channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff\xff"))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    assert not caplog.text


async def test_overload_turns_callers_away_and_says_when_to_come_back(start: Start) -> None:
    running = await start(max_concurrent_requests=2)
    running.store.hold()
    request = recall_pb2.RecallRequest(users=[USER], top_k=5)
    accepted = [asyncio.ensure_future(running.recall.Recall(request)) for _ in range(2)]
    await until(lambda: running.in_progress == 2)
    code, reason, message, details = await failure(running.recall.Recall(request))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert "2 requests are in progress" in message
    assert details[1].retry_delay.ToMilliseconds() == 50
    running.store.let_go()
    assert all(len(answer.results) == 1 for answer in await asyncio.gather(*accepted))
    assert (await running.recall.Recall(request)).results  # room again


async def test_the_callers_deadline_is_kept(start: Start) -> None:
    running = await start()
    running.store.hold()
    request = recall_pb2.RecallRequest(users=[USER], top_k=5)
    code, *_ = await failure(running.recall.Recall(request, timeout=0.1))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_count_that_outlasts_its_caller_is_not_the_fault_of_milvus(start: Start) -> None:
    running = await start(watch_interval_s=60)
    running.store.fault = StoreTimeoutError("Milvus does not answer within 2 s")
    code, reason, *_ = await failure(running.recall.CountItems(recall_pb2.CountItemsRequest(), timeout=2))
    assert (code, reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        (StoreUnavailableError("Milvus does not answer"), grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
        (CollectionGoneError("Milvus: not loaded"), grpc.StatusCode.FAILED_PRECONDITION, "COLLECTION_GONE"),
        (StoreError("Milvus (code 65535): odd"), grpc.StatusCode.INTERNAL, "STORE_FAILED"),
    ],
)
async def test_faults_of_milvus(start: Start, fault: StoreError, code: grpc.StatusCode, reason: str) -> None:
    running = await start(watch_interval_s=60)
    running.store.fault = fault
    found, found_reason, message, _ = await failure(
        running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    )
    assert (found, found_reason, message) == (code, reason, str(fault))


async def test_a_defect_is_internal_and_says_nothing_of_the_inside(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    running = await start(watch_interval_s=60)
    running.store.fault = ZeroDivisionError("secret path")  # type: ignore[assignment]
    code, reason, message, _ = await failure(running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5)))
    assert (code, reason, message) == (grpc.StatusCode.INTERNAL, "INTERNAL", "internal error")
    assert "secret path" in caplog.text  # the traceback is in the log
    assert "1007" not in caplog.text  # the history is not


async def test_before_the_first_release_everything_says_why(start: Start) -> None:
    running = await start(published=False)
    await until(lambda: running.server.releases.refused)
    for call in (
        running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5)),
        running.recall.CountItems(recall_pb2.CountItemsRequest()),
        running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest()),
        running.recall.Explain(recall_pb2.ExplainRequest(user=USER, top_k=5)),
    ):
        code, reason, message, _ = await failure(call)
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
        assert "no alias 'live'" in message
    status = (await running.health.Check(health_pb2.HealthCheckRequest(service="recall.v1.RecallService"))).status
    assert status == health_pb2.HealthCheckResponse.NOT_SERVING
    running.store.alias = running.collection
    await until_health(running.health, health_pb2.HealthCheckResponse.SERVING)


async def test_health_follows_milvus(start: Start) -> None:
    running = await start()
    running.store.fault = StoreUnavailableError("Milvus does not answer")
    await until_health(running.health, health_pb2.HealthCheckResponse.NOT_SERVING)
    running.store.fault = None
    await until_health(running.health, health_pb2.HealthCheckResponse.SERVING)


async def test_health_tells_that_the_collection_is_being_loaded(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = await start()
    running.store.loads = asyncio.Event()
    running.store.collections[running.collection].loaded = False
    await until_health(running.health, health_pb2.HealthCheckResponse.NOT_SERVING)  # nobody asks it anything
    reason = f"collection {running.collection} is not in Milvus' memory; it is being loaded"
    assert f"health is NOT_SERVING: {reason}" in caplog.messages
    running.store.loads.set()
    await until_health(running.health, health_pb2.HealthCheckResponse.SERVING)


async def test_is_alive_whatever_milvus_does(start: Start) -> None:
    running = await start(published=False)
    alive = health_pb2.HealthCheckRequest(service="liveness")
    assert (await running.health.Check(alive)).status == health_pb2.HealthCheckResponse.SERVING
    ready = await running.health.Check(health_pb2.HealthCheckRequest())
    assert ready.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_old_connections_are_replaced_and_no_call_is_lost(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    running = await start(max_connection_age_s=0.05, access_log=True)

    def peers() -> set[str]:
        return {record.peer for record in caplog.records if record.name == "server.edge.calls"}

    async with asyncio.timeout(PATIENCE_S):
        while len(peers()) < 4:
            await running.recall.CountItems(recall_pb2.CountItemsRequest())


async def test_who_watches_health_does_not_hold_up_the_end(start: Start) -> None:
    running = await start()
    watch = running.health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    async with asyncio.timeout(5):
        await running.server.stop(20)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await watch.read() is grpc.aio.EOF


async def test_count_and_info(start: Start) -> None:
    running = await start()
    counted = await running.recall.CountItems(recall_pb2.CountItemsRequest(filter="item_id < 1070"))
    assert (counted.count, counted.collection) == (10, running.collection)
    info = await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    assert (info.item_count, info.embedding_dim, info.num_interests, info.maxlen) == (200, 16, 4, 8)
    assert (info.metric, info.encoder, info.admin_enabled, info.refused_release) == ("IP", "numpy", True, "")
    assert info.limits.max_users == 256 and info.limits.max_candidates == 150_000
    assert info.limits.max_filter_depth == 16


async def test_explain_shows_what_recall_does(start: Start) -> None:
    running = await start()
    ask = {"top_k": 5, "exclude_history": True}
    explained = await running.recall.Explain(recall_pb2.ExplainRequest(user=USER, **ask))
    recalled = await running.recall.Recall(recall_pb2.RecallRequest(users=[USER], **ask))
    assert explained.candidates == recalled.results[0]
    assert list(explained.used_hist_item) == [1000, 1007]
    assert [len(interest.vector) for interest in explained.interests] == [16] * 4
    for interest in explained.interests:
        assert len(interest.weights) == 2 and sum(interest.weights) == pytest.approx(1)
    hits = sum(len(interest.item_ids) for interest in explained.interests)
    assert len(explained.dropped) == hits - 5
    history = {drop.item_id for drop in explained.dropped if drop.reason == recall_pb2.DROP_REASON_HISTORY}
    assert history <= {1000, 1007} and history


async def test_explain_without_a_history_has_no_interests(start: Start) -> None:
    running = await start()
    explained = await running.recall.Explain(recall_pb2.ExplainRequest(user=recall_pb2.User(), top_k=5))
    assert not explained.interests and explained.candidates.fallback


async def test_admin_is_absent_unless_enabled(start: Start) -> None:
    running = await start(admin_token_file=None)
    code, *_ = await failure(running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN)))
    assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("sent", [{}, bearer("wrong"), bearer("")])
async def test_admin_needs_the_token(start: Start, sent: dict[str, Any]) -> None:
    running = await start()
    request = admin_pb2.DropItemsRequest(collection=running.collection, allow_live=True)
    code, reason, _, _ = await failure(running.admin.DropItems(request, **sent))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "ADMIN_TOKEN")
    assert running.collection in running.store.collections


async def test_dropping_the_released_collection_is_asked_twice(start: Start) -> None:
    running = await start(watch_interval_s=60)
    request = admin_pb2.DropItemsRequest(collection=running.collection)
    code, reason, _, _ = await failure(running.admin.DropItems(request, **bearer(TOKEN)))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "COLLECTION_IS_LIVE")
    request.allow_live = True
    dropped = await running.admin.DropItems(request, **bearer(TOKEN))
    assert (dropped.collection, dropped.dropped_count) == (running.collection, 200)
    code, reason, _, _ = await failure(running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5)))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "COLLECTION_GONE")


async def test_health_follows_a_dropped_collection_until_the_next_release(start: Start, tmp_path: Path) -> None:
    running = await start()
    request = admin_pb2.DropItemsRequest(collection=running.collection, allow_live=True)
    await running.admin.DropItems(request, **bearer(TOKEN))
    await until_health(running.health, health_pb2.HealthCheckResponse.NOT_SERVING)
    name = running.store.publish(load_artifact(make_artifact(tmp_path / "artifacts", seed=1)))
    await until_health(running.health, health_pb2.HealthCheckResponse.SERVING)
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    assert answer.collection == name


async def test_a_lost_alias_does_not_stop_serving(start: Start) -> None:
    running = await start()
    running.store.alias = None
    await until(lambda: running.server.releases.refused)
    await until_health(running.health, health_pb2.HealthCheckResponse.SERVING)
    info = await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    assert "no alias 'live'" in info.refused_release


async def test_drop_takes_item_collections_only(start: Start) -> None:
    running = await start()
    request = admin_pb2.DropItemsRequest(collection="somebody_elses")
    code, reason, _, _ = await failure(running.admin.DropItems(request, **bearer(TOKEN)))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_COLLECTION")


async def test_reload_takes_a_release_over_at_once(start: Start, tmp_path: Path) -> None:
    running = await start(watch_interval_s=60)
    artifact = load_artifact(make_artifact(tmp_path / "artifacts", seed=1))
    name = running.store.publish(artifact)
    reloaded = await running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN))
    assert (reloaded.collection, reloaded.model_version) == (name, artifact.model_version)
    assert reloaded.previous_model_version in running.collection
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    assert (answer.collection, answer.model_version) == (name, artifact.model_version)


async def test_a_refused_release_leaves_the_old_one_serving(start: Start, tmp_path: Path) -> None:
    running = await start(watch_interval_s=60)
    artifact = load_artifact(make_artifact(tmp_path / "artifacts", seed=1))
    name = running.store.publish(artifact)
    running.store.collections[name].vectors[0] += 1
    code, reason, message, _ = await failure(running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN)))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RELEASE_REFUSED")
    assert "the vector of item 1000 is not that of model" in message
    info = await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    assert (info.collection, info.refused_release) == (running.collection, message)
    assert info.refused_collection == name
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    assert answer.collection == running.collection
    running.store.collections[name].vectors[0] = artifact.weights.item_embedding[1]
    await running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN))
    info = await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    assert (info.collection, info.refused_release, info.refused_collection) == (name, "", "")


async def test_a_refused_release_is_taken_back(start: Start, tmp_path: Path) -> None:
    running = await start(watch_interval_s=60)
    name = running.store.publish(load_artifact(make_artifact(tmp_path / "artifacts", seed=1)))
    running.store.collections[name].vectors[0] += 1
    await failure(running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN)))
    running.store.alias = running.collection
    await running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN))
    info = await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    assert (info.collection, info.refused_release, info.refused_collection) == (running.collection, "", "")


async def test_rolling_back_needs_no_model_from_disk(start: Start, tmp_path: Path) -> None:
    running = await start(watch_interval_s=60)
    artifact = load_artifact(make_artifact(tmp_path / "artifacts", seed=1))
    name = running.store.publish(artifact)
    await running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN))
    info = await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    assert (info.collection, info.previous_collection) == (name, running.collection)
    shutil.rmtree(tmp_path / "artifacts")
    running.store.alias = running.collection
    reloaded = await running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN))
    assert (reloaded.collection, reloaded.previous_collection) == (running.collection, name)
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    assert answer.collection == running.collection


async def test_the_release_before_is_checked_before_it_serves_again(start: Start, tmp_path: Path) -> None:
    running = await start(watch_interval_s=60)
    name = running.store.publish(load_artifact(make_artifact(tmp_path / "artifacts", seed=1)))
    await running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN))
    running.store.alias = running.collection
    running.store.collections[running.collection].vectors[0] += 1
    _, reason, message, _ = await failure(running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN)))
    assert reason == "RELEASE_REFUSED" and "the vector of item 1000 is not that of model" in message
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    assert answer.collection == name


async def test_a_request_in_progress_ends_with_the_release_it_began_with(start: Start, tmp_path: Path) -> None:
    running = await start(watch_interval_s=60)
    running.store.hold()
    call = asyncio.ensure_future(running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5)))
    await until(lambda: running.store.held)
    name = running.store.publish(load_artifact(make_artifact(tmp_path / "artifacts", seed=1)))
    await running.admin.Reload(admin_pb2.ReloadRequest(), **bearer(TOKEN))
    running.store.let_go()
    assert (await call).collection == running.collection
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    assert answer.collection == name


async def test_a_release_that_milvus_cannot_load_leaves_the_old_one_serving(start: Start, tmp_path: Path) -> None:
    running = await start()
    name = running.store.publish(load_artifact(make_artifact(tmp_path / "artifacts", seed=1)))
    running.store.unloadable = name
    await until(lambda: running.server.releases.refused)
    await until_health(running.health, health_pb2.HealthCheckResponse.SERVING)
    info = await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    assert info.collection == running.collection and "out of memory" in info.refused_release
    assert info.HasField("refused_collection") and info.refused_collection == ""  # it is tried again, not refused


async def test_a_slot_is_given_back_whatever_happens(start: Start) -> None:
    running = await start(max_concurrent_requests=1)
    request = recall_pb2.RecallRequest(users=[USER], top_k=5)
    await failure(running.recall.Recall(recall_pb2.RecallRequest(top_k=5)))
    running.store.delay_s = 0.2
    cancelled = running.recall.Recall(request)
    await asyncio.sleep(0.1)
    cancelled.cancel()
    await asyncio.sleep(0.3)
    running.store.delay_s = 0
    assert (await running.recall.Recall(request)).results


async def test_an_encoder_that_is_off_never_serves(tmp_path: Path) -> None:
    class Off(NumpyEncoder):
        def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
            return super().encode(hist_index, seq_len) * np.float32(1.001)

    store = FakeStore()
    store.publish(load_artifact(make_artifact(tmp_path)))
    releases = Releases(
        store, Loader(store, Models(tmp_path), lambda artifact: Off(artifact.weights, artifact.hyper_parameters))
    )
    with pytest.raises(ReleaseRefusedError, match="encoder is off by a relative"):
        await releases.check()
    assert not releases.loaded


async def test_a_model_that_cannot_be_loaded_is_a_refused_release(tmp_path: Path) -> None:
    loaded = []

    def make_encoder(artifact: Artifact) -> Encoder:
        loaded.append(artifact)
        raise MemoryError("ResourceExhausted: out of memory on GPU 0")

    store = FakeStore()
    store.publish(load_artifact(make_artifact(tmp_path)))
    releases = Releases(store, Loader(store, Models(tmp_path), make_encoder))
    for _ in range(3):
        with pytest.raises(ReleaseRefusedError, match=r"cannot be loaded: MemoryError.*out of memory on GPU 0"):
            await releases.check()
    assert "out of memory" in releases.refused
    assert len(loaded) == 1  # until the pause is over


async def test_an_encoder_that_is_lost_ends_health_and_liveness(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Device(NumpyEncoder):
        inline = False
        fails = 0

        def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
            if Device.fails:
                Device.fails -= 1
                raise RuntimeError("CUDA error(719)")
            return super().encode(hist_index, seq_len)

    make = lambda *_: lambda artifact: Device(artifact.weights, artifact.hyper_parameters)  # noqa: E731
    monkeypatch.setattr("server.app.encoder_maker", make)
    running = await start()
    ask = recall_pb2.RecallRequest(users=[USER], top_k=5)
    liveness = health_pb2.HealthCheckRequest(service=LIVENESS)
    Device.fails = 1  # it goes on afterwards
    assert (await failure(running.recall.Recall(ask)))[0] is grpc.StatusCode.INTERNAL
    assert (await running.health.Check(liveness)).status == health_pb2.HealthCheckResponse.SERVING
    assert (await running.recall.Recall(ask)).results[0].item_ids
    Device.fails = 1_000
    assert (await failure(running.recall.Recall(ask)))[0] is grpc.StatusCode.INTERNAL
    seen = running.store.looks
    await until(lambda: running.store.looks >= seen + 3)  # looking for releases changes nothing
    for request in (health_pb2.HealthCheckRequest(), liveness):
        assert (await running.health.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert "start this process again" in caplog.text


async def test_a_refused_release_is_checked_again_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("server.releases.time.monotonic", lambda: now)
    store = FakeStore()
    artifact = load_artifact(make_artifact(tmp_path))
    name = store.publish(artifact)
    store.collections[name].vectors[0] += 1
    loaded = []
    releases = Releases(
        store,
        Loader(
            store,
            Models(tmp_path),
            lambda artifact: loaded.append(now) or NumpyEncoder(artifact.weights, artifact.hyper_parameters),
        ),
    )
    for _ in range(1200):
        with pytest.raises(ReleaseRefusedError, match="the vector of item 1000"):
            await releases.check()
        now += 1
    assert loaded == [1000, 1005, 1015, 1035, 1075, 1155, 1315, 1615, 1915]  # 5, 10, 20, ... and 300 s at most
    with pytest.raises(ReleaseRefusedError):
        await releases.check(insist=True)
    store.collections[name].vectors[0] = artifact.weights.item_embedding[1]
    assert (await releases.check(insist=True))[1].collection == name
    assert releases.refused == ""


async def test_stopping_lets_calls_in_progress_finish(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    running = await start()
    running.store.hold()
    calls = [
        asyncio.ensure_future(running.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))) for _ in range(10)
    ]
    await until(lambda: running.in_progress == 10)
    stopping = asyncio.create_task(running.server.stop(PATIENCE_S))
    await until(lambda: running.server._door._closing)
    await asyncio.sleep(2 * CLOSING_S)  # by then gRPC was told to stop
    running.store.let_go()
    await stopping
    answers = await asyncio.gather(*calls)
    assert all(len(answer.results[0].item_ids) == 5 for answer in answers)
    assert caplog.text == ""
