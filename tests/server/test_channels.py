"""Several releases at once: each request is answered by the release of its channel, and none harms another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mind.artifact import Artifact, load_artifact
from mind.encoder import Encoder, NumpyEncoder
from protos.recall.v1 import admin_pb2, admin_pb2_grpc, recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.errors import StoreUnavailableError
from server.instrumentation import make_metrics
from server.settings import Settings
from server.watching.metrics import Metrics
from server.watching.telemetry import Telemetry
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.server.test_server import failure
from tests.waiting import PATIENCE_S, until

TOKEN = "correct horse battery"
ADMIN = {"metadata": (("authorization", f"Bearer {TOKEN}"),)}
USER = recall_pb2.User(hist_item=[1000, 1007])
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = "recall.v1.RecallService"


@dataclass
class Running:
    """A started server with channels, the models that it may serve, and stubs that talk to it."""

    server: RecallServer
    store: FakeStore
    models: list[Artifact]
    collections: list[str]
    recall: Any
    admin: Any
    health: Any
    metrics: Metrics

    async def ask(self, channel: str = "", **request: Any) -> recall_pb2.RecallResponse:
        asked = {"users": [USER], "top_k": 10} | request
        answer = await self.recall.Recall(recall_pb2.RecallRequest(channel=channel, **asked))
        assert isinstance(answer, recall_pb2.RecallResponse)
        return answer

    async def info(self, channel: str = "") -> recall_pb2.GetServerInfoResponse:
        answer = await self.recall.GetServerInfo(recall_pb2.GetServerInfoRequest(channel=channel))
        assert isinstance(answer, recall_pb2.GetServerInfoResponse)
        return answer

    async def status(self, service: str) -> int:
        return int((await self.health.Check(health_pb2.HealthCheckRequest(service=service))).status)

    async def until_status(self, channel: str, wanted: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.status(f"{SERVICE}/{channel}") != wanted:
                await asyncio.sleep(0.01)

    async def until_served(self, channel: str, collection: str) -> None:
        releases = self.server.channels.of(channel)
        await until(lambda: releases.loaded and releases.current.collection == collection)

    def best(self, model: int, top_k: int = 10) -> list[int]:
        """What a model recommends to the user, computed without a server."""
        weights, size = self.models[model].weights, self.models[model].hyper_parameters
        history = np.zeros((1, size.maxlen), np.int64)
        history[0, :2] = self.models[model].vocabulary.item_index(np.array(USER.hist_item))
        [interests] = NumpyEncoder(weights, size).encode(history, np.array([2]))
        scores = (weights.item_embedding[1:] @ interests.T).max(axis=1)
        return [int(item) for item in weights.item_id[np.argsort(-scores, kind="stable")[:top_k]]]


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts servers of the channels live, b and c, whose releases are the models 0, 1 and 2; c may have none."""
    async with AsyncExitStack() as stack:

        async def start(*channels: str, unpublished: str = "", **options: Any) -> Running:
            (tmp_path / "token").write_text(TOKEN + "\n")
            settings = Settings(
                listen="127.0.0.1:0",
                artifacts=str(tmp_path / "artifacts"),
                channel=channels or ("live", "b", "c"),
                **({"watch_interval_s": 0.05, "admin_token_file": tmp_path / "token"} | options),
            )
            store, metrics = FakeStore(), make_metrics()
            models = [load_artifact(make_artifact(tmp_path / "artifacts", seed=seed)) for seed in range(3)]
            names = [store.publish(model, name) for model, name in zip(models, ("live", "b", "c"), strict=True)]
            if unpublished:
                store.point(unpublished, None)
            server = RecallServer(settings, store, telemetry=Telemetry(metrics))
            await server.start()
            stack.push_async_callback(server.stop, 0)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
            stubs = recall_pb2_grpc.RecallServiceStub, admin_pb2_grpc.AdminServiceStub, health_pb2_grpc.HealthStub
            running = Running(server, store, models, names, *(stub(channel) for stub in stubs), metrics)
            for number, name in enumerate(("live", "b", "c")):
                if name in settings.channels and name != unpublished:
                    await running.until_served(name, names[number])
                    await running.until_status(name, SERVING)
            return running

        yield start


