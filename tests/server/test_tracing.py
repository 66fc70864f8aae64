"""Traces: whose span is whose when calls share a batch, what Milvus is told, and what really leaves over OTLP."""

import asyncio
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from mind.artifact import Float32
from mind.errors import ConfigError
from mind.hits import Hits
from mind.milvus.aio_store import SEARCH_METADATA
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.errors import StoreError, StoreUnavailableError
from server.instrumentation import make_metrics, make_telemetry
from server.settings import Settings
from server.watching import tracing
from server.watching.metrics import Metrics
from server.watching.telemetry import Telemetry
from server.watching.tracing import Tracing
from tests.fake_store import FakeStore
from tests.releases import item_store
from tests.server.test_server import USER, Running, failure
from tests.server.test_service import running
from tests.waiting import until
from tests.watched_server import watched

RECALL = recall_pb2.RecallRequest(users=[USER] * 2, top_k=5)
TRACE, CALLER = "0123456789abcdef0123456789abcdef", "0123456789abcdef"
PARENT = [("traceparent", f"00-{TRACE}-{CALLER}-01")]
STAGES = ["queue", "encode", "search", "merge"]


class Traced:
    """Tracing into memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing(self._exporter)

    def spans(self) -> list[ReadableSpan]:
        """All of them, by start; afterwards there are no more."""
        self.tracing.close()
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def calls(self) -> list[tuple[ReadableSpan, dict[str, ReadableSpan]]]:
        """The span of every call, and its children by name."""
        spans = self.spans()
        found = []
        for call in spans:
            if call.kind is SpanKind.SERVER:
                children = [each for each in spans if each.parent and each.parent.span_id == call.context.span_id]
                assert len({each.name for each in children}) == len(children)
                found.append((call, {each.name: each for each in children}))
        assert len(spans) == sum(1 + len(children) for _, children in found)
        return found


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What goes along with each search."""
    metadata: list[dict[str, str]] = []
    search = FakeStore.search

    async def told(store: FakeStore, *arguments: Any) -> Hits:
        metadata.append(dict(SEARCH_METADATA.get()))
        return await search(store, *arguments)

    monkeypatch.setattr(FakeStore, "search", told)
    return metadata


async def test_a_call_and_its_stages_in_the_trace_of_the_caller(
    traced: Traced, told: list[dict[str, str]], tmp_path: Path
) -> None:
    async with watched(tmp_path, Telemetry(tracing=traced.tracing)) as server:
        told.clear()
        answer = await server.recall.Recall(RECALL, metadata=PARENT)
    ((call, stages),) = traced.calls()
    assert call.name == "recall.v1.RecallService/Recall" and call.kind is SpanKind.SERVER
    assert f"{call.parent.span_id:016x}" == CALLER and call.parent.is_remote
    assert {f"{span.context.trace_id:032x}" for span in (call, *stages.values())} == {TRACE}
    of_batch = {
        "recall.model_version": answer.model_version,
        "recall.collection": answer.collection,
        "recall.batch.users": 2,
        "recall.batch.requests": 1,
        "recall.batch.search": "milvus",
    }
    rpc = {"rpc.system": "grpc", "rpc.service": "recall.v1.RecallService", "rpc.method": "Recall"}
    sizes = {"rpc.grpc.status_code": 0, "recall.users": 2, "recall.top_k": 5}
    assert call.attributes == rpc | sizes | of_batch | {"recall.channel": "live"}
    assert list(stages) == STAGES
    assert all(stages[name].attributes == of_batch for name in STAGES[1:])
    times = [time for name in STAGES for time in (stages[name].start_time, stages[name].end_time)]
    assert times == sorted(times)
    assert told == [{"traceparent": f"00-{TRACE}-{stages['search'].context.span_id:016x}-01"}]


