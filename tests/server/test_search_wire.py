"""Our bytes of a search and of a query against those of protobuf and pymilvus."""

import threading
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus.client.async_interceptor import async_header_adder_interceptor
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from mind.milvus import wire
from mind.milvus.internals import SEARCH, _method
from mind.milvus.wire import read_key_search, read_query, read_search, write_query, write_search

int64 = st.integers(-(2**63), 2**63 - 1)
float32 = st.floats(width=32, allow_nan=False)


@settings(deadline=None)  # a busy machine is no failure
@given(
    queries=st.integers(1, 40),
    dim=st.sampled_from([1, 16, 31, 64, 200]),
    limit=st.integers(1, 10_000),
    params=st.sampled_from([{}, {"ef": 128}, {"nprobe": 32, "reorder_k": 100}]),
)
def test_a_request_is_what_pymilvus_would_send(queries: int, dim: int, limit: int, params: dict[str, int]) -> None:
    vectors = np.random.default_rng(queries).normal(size=(queries, dim)).astype(np.float32)
    ours = milvus_pb2.SearchRequest.FromString(write_search("items", vectors, limit, tuple(params.items())))
    theirs = Prepare.search_requests_with_expr(
        "items",
        anns_field="embedding",
        param={"metric_type": "IP", "params": params},
        limit=limit,
        data=vectors,
        expr="",
        consistency_level=2,
    )
    assert ours == theirs


