import asyncio
from concurrent import futures

import grpc
import grpc.aio
import pytest

from clients import (
    AsyncRecallClient,
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
    ids_of,
)
from protos.recall.v1 import recall_pb2
from tests.canned_recall import INFO, CannedRecall, running

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "going away", ())


def overloaded(pushback_ms: str) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    metadata = (("error-reason", "OVERLOADED"), ("grpc-retry-pushback-ms", pushback_ms))
    return grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full", metadata


@pytest.fixture
async def servicer():
    return CannedRecall()


@pytest.fixture
async def target(servicer):
    server = grpc.aio.server(migration_thread_pool=futures.ThreadPoolExecutor(8))
    port = servicer.add_to(server)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def client(target):
    async with AsyncRecallClient(target, timeout_s=5, token="secret", max_users=2) as client:
        yield client


async def test_every_method_against_a_server(client, servicer):
    result = await client.recall([[43, 23], []], top_k=2, exclude_item_ids=[[5], []], exclude_history=True)
    assert list(result.results[0].item_ids) == [24, 25]
    assert result.results[1].status == recall_pb2.USER_STATUS_EMPTY_HISTORY
    request, metadata, _ = servicer.calls["Recall"][0]
    assert list(request.users[0].exclude_item_ids) == [5]
    assert request.exclude_history
    assert metadata["authorization"] == "Bearer secret"
    assert (await client.count_items()).count == 3706
    assert (await client.count_items("year > 1990")).count == 12
    assert await client.get_server_info() == INFO
    assert list((await client.explain([43, 65], top_k=4)).used_hist_item) == [43, 65]
    assert list((await client.get_items(["KIT-1"], return_attributes=["title"])).attributes[0].texts) == ["Film 0"]
    assert (await client.drop_items("items_aa11")).collection == "items_aa11"
    assert (await client.reload()).previous_model_version == "aa11"
    assert await client.is_serving()


async def test_a_split_batch_runs_side_by_side_and_keeps_its_order(client, servicer):
    servicer.delay_s = 0.05
    result = await client.recall([[user] for user in range(20)], top_k=1)  # ten requests of two users
    assert [candidates.item_ids[0] for candidates in result.results] == list(range(1, 21))
    assert len(servicer.calls["Recall"]) == 10
    assert 2 <= servicer.most_at_once <= 4


async def test_a_release_in_the_middle_of_a_batch_shows(client, servicer):
    servicer.model_versions = ["aa11", "ab12"]
    result = await client.recall([[1], [2], [3]], top_k=1)
    assert sorted(result.model_versions) == ["aa11", "ab12"]


async def test_one_failed_request_fails_the_batch(client, servicer):
    servicer.failures = [(grpc.StatusCode.INVALID_ARGUMENT, "bad filter", (("error-reason", "INVALID_FILTER"),))]
    with pytest.raises(InvalidRequestError) as caught:
        await client.recall([[user] for user in range(20)], top_k=1)
    assert caught.value.reason == "INVALID_FILTER"


async def test_an_unavailable_server_is_asked_again(client, servicer):
    servicer.failures = [UNAVAILABLE]
    assert (await client.count_items()).count == 3706
    attempts = [metadata.get("grpc-previous-rpc-attempts") for _, metadata, _ in servicer.calls["CountItems"]]
    assert attempts == [None, "1"]


async def test_the_fourth_attempt_is_the_last(client, servicer):
    servicer.failures = [UNAVAILABLE] * 5
    with pytest.raises(UnavailableError, match="going away"):
        await client.count_items()
    assert len(servicer.calls["CountItems"]) == 4


async def test_an_overloaded_server_sets_the_pause(client, servicer):
    servicer.failures = [overloaded("300")]
    assert (await client.count_items()).count == 3706
    first, second = (arrival_s for _, _, arrival_s in servicer.calls["CountItems"])
    assert second - first >= 0.3  # the policy's own first pause is 0.05 s


async def test_an_overloaded_server_can_forbid_another_attempt(client, servicer):
    servicer.failures = [overloaded("-1")]
    with pytest.raises(OverloadedError) as caught:
        await client.count_items()
    assert (caught.value.reason, caught.value.retry_after_s) == ("OVERLOADED", None)
    assert len(servicer.calls["CountItems"]) == 1


async def test_the_last_refusal_says_when_to_come_back(client, servicer):
    servicer.failures = [overloaded("10")] * 4
    with pytest.raises(OverloadedError) as caught:
        await client.count_items()
    assert caught.value.retry_after_s == 0.01


async def test_administration_is_never_tried_again(client, servicer):
    servicer.failures = [UNAVAILABLE]
    with pytest.raises(UnavailableError):
        await client.drop_items("items_aa11")
    assert len(servicer.calls["DropItems"]) == 1


async def test_the_deadline_covers_the_whole_split_batch(client, servicer):
    servicer.delay_s = 0.2
    with pytest.raises(DeadlineExceededError):
        await client.recall([[user] for user in range(40)], top_k=1, timeout_s=0.5)  # 20 requests, 4 at a time: 1 s


def test_a_client_made_outside_a_loop_works_in_every_loop():
    client = AsyncRecallClient(timeout_s=5)  # as at import time

    async def ask(servicer: CannedRecall) -> list[int]:
        server = grpc.aio.server()
        client._target = f"127.0.0.1:{servicer.add_to(server)}"
        await server.start()
        try:
            return list((await client.recall([[43]], top_k=2)).results[0].item_ids)
        finally:
            await client.close()
            await server.stop(None)

    for _ in range(2):
        assert asyncio.run(ask(CannedRecall())) == [44, 45]


def test_a_client_that_nobody_closes_works_in_the_next_loop():
    """As at the top of a module of an application, or in a notebook."""
    with running(CannedRecall()) as target:
        client = AsyncRecallClient(target, timeout_s=5)

        async def ask() -> list[int]:
            return list((await client.recall([[43]], top_k=2)).results[0].item_ids)

        assert [asyncio.run(ask()) for _ in range(2)] == [[44, 45], [44, 45]]


async def test_loops_of_two_threads_share_a_client(target):
    client = AsyncRecallClient(target, timeout_s=5)

    async def ask() -> int:
        return (await client.count_items()).count

    found = await asyncio.gather(*(asyncio.to_thread(asyncio.run, ask()) for _ in range(3)), ask())
    assert found == [3706] * 4
    await client.close()


async def test_text_ids_go_out_and_come_back_as_they_are(client, servicer):
    servicer.keyed = True
    result = await client.recall([["a", "0042"], [], ["<b>"]], top_k=1, exclude_item_ids=[["5"], [], []])
    assert result.item_ids == [["0042+1"], ["TOP-7"], ["<b>+1"]]
    explained = await client.explain(["0042"], top_k=4, exclude_item_ids=["5"])
    assert ids_of(explained, "used_hist_item") == ["0042"]
    assert [ids_of(hit, "item_id") for hit in explained.dropped] == ["99"] * 4
    written = await client.upsert_users({"ann": ["a", "b"]}, append_item_ids={"bob": ["c"]})
    assert [one.history_length for one in written.results] == [2, 1]
    with pytest.raises(InvalidRequestError, match=r"users\[0\].hist_item: ids of the other kind"):
        await client.recall([[43]], top_k=1)
