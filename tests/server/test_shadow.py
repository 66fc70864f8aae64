"""A shadow channel is asked after live has answered, one request at a time, and whatever happens there is counted."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mind.artifact import load_artifact
from mind.encoder import NumpyEncoder
from mind.transfer import Models
from protos.recall.v1 import recall_pb2
from server.channels import Channels
from server.edge import shadow
from server.edge.request import read_recall
from server.edge.shadow import OUTCOMES, Shadow
from server.edge.shadow_report import summaries
from server.errors import StoreError, StoreTimeoutError
from server.instrumentation import make_metrics
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from server.serving.item_keys import ItemKeys
from server.serving.pipeline import CandidatePipeline
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.waiting import until

USERS = [recall_pb2.User(hist_item=[1000, 1007]), recall_pb2.User(hist_item=[1014]), recall_pb2.User()]


class Call:
    """The context of a call, which ends when the test says so."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def end(self) -> None:
        for callback in self._callbacks:
            callback(self)


class World:
    """The channels live and b, on one store."""

    def __init__(self, folder: Path, encode_on: ThreadPoolExecutor) -> None:
        self.folder, self.store, self.encode_on = folder, FakeStore(), encode_on
        self.settings = Settings(search_timeout_ms=2000, channel=("live", "b"))
        loader = Loader(self.store, Models(folder), lambda each: NumpyEncoder(each.weights, each.hyper_parameters))
        self.channels = Channels([Releases(self.store, loader, channel) for channel in ("live", "b")])
        self.busy = False
        self.metrics = make_metrics()
        self.shadow = self.make({"b": 1.0})

    def make(self, shares: dict[str, float]) -> Shadow:
        pipeline = CandidatePipeline(self.store, self.encode_on, search_timeout_ms=self.settings.search_timeout_ms)
        how = self.settings, self.channels, pipeline, lambda: self.busy, self.metrics.shadow
        return Shadow(shares, *how)

    def release_of(self, channel: str) -> Release:
        return self.channels.of(channel).current

    async def release(self, channel: str, **shape: Any) -> Release:
        """Release a model in a channel."""
        return await self.point(
            channel, self.store.publish(load_artifact(make_artifact(self.folder, **shape)), channel)
        )

    async def point(self, channel: str, collection: str) -> Release:
        """Release a collection in a channel."""
        self.store.point(channel, collection)
        _, release = await self.channels.of(channel).check()
        return release

    async def summary(self) -> recall_pb2.ShadowSummary:
        [summary] = await summaries(self.shadow, self.channels, ItemKeys(self.store))
        return summary

    async def answer(
        self, request: recall_pb2.RecallRequest, shadow: Shadow | None = None, plain: bool = False
    ) -> Call:
        """Answer a live request and offer it; it is sent when the caller ends the call.

        `plain`: live answers without the options of the request.
        """
        live, call = self.release_of("live"), Call()
        answered = recall_pb2.RecallRequest(users=request.users, top_k=request.top_k) if plain else request
        query = read_recall(answered, self.settings, live)
        pipeline = CandidatePipeline(self.store, self.encode_on)
        outcome = await pipeline.run(live, query, None)
        (shadow or self.shadow).offer(call, request, live, query, outcome)  # type: ignore[arg-type]
        return call

    async def asked(self, request: recall_pb2.RecallRequest, plain: bool = False) -> dict[str, int]:
        """What became of a request, with the end of the shadow's work on it."""
        before = sum(self.shadow.outcomes["b"].values())
        (await self.answer(request, plain=plain)).end()
        await until(lambda: sum(self.shadow.outcomes["b"].values()) > before)
        return {outcome: count for outcome, count in self.shadow.outcomes["b"].items() if count}


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one request follow the other, except where a test says otherwise."""
    monkeypatch.setattr(shadow, "REST", 0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with ThreadPoolExecutor(1) as encode_on:
        world = World(tmp_path, encode_on)
        await world.release("live", seed=0)
        await world.release("b", seed=1)
        yield world
        world.store.let_go()
        await world.shadow.close()


def request(**options: Any) -> recall_pb2.RecallRequest:
    return recall_pb2.RecallRequest(**({"users": USERS, "top_k": 10} | options))


async def test_b_is_asked_after_the_answer_was_sent(world: World) -> None:
    call = await world.answer(request())
    before = list(world.store.searches)
    await asyncio.sleep(0.05)
    assert world.store.searches == before
    call.end()
    await until(lambda: world.shadow.outcomes["b"]["compared"] == 1)
    assert len(world.store.searches) == len(before) + 1


async def test_the_lists_are_compared(world: World) -> None:
    assert await world.asked(request()) == {"compared": 1}
    seen = world.shadow.seen["b"]
    assert (seen.live, seen.shadow) == (world.release_of("live").collection, world.release_of("b").collection)
    report = seen.figures.report()
    assert (report.counts["users_both"], report.counts["users_neither"]) == (2, 1)
    assert report.values["overlap"].count == 2
    assert report.values["overlap"].mean < 0.5  # another random model over the same items
    assert report.counts["candidates"] == 30
    assert report.counts["new_candidates"] == 0
    assert report.values["shadow_ms"].count == 1


async def test_the_same_model_in_another_collection_gives_the_same_lists(world: World) -> None:
    name = "items_copy"
    world.store.collections[name] = world.store.collections[world.release_of("live").collection]
    await world.point("b", name)
    assert await world.asked(request()) == {"compared": 1}
    report = world.shadow.seen["b"].figures.report()
    assert report.values["overlap"].mean == report.values["rbo"].mean == 1
    assert report.gained == report.lost == []
    assert report.values["score_ratio"].mean == pytest.approx(1)


async def test_items_that_live_does_not_know_are_counted(world: World) -> None:
    await world.release("b", seed=1, items=300)
    await world.asked(request())
    found = world.shadow.seen["b"].figures.report().counts["new_candidates"]
    assert 0 < found < 30


async def test_options_reach_the_shadow_channel(world: World) -> None:
    await world.asked(request(filter="item_id < 1070"))
    report = world.shadow.seen["b"].figures.report()
    assert report.values["overlap"].mean == 1  # ten items match
    await world.asked(request(exclude_history=True, filter="item_id < 1070"))
    assert world.shadow.seen["b"].figures.report().counts["shadow_short"] == 2


async def test_one_request_at_a_time(world: World) -> None:
    world.store.hold(world.release_of("b").collection)
    (await world.answer(request())).end()
    await until(lambda: world.store.held == 1)
    for _ in range(3):
        (await world.answer(request())).end()  # live is not held
    assert world.shadow.outcomes["b"]["busy"] == 3
    assert world.store.held == 1
    world.store.let_go()
    await until(lambda: world.shadow.outcomes["b"]["compared"] == 1)
    assert await world.asked(request()) == {"compared": 2, "busy": 3}


async def test_it_rests_nine_times_as_long_as_it_works(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 100.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(shadow, "time", clock)
    monkeypatch.setattr(shadow, "REST", 9)
    world.store.hold(world.release_of("b").collection)
    (await world.answer(request())).end()
    await until(lambda: world.store.held == 1)
    clock.now += 2
    world.store.let_go()
    await until(lambda: world.shadow.outcomes["b"]["compared"] == 1)
    clock.now = 119.9
    (await world.answer(request())).end()
    assert world.shadow.outcomes["b"] == world.shadow.outcomes["b"] | {"compared": 1, "busy": 1}
    clock.now = 120.1
    assert await world.asked(request()) == {"compared": 2, "busy": 1}


async def test_two_answers_that_are_sent_at_once(world: World) -> None:
    calls = [await world.answer(request()) for _ in range(2)]
    for call in calls:
        call.end()
    assert world.shadow.outcomes["b"]["busy"] == 1
    await until(lambda: world.shadow.outcomes["b"]["compared"] == 1)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_busy_server_does_not_ask(world: World, when: str) -> None:
    world.busy = when == "before"
    call = await world.answer(request())
    world.busy = True
    before = list(world.store.searches)
    call.end()
    await asyncio.sleep(0.02)
    assert world.shadow.outcomes["b"]["busy"] == 1
    assert world.store.searches == before


async def test_a_shadow_that_hangs_is_given_up(world: World) -> None:
    world.settings = Settings(search_timeout_ms=50)
    world.shadow = world.make({"b": 1.0})
    world.store.hold(world.release_of("b").collection)
    assert await world.asked(request()) == {"timeout": 1}
    assert await world.asked(request()) == {"timeout": 2}  # and the next one may try


async def test_failures_are_counted_and_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    call = await world.answer(request())
    world.store.fault = StoreError("Milvus (code 65535): secret filter")
    call.end()
    await until(lambda: world.shadow.outcomes["b"]["failed"] == 1)
    world.store.fault = None
    call = await world.answer(request())
    world.store.fault = StoreError("Milvus (code 65535): another")
    call.end()
    await until(lambda: world.shadow.outcomes["b"]["failed"] == 2)
    [line] = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert line == f"requests to the shadow channel b fail: {StoreError.reason}"


async def test_a_mistake_of_ours_is_logged_with_its_place(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("server.edge.shadow.compared", fail)
    assert await world.asked(request()) == {"failed": 1}
    assert caplog.records[-1].exc_info


async def test_timeouts_of_milvus_are_timeouts(world: World) -> None:
    call = await world.answer(request())
    world.store.fault = StoreTimeoutError("Milvus did not answer within 2 s")
    call.end()
    await until(lambda: world.shadow.outcomes["b"]["timeout"] == 1)


@pytest.mark.parametrize(
    ("options", "shape", "outcome"),
    [
        ({"filter": "year > 1990"}, {}, "attributes"),
        ({"return_attributes": ["year"]}, {}, "attributes"),
        ({"at_most": [{"attribute": "year", "count": 2}]}, {}, "attributes"),
        ({"per_interest_min": 2}, {"interests": 8}, "refused"),
        ({}, {"keyed": True}, "id_type"),
        ({}, {"seed": 0}, "same"),
        ({"page_token": b"1"}, {}, "page"),
    ],
)
async def test_why_a_request_is_not_compared(
    world: World, options: dict[str, Any], shape: dict[str, Any], outcome: str
) -> None:
    await world.release("b", **({"seed": 1} | shape))
    if outcome == "same":
        await world.point("b", world.release_of("live").collection)
    assert await world.asked(request(**options), plain=True) == {outcome: 1}


async def test_a_channel_without_a_release(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as encode_on:
        world = World(tmp_path, encode_on)
        await world.release("live")
        assert await world.asked(request()) == {"not_ready": 1}
        summary = await world.summary()
    assert {each.outcome: each.requests for each in summary.outcomes} == dict.fromkeys(OUTCOMES, 0) | {"not_ready": 1}
    assert not summary.since_ms


async def test_an_answer_of_a_release_before_is_not_drawn(world: World) -> None:
    before = world.release_of("live")
    query = read_recall(request(), world.settings, before)
    outcome = await CandidatePipeline(world.store, world.encode_on).run(before, query, None)
    await world.release("live", seed=3)
    call = Call()
    world.shadow.offer(call, request(), before, query, outcome)  # type: ignore[arg-type]
    call.end()
    assert not any(world.shadow.outcomes["b"].values())


async def test_a_share_of_the_requests_is_drawn(world: World) -> None:
    shadow = world.make({"b": 0.25})
    world.busy = True  # each drawn request counts at once
    calls = [await world.answer(request(users=USERS[2:], top_k=1), shadow) for _ in range(400)]
    assert len(calls) == 400
    assert 60 <= shadow.outcomes["b"]["busy"] <= 140  # 4.6 standard deviations around 100


async def test_figures_begin_again_with_another_release(world: World) -> None:
    await world.asked(request())
    await world.release("b", seed=2)
    summary = await world.summary()
    assert not summary.since_ms  # what was seen is of a release that the channel does not have any more
    await world.asked(request())
    await world.asked(request())
    summary = await world.summary()
    assert (summary.overlap.count, summary.shadow_ms.count) == (4, 2)
    assert summary.collection == world.release_of("b").collection


async def test_the_summary(world: World) -> None:
    await world.asked(request())
    summary = await world.summary()
    assert (summary.channel, summary.live_channel, summary.share) == ("b", "live", 1)
    assert summary.live_collection == world.release_of("live").collection
    assert summary.live_model_version == world.release_of("live").model_version
    assert (summary.users_both, summary.users_neither, summary.candidates) == (2, 1, 30)
    assert 0 <= summary.overlap.p05 <= summary.overlap.p50 <= summary.overlap.p95 <= 1
    assert summary.latency_ratio.mean > 0
    assert len(summary.gained) == len(summary.lost) == 10
    assert all(item.lists > 0 and item.item_id for item in summary.gained)
    assert all(item.lists < 0 for item in summary.lost)


async def test_items_of_text_ids_have_their_keys(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as encode_on:
        world = World(tmp_path, encode_on)
        await world.release("live", seed=0, keyed=True)
        await world.release("b", seed=1, keyed=True)
        users = [recall_pb2.User(hist_item_keys=["KIT-1", "KIT-2"])]
        assert await world.asked(request(users=users)) == {"compared": 1}
        summary = await world.summary()
        assert {item.item_key[:4] for item in (*summary.gained, *summary.lost)} == {"KIT-"}


async def test_metrics(world: World) -> None:
    def value(name: str, **labels: str) -> float | None:
        return world.metrics.registry.get_sample_value(name, {"channel": "b"} | labels)

    assert value("recall_shadow_requests_total", outcome="compared") == 0
    await world.asked(request())
    assert value("recall_shadow_requests_total", outcome="compared") == 1
    assert value("recall_shadow_users_total", channels="both") == 2
    assert value("recall_shadow_users_total", channels="neither") == 1
    assert value("recall_shadow_overlap_ratio_count") == value("recall_shadow_rbo_ratio_count") == 2
    assert value("recall_shadow_latency_ratio_count") == 1
    assert value("recall_shadow_new_candidates_total") == 0
    for name in ("recall_users_total", "recall_queue_wait_seconds_count", "recall_batch_users_count"):
        found = [
            sample.value
            for family in world.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name
        ]
        assert not any(found), name


async def test_closing_ends_what_is_asked(world: World) -> None:
    world.store.hold(world.release_of("b").collection)
    (await world.answer(request())).end()
    await until(lambda: world.store.held == 1)
    await asyncio.wait_for(world.shadow.close(), 5)
    assert not any(world.shadow.outcomes["b"].values())
    world.store.let_go()
    (await world.answer(request())).end()  # an answer that was being sent
    await asyncio.sleep(0.02)
    assert not world.shadow.outcomes["b"]["compared"]