def test_pymilvus_makes_one_request_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first request imports SciPy, which fails in two threads at once, such as those of items and of users."""
    make, second_began = Prepare.search_requests_with_expr, threading.Event()
    vectors, threads = np.zeros((1, 4), np.float32), list[threading.Thread]()

    def slow(collection: str, **options: Any) -> Any:
        if collection == "second":
            second_began.set()
        else:
            threads.append(threading.Thread(target=write_search, args=("second", vectors, 1, ())))
            threads[0].start()
            assert not second_began.wait(0.2)
        return make(collection, **options)

    monkeypatch.setattr(Prepare, "search_requests_with_expr", slow)
    wire._template.cache_clear()
    write_search("first", vectors, 1, ())
    threads[0].join()
    assert second_began.is_set()


@settings(deadline=None)  # a busy machine is no failure
@given(item_ids=st.lists(int64), vectors=st.lists(float32), others=st.lists(st.text()))
def test_the_columns_of_a_query_are_read_as_protobuf_reads_them(
    item_ids: list[int], vectors: list[float], others: list[str]
) -> None:
    long, text, number = schema_pb2.FieldData(), schema_pb2.FieldData(), schema_pb2.FieldData()
    long.type, long.field_name, text.field_name, number.field_name = 5, "item_id", "title", "embedding"
    long.scalars.long_data.data.extend(item_ids)
    text.scalars.string_data.data.extend(others)
    number.vectors.dim = 2
    number.vectors.float_vector.data.extend(vectors)
    answer = milvus_pb2.QueryResults(
        status=common_pb2.Status(code=7, reason="because"), fields_data=[long, text, number]
    )
    status, columns = read_query(answer.SerializeToString())
    assert (status.code, status.reason) == (7, "because")
    assert columns["item_id"].tolist() == item_ids
    np.testing.assert_array_equal(columns["embedding"], np.array(vectors, np.float32))


def test_a_query_is_what_pymilvus_would_send() -> None:
    ours = milvus_pb2.QueryRequest.FromString(write_query("items", "year > 1990", ["item_id"]))
    assert (ours.collection_name, ours.expr, list(ours.output_fields)) == ("items", "year > 1990", ["item_id"])
    assert (ours.use_default_consistency, ours.consistency_level) == (False, 2)
    assert not any(pair.key in ("limit", "offset") for pair in ours.query_params)  # all rows


@settings(deadline=None)  # a busy machine is no failure
@given(rows=st.lists(st.lists(st.tuples(st.text(), float32), max_size=20), max_size=20))
def test_keys_that_are_text_are_read_as_protobuf_reads_them(rows: list[list[tuple[str, float]]]) -> None:
    answer = _answer([[(0, score) for _, score in row] for row in rows])
    answer.results.ids.str_id.data.extend(key for row in rows for key, _ in row)
    status, keys, scores, lengths = read_key_search(answer.SerializeToString())
    assert status == answer.status
    assert lengths.tolist() == [len(row) for row in rows]
    assert keys == [key for row in rows for key, _ in row]
    assert scores.tolist() == [score for row in rows for _, score in row]


@settings(deadline=None)  # a busy machine is no failure
@given(rows=st.lists(st.lists(st.tuples(int64, float32), max_size=20), max_size=20))
def test_an_answer_is_read_as_protobuf_reads_it(rows: list[list[tuple[int, float]]]) -> None:
    answer = _answer(rows)
    status, hits = read_search(answer.SerializeToString())
    assert status == answer.status
    assert hits.lengths.tolist() == [len(row) for row in rows]
    assert hits.item_ids.tolist() == [item_id for row in rows for item_id, _ in row]
    assert hits.scores.tolist() == [score for row in rows for _, score in row]
    assert (hits.item_ids.dtype, hits.scores.dtype, hits.lengths.dtype) == (np.int64, np.float32, np.int64)


def test_an_answer_without_hits_and_one_that_is_a_fault() -> None:
    status, hits = read_search(b"")
    assert (status.code, len(hits.item_ids), len(hits.lengths)) == (0, 0, 0)
    fault = milvus_pb2.SearchResults(status=common_pb2.Status(code=101, reason="not loaded"))
    status, hits = read_search(fault.SerializeToString())
    assert (status.code, status.reason, len(hits.item_ids)) == (101, "not loaded", 0)


@settings(deadline=None)  # a busy machine is no failure
@given(kept=st.integers(1, 10_000))
def test_an_answer_that_is_cut_off_is_refused(kept: int) -> None:
    whole = _answer([[(7, 1.0), (8, 0.5)] * 10] * 3)
    whole = milvus_pb2.SearchResults(results=whole.results).SerializeToString()
    with pytest.raises(ValueError, match="cut off"):
        read_search(whole[: min(kept, len(whole) - 1)])


def test_an_answer_whose_columns_disagree_is_refused() -> None:
    answer = _answer([[(7, 1.0), (8, 0.5)]])
    answer.results.topks[0] = 3
    with pytest.raises(ValueError, match="2 ids, 2 scores, 3 hits"):
        read_search(answer.SerializeToString())


def _answer(rows: list[list[tuple[int, float]]]) -> milvus_pb2.SearchResults:
    found = schema_pb2.SearchResultData(num_queries=len(rows), top_k=20, topks=[len(row) for row in rows])
    for row in rows:
        found.ids.int_id.data.extend(item_id for item_id, _ in row)
        found.scores.extend(score for _, score in row)
    # As Milvus does: fields besides those that are read, before and behind them.
    return milvus_pb2.SearchResults(
        status=common_pb2.Status(), results=found, collection_name="items", session_ts=2**60
    )


async def test_a_search_says_who_asks_as_pymilvus_other_calls_do() -> None:
    heard: list[tuple[str, str | bytes]] = []

    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        heard.extend(context.invocation_metadata())
        return request

    server = grpc.aio.server()
    handlers = {"Search": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("milvus.proto.milvus.MilvusService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            channel._unary_unary_interceptors.append(async_header_adder_interceptor(["authorization"], ["c2VjcmV0"]))
            channel._unary_unary_interceptors.append(async_header_adder_interceptor(["identifier"], ["17"]))
            method, metadata = _method(channel, SEARCH)
            assert await method(b"search", metadata=metadata) == b"search"
    finally:
        await server.stop(0)
    assert {("authorization", "c2VjcmV0"), ("identifier", "17")} <= set(heard)
