"""What callers get while Milvus does not answer, with and without `--degraded`, through real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients import AsyncRecallClient, UnavailableError
from mind.artifact import load_artifact
from mind.encoder import NumpyEncoder
from mind.evaluation.retrieval import nearest_items
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.errors import StoreTimeoutError, StoreUnavailableError
from server.serving import breaker, pipeline
from server.serving.local import LocalItems
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.server.test_server import until_health
from tests.waiting import until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
DEGRADED = recall_pb2.USER_STATUS_DEGRADED
POPULAR = [1000, 1007, 1014, 1021, 1028]
GONE = StoreUnavailableError("Milvus does not answer: connection refused")
User = recall_pb2.User


class Running:
    """A server on a store that can fall silent."""

    def __init__(self, directory: Path, degraded: bool) -> None:
        self.store = FakeStore()
        self.artifact = load_artifact(make_artifact(directory))
        self.collection = self.store.publish(self.artifact)
        self.degraded = degraded
        settings = Settings(listen="127.0.0.1:0", artifacts=str(directory), watch_interval_s=0.05, degraded=degraded)
        self.server = RecallServer(settings, self.store)

    async def start(self) -> None:
        await self.server.start()
        self.address = f"127.0.0.1:{self.server.port}"
        self.channel = grpc.aio.insecure_channel(self.address)
        self.recall: Any = recall_pb2_grpc.RecallServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)
        await until_health(self.health, SERVING)
        if self.degraded:
            await until(lambda: self.server.local.knows(self.server.releases.current))

    def exact(self, history: list[int], top_k: int = 5, without: Sequence[int] = ()) -> list[int]:
        """The best items for a history."""
        weights = self.artifact.weights
        rows = self.artifact.vocabulary.item_index(np.array([history], np.int64))
        vectors = NumpyEncoder(weights, self.artifact.hyper_parameters).encode(rows, np.array([len(history)]))
        best = weights.item_id[nearest_items(vectors, weights.item_embedding, top_k + len(without))[0] - 1].tolist()
        return [item_id for item_id in best if item_id not in without][:top_k]

    async def ask(self, *users: User, **options: Any) -> list[recall_pb2.UserCandidates]:
        request = recall_pb2.RecallRequest(users=users, **({"top_k": 5} | options))
        return list((await self.recall.Recall(request, timeout=10)).results)

    async def stop(self) -> None:
        await self.channel.close()
        await self.server.stop(0)


@pytest.fixture(params=[True])
async def running(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setattr(breaker, "PAUSE_S", 0.05)
    running = Running(tmp_path / "artifacts", degraded=request.param)
    await running.start()
    yield running
    await running.stop()


async def test_own_candidates_until_milvus_answers_again(running: Running) -> None:
    (before,) = await running.ask(User(hist_item=[1000, 1007]))
    running.store.fault = GONE
    (result,) = await running.ask(User(hist_item=[1000, 1007]))
    assert (list(result.item_ids), result.status) == (running.exact([1000, 1007]), DEGRADED)
    assert (result.item_ids, result.scores, result.interest) == (before.item_ids, before.scores, before.interest)
    assert not result.fallback and "Milvus does not answer" in result.detail
    running.store.fault = None
    for _ in range(200):
        (result,) = await running.ask(User(hist_item=[1000, 1007]))
        if result.status == recall_pb2.USER_STATUS_OK:
            return
    raise AssertionError("it never came back")


async def test_exclusions_and_own_statuses_are_kept(running: Running) -> None:
    running.store.fault = GONE
    one = User(hist_item=[1007, 5], exclude_item_ids=[1014])
    seen, empty, unknown, invalid = await running.ask(
        one, User(), User(hist_item=[5]), User(hist_item=[1] * 10_001), exclude_history=True
    )
    assert list(seen.item_ids) == running.exact([1007], without=[1007, 1014])
    assert (seen.status, list(seen.unknown_item_ids)) == (DEGRADED, [5])
    assert (empty.status, list(empty.item_ids)) == (recall_pb2.USER_STATUS_EMPTY_HISTORY, POPULAR)
    assert (unknown.status, list(unknown.item_ids)) == (recall_pb2.USER_STATUS_ALL_UNKNOWN, POPULAR)
    assert (invalid.status, list(invalid.item_ids)) == (recall_pb2.USER_STATUS_INVALID, [])


async def test_each_caller_gets_it_before_its_own_deadline(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ANSWER_S", 2)  # a busy machine needs longer to answer
    running.store.hold()
    first = asyncio.create_task(running.ask(User(hist_item=[1000])))  # what comes next is answered together
    await until(lambda: running.store.held)
    patient = asyncio.create_task(running.ask(User(hist_item=[1007])))
    request = recall_pb2.RecallRequest(users=[User(hist_item=[1014])], top_k=5)
    (hurried,) = (await running.recall.Recall(request, timeout=4)).results
    assert (hurried.status, list(hurried.item_ids)) == (DEGRADED, running.exact([1014]))
    assert not patient.done()
    running.store.let_go()
    ((answered,), _) = await asyncio.gather(patient, first)
    assert answered.status == recall_pb2.USER_STATUS_OK


async def test_the_popular_list_where_there_is_no_time_for_more(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ANSWER_S", 2)

    async def search(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(LocalItems, "search", search)
    running.store.fault = GONE
    request = recall_pb2.RecallRequest(users=[User(hist_item=[1000, 1007])], top_k=5)
    (result,) = (await running.recall.Recall(request, timeout=4)).results
    assert (list(result.item_ids), result.status, result.fallback) == (POPULAR, DEGRADED, True)
    assert set(result.interest) == {-1} and result.scores[0] == pytest.approx(200 / (200 * 201 / 2))
    assert result.detail == "Milvus does not answer"


async def test_what_was_deleted_stays_out(running: Running) -> None:
    best = running.exact([1000])
    running.store.delete(running.collection, [1007, best[0]])
    running.store.add(running.collection, 5, 10 * running.artifact.weights.item_embedding[1])
    await running.ask(User())  # somebody gets the popular list, and so it is looked up
    local, release = running.server.local, running.server.releases.current
    assert local
    await until(lambda: len(local.known(release).gone) == 2 and len(local.known(release).items.fresh_ids) == 1)
    running.store.fault = GONE
    (own,), (popular,) = await running.ask(User(hist_item=[1000])), await running.ask(User())
    assert list(own.item_ids) == [5, *running.exact([1000], 4, without=[1007, best[0]])]
    assert 1007 not in popular.item_ids


async def test_a_filter_that_nobody_can_check_gives_nothing(running: Running) -> None:
    running.store.fault = GONE
    for result in await running.ask(User(hist_item=[1000]), User(), filter="item_id > 1100"):
        assert (result.status, list(result.item_ids)) == (DEGRADED, [])
        assert "only Milvus can check a filter" in result.detail


async def test_health_stays_and_what_needs_milvus_fails(running: Running) -> None:
    running.store.fault = GONE
    await running.ask(User(hist_item=[1000]))
    assert (await running.health.Check(health_pb2.HealthCheckRequest())).status == SERVING
    async with AsyncRecallClient(running.address, timeout_s=5) as client:
        with pytest.raises(UnavailableError):
            await client.explain([1000], top_k=5)
        with pytest.raises(UnavailableError):
            await client.count_items()


@pytest.mark.parametrize("running", [False], indirect=True)
async def test_without_it_health_tells_and_comes_back(running: Running) -> None:
    running.store.fault = GONE
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.ask(User(hist_item=[1000]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await until_health(running.health, NOT_SERVING)
    running.store.fault = None
    await until_health(running.health, SERVING)
    assert (await running.ask(User(hist_item=[1000])))[0].status == recall_pb2.USER_STATUS_OK


@pytest.mark.parametrize("running", [False], indirect=True)
async def test_a_search_that_timed_out_is_not_to_be_tried_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def search(*_: object) -> None:  # whatever else asks Milvus must not open the breaker before
        raise StoreTimeoutError("Milvus does not answer within 5 s")

    monkeypatch.setattr(running.store, "search", search)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.ask(User(hist_item=[1000]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(iter(caught.value.trailing_metadata() or ()))["grpc-retry-pushback-ms"] == "-1"
