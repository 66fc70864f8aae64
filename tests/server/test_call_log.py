"""The line that a call leaves in the log: what it tells, what it never tells, and how it looks."""

import asyncio
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from protos.recall.v1 import recall_pb2
from server.edge.calls import LINES_A_SECOND, Calls
from server.errors import StoreError, StoreUnavailableError
from server.watching.logs import formatter
from server.watching.telemetry import SILENT, Telemetry
from tests.server.test_processes import NO_MILVUS
from tests.server.test_server import USER, failure, until_health
from tests.server.test_service import running
from tests.waiting import until
from tests.watched_server import NOT_SERVING, SERVING, watched

RECALL = recall_pb2.RecallRequest(users=[USER] * 2, top_k=5)


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "server.edge.calls"]


async def test_a_failed_call_has_one_line_and_the_answer_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path, SILENT, watch_interval_s=60) as server:
        server.store.fault = StoreError("Milvus (code 65535): odd")
        call = server.recall.Recall(RECALL, metadata=[("x-request-id", "order-17")])
        await failure(call)
        assert dict(await call.trailing_metadata())["x-request-id"] == "order-17"
        server.store.fault = None
        call = server.recall.Recall(RECALL)
        await call
        assert "x-request-id" not in dict(await call.trailing_metadata())
    (line,) = lines(caplog)
    assert line.levelno == logging.ERROR
    assert line.getMessage() == "Recall INTERNAL: Milvus (code 65535): odd"
    assert (line.method, line.status, line.reason) == ("Recall", "INTERNAL", "STORE_FAILED")
    assert (line.users, line.top_k, line.request_id) == (2, 5, "order-17")
    assert line.total_ms > 0 and line.peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize("sent", ["", " ", "x" * 129, "a b"])
async def test_an_odd_request_id_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: str) -> None:
    caplog.set_level(logging.INFO)
    async with watched(tmp_path, SILENT) as server:
        await failure(server.recall.Recall(recall_pb2.RecallRequest(), metadata=[("x-request-id", sent)]))
    (line,) = lines(caplog)
    assert re.fullmatch("[0-9a-f]{16}", line.request_id)


async def test_every_call_has_a_line_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    async with watched(tmp_path, SILENT, access_log=True) as server:
        call = server.recall.Recall(RECALL, metadata=[("traceparent", parent)])
        answer = await call
        assert dict(await call.trailing_metadata())["x-request-id"] == lines(caplog)[0].request_id
        await server.recall.CountItems(recall_pb2.CountItemsRequest())
    recalled, counted = lines(caplog)
    assert recalled.getMessage() == "Recall OK" and recalled.levelno == logging.INFO
    assert recalled.model_version == answer.model_version
    assert recalled.trace_id == "0123456789abcdef0123456789abcdef"
    assert recalled.total_ms >= recalled.search_ms == pytest.approx(answer.timings.search_ms, abs=1e-3)
    assert counted.method == "CountItems" and not hasattr(counted, "users")


@pytest.mark.parametrize("kind", ["text", "json"])
async def test_neither_histories_nor_filters_nor_tokens_are_logged(tmp_path: Path, kind: Any) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter(kind, several=False))
    logging.getLogger("server").addHandler(handler)
    logging.getLogger("server").setLevel(logging.DEBUG)
    secret = recall_pb2.User(hist_item=[424_242, 1007], exclude_item_ids=[535_353])
    try:
        async with watched(tmp_path, SILENT, access_log=True, watch_interval_s=60) as server:
            token = [("authorization", "Bearer 646464")]
            ask = {"users": [secret], "top_k": 5}
            await server.recall.Recall(recall_pb2.RecallRequest(**ask), metadata=token)
            faults = (None, StoreError("Milvus (code 9): cannot do item_id < 757575"), KeyError(757_575))
            for filter_ in ("item_id < 757575", "price == 757575", "757575 / 0 == 1", "757575" * 400):
                for fault in faults:
                    server.store.fault = None if isinstance(fault, KeyError) else fault
                    never_asked = f"{filter_} or item_id == {faults.index(fault)}"
                    with_filter = recall_pb2.RecallRequest(filter=never_asked if "<" in filter_ else filter_, **ask)
                    await asyncio.gather(server.recall.Recall(with_filter, metadata=token), return_exceptions=True)
            server.store.fault = None
            await failure(server.recall.Recall(recall_pb2.RecallRequest(users=[secret]), metadata=token))
    finally:
        logging.getLogger("server").removeHandler(handler)
        logging.getLogger("server").setLevel(logging.NOTSET)
    text = written.getvalue()
    assert "Recall OK" in text and "Recall INTERNAL: Milvus (code 9)" in text and "FILTER_INVALID" in text
    assert not re.search("424242|535353|646464|757575", text)


