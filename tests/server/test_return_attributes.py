"""Candidates with their attributes, through real gRPC and the shipped client."""

import asyncio
from typing import Any

import grpc
import pytest

from clients import AsyncRecallClient, attributes_of
from clients.plain import to_plain
from protos.recall.v1 import recall_pb2
from server.edge import answers
from tests.server.test_server import USER, Running, Start, failure
from tests.server.test_server import start as start

GENRES = {0: ("a", "b"), 1: (), 2: None}


@pytest.fixture
async def shop(start: Start) -> Running:
    """A server whose items have attributes of all types; of each, some items have no value."""
    running = await start()
    for name, kind, value in (
        ("year", "INT64", lambda item: item),
        ("price", "DOUBLE", lambda item: item / 8),
        ("title", "VARCHAR", lambda item: f"item {item}"),
        ("in_stock", "BOOL", lambda item: item % 2 == 0),
        ("genres", "ARRAY<VARCHAR>", lambda item: GENRES[item % 3]),
    ):
        items = range(1000, 1000 + 7 * 200, 7)
        running.store.give(running.collection, name, kind, {item: value(item) for item in items if item % 5})
    return running


def expected(name: str, item: int) -> Any:
    value = {"year": item, "price": item / 8, "title": f"item {item}", "in_stock": item % 2 == 0}
    found = value[name] if name in value else GENRES[item % 3]
    return None if item % 5 == 0 or found is None else list(found) if isinstance(found, tuple) else found


async def test_each_candidate_comes_with_its_attributes(shop: Running) -> None:
    names = ["genres", "price", "in_stock", "title", "year"]
    users = [USER, recall_pb2.User(), recall_pb2.User(hist_item=[1014])]
    request = recall_pb2.RecallRequest(users=users, top_k=20, return_attributes=names)
    for _ in range(3):  # read for these items at first, then from columns
        answer = await shop.recall.Recall(request)
        assert answer.attributes_detail == ""
        for result in answer.results:
            found = attributes_of(result)
            assert list(found) == names
            for name, values in found.items():
                assert values == [expected(name, item) for item in result.item_ids], name
            assert to_plain(result)["attributes"] == found
        await asyncio.sleep(0.06)


async def test_nothing_is_read_for_requests_without_attributes(shop: Running) -> None:
    answer = await shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    assert not answer.results[0].attributes
    assert shop.store.value_reads == []


async def test_explain_tells_the_attributes_too(shop: Running) -> None:
    answer = await shop.recall.Explain(recall_pb2.ExplainRequest(user=USER, top_k=5, return_attributes=["year"]))
    item_ids = answer.candidates.item_ids
    assert attributes_of(answer.candidates) == {"year": [expected("year", item) for item in item_ids]}


async def test_any_items_can_be_asked_for(shop: Running) -> None:
    item_ids = [1014, 1007, 1010, 5, 1014]  # one that a multiple of 5, and two that the collection does not have
    request = recall_pb2.GetItemsRequest(item_ids=item_ids, return_attributes=["title", "genres"])
    for _ in range(3):
        answer = await shop.recall.GetItems(request)
        assert list(answer.item_ids) == item_ids and answer.collection == shop.collection
        there = [item if item in (1014, 1007) else 0 for item in item_ids]
        for name, values in attributes_of(answer).items():
            assert values == [expected(name, item) for item in there], name
        await asyncio.sleep(0.06)


@pytest.mark.parametrize(
    ("request_", "field", "said"),
    [
        ({}, "item_ids", "is empty; a request has 1 item or more"),
        ({"item_ids": [7] * 257}, "item_ids", "has 257 ids, the limit is 256"),
        ({"item_keys": ["a"]}, "item_keys", "has 1 ids, but the ids of this release are integers"),
        ({"item_ids": [7], "return_attributes": ["yaer"]}, "return_attributes[0]", "'yaer' is unknown"),
    ],
)
async def test_items_that_cannot_be_told_are_refused(
    shop: Running, request_: dict[str, Any], field: str, said: str
) -> None:
    code, _, message, _ = await failure(shop.recall.GetItems(recall_pb2.GetItemsRequest(**request_)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith(f"{field}: ") and said in message


@pytest.mark.parametrize(
    ("names", "field", "said"),
    [
        (["year", "yaer"], "return_attributes[1]", "'yaer' is unknown; the attributes are vector_source, year, price"),
        (["year", "year"], "return_attributes[1]", "'year' is there twice"),
        (["year__present"], "return_attributes[0]", "'year__present' is unknown"),
        (["item_id"], "return_attributes[0]", "'item_id' is unknown"),
        ([f"a{number}" for number in range(17)], "return_attributes", "has 17 names, the limit is 16"),
    ],
)
async def test_names_that_cannot_be_returned_are_refused(
    shop: Running, names: list[str], field: str, said: str
) -> None:
    for call in (
        shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5, return_attributes=names)),
        shop.recall.Explain(recall_pb2.ExplainRequest(user=USER, top_k=5, return_attributes=names)),
    ):
        code, _, message, details = await failure(call)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert said in message
        assert field in str(details)


async def test_an_answer_that_grows_too_large_is_refused(shop: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWER_BYTES", 1_000)
    request = recall_pb2.RecallRequest(users=[USER], top_k=100, return_attributes=["title"])
    code, reason, message, _ = await failure(shop.recall.Recall(request))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ANSWER_TOO_LARGE")
    assert "the limit is 1,000; ask for fewer users, candidates or attributes at once" in message


async def test_the_client_gives_plain_values_and_splits_batches_by_them(shop: Running) -> None:
    async with AsyncRecallClient(f"127.0.0.1:{shop.server.port}", timeout_s=30, max_candidates=40) as client:
        found = await client.recall([[1000]] * 4, top_k=10, return_attributes=["title"])
    assert len(found.timings) == 2  # 20 candidates and 20 values in each request
    assert found.attributes_detail == ""
    assert [one["title"] for one in found.attributes] == [
        [expected("title", item) for item in items] for items in found.item_ids
    ]


async def test_attributes_that_milvus_does_not_tell_are_left_out_and_the_reason_told(
    shop: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(shop.store, "values", silent)
    request = recall_pb2.RecallRequest(users=[USER], top_k=5, return_attributes=["year"])
    answer = await shop.recall.Recall(request, timeout=2)
    assert len(answer.results[0].item_ids) == 5
    assert not answer.results[0].attributes
    assert answer.attributes_detail.startswith("Milvus did not tell them within")
