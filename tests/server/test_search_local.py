"""`--search local`: the server finds candidates in its memory, and Milvus tells what changes."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mind import cells
from mind.artifact import Artifact, load_artifact, write_artifact
from mind.errors import ConfigError
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.errors import StoreUnavailableError
from server.serving import changes, local
from server.settings import Settings
from tests.artifacts import hyper_parameters_of, make_artifact
from tests.bench.serving.world import synthetic
from tests.fake_store import FakeStore
from tests.server.test_server import until_health
from tests.waiting import until

OK, DEGRADED = recall_pb2.USER_STATUS_OK, recall_pb2.USER_STATUS_DEGRADED
GONE = StoreUnavailableError("Milvus does not answer: connection refused")


class Running:
    """A server that searches its memory, and one that searches the same store."""

    def __init__(self, directory: Path, artifact: Artifact, **options: Any) -> None:
        self.store = FakeStore()
        self.collection = self.store.publish(artifact)
        self.artifact = artifact
        settings = {"listen": "127.0.0.1:0", "artifacts": str(directory), "watch_interval_s": 0.05} | options
        self.servers = [RecallServer(Settings(**settings, search=search), self.store) for search in ("local", "milvus")]
        self.stubs: list[Any] = []
        self.channels: list[grpc.aio.Channel] = []

    async def start(self) -> None:
        for server in self.servers:
            await server.start()
            self.channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
            self.stubs.append(recall_pb2_grpc.RecallServiceStub(self.channels[-1]))
            await until_health(health_pb2_grpc.HealthStub(self.channels[-1]), health_pb2.HealthCheckResponse.SERVING)

    async def ask(self, *histories: list[int], **options: Any) -> list[recall_pb2.UserCandidates]:
        """What the server answers that searches its memory."""
        users = [recall_pb2.User(hist_item=history) for history in histories]
        request = recall_pb2.RecallRequest(users=users, **({"top_k": 5} | options))
        return list((await self.stubs[0].Recall(request, timeout=20)).results)

    async def same(self, *histories: list[int], **options: Any) -> None:
        """Compare with what the server answers that searches the store, which is exact."""
        users = [recall_pb2.User(hist_item=history) for history in histories]
        request = recall_pb2.RecallRequest(users=users, **({"top_k": 5} | options))
        answers = [(await stub.Recall(request, timeout=20)).results for stub in self.stubs]
        for own, expected in zip(*answers, strict=True):
            assert (own.item_ids, own.interest, own.status) == (expected.item_ids, expected.interest, expected.status)
            np.testing.assert_allclose(own.scores, expected.scores, rtol=1e-5)

    async def stop(self) -> None:
        for server, channel in zip(self.servers, self.channels, strict=True):
            await channel.close()
            await server.stop(0)


@pytest.fixture(params=[{}])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path, load_artifact(make_artifact(tmp_path)), **request.param)
    await running.start()
    yield running
    await running.stop()


async def test_the_answers_are_those_of_an_exact_milvus(running: Running) -> None:
    await running.same([1000, 1007], [1014], [], [5], top_k=50)
    await running.same([1000, 1007, 1021], exclude_history=True, top_k=20)
    await running.same([1000, 1007], merge_strategy=recall_pb2.MERGE_STRATEGY_ROUND_ROBIN)
    await running.same([1000], filter="item_id > 1500", top_k=10)
    await running.same([1000, 1028], top_k=300)


async def test_milvus_is_not_searched(running: Running) -> None:
    asked = len(running.store.searches)
    for _ in range(3):
        (result,) = await running.ask([1000, 1007])
        assert result.status == OK
    assert len(running.store.searches) == asked


async def test_what_changes_is_followed(running: Running) -> None:
    (before,) = await running.ask([1000])
    running.store.delete(running.collection, list(before.item_ids))
    running.store.add(running.collection, 5, 10 * running.artifact.weights.item_embedding[1])
    server = running.servers[0]
    assert server.local
    known, release = server.local.known, server.releases.current
    await until(lambda: len(known(release).gone) == 5 and len(known(release).items.fresh_ids) == 1)
    await running.same([1000], [1007])
    (after,) = await running.ask([1000])
    assert 5 in after.item_ids and not set(after.item_ids) & set(before.item_ids)


async def test_it_says_what_searches(running: Running) -> None:
    for stub, search in zip(running.stubs, ("local", "milvus"), strict=True):
        assert (await stub.GetServerInfo(recall_pb2.GetServerInfoRequest())).search == search
        explained = await stub.Explain(recall_pb2.ExplainRequest(user=recall_pb2.User(hist_item=[1000]), top_k=5))
        assert explained.search == search
        filtered = recall_pb2.ExplainRequest(user=recall_pb2.User(hist_item=[1000]), top_k=5, filter="item_id > 1500")
        assert (await stub.Explain(filtered)).search == "matches"


async def test_changes_that_cannot_be_asked_for_are_an_error(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SEEN_S", 0)
    monkeypatch.setattr(changes, "LOOK_S", 0)
    running.store.fault = GONE
    with pytest.raises(grpc.aio.AioRpcError, match="Milvus does not answer"):
        await running.ask([1000])


@pytest.mark.parametrize("running", [{"degraded": True}], indirect=True)
async def test_with_degraded_they_are_not(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = await running.ask([1000])
    monkeypatch.setattr(local, "SEEN_S", 0)
    monkeypatch.setattr(changes, "LOOK_S", 0)
    running.store.fault = GONE
    (result,) = await running.ask([1000])
    assert (result.status, result.item_ids, result.fallback) == (DEGRADED, before.item_ids, False)


async def test_large_catalogues_are_searched_with_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cells, "EXACT_ROWS", 1_000)
    monkeypatch.setattr(local, "EXACT_ITEMS", 1_000)
    weights, histories = synthetic(40_000, users=100, dim=32)
    running = Running(tmp_path, load_artifact(write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {})))
    with caplog.at_level("INFO", "server.serving.local"):
        await running.start()
    try:
        (line,) = [record.message for record in caplog.records if "searched in memory" in record.message]
        assert "the 40,000 items of model" in line and "cells are looked into" in line
        release = running.servers[0].releases.current
        assert release.index and running.servers[1].releases.current.index is None
        users = [histories[user].tolist() for user in range(50)]
        found, exact = [], []
        for stub, lists in zip(running.stubs, (found, exact), strict=True):
            request = recall_pb2.RecallRequest(users=[recall_pb2.User(hist_item=own) for own in users], top_k=50)
            lists += [list(result.item_ids) for result in (await stub.Recall(request, timeout=20)).results]
        right = [len(set(own) & set(best)) / 50 for own, best in zip(found, exact, strict=True)]
        assert np.mean(right) > 0.99
        await running.same(users[0], top_k=500)  # more hits than the index is for
        gone = found[0][0]
        running.store.delete(running.collection, [gone])
        known = running.servers[0].local.known  # type: ignore[union-attr]
        await until(lambda: bool(len(known(release).gone)))
        assert gone not in (await running.ask(users[0], top_k=50))[0].item_ids
    finally:
        await running.stop()


def test_without_faiss_it_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "mind.item_index", raising=False)
    with pytest.raises(ConfigError, match="--search local: FAISS is not installed; it is the extra local"):
        local.index_maker("local")