async def test_each_channel_answers_with_its_own_release(start: Start) -> None:
    running = await start()
    for number, channel in enumerate(("live", "b", "c")):
        answer = await running.ask(channel)
        assert (answer.channel, answer.collection) == (channel, running.collections[number])
        assert answer.model_version == running.models[number].model_version
        assert list(answer.results[0].item_ids) == running.best(number)
    assert (await running.ask()).channel == "live"
    assert len({tuple(running.best(number)) for number in range(3)}) == 3


async def test_requests_of_several_channels_at_once_are_never_mixed(start: Start) -> None:
    running = await start()
    channels = [("live", "b", "c")[number % 3] for number in range(60)]
    answers = await asyncio.gather(*(running.ask(channel) for channel in channels))
    for channel, answer in zip(channels, answers, strict=True):
        number = ("live", "b", "c").index(channel)
        assert (answer.channel, list(answer.results[0].item_ids)) == (channel, running.best(number))


async def test_every_method_answers_for_a_channel(start: Start) -> None:
    running = await start()
    running.store.delete(running.collections[1], [1000])
    stub, query = running.recall, recall_pb2.ItemQuery(item_ids=[1007])
    answers = [
        await stub.CountItems(recall_pb2.CountItemsRequest(channel="b")),
        await stub.Explain(recall_pb2.ExplainRequest(user=USER, top_k=3, channel="b")),
        await stub.SimilarItems(recall_pb2.SimilarItemsRequest(queries=[query], top_k=3, channel="b")),
        await stub.GetItems(recall_pb2.GetItemsRequest(item_ids=[1007], channel="b")),
    ]
    for answer in answers:
        assert (answer.channel, answer.collection) == ("b", running.collections[1])
    assert answers[0].count == 199
    assert (await stub.CountItems(recall_pb2.CountItemsRequest())).count == 200


@pytest.mark.parametrize("name", ["d", "B", "live ", "x" * 5_000])
async def test_a_channel_that_is_not_served(start: Start, name: str) -> None:
    running = await start("live", "b")
    code, reason, says, _ = await failure(running.ask(name))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_CHANNEL")
    assert says.startswith(f"channel: {name!r}"[:100])
    if len(name) < 100:
        assert says == f"channel: {name!r} is not served here; the channels of this server are live, b"


async def test_a_channel_without_a_release_harms_no_other(start: Start) -> None:
    running = await start(unpublished="b")
    code, reason, says, _ = await failure(running.ask("b"))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
    assert says == (
        "channel b: no release is loaded: Milvus has no alias 'channel_b'; `python -m indexer publish --channel b` "
        "sets it"
    )
    assert list((await running.ask("live")).results[0].item_ids) == running.best(0)
    assert list((await running.ask("c")).results[0].item_ids) == running.best(2)
    assert [await running.status(name) for name in ("", SERVICE, f"{SERVICE}/live", f"{SERVICE}/b")] == [
        *(SERVING, SERVING, SERVING),
        NOT_SERVING,
    ]
    _, without, _ = (await running.info()).channels
    assert (without.name, without.collection, without.item_count) == ("b", "", 0)
    assert "no alias 'channel_b'" in without.refused_release

    running.store.point("b", running.collections[1])
    await running.until_status("b", SERVING)
    assert list((await running.ask("b")).results[0].item_ids) == running.best(1)


async def test_health_is_that_of_the_default_channel(start: Start) -> None:
    running = await start(unpublished="live")
    assert [await running.status(name) for name in ("", SERVICE, f"{SERVICE}/live", f"{SERVICE}/b")] == [
        *(NOT_SERVING, NOT_SERVING, NOT_SERVING),
        SERVING,
    ]
    assert list((await running.ask("b")).results[0].item_ids) == running.best(1)
    assert (await running.info("b")).collection == running.collections[1]
    assert (await failure(running.info()))[1] == "NOT_READY"
    others = await start("b", "c")
    assert await others.status("") == SERVING and (await others.ask()).channel == "b"