async def share_a_batch(server: Running, metrics: Metrics) -> None:
    """One call alone, and two that wait for it and are answered together."""
    server.store.hold()
    calls = [asyncio.ensure_future(server.recall.Recall(RECALL))]
    await until(lambda: server.store.held)
    calls += [asyncio.ensure_future(server.recall.Recall(RECALL)) for _ in range(2)]
    waiting_users = 2 * len(RECALL.users)
    await until(lambda: metrics.registry.get_sample_value("recall_queued_users") == waiting_users)
    server.store.let_go()
    await asyncio.gather(*calls)


async def test_calls_that_share_a_batch_each_have_a_whole_trace(
    traced: Traced, told: list[dict[str, str]], tmp_path: Path
) -> None:
    metrics = make_metrics()
    async with watched(tmp_path, Telemetry(metrics, tracing=traced.tracing), search_workers=1) as server:
        told.clear()
        await share_a_batch(server, metrics)
    (_, alone), (_, one), (_, other) = traced.calls()
    assert len(told) == 2
    assert [list(stages) for stages in (alone, one, other)] == [STAGES] * 3
    assert [stages["search"].attributes["recall.batch.requests"] for stages in (alone, one, other)] == [1, 2, 2]
    assert f"{one['search'].context.span_id:016x}" in told[1]["traceparent"]
    assert not one["search"].links
    (link,) = other["search"].links
    assert link.context.span_id == one["search"].context.span_id
    assert other["search"].start_time < one["search"].end_time