async def test_a_deadline_that_passes_has_a_line_and_a_caller_that_leaves_has_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path, SILENT) as server:
        server.store.hold()
        call = server.recall.Recall(RECALL)
        await until(lambda: server.in_progress)
        call.cancel()
        await failure(server.recall.Recall(RECALL, timeout=0.5))
        await until(lambda: lines(caplog) and not server.in_progress)
    (line,) = lines(caplog)
    assert (line.status, line.reason, line.levelname) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "WARNING")


async def test_health_that_changes_is_logged_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with watched(tmp_path, SILENT) as server:
        server.store.fault = StoreUnavailableError("Milvus does not answer")
        await until_health(server.health, NOT_SERVING)
        await asyncio.sleep(0.2)  # a few more checks
        server.store.fault = None
        await until_health(server.health, SERVING)
    health = [(r.levelname, r.getMessage()) for r in caplog.records if r.getMessage().startswith("health")]
    assert health == [
        ("INFO", "health is SERVING"),
        ("WARNING", "health is NOT_SERVING: Milvus does not answer"),
        ("INFO", "health is SERVING"),
    ]


def test_a_flood_of_failures_leaves_few_lines() -> None:
    calls = Calls(Telemetry(), access_log=False)
    admitted = [calls.admit_line("OVERLOADED") for _ in range(1_000)]
    assert LINES_A_SECOND <= len([each for each in admitted if each is not None]) <= 2 * LINES_A_SECOND
    assert calls.admit_line("INTERNAL") == 0  # another reason has lines of its own


def test_the_next_line_tells_how_many_were_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(Telemetry(), access_log=False)
    now = 100.0
    monkeypatch.setattr("server.edge.calls.time.monotonic", lambda: now)
    for _ in range(LINES_A_SECOND + 7):
        calls.admit_line("OVERLOADED")
    now = 101.0
    assert [calls.admit_line("OVERLOADED") for _ in range(2)] == [7, 0]


def record(**fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("server.edge.calls", logging.WARNING, "", 0, "Recall %s", ("UNAVAILABLE",), None)
    made.__dict__ |= fields
    return made


def test_text() -> None:
    line = formatter("text", several=False).format(record(users=2, status="UNAVAILABLE", other="x"))
    assert line.endswith("WARNING server.edge.calls: Recall UNAVAILABLE status=UNAVAILABLE users=2")


def test_json() -> None:
    line = json.loads(formatter("json", several=False).format(record(users=2, status="UNAVAILABLE")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", line.pop("time"))
    assert line.pop("process") > 0
    assert line == {
        "level": "WARNING",
        "logger": "server.edge.calls",
        "message": "Recall UNAVAILABLE",
        "status": "UNAVAILABLE",
        "users": 2,
    }


def test_a_traceback_stays_in_its_json_line() -> None:
    try:
        raise ZeroDivisionError("odd\nindeed")
    except ZeroDivisionError as error:
        failed = record()
        failed.exc_info = type(error), error, error.__traceback__
    (line,) = formatter("json", several=False).format(failed).splitlines()
    assert "ZeroDivisionError: odd\nindeed" in json.loads(line)["traceback"]


def test_every_line_of_every_process_is_json() -> None:
    with running(*NO_MILVUS, "--log-format", "json") as server:
        server.wait_for(r'(?s)"listening.*"listening')
        server.stop()
        read = [json.loads(line) for line in server.log]
    assert len({line["process"] for line in read if line["message"].startswith("listening")}) == 2