async def test_a_release_that_is_refused_leaves_the_others(start: Start, tmp_path: Path) -> None:
    running = await start()
    broken = running.store.publish(load_artifact(make_artifact(tmp_path / "artifacts", seed=3)), "b")
    running.store.collections[broken].vectors[0] += 1
    releases = running.server.channels.of("b")
    await until(lambda: releases.refused)
    for number, channel in enumerate(("live", "b", "c")):  # b keeps the release before
        assert list((await running.ask(channel)).results[0].item_ids) == running.best(number)
    live, refused, other = (await running.info()).channels
    assert (live.refused_release, live.refused_collection, other.refused_release) == ("", "", "")
    assert (refused.collection, refused.refused_collection) == (running.collections[1], broken)
    assert "is not that of model" in refused.refused_release
    info = await running.info("b")
    assert (info.channel, info.refused_collection, info.collection) == ("b", broken, running.collections[1])
    sample = running.metrics.registry.get_sample_value
    told = [sample("recall_release_refused", {"channel": channel}) for channel in ("live", "b", "c")]
    assert told == [0, 1, 0]


async def test_a_promotion_loads_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running, loaded = await start("live", "b"), list[str]()
    loader = running.server.releases._loader
    make = loader._make_encoder

    def count(artifact: Artifact) -> Encoder:
        loaded.append(artifact.model_version)
        return make(artifact)

    monkeypatch.setattr(loader, "_make_encoder", count)
    running.store.point("live", running.collections[1])  # what `indexer promote b` does
    await running.until_served("live", running.collections[1])
    live, b = (running.server.channels.of(name) for name in ("live", "b"))
    assert live.current is b.current
    assert live.previous and live.previous.collection == running.collections[0]
    assert list((await running.ask()).results[0].item_ids) == running.best(1)

    running.store.point("live", running.collections[0])  # and back
    await running.until_served("live", running.collections[0])
    assert list((await running.ask()).results[0].item_ids) == running.best(0)
    assert not loaded
    running.store.point("b", running.collections[2])
    await running.until_served("b", running.collections[2])
    assert loaded == [running.models[2].model_version]


async def test_two_channels_of_one_collection_load_it_once(start: Start) -> None:
    running = await start("live", "b")
    running.store.point("live", running.collections[2])
    running.store.point("b", running.collections[2])  # both look at about the same time
    for channel in ("live", "b"):
        await running.until_served(channel, running.collections[2])
    live, b = (running.server.channels.of(name) for name in ("live", "b"))
    assert live.current is b.current
    assert len(running.server.channels.served) == 1
    answers = await asyncio.gather(*(running.ask(name) for name in ("live", "b", "live", "b")))
    assert [answer.channel for answer in answers] == ["live", "b", "live", "b"]
    assert {tuple(answer.results[0].item_ids) for answer in answers} == {tuple(running.best(2))}


async def test_two_collections_of_one_model_share_it(start: Start) -> None:
    running = await start("live", "b")
    original = running.store.collections[running.collections[0]]
    assert original.fingerprint
    fingerprint = original.fingerprint.model_copy(update={"index_params": {"M": 16}})
    twin = fingerprint.collection
    running.store.collections[twin] = type(original)(fingerprint, original.item_ids, original.vectors)
    running.store.delete(twin, running.best(0)[:1])
    running.store.point("b", twin)
    await running.until_served("b", twin)
    live, b = (running.server.channels.of(name).current for name in ("live", "b"))
    assert live.item_embedding is b.item_embedding and live.collection != b.collection
    assert list((await running.ask("live")).results[0].item_ids) == running.best(0)
    assert list((await running.ask("b")).results[0].item_ids) == running.best(0, 11)[1:]


async def test_changes_of_items_are_followed_in_every_channel(start: Start) -> None:
    running = await start(degraded=True)
    for number, channel in enumerate(("live", "b", "c")):
        release = running.server.channels.of(channel).current
        await until(lambda release=release: running.server.local.knows(release))
        running.store.delete(running.collections[number], running.best(number)[:1])
    for channel in ("live", "b", "c"):
        release = running.server.channels.of(channel).current
        await until(lambda release=release: len(running.server.local.known(release).gone) == 1)
    running.store.fault = StoreUnavailableError("Milvus does not answer")
    for number, channel in enumerate(("live", "b", "c")):
        [result] = (await running.ask(channel)).results
        assert result.status == recall_pb2.USER_STATUS_DEGRADED
        assert list(result.item_ids) == running.best(number, 11)[1:]
    running.store.fault = None


