"""A server with --shadow: live answers are those of a server without it, and wait for nothing that the shadow does."""

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from mind.artifact import load_artifact
from mind.milvus.aio_user_store import MilvusUserStore
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.edge import shadow
from server.errors import StoreError
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.releases import item_store
from tests.server.test_channels import Running, Start
from tests.server.test_channels import start as start
from tests.server.test_channels_milvus import build_here, point
from tests.waiting import until

USERS = [recall_pb2.User(hist_item=[1000, 1007]), recall_pb2.User(hist_item=[1700]), recall_pb2.User()]
REQUESTS: list[dict[str, Any]] = [
    {},
    {"exclude_history": True},
    {"filter": "item_id < 1800"},
    {"merge_strategy": recall_pb2.MERGE_STRATEGY_ROUND_ROBIN},
    {"diversity": 0.5},
    {"users": USERS[2:]},
]


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one shadow request follow the other."""
    monkeypatch.setattr(shadow, "REST", 0)


async def shadow_of(running: Running) -> recall_pb2.ShadowSummary:
    [summary] = (await running.info()).shadows
    return summary


async def outcomes(running: Running) -> dict[str, int]:
    return {each.outcome: each.requests for each in (await shadow_of(running)).outcomes if each.requests}


async def until_counted(server: RecallServer, outcome: str, requests: int = 1) -> None:
    """Wait until so many requests came to this in the channel b."""
    asked = server.shadow
    assert asked
    await until(lambda: asked.outcomes["b"][outcome] == requests)


async def test_answers_are_the_same_bit_by_bit(start: Start) -> None:
    plain, shadowed = await start(), await start(shadow=("b=1",))
    for number, options in enumerate(REQUESTS, start=1):
        expected, answer = [await each.ask(**({"users": USERS} | options)) for each in (plain, shadowed)]
        for each in (expected, answer):
            each.ClearField("timings")
        assert answer.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
        await until_counted(shadowed.server, "compared", number)
    assert await outcomes(shadowed) == {"compared": len(REQUESTS)}
    assert not (await plain.info()).shadows


async def test_a_shadow_that_hangs_holds_no_request(start: Start) -> None:
    running = await start(shadow=("b=1",))
    running.store.hold(running.collections[1])
    async with asyncio.timeout(10):
        await running.ask()
        await until(lambda: running.store.held == 1)
        for _ in range(20):
            assert len((await running.ask()).results[0].item_ids) == 10
    assert await outcomes(running) == {"busy": 20}
    assert running.store.held == 1
    running.store.let_go()
    await until_counted(running.server, "compared")


async def test_a_shadow_that_fails_is_not_seen_by_callers(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = await start(shadow=("b=1",), access_log=True)
    search = running.store.search

    async def broken(collection: str, *how: Any) -> Any:
        if collection == running.collections[1]:
            raise StoreError("Milvus (code 65535): broken")
        return await search(collection, *how)

    monkeypatch.setattr(running.store, "search", broken)
    with caplog.at_level(logging.INFO, "server.edge.calls"):
        for number in range(3):
            assert len((await running.ask()).results[0].item_ids) == 10
            await until_counted(running.server, "failed", number + 1)
    lines = [record for record in caplog.records if record.name == "server.edge.calls"]
    assert [record.getMessage() for record in lines] == ["Recall OK"] * 3


async def test_shadow_requests_count_as_no_requests(start: Start) -> None:
    running = await start(shadow=("b=1",))

    def value(name: str, **labels: str) -> float | None:
        return running.metrics.registry.get_sample_value(name, labels)

    for number in range(5):
        await running.ask(users=USERS)
        await until_counted(running.server, "compared", number + 1)
    live = {"method": "Recall", "status": "OK", "channel": "live"}
    assert value("recall_request_duration_seconds_count", **live) == 5
    assert value("recall_request_duration_seconds_count", **(live | {"channel": "b"})) is None
    assert value("recall_users_total", status="OK") == 10
    assert value("recall_queue_wait_seconds_count") == 5
    assert value("recall_shadow_requests_total", channel="b", outcome="compared") == 5
    assert value("recall_requests_in_progress") == 0


async def test_only_requests_to_the_default_channel_are_drawn(start: Start) -> None:
    running = await start(shadow=("b=1",), split=("c=1",))
    await running.ask("b")
    await running.ask("c")
    await running.ask(split_key="anybody")  # goes to c
    await running.recall.Explain(recall_pb2.ExplainRequest(user=USERS[0], top_k=5))
    assert await outcomes(running) == {}
    await running.ask("live")
    await until_counted(running.server, "compared")


async def test_pages_after_the_first_are_not_compared(start: Start) -> None:
    running = await start(shadow=("b=1",))
    first = await running.ask(paged=True)
    await until_counted(running.server, "compared")
    await running.ask(page_token=first.next_page_token)
    assert await outcomes(running) == {"compared": 1, "page": 1}


async def test_two_shadow_channels(start: Start) -> None:
    running = await start("c", "live", "b", shadow=("live=1", "b=0.5"))
    await running.ask()
    live, b = (await running.info()).shadows
    assert [(each.channel, each.live_channel, each.share) for each in (live, b)] == [("live", "c", 1), ("b", "c", 0.5)]


async def test_a_promotion_ends_the_comparison(start: Start) -> None:
    running = await start(shadow=("b=1",))
    await running.ask()
    await until_counted(running.server, "compared")
    assert (await shadow_of(running)).collection == running.collections[1]
    running.store.point("live", running.collections[1])
    await running.until_served("live", running.collections[1])
    await running.ask()
    await until_counted(running.server, "same")
    assert not (await shadow_of(running)).since_ms


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shadow": ("b=0.05",)}, "expected one of the other channels of the server"),
        ({"channel": ("live", "b"), "shadow": ("live=0.05",)}, "live is what it is compared with"),
        ({"channel": ("live", "b"), "shadow": ("b=1.5",)}, "a share of at most 1"),
        ({"channel": ("live", "b"), "shadow": ("b",)}, "expected a channel and a share"),
        ({"channel": ("live", "b"), "shadow": ("b=0.1", "b=0.2")}, "given twice for b"),
    ],
)
def test_wrong_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**options)


def test_shares() -> None:
    settings = Settings(channel=("live", "b", "c"), shadow=("b=0.05", "c=1"))  # together more than 1
    assert settings.shadows == {"b": 0.05, "c": 1}


async def test_on_milvus(milvus_uri: str, tmp_path: Path) -> None:
    models = [
        load_artifact(make_artifact(tmp_path / "artifacts", **shape)) for shape in ({}, {"seed": 1, "items": 250})
    ]
    names = build_here(milvus_uri, models)
    point(milvus_uri, live=names[0], b=names[1])
    settings = Settings(
        listen="127.0.0.1:0",
        artifacts=str(tmp_path / "artifacts"),
        channel=("live", "b"),
        shadow=("b=1",),
        watch_interval_s=0.1,
        users=True,
    )
    store = item_store(milvus_uri, timeout_s=30)
    async with AsyncExitStack() as stack:
        server = RecallServer(settings, store, MilvusUserStore(store))
        await server.start()
        stack.push_async_callback(server.stop, 0)
        await until(lambda: all(each.loaded for each in server.channels))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
        recall = recall_pb2_grpc.RecallServiceStub(channel)
        update = recall_pb2.UserUpdate(user_id="ann", hist_item=[1000, 1007])
        await recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=[update]))
        users = [recall_pb2.User(user_id="ann"), recall_pb2.User(hist_item=[2498]), USERS[1]]
        asked: list[recall_pb2.RecallResponse] = []
        for number, options in enumerate(REQUESTS[:3], start=1):
            asked.append(await recall.Recall(recall_pb2.RecallRequest(users=users, top_k=20, **options)))
            await until_counted(server, "compared", number)
        b = [
            await recall.Recall(recall_pb2.RecallRequest(users=users, top_k=20, channel="b", **options))
            for options in REQUESTS[:3]
        ]
        [summary] = (await recall.GetServerInfo(recall_pb2.GetServerInfoRequest())).shadows
    assert (summary.live_collection, summary.collection) == tuple(names)
    # 2498 is an item that only the model of b knows, so this user has interests there alone.
    assert (summary.users_both, summary.users_shadow, summary.users_live, summary.users_neither) == (6, 3, 0, 0)
    shares = [
        len(set(one.results[user].item_ids) & set(other.results[user].item_ids)) / 20
        for one, other in zip(asked, b, strict=True)
        for user in (0, 2)
    ]
    assert summary.overlap.count == 6
    assert summary.overlap.mean == pytest.approx(sum(shares) / 6, abs=1e-6)
    known = set(models[0].weights.item_id.tolist())
    new = sum(item not in known for each in b for result in each.results for item in result.item_ids)
    assert (summary.candidates, summary.new_candidates) == (180, new)
    assert summary.live_ms.mean > 0
    assert summary.shadow_ms.mean > 0
