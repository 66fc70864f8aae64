"""SimilarItems through real gRPC, on an exact store in memory: what is asked, refused, batched and counted."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from clients import attributes_of
from mind.artifact import load_artifact, write_artifact
from protos.recall.v1 import recall_pb2
from server.errors import StoreUnavailableError
from server.instrumentation import make_metrics
from server.serving import breaker, similar_batches
from server.watching.telemetry import SILENT, Telemetry
from tests.artifacts import hyper_parameters_of, make_weights, with_neighbours
from tests.server.test_offload import Threads
from tests.server.test_server import Start, failure
from tests.server.test_server import start as start
from tests.server.test_text_ids import Start as StartKeyed
from tests.server.test_text_ids import start as start_keyed
from tests.waiting import until
from tests.watched_server import watched

__all__ = ["start", "start_keyed"]

OK, UNKNOWN = recall_pb2.ITEM_STATUS_OK, recall_pb2.ITEM_STATUS_UNKNOWN
INVALID, DEGRADED = recall_pb2.ITEM_STATUS_INVALID, recall_pb2.ITEM_STATUS_DEGRADED
Query, Request = recall_pb2.ItemQuery, recall_pb2.SimilarItemsRequest


async def similar(running: Any, *queries: Query, top_k: int = 5, **options: Any) -> list[recall_pb2.SimilarItems]:
    stub = getattr(running, "recall", None)
    if not hasattr(stub, "SimilarItems"):
        stub = running.stub
    answer = await stub.SimilarItems(Request(queries=queries, top_k=top_k, **options), timeout=20)
    return list(answer.results)


async def test_queries_are_answered_in_request_order_and_told_what_answered(start: Start) -> None:
    running = await start()
    queries = [
        Query(item_ids=[1000]),
        Query(item_ids=[5, 6]),
        Query(),
        Query(item_ids=[6, 1007, 5, 1000], exclude_item_ids=[1014]),
        Query(item_ids=[1000] * 101),
        Query(item_ids=[1000], exclude_item_ids=[1] * 1_001),
    ]
    answer = await running.recall.SimilarItems(Request(queries=queries, top_k=7))
    assert [found.status for found in answer.results] == [OK, UNKNOWN, INVALID, OK, INVALID, INVALID]
    assert [len(found.item_ids) for found in answer.results] == [7, 0, 0, 7, 0, 0]
    assert [found.detail for found in answer.results[2:]] == [
        "item_ids is empty, must have 1 id or more",
        "",
        "item_ids has 101 ids, the limit is 100",
        "exclude_item_ids has 1001 ids, the limit is 1000",
    ]
    assert [list(found.unknown) for found in answer.results] == [[], [0, 1], [], [0, 2], [], []]
    assert not set(answer.results[3].item_ids) & {1000, 1007, 1014}
    scores = list(answer.results[0].scores)
    assert scores == sorted(scores, reverse=True) and max(scores) <= 1
    assert (answer.collection, answer.model_version in answer.collection) == (running.collection, True)
    assert answer.timings.total_ms >= answer.timings.search_ms > 0


async def test_the_order_is_that_of_cosines_not_of_inner_products(start: Start) -> None:
    running = await start()
    table = running.store.collections[running.collection].vectors.astype(np.float64)
    units = table / np.linalg.norm(table, axis=1, keepdims=True)
    [found] = await similar(running, Query(item_ids=[1000]), top_k=199)
    expected = [1000 + 7 * row for row in np.argsort(-units @ units[0], kind="stable").tolist() if row]
    assert list(found.item_ids) == expected
    by_product = [1000 + 7 * row for row in np.argsort(-table @ table[0], kind="stable").tolist() if row]
    assert expected != by_product


async def test_fresh_items_are_answers_and_are_asked_about_and_deleted_ones_are_asked_about(start: Start) -> None:
    running = await start()
    vector = running.store.collections[running.collection].vectors[0]
    running.store.delete(running.collection, [1000, 1007])
    running.store.add(running.collection, 42, 3 * vector)

    async def asked() -> list[recall_pb2.SimilarItems]:
        return await similar(running, Query(item_ids=[42]), Query(item_ids=[1000]), top_k=199)

    fresh, deleted = await asked()
    assert [found.status for found in (fresh, deleted)] == [OK, OK]
    assert len(fresh.item_ids) == 198 and deleted.item_ids[0] == 42
    assert list(deleted.item_ids[1:]) == list(fresh.item_ids)
    assert not {1000, 1007, 42} & set(fresh.item_ids)
    running.store.delete(running.collection, [42])
    async with asyncio.timeout(20):
        while (found := (await asked())[0]).status != UNKNOWN:
            await asyncio.sleep(0.05)
    assert (found.detail, list(found.unknown)) == ("neither the model nor the collection knows one of the items", [0])


async def test_filters_hold_for_answers_alone_and_attributes_come_with_them(start: Start) -> None:
    running = await start()
    running.store.give(running.collection, "year", "INT64", {1000 + 7 * row: row for row in range(200) if row != 150})
    everything, found = [
        (await similar(running, Query(item_ids=[1000]), top_k=199, filter=filter_, return_attributes=["year"]))[0]
        for filter_ in ("", "item_id > 2000")
    ]
    assert list(found.item_ids) == [item for item in everything.item_ids if item > 2000]
    assert "match the filter" in found.detail
    years = [None if item == 1000 + 7 * 150 else (item - 1000) // 7 for item in found.item_ids]
    assert attributes_of(found) == {"year": years}


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"queries": []}, "EMPTY_BATCH", "queries: is empty; a request has 1 query or more"),
        ({"queries": [Query()] * 257}, "TOO_MANY_QUERIES", "queries: has 257 queries, the limit is 256"),
        ({"top_k": 0}, "TOP_K_OUT_OF_RANGE", "top_k: is 0, must be 1 to 1000"),
        (
            {"queries": [Query()] * 200, "top_k": 1_000},
            "TOO_MANY_CANDIDATES",
            "200 queries times 1000 similar ones is 200000, the limit is 150000; send fewer queries at once",
        ),
        ({"by": 7}, "UNKNOWN_SOURCE", "by: is 7, must be 0 to 3"),
        (
            {"by": recall_pb2.SOURCE_NEIGHBOURS},
            "NO_NEIGHBOURS",
            "by: is SOURCE_NEIGHBOURS, but the model of the release",
        ),
        ({"filter": "("}, None, "filter"),
        ({"filter": "x" * 2_001}, "FILTER_TOO_LONG", "filter: has 2001 characters"),
        ({"return_attributes": ["yaer"]}, "UNKNOWN_ATTRIBUTE", "'yaer' is unknown"),
        ({"queries": [Query(item_keys=["KIT-1"])]}, "WRONG_ID_TYPE", "queries[0].item_keys: has 1 ids, but the ids"),
    ],
)
async def test_what_breaks_a_limit_is_refused(start: Start, changes: dict[str, Any], reason: str, says: str) -> None:
    running = await start()
    request = Request(**({"queries": [Query(item_ids=[1000])], "top_k": 5} | changes))
    code, told, message, _ = await failure(running.recall.SimilarItems(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert says in message
    assert reason in (None, told)


async def test_a_model_without_neighbours_answers_both_by_embedding(start: Start) -> None:
    running = await start()
    [embedding] = await similar(running, Query(item_ids=[1000]))
    [both] = await similar(running, Query(item_ids=[1000]), by=recall_pb2.SOURCE_BOTH)
    assert list(both.item_ids) == list(embedding.item_ids)
    assert list(both.weights) == [0] * 5 and not embedding.weights


async def test_neighbours_through_the_wire(start_keyed: StartKeyed, tmp_path: Path) -> None:
    weights = with_neighbours(make_weights())
    artifact = load_artifact(write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {}))
    running = await start_keyed(artifact=artifact)
    [near] = await similar(running, Query(item_ids=[1000]), by=recall_pb2.SOURCE_NEIGHBOURS)
    assert set(near.source) == {recall_pb2.SOURCE_NEIGHBOURS}
    assert list(near.weights) == sorted(near.weights, reverse=True) and len(near.weights) == 5
    [both] = await similar(running, Query(item_ids=[1000]), by=recall_pb2.SOURCE_BOTH, top_k=50)
    assert set(both.source) == {1, 2, 3} or set(both.source) == {1, 3}


async def test_text_ids_answer_what_integers_answer(start_keyed: StartKeyed) -> None:
    keyed, plain = await start_keyed(), await start_keyed(keyed=False)
    asked, left = [[3, 9], [27]], [[5], []]
    of_text = [
        Query(item_keys=keyed.names(*own), exclude_item_keys=keyed.names(*not_own))
        for own, not_own in zip(asked, left, strict=True)
    ]
    of_numbers = [
        Query(item_ids=[1000 + 7 * row for row in own], exclude_item_ids=[1000 + 7 * row for row in not_own])
        for own, not_own in zip(asked, left, strict=True)
    ]
    texts, numbers = await similar(keyed, *of_text, top_k=20), await similar(plain, *of_numbers, top_k=20)
    for text, number in zip(texts, numbers, strict=True):
        assert list(text.item_keys) == keyed.names(*((item - 1000) // 7 for item in number.item_ids))
        assert (text.scores, text.status, list(text.item_ids)) == (number.scores, number.status, [])
    keyed.add("NEW/ü", 3)
    async with asyncio.timeout(20):
        while (fresh := (await similar(keyed, Query(item_keys=["NEW/ü", "nobody"])))[0]).status != OK:
            await asyncio.sleep(0.05)
    assert (fresh.status, fresh.item_keys[0], list(fresh.unknown)) == (OK, keyed.name(3), [1])
    [found] = await similar(keyed, Query(item_keys=keyed.names(3)))
    assert found.item_keys[0] == "NEW/ü"
    empty, wrong = await similar(keyed, Query(), Query(item_keys=["KIT-1", ""]))
    assert empty.detail == "item_keys is empty, must have 1 id or more"
    assert (wrong.status, wrong.detail) == (INVALID, "item_keys[1] has 0 bytes, a key has 1 to 256")


async def test_requests_that_wait_share_a_comparison_in_a_thread(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    go, sizes, compare = threading.Event(), list[int](), similar_batches.similar_items

    def held(release: Any, known: Any, matches: Any, queries: Any, added: Any) -> Any:
        sizes.append(len(queries))
        assert go.wait(20)
        return compare(release, known, matches, queries, added)

    monkeypatch.setattr(similar_batches, "similar_items", held)
    threads = Threads(monkeypatch, (similar_batches, "similar_items"))
    asking = [asyncio.create_task(similar(running, Query(item_ids=[1000])))]
    await until(lambda: sizes == [1])
    asking += [
        asyncio.create_task(similar(running, Query(item_ids=[1000 + 7 * row]), top_k=1 + row)) for row in range(9)
    ]
    await until(lambda: running.in_progress == 10)
    await until(lambda: running.server.similar_items.queued == 9)
    go.set()
    results = [found for [found] in await asyncio.gather(*asking)]
    assert sizes == [1, 9]
    assert [len(found.item_ids) for found in results] == [5, *range(1, 10)]
    assert threading.get_ident() not in threads.of["similar_items"]


async def test_many_items_are_compared_in_parts(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    sizes, compare = list[int](), similar_batches.similar_items

    def counted(release: Any, known: Any, matches: Any, queries: Any, added: Any) -> Any:
        sizes.append(sum(len(query.item_ids) for query in queries))
        return compare(release, known, matches, queries, added)

    monkeypatch.setattr(similar_batches, "similar_items", counted)
    queries = [Query(item_ids=[1000 + 7 * row] * (1 + row)) for row in range(99)]
    found = await similar(running, *queries)
    assert sum(sizes) == 99 * 50 and len(sizes) == 6 and max(sizes) <= 1_000
    for query, together in zip(queries[::20], found[::20], strict=True):
        assert (await similar(running, query)) == [together]


async def test_a_batch_that_nobody_waits_for_ends(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    monkeypatch.setattr(similar_batches, "PART_PAIRS", 1)
    go, compared, compare = threading.Event(), list[int](), similar_batches.similar_items

    def held(release: Any, known: Any, matches: Any, queries: Any, added: Any) -> Any:
        compared.append(len(queries))
        assert go.wait(20)
        return compare(release, known, matches, queries, added)

    monkeypatch.setattr(similar_batches, "similar_items", held)
    call = running.recall.SimilarItems(Request(queries=[Query(item_ids=[1000])] * 3, top_k=5))
    await until(lambda: compared == [1])
    call.cancel()
    await until(lambda: running.in_progress == 0)
    go.set()
    [found] = await similar(running, Query(item_ids=[1000]))
    assert found.status == OK
    assert compared == [1, 1]  # not the other two of the batch


async def test_while_milvus_is_away(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "PAUSE_S", 60)
    monkeypatch.setattr("server.serving.local.SEEN_S", 0.0)
    monkeypatch.setattr("server.serving.changes.LOOK_S", 0.0)
    for degraded in (False, True):
        running = await start(degraded=degraded)
        [before] = await similar(running, Query(item_ids=[1000]))
        running.store.fault = StoreUnavailableError("Milvus does not answer: connection refused")
        if not degraded:
            assert (await failure(similar(running, Query(item_ids=[1000]))))[0] == grpc.StatusCode.UNAVAILABLE
            continue
        found, unknown = await similar(running, Query(item_ids=[1000]), Query(item_ids=[1]))
        assert (found.status, unknown.status) == (DEGRADED, UNKNOWN)
        assert (found.item_ids, "Milvus does not answer" in found.detail) == (before.item_ids, True)
        filtered = similar(running, Query(item_ids=[1000]), filter="item_id > 1000")
        assert (await failure(filtered))[0] == grpc.StatusCode.UNAVAILABLE


async def test_the_log_tells_how_many_queries_there_were(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with watched(tmp_path, SILENT, access_log=True) as server:
        await similar(server, Query(item_ids=[1000]), Query(item_ids=[1007]))
    (line,) = [record for record in caplog.records if record.name == "server.edge.calls"]
    assert (line.getMessage(), line.queries, line.top_k) == ("SimilarItems OK", 2, 5)
    assert line.search_ms > 0 and "1007" not in str(line.__dict__)


async def test_queries_are_counted_by_status(tmp_path: Path) -> None:
    metrics = make_metrics()
    async with watched(tmp_path, Telemetry(metrics)) as server:
        await similar(server, Query(item_ids=[1000]), Query(item_ids=[1007]), Query(item_ids=[1]), Query())
        for status, count in (("OK", 2), ("UNKNOWN", 1), ("INVALID", 1), ("DEGRADED", 0)):
            assert metrics.registry.get_sample_value("recall_similar_queries_total", {"status": status}) == count
        assert metrics.registry.get_sample_value("recall_similar_seconds_count") == 1
        assert metrics.registry.get_sample_value("recall_queue_wait_seconds_count") == 1