async def test_the_popular_list_of_every_channel_follows_its_collection(start: Start) -> None:
    running, nobody = await start(), [recall_pb2.User()]
    before = [list((await running.ask(name, users=nobody)).results[0].item_ids) for name in ("live", "b", "c")]
    for number in range(3):
        running.store.delete(running.collections[number], before[number][:1])
    for number, channel in enumerate(("live", "b", "c")):
        async with asyncio.timeout(PATIENCE_S):
            while (await running.ask(channel, users=nobody)).results[0].item_ids[0] == before[number][0]:
                await asyncio.sleep(0.05)
        found = list((await running.ask(channel, users=nobody)).results[0].item_ids)
        assert found[:9] == before[number][1:]


async def test_filters_and_attributes_are_those_of_the_channel(start: Start) -> None:
    running = await start("live", "b")
    for number, name in enumerate(("year", "colour")):
        values = dict.fromkeys(range(1000, 2400, 7), 1990 + number)
        running.store.give(running.collections[number], name, "INT64", values)
    for channel, name, year in (("live", "year", 1990), ("b", "colour", 1991)):
        answer = await running.ask(channel, filter="item_id < 1700", return_attributes=[name])
        [column] = answer.results[0].attributes
        assert set(column.integers) == {year} and max(answer.results[0].item_ids) < 1700
    reason = (await failure(running.ask("live", return_attributes=["colour"])))[1]
    assert reason == "UNKNOWN_ATTRIBUTE"


async def test_a_milvus_that_lost_the_collection_of_one_channel_is_not_away(start: Start) -> None:
    running = await start("live", "b")
    running.store.unloadable = running.collections[0]
    running.store.collections[running.collections[0]].loaded = False
    await running.until_status("live", NOT_SERVING)
    assert (await failure(running.ask("live")))[0] is grpc.StatusCode.UNAVAILABLE
    for _ in range(5):
        assert list((await running.ask("b")).results[0].item_ids) == running.best(1)
    assert await running.status(f"{SERVICE}/b") == SERVING
    running.store.unloadable = ""
    await running.until_status("live", SERVING)


async def test_a_split_and_what_the_answer_tells(start: Start) -> None:
    running = await start(split=("b=0.3", "c=0.2"))
    keys = [f"user-{number}" for number in range(200)]
    channels = [(await running.ask(split_key=key)).channel for key in keys]
    assert [(await running.ask(split_key=key)).channel for key in keys] == channels
    assert {name: channels.count(name) / 200 for name in channels} == pytest.approx(
        {"live": 0.5, "b": 0.3, "c": 0.2}, abs=0.1
    )
    in_b = keys[channels.index("b")]
    assert list((await running.ask(split_key=in_b)).results[0].item_ids) == running.best(1)
    explained = await running.recall.Explain(recall_pb2.ExplainRequest(user=USER, top_k=10, split_key=in_b))
    assert (explained.channel, list(explained.candidates.item_ids)) == ("b", running.best(1))
    assert (await running.ask("c", split_key=in_b)).channel == "c"
    shares = {each.name: each.split for each in (await running.info()).channels}
    assert shares == pytest.approx({"live": 0.5, "b": 0.3, "c": 0.2})
    other = await start(split=("b=0.3", "c=0.2"))
    assert [(await other.ask(split_key=key)).channel for key in keys[:20]] == channels[:20]


async def test_pages_stay_in_the_channel_of_the_first_one(start: Start) -> None:
    running = await start(split=("b=1",))
    first = await running.ask(split_key="ann", paged=True)
    assert first.channel == "b"
    other = await start()  # the same server after a restart without the split
    second = await other.ask(split_key="ann", page_token=first.next_page_token)
    assert second.channel == "b"
    found = [*first.results[0].item_ids, *second.results[0].item_ids]
    assert found == running.best(1, 20)
    for wrong in ({"split_key": "bob"}, {"split_key": "ann", "channel": "c"}, {"split_key": "ann", "channel": "b"}):
        reason = (await failure(other.ask(page_token=first.next_page_token, **wrong)))[1]
        assert reason == "PAGE_TOKEN_INVALID"