async def test_a_caller_that_leaves(traced: Traced, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(tmp_path, Telemetry(tracing=traced.tracing)) as server:
        server.store.hold()
        left = server.recall.Recall(RECALL, timeout=2)
        await until(lambda: server.store.held)
        await failure(left)
        await until(lambda: not server.in_progress)
        server.store.let_go()
        await server.recall.Recall(RECALL)  # by then the batch of the first is over
    (left, stages), (_, whole) = traced.calls()
    assert left.attributes["rpc.grpc.status_code"] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert list(stages) == list(whole) == STAGES
    assert "opentelemetry" not in caplog.text  # which warns if a span is told something after its end


async def test_callers_decide_whether_they_are_traced(
    traced: Traced, told: list[dict[str, str]], tmp_path: Path
) -> None:
    async with watched(tmp_path, Telemetry(tracing=traced.tracing)) as server:
        told.clear()
        await server.recall.Recall(RECALL, metadata=PARENT)
        await server.recall.Recall(RECALL, metadata=[("traceparent", f"00-{TRACE}-{CALLER}-00")])
        for _ in range(2):
            await server.recall.Recall(RECALL, metadata=[("traceparent", "no such thing")])
    assert len({call.context.trace_id for call, _ in traced.calls()}) == 3  # what cannot be read is ignored
    assert [bool(each) for each in told] == [True, False, True, True]


async def test_the_standard_variables_choose_the_share(
    monkeypatch: pytest.MonkeyPatch, told: list[dict[str, str]], tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    traced = Traced()
    async with watched(tmp_path, Telemetry(tracing=traced.tracing)) as server:
        await server.recall.Recall(RECALL)
    assert not traced.spans() and not any(told)


@pytest.mark.parametrize("fault", [StoreError("Milvus (code 9): odd"), StoreUnavailableError("Milvus is silent")])
async def test_a_failing_search_is_an_error_in_the_trace(traced: Traced, fault: StoreError, tmp_path: Path) -> None:
    async with watched(tmp_path, Telemetry(tracing=traced.tracing), watch_interval_s=60) as server:
        server.store.fault = fault
        await failure(server.recall.Recall(RECALL))
        await failure(server.recall.Recall(recall_pb2.RecallRequest(users=[USER])))
    (failed, stages), (invalid, nothing) = traced.calls()
    assert list(stages) == STAGES[:3] and not nothing
    assert failed.status.status_code is StatusCode.ERROR
    assert stages["search"].status.status_code is StatusCode.ERROR
    assert stages["encode"].status.status_code is StatusCode.UNSET
    assert invalid.attributes["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert invalid.status.status_code is StatusCode.UNSET  # the caller's fault


async def test_no_span_holds_what_a_user_did(traced: Traced, tmp_path: Path) -> None:
    async with watched(tmp_path, Telemetry(tracing=traced.tracing)) as server:
        user = recall_pb2.User(hist_item=[424_242, 1007], exclude_item_ids=[424_242])
        ask = recall_pb2.RecallRequest(users=[user], top_k=5, filter="item_id < 424242")
        await server.recall.Recall(ask)
    spans = traced.spans()
    assert len(spans) == 5
    assert not any("424242" in span.to_json() for span in spans)


class Anything(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every method with an empty message, which Milvus' clients take for success, and keeps the metadata."""

    def __init__(self) -> None:
        self.metadata: dict[str, dict[str, str]] = {}

    def service(self, details: Any) -> Any:
        self.metadata[details.method.rpartition("/")[2]] = dict(details.invocation_metadata)
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


async def test_the_context_goes_to_milvus_with_the_search() -> None:
    milvus = Anything()
    server = grpc.server(ThreadPoolExecutor(2), [milvus])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    store = item_store(f"http://127.0.0.1:{port}", timeout_s=10)
    vectors: Float32 = np.ones((1, 4), np.float32)
    search = "items", vectors, 5, {}, 10
    assert len((await store.search(*search)).item_ids) == 0
    assert "traceparent" not in milvus.metadata["Search"]
    SEARCH_METADATA.set((PARENT[0],))
    await store.search(*search)
    assert milvus.metadata["Search"]["traceparent"] == PARENT[0][1]
    assert "dbname" in milvus.metadata["Search"]
    await store.close()
    server.stop(None).wait()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.received: SimpleQueue[trace_service_pb2.ExportTraceServiceRequest] = SimpleQueue()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.received.put(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("by_variable", [False, True])
def test_what_leaves_over_otlp(monkeypatch: pytest.MonkeyPatch, by_variable: bool) -> None:
    with collecting() as (collector, endpoint):
        options = [] if by_variable else ["--otlp-endpoint", endpoint]
        if by_variable:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            monkeypatch.setenv("OTEL_SERVICE_NAME", "recall-blue")
        with running("--milvus-uri", "http://127.0.0.1:1", *options) as server:
            with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
                recall_pb2_grpc.RecallServiceStub(channel).Recall(RECALL, timeout=10, metadata=PARENT)
            assert server.stop() == 0  # which sends what is left
        (resource,) = collector.received.get(timeout=10).resource_spans
    named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert named["service.name"] == ("recall-blue" if by_variable else "mind-recall")
    assert named["service.version"]
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == (
        "recall.v1.RecallService/Recall",
        TRACE,
        CALLER,
    )
    assert span.status.message == "UNAVAILABLE"


def test_a_collector_that_is_away_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "FLUSH_S", 0.1)
    telemetry = make_telemetry(Settings(otlp_endpoint="http://127.0.0.1:9"))
    assert telemetry.tracing
    telemetry.tracing.start_call("recall.v1.RecallService.Recall", {}).end()
    telemetry.close()


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    assert make_telemetry(Settings()).tracing is None
    with pytest.raises(ConfigError, match=re.escape("OpenTelemetry is not installed; it is the extra tracing")):
        make_telemetry(Settings(otlp_endpoint="http://127.0.0.1:4317"))


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert make_telemetry(Settings(otlp_endpoint="http://127.0.0.1:4317")).tracing is None


@pytest.mark.parametrize("endpoint", ["localhost:4317", "grpc://localhost:4317", "http://"])
def test_endpoints_that_cannot_work(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"otlp_endpoint is '.*': expected http\(s\)://host:port"):
        Settings(otlp_endpoint=endpoint)
