"""Channels on Milvus Lite and on a real Milvus: aliases found, moved and dropped, and users of several releases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from indexer.build import build, choose_index
from indexer.items.attributes import Attributes
from mind.artifact import Artifact, load_artifact
from mind.milvus.aio_store import MilvusStore
from mind.milvus.aio_user_store import MilvusUserStore
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from protos.recall.v1 import admin_pb2, admin_pb2_grpc, recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.releases import item_store
from tests.server.test_channels import ADMIN, TOKEN, USER
from tests.server.test_server import failure
from tests.waiting import until


def build_here(uri: str, models: list[Artifact]) -> list[str]:
    """Build the collections of models in this process, which may hold the Milvus Lite file open; gives their names."""
    index = choose_index(uri.endswith(".db"), "FLAT", {}, {})
    with Store(Connection(uri)) as store:
        return [build(store, model, Attributes(), index).collection for model in models]


def point(uri: str, **channels: str) -> None:
    """Point channels at collections."""
    with Store(Connection(uri)) as store:
        for channel, collection in channels.items():
            store.point_alias(collection, alias_of(channel.replace("_", "-")))


@dataclass
class Running:
    """A server of the channels live, b and uk-home, whose releases are the models 0, 1 and 2."""

    server: RecallServer
    store: MilvusStore
    uri: str
    models: list[Artifact]
    collections: list[str]
    recall: Any
    admin: Any

    async def ask(self, channel: str = "", **request: Any) -> recall_pb2.RecallResponse:
        asked = {"users": [USER], "top_k": 10} | request
        answer = await self.recall.Recall(recall_pb2.RecallRequest(channel=channel, **asked))
        assert isinstance(answer, recall_pb2.RecallResponse)
        return answer

    async def until_served(self, channel: str, model: int) -> None:
        releases = self.server.channels.of(channel)
        await until(lambda: releases.loaded and releases.current.collection == self.collections[model])

    async def move(self, **channels: str) -> None:
        await asyncio.to_thread(point, self.uri, **channels)


@pytest.fixture
async def running(milvus_uri: str, tmp_path: Path) -> AsyncIterator[Running]:
    models = [load_artifact(make_artifact(tmp_path / "artifacts", seed=seed)) for seed in range(3)]
    names = build_here(milvus_uri, models)
    point(milvus_uri, live=names[0], b=names[1], uk_home=names[2])
    (tmp_path / "token").write_text(TOKEN + "\n")
    settings = Settings(
        listen="127.0.0.1:0",
        artifacts=str(tmp_path / "artifacts"),
        channel=("live", "b", "uk-home"),
        watch_interval_s=0.1,
        admin_token_file=tmp_path / "token",
        users=True,
    )
    store = item_store(milvus_uri, timeout_s=30)
    async with AsyncExitStack() as stack:
        server = RecallServer(settings, store, MilvusUserStore(store))
        await server.start()
        stack.push_async_callback(server.stop, 0)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
        stubs = recall_pb2_grpc.RecallServiceStub(channel), admin_pb2_grpc.AdminServiceStub(channel)
        running = Running(server, store, milvus_uri, models, names, *stubs)
        for number, name in enumerate(settings.channel):
            await running.until_served(name, number)
        yield running
        gone = recall_pb2.DeleteUsersRequest(user_ids=["ann", "bob", "eve"])
        await running.recall.DeleteUsers(gone)  # the tests of a server share its users


async def test_channels_are_served_promoted_and_rolled_back(running: Running) -> None:
    by_channel = {name: await running.ask(name) for name in ("live", "b", "uk-home")}
    assert [each.collection for each in by_channel.values()] == running.collections
    lists = [list(each.results[0].item_ids) for each in by_channel.values()]
    assert len({tuple(each) for each in lists}) == 3

    await running.move(live=running.collections[1])  # promote b
    await running.until_served(LIVE, 1)
    assert list((await running.ask()).results[0].item_ids) == lists[1]
    channels = running.server.channels
    assert channels.of("live").current is channels.of("b").current
    assert list((await running.ask("uk-home")).results[0].item_ids) == lists[2]

    await running.move(live=running.collections[0], b=running.collections[2])
    await running.until_served(LIVE, 0)
    await running.until_served("b", 2)
    assert [list((await running.ask(name)).results[0].item_ids) for name in ("live", "b", "uk-home")] == [
        *(lists[0], lists[2]),
        lists[2],
    ]


async def test_the_aliases_of_a_collection_are_told_and_dropped_with_it(running: Running) -> None:
    store, [live, b, uk_home] = running.store, running.collections
    await running.move(b=live)
    assert await store.aliases(live) == ["channel_b", "live"]
    assert await store.aliases(uk_home) == ["channel_uk_home"] and await store.aliases(b) == []
    assert [await store.released_collection(name) for name in ("live", "b", "uk-home", "c")] == [
        *(live, live, uk_home),
        None,
    ]
    call = running.admin.DropItems(admin_pb2.DropItemsRequest(collection=uk_home), **ADMIN)
    assert (await failure(call))[1] == "COLLECTION_IS_LIVE"
    await store.drop(live)
    assert [await store.released_collection(name) for name in ("live", "b")] == [None, None]


async def test_users_are_remembered_for_the_release_of_every_channel(running: Running) -> None:
    histories = {"ann": [1000, 1007], "bob": [1000, 1007], "eve": [1700, 1707]}
    updates = [recall_pb2.UserUpdate(user_id=name, hist_item=items) for name, items in histories.items()]
    answer = await running.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=updates))
    assert [each.status for each in answer.results] == [recall_pb2.USER_STATUS_OK] * 3
    ann, model_versions = [recall_pb2.User(user_id="ann")], []
    for number, channel in enumerate(("live", "b", "uk-home")):
        stored = await running.ask(channel, users=ann)
        assert list(stored.results[0].item_ids) == list((await running.ask(channel)).results[0].item_ids)
        request = recall_pb2.FindSimilarUsersRequest(users=ann, top_k=1, channel=channel)
        similar = await running.recall.FindSimilarUsers(request)
        assert (similar.channel, list(similar.results[0].user_ids)) == (channel, ["bob"])
        np.testing.assert_allclose(similar.results[0].scores, [1], rtol=1e-5)
        model_versions.append(similar.model_version)
        assert similar.model_version == running.models[number].model_version
    assert len(set(model_versions)) == 3
    deleted = await running.recall.DeleteUsers(recall_pb2.DeleteUsersRequest(user_ids=["bob"]))
    assert deleted.results[0].status == recall_pb2.USER_STATUS_OK
    for channel in ("live", "b", "uk-home"):
        request = recall_pb2.FindSimilarUsersRequest(users=ann, top_k=2, channel=channel)
        [found] = (await running.recall.FindSimilarUsers(request)).results
        assert list(found.user_ids) == ["eve"]