async def test_a_page_of_a_channel_is_not_one_of_another(start: Start) -> None:
    running = await start()
    first = await running.ask("b", paged=True)
    second = await running.ask("b", page_token=first.next_page_token)
    assert (second.channel, [*first.results[0].item_ids, *second.results[0].item_ids]) == ("b", running.best(1, 20))
    forged = first.next_page_token.replace(b"b/items", b"c/items")
    assert (await failure(running.ask("b", page_token=forged)))[1] == "PAGE_TOKEN_INVALID"
    alone = await start("live")
    code, reason, says, _ = await failure(alone.ask("live", page_token=first.next_page_token))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
    split = await start(split=("b=1",))
    of_split = (await split.ask(split_key="ann", paged=True)).next_page_token
    code, reason, says, _ = await failure(alone.ask(split_key="ann", page_token=of_split))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_RELEASE_GONE")
    assert "it serves the channels live" in says


async def test_a_page_of_the_release_before_a_promotion(start: Start) -> None:
    running = await start("live", "b")
    first = await running.ask(paged=True)
    running.store.point("live", running.collections[1])
    await running.until_served("live", running.collections[1])
    second = await running.ask(page_token=first.next_page_token)
    assert second.collection == running.collections[0]
    assert [*first.results[0].item_ids, *second.results[0].item_ids] == running.best(0, 20)


async def test_metrics_tell_channels_apart(start: Start) -> None:
    running = await start("live", "b")
    for channel in ("live", "b", "b"):
        await running.ask(channel)
    await failure(running.ask("b", top_k=0))
    await failure(running.ask("nobody"))
    sample = running.metrics.registry.get_sample_value
    ok = {"method": "Recall", "status": "OK"}
    told = [sample("recall_request_duration_seconds_count", ok | {"channel": name}) for name in ("live", "b")]
    assert told == [1, 2]
    wrong = {"method": "Recall", "status": "INVALID_ARGUMENT"}
    of_b = wrong | {"reason": "TOP_K_OUT_OF_RANGE", "channel": "b"}
    of_nobody = wrong | {"reason": "UNKNOWN_CHANNEL", "channel": ""}
    assert [sample("recall_request_failures_total", labels) for labels in (of_b, of_nobody)] == [1, 1]
    for number, channel in enumerate(("live", "b")):
        served = {"model_version": running.models[number].model_version, "collection": running.collections[number]}
        assert sample("recall_release_info", {"channel": channel} | served) == 1
        assert sample("recall_serving", {"channel": channel}) == 1


async def test_an_operator_reloads_a_channel(start: Start) -> None:
    running = await start("live", "b", watch_interval_s=60)
    running.store.point("b", running.collections[2])
    answer = await running.admin.Reload(admin_pb2.ReloadRequest(channel="b"), **ADMIN)
    assert (answer.channel, answer.collection) == ("b", running.collections[2])
    assert answer.previous_collection == running.collections[1]
    assert (await running.ask("b")).collection == running.collections[2]
    assert (await running.ask()).collection == running.collections[0]
    call = running.admin.Reload(admin_pb2.ReloadRequest(channel="d"), **ADMIN)
    assert (await failure(call))[1] == "UNKNOWN_CHANNEL"


async def test_the_collection_of_no_channel_is_dropped_by_mistake(start: Start) -> None:
    running = await start("live", "b")  # c exists and is not served here
    for name in running.collections:
        call = running.admin.DropItems(admin_pb2.DropItemsRequest(collection=name), **ADMIN)
        assert (await failure(call))[1] == "COLLECTION_IS_LIVE"
    running.store.point("c", None)
    dropped = await running.admin.DropItems(admin_pb2.DropItemsRequest(collection=running.collections[2]), **ADMIN)
    assert dropped.dropped_count == 200
