"""What Prometheus is told, counted against requests that the test makes."""

import asyncio
import re
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from mind.artifact import load_artifact
from mind.errors import ConfigError
from protos.recall.v1 import recall_pb2
from server.errors import CollectionGoneError, StoreError, StoreUnavailableError
from server.instrumentation import make_metrics
from server.settings import Settings
from server.watching import endpoint
from server.watching.metrics import Metrics
from server.watching.telemetry import Telemetry
from tests import waiting
from tests.artifacts import make_artifact
from tests.ports import free_port
from tests.releases import item_store
from tests.server.test_processes import NO_MILVUS, pids
from tests.server.test_server import USER, Running, failure, until_health
from tests.server.test_service import running
from tests.watched_server import NOT_SERVING, SERVING, watched

RECALL = recall_pb2.RecallRequest(users=[USER], top_k=5)


@pytest.fixture
def metrics() -> Metrics:
    return make_metrics()


@pytest.fixture
async def server(metrics: Metrics, tmp_path: Path) -> AsyncIterator[Running]:
    async with watched(tmp_path, Telemetry(metrics)) as server:
        yield server


OF_CHANNEL = ("recall_re", "recall_serving", "recall_sampled")
"""How the names of metrics begin that have the label channel: of requests, releases, health and samples."""


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of a series, of the channel live if it has one."""
    if name.startswith(OF_CHANNEL) and not name.startswith("recall_requests"):
        labels = {"channel": "live"} | labels
    return metrics.registry.get_sample_value(name, labels)


def releases(metrics: Metrics) -> list[dict[str, str]]:
    """The labels of every series of `recall_release_info`."""
    (family,) = [family for family in metrics.registry.collect() if family.name == "recall_release_info"]
    assert all(sample.value == 1 for sample in family.samples)
    return [sample.labels for sample in family.samples]


async def until(metrics: Metrics, name: str, wanted: float) -> None:
    await waiting.until(lambda: value(metrics, name) == wanted)


async def test_the_lag_of_the_event_loop_is_measured(server: Running, metrics: Metrics) -> None:
    await waiting.until(lambda: (value(metrics, "recall_loop_lag_seconds_count") or 0) > 1)


async def test_users_items_batches_and_stages(server: Running, metrics: Metrics) -> None:
    users = [
        recall_pb2.User(hist_item=[1000, 1007, 5]),  # 5 is unknown
        recall_pb2.User(),
        recall_pb2.User(hist_item=[6, 8]),
        recall_pb2.User(hist_item=[1000] * 10_001),
    ]
    await server.recall.Recall(recall_pb2.RecallRequest(users=users, top_k=5))
    await server.recall.Recall(RECALL)
    assert value(metrics, "recall_users_total", status="OK") == 2
    assert value(metrics, "recall_users_total", status="EMPTY_HISTORY") == 1
    assert value(metrics, "recall_users_total", status="ALL_UNKNOWN") == 1
    assert value(metrics, "recall_users_total", status="INVALID") == 1
    assert value(metrics, "recall_history_items_total") == 3 + 2 + 2  # what breaks a limit is not looked at
    assert value(metrics, "recall_history_items_unknown_total") == 1 + 2
    assert value(metrics, "recall_batch_users_count") == 2
    assert value(metrics, "recall_batch_users_sum") == 4 + 1
    assert value(metrics, "recall_queue_wait_seconds_count") == 2
    for stage in ("encode", "search", "merge"):
        assert value(metrics, f"recall_{stage}_seconds_count") == 2
    assert value(metrics, "recall_request_duration_seconds_count", method="Recall", status="OK") == 2
    assert value(metrics, "recall_request_duration_seconds_bucket", method="Recall", status="OK", le="5.0") == 2
    assert value(metrics, "recall_request_failures_total", method="Recall", status="OK", reason="") is None


async def test_failures_by_method_status_and_reason(server: Running, metrics: Metrics) -> None:
    await failure(server.recall.Recall(recall_pb2.RecallRequest(users=[USER])))
    await failure(server.recall.CountItems(recall_pb2.CountItemsRequest(filter="year >=")))
    server.store.fault = StoreError("Milvus (code 65535): odd")
    await failure(server.recall.Recall(RECALL))
    for labels in (
        {"method": "Recall", "status": "INVALID_ARGUMENT", "reason": "TOP_K_OUT_OF_RANGE"},
        {"method": "CountItems", "status": "INVALID_ARGUMENT", "reason": "FILTER_INVALID"},
        {"method": "Recall", "status": "INTERNAL", "reason": "STORE_FAILED"},
    ):
        assert value(metrics, "recall_request_failures_total", **labels) == 1
    assert value(metrics, "recall_search_seconds_count") == 1  # also when it fails
    assert value(metrics, "recall_batch_users_count") == 0  # but nobody was answered


async def test_callers_that_leave_and_deadlines(server: Running, metrics: Metrics) -> None:
    server.store.hold()
    left = server.recall.Recall(RECALL)
    await until(metrics, "recall_requests_in_progress", 1)
    left.cancel()
    await until(metrics, "recall_requests_in_progress", 0)
    assert value(metrics, "recall_request_duration_seconds_count", method="Recall", status="CANCELLED") == 1
    code, *_ = await failure(server.recall.Recall(RECALL, timeout=0.5))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(metrics, "recall_requests_in_progress", 0)
    assert value(metrics, "recall_request_duration_seconds_count", method="Recall", status="DEADLINE_EXCEEDED") == 1


async def test_the_queue_as_it_is(metrics: Metrics, tmp_path: Path) -> None:
    async with watched(tmp_path, Telemetry(metrics), search_workers=1) as server:
        server.store.hold()
        calls = [asyncio.ensure_future(server.recall.Recall(RECALL))]
        await waiting.until(lambda: server.store.held)  # or all three might come in one batch
        calls += [asyncio.ensure_future(server.recall.Recall(RECALL)) for _ in range(2)]
        await until(metrics, "recall_queued_users", 2)
        assert value(metrics, "recall_requests_in_progress") == 3
        server.store.let_go()
        await asyncio.gather(*calls)
        assert (value(metrics, "recall_queued_users"), value(metrics, "recall_requests_in_progress")) == (0, 0)


async def test_one_release_at_a_time_and_refusals(
    server: Running, metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.releases.REFUSED_AGAIN_S", (0, 0))
    assert releases(metrics) == [
        {"channel": "live", "model_version": server.collection.split("_")[1], "collection": server.collection}
    ]
    first = value(metrics, "recall_release_taken_over_timestamp_seconds")
    assert value(metrics, "recall_release_refused") == 0

    artifact = load_artifact(make_artifact(tmp_path / "artifacts", seed=1))
    newer = server.store.publish(artifact)
    server.store.collections[newer].vectors[0] += 1
    await until(metrics, "recall_release_refused", 1)
    seen = server.store.looks
    await waiting.until(lambda: server.store.looks >= seen + 3)
    assert value(metrics, "recall_release_refusals_total") == 1  # for the same reason
    assert [each["collection"] for each in releases(metrics)] == [server.collection]
    assert value(metrics, "recall_release_taken_over_timestamp_seconds") == first

    server.store.collections[newer].vectors[0] = artifact.weights.item_embedding[1]
    await until(metrics, "recall_release_refused", 0)
    assert [each["collection"] for each in releases(metrics)] == [newer]
    assert value(metrics, "recall_release_taken_over_timestamp_seconds") > first


async def test_rows_that_somebody_adds_to_what_is_served(
    server: Running, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.releases.COUNT_EVERY_S", 0)
    assert value(metrics, "recall_release_miscounted") == 0
    served = server.store.collections[server.collection]
    ids, vectors = served.item_ids, served.vectors
    served.item_ids, served.vectors = np.append(ids, 7), np.append(vectors, vectors[:1], axis=0)
    await until(metrics, "recall_release_miscounted", 1)
    assert caplog.text.count("holds 201 items, its build had 200; it is served nevertheless") == 1
    assert value(metrics, "recall_serving") == 1
    served.item_ids, served.vectors = ids, vectors
    await until(metrics, "recall_release_miscounted", 0)


async def test_health_and_a_milvus_that_is_away_is_no_refusal(server: Running, metrics: Metrics) -> None:
    assert value(metrics, "recall_serving") == 1
    server.store.fault = StoreUnavailableError("Milvus does not answer")
    await until_health(server.health, NOT_SERVING)
    assert value(metrics, "recall_serving") == 0
    assert value(metrics, "recall_release_refused") == 0
    server.store.fault = None
    await until_health(server.health, SERVING)
    assert value(metrics, "recall_serving") == 1


async def test_errors_of_milvus_by_kind(metrics: Metrics) -> None:
    store = item_store("http://127.0.0.1:9", timeout_s=1, on_error=Telemetry(metrics).count_store_error)
    with pytest.raises(StoreUnavailableError):
        await store.released_collection()
    assert value(metrics, "recall_milvus_errors_total", kind="STORE_UNAVAILABLE") == 1
    assert value(metrics, "recall_milvus_errors_total", kind="COLLECTION_GONE") == 0


async def test_errors_of_a_milvus_that_answers(milvus_uri: str, metrics: Metrics) -> None:
    store = item_store(milvus_uri, timeout_s=10, on_error=Telemetry(metrics).count_store_error)
    with pytest.raises(CollectionGoneError):
        await store.fingerprint("items_000000000000_00000000")
    await store.close()
    assert value(metrics, "recall_milvus_errors_total", kind="COLLECTION_GONE") == 1


def test_the_endpoint_and_an_address_that_is_taken(metrics: Metrics) -> None:
    metrics.count_request("Recall", "OK", "", 0.003, "live")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"--metrics-listen {address}: the address cannot be used, or is taken"):
            metrics.serve(address)
    server, port = metrics.serve("127.0.0.1:0")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    server.shutdown()
    server.server_close()
    assert 'recall_request_duration_seconds_bucket{channel="live",le="0.005",method="Recall",status="OK"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text


@contextmanager
def half_sent(port: int, number: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(number)]
        for caller in callers:
            caller.sendall(b"GET /metrics HTT")
        yield callers


def test_callers_that_send_half_a_request_give_way_to_others(metrics: Metrics) -> None:
    server, port = metrics.serve("127.0.0.1:0")
    with half_sent(port, endpoint.MAX_CONNECTIONS + 5) as callers:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert b"recall_serving" in answer.read()
        assert [caller.recv(1) for caller in callers[:6]] == [b""] * 6
        assert len(server._open) <= endpoint.MAX_CONNECTIONS
    server.shutdown()
    server.server_close()


def test_callers_that_send_half_a_request_are_left_soon(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "TIMEOUT_S", 0)
    server, port = metrics.serve("127.0.0.1:0")
    with half_sent(port, 3) as callers:
        assert [caller.recv(1) for caller in callers] == [b""] * 3
    server.shutdown()
    server.server_close()


def two_free_ports() -> int:
    """The first of two neighbours."""
    while True:
        port = free_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port


def test_every_process_has_an_endpoint_of_its_own() -> None:
    base = two_free_ports()
    with running(*NO_MILVUS, "--metrics-listen", f"127.0.0.1:{base}") as server:
        pids(server)
        found = re.findall(r"metrics on (\S+)", "".join(server.log))
        assert sorted(found) == [f"http://127.0.0.1:{port}/metrics" for port in (base, base + 1)]
        for url in found:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
                assert 'recall_serving{channel="live"} 0.0' in answer.read().decode()


@pytest.mark.parametrize("address", ["9464", "localhost:", "localhost:65535"])
def test_addresses_that_cannot_work(address: str) -> None:
    with pytest.raises(
        ValueError, match=r"metrics_listen is '.*': expected host:port, with a port for each of 2 processes"
    ):
        Settings(metrics_listen=address, processes=2, milvus_uri="http://127.0.0.1:1")
