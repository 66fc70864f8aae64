"""The serving benchmark at toy size: it runs, compares like with like, and shows what it measured."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests import ROOT
from tests.bench.serving import features, text_ids, variety
from tests.bench.serving.http2 import LARGEST_BODY, CallError, Channel
from tests.bench.serving.load import Run
from tests.conftest import own_database, remove_item_collections


@pytest.mark.timeout(600)
def test_the_four_are_measured_side_by_side(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.serving", "--milvus-uri", milvus_server_uri, "--items", "2000"]
    command += ["--workdir", str(tmp_path), "--rounds", "1", "--seconds", "0.4", "--users", "1,8", "--callers", "1,4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    for title in ("Closed loop", "Open loop", "Overload", "Single-user requests that differ", "Features"):
        assert title in done.stdout
    results = json.loads((tmp_path / "2000" / "results.json").read_text())
    assert [(row["subject"], row["users"], row["load"]) for row in results["closed"][:4]] == [
        ("ours", 1, "1"),
        ("article", 1, "1"),
        ("floor", 1, "1"),
        ("local", 1, "1"),
    ]
    for row in results["closed"]:  # the floor counts no outcomes: the first search that fails ends it
        assert set(row["outcomes"]) == (set() if row["subject"] == "floor" else {"OK"}), row
    answered = [row for row in results["open"] if "OK" in row["outcomes"]]  # a busy machine turns calls away
    assert results["open"]
    for row in results["closed"] + answered:
        assert row["recall"] > 0.99
        assert row["users_per_s"] > 0 and row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert len(results["mixed"]) == 3 * 8  # under each load, eight kinds of requests
    assert all(set(row["outcomes"]) == {"OK"} for row in results["mixed"][:8]), results["mixed"][:8]
    assert [row["subject"] for row in results["features"][1::2]] == [*features.FEATURES, "all", "similar"] * 2
    assert all(row["subject"] == "none" and set(row["outcomes"]) == {"OK"} for row in results["features"][::2])
    assert all(set(row["outcomes"]) == {"OK"} for row in results["features"]), results["features"]
    assert "<svg" in (tmp_path / "2000" / "latency.svg").read_text()


@pytest.mark.timeout(600)
def test_text_ids_find_what_integers_do_beside_them(milvus_server_uri: str, tmp_path: Path) -> None:
    text_uri = own_database(milvus_server_uri.rpartition("/")[0], text_ids.DATABASE)
    command = [sys.executable, "-m", "tests.bench.serving.text_ids", "--milvus-uri", milvus_server_uri]
    command += ["--items", "2000", "--rounds", "1", "--seconds", "0.3", "--workdir", str(tmp_path)]
    for uri in (milvus_server_uri, text_uri):
        remove_item_collections(uri)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    remove_item_collections(text_uri)
    assert done.returncode == 0, done.stdout + done.stderr
    same = re.search(r"the same candidates from both for (\S+)%", done.stdout)
    assert same and float(same[1]) > 90, done.stdout  # an index is not built twice alike
    rows = json.loads((tmp_path / "2000" / "text_ids.json").read_text())["rows"]
    assert [row["subject"] for row in rows] == ["integers", "text"] * 3
    assert all(set(row["outcomes"]) == {"OK"} for row in rows), rows


@pytest.mark.timeout(600)
def test_filters_find_what_matches_beside_requests_without_one(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.serving.filters", "--milvus-uri", milvus_server_uri]
    command += ["--items", "2000", "--rounds", "1", "--seconds", "0.3", "--workdir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "2000" / "filters.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["bucket"] * 7 + ["shelf"] * 7 + ["64 callers, each its own"]
    for row in rows:
        assert row["recall"] > 0.999 and row["short"] == 0
        assert row["users_per_s"] > 0


@pytest.mark.timeout(600)
def test_the_chosen_index_is_served_beside_the_default_one(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.serving.tuned", "--milvus-uri", milvus_server_uri]
    command += ["--items", "2000", "--users", "400", "--epochs", "1", "--rounds", "1", "--seconds", "0.3"]
    command += ["--index-type", "IVF_FLAT", "--workdir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "2000" / "results.json").read_text())
    assert [(row["subject"], row["users"]) for row in results["rows"]] == [
        ("default", 1),
        ("chosen", 1),
        ("default", 64),
        ("chosen", 64),
    ]
    assert all(row["recall"] > 0.97 and set(row["outcomes"]) == {"OK"} for row in results["rows"])
    assert results["index"]["type"] in ("HNSW", "IVF_FLAT")


def test_an_empty_call_is_timed_on_both_sides() -> None:
    command = [sys.executable, "-m", "tests.bench.empty_call", "--seconds", "0.2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    assert [row[1].strip() for row in rows] == ["generated", "http2"]
    assert all(float(row[column]) > 0 for row in rows for column in (3, 5))


def test_the_load_test_is_measured_against_a_server_that_does_nothing() -> None:
    command = [sys.executable, "-m", "tests.bench.load_generator", "--seconds", "0.3", "--rounds", "1"]
    environment = os.environ | {"COLUMNS": "130"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the generated client alone" in done.stdout
    assert done.stdout.count("the same, --rate") == 3


async def test_latency_counts_from_when_a_call_was_due() -> None:
    at_once, most_at_once = 0, 0

    async def slow(body: bytes) -> bytes:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        if body == b"stop":
            time.sleep(0.5)  # nothing can be sent meanwhile
        await asyncio.sleep(0.05)
        at_once -= 1
        if body == b"odd":
            raise CallError("RESOURCE_EXHAUSTED")
        return b""

    run = Run(slow, [b"even", b"odd"])
    await run.closed(callers=2, seconds=0.2)
    assert most_at_once == 2
    assert 1 <= run.outcomes["OK"] <= 4 and 1 <= run.outcomes["RESOURCE_EXHAUSTED"] <= 4
    assert min(run.latency_s) >= 0.05

    run = Run(slow, [b"even"])
    await run.open(calls_per_s=200, seconds=0.5, seed=0)
    assert run.outcomes["OK"] == pytest.approx(100, abs=30)  # Poisson
    assert most_at_once > 2  # none waits for another

    run = Run(slow, [b"stop", *[b"even"] * 99])
    await run.open(calls_per_s=200, seconds=0.5, seed=0)
    assert np.median(run.latency_s) > 0.2  # those that were due while nothing could be sent waited


@asynccontextmanager
async def echo(port: int = 0, most_at_once: int = 100) -> AsyncIterator[int]:
    """A gRPC server that answers "SIZE rest" with SIZE times the rest, "refuse" not, and "wait" late."""

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if request == b"refuse":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
        if request == b"wait":
            await asyncio.sleep(10)
        times, _, rest = request.partition(b" ")
        return rest * int(times)

    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", most_at_once), ("grpc.so_reuseport", 0)])
    handlers = {"Answer": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def test_the_load_generator_speaks_grpc() -> None:
    async with echo(most_at_once=10) as port, echo() as other:
        call = Channel([("127.0.0.1", port), ("127.0.0.1", other)], "/test.Echo/Answer", timeout_s=20)

        async def answered(body: bytes) -> bytes:
            while True:
                try:
                    return await call(body)
                except CallError as error:  # it was sent as the server ended another, which still counted
                    if str(error) != "UNAVAILABLE":
                        raise

        rests = [b"%d" % number * 2_000 for number in range(200)]  # together more than fits into a window
        assert await asyncio.gather(*(answered(b"2 " + rest) for rest in rests)) == [rest * 2 for rest in rests]
        assert await call(b"1000000 abc") == b"abc" * 1_000_000
        assert await call(b"0 ") == b""
        with pytest.raises(CallError, match="RESOURCE_EXHAUSTED"):
            await call(b"refuse")
        with pytest.raises(CallError, match="UNKNOWN"):
            await call(b"no number")
        with pytest.raises(ValueError, match=f"{LARGEST_BODY + 1} bytes, the limit is {LARGEST_BODY}"):
            await call(bytes(LARGEST_BODY + 1))
        call.close()
        nowhere = Channel([("127.0.0.1", port)], "/test.Echo/Other", timeout_s=20)
        with pytest.raises(CallError, match="UNIMPLEMENTED"):
            await nowhere(b"1 a")
        nowhere.close()


async def test_the_load_generator_gives_up_at_the_deadline_and_when_nobody_is_there() -> None:
    async with echo(most_at_once=1) as port:
        call = Channel([("127.0.0.1", port)], "/test.Echo/Answer", timeout_s=0.3)
        late, held_back = await asyncio.gather(call(b"wait"), call(b"wait"), return_exceptions=True)
        assert str(late) == "DEADLINE_EXCEEDED"
        assert str(held_back) in ("DEADLINE_EXCEEDED", "UNAVAILABLE")  # sent, if at all, as the server ends the first
        assert await call(b"1 a") == b"a"
    with pytest.raises(CallError, match="UNAVAILABLE"):
        await call(b"1 a")
    async with echo(port):
        assert await call(b"1 b") == b"b"
    call.close()


@pytest.mark.timeout(600)
def test_attributes_come_with_candidates_beside_requests_without(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.serving.attributes", "--milvus-uri", milvus_server_uri]
    command += ["--items", "2000", "--rounds", "1", "--seconds", "0.3", "--workdir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "2000" / "attributes.json").read_text())["rows"]
    assert [row["subject"] for row in rows] == ["none", "3"] * 3
    assert all(set(row["outcomes"]) == {"OK"} for row in rows), rows


@pytest.mark.timeout(600)
def test_similar_items_are_the_nearest_by_cosine_and_asked_in_turn(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.serving.similar", "--milvus-uri", milvus_server_uri]
    command += ["--items", "2000", "--rounds", "1", "--seconds", "0.3", "--workdir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "2000" / "similar.json").read_text())["rows"]
    assert [row["subject"] for row in rows] == ["recall", "similar"] * 3 + ["similar", "both"] * 3


@pytest.mark.timeout(600)
def test_rules_are_measured_beside_requests_without(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.serving.variety", "--milvus-uri", milvus_server_uri]
    command += ["--items", "2000", "--rounds", "1", "--seconds", "0.3", "--workdir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "2000" / "variety.json").read_text())["rows"]
    assert [row["subject"] for row in rows[1::2]] == [*variety.RULES, *variety.BOOSTS, "pins"] * 3
    assert all(set(row["outcomes"]) == {"OK"} for row in rows), rows


@pytest.mark.timeout(600)
def test_a_server_with_a_shadow_is_measured_beside_one_without(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.serving.shadow", "--milvus-uri", milvus_server_uri]
    command += ["--items", "2000", "--rounds", "1", "--seconds", "0.3", "--share", "1", "--workdir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "2000" / "shadow.json").read_text())
    assert [row["subject"] for row in found["rows"]] == ["none", "100%"] * 4
    assert all(set(row["outcomes"]) == {"OK"} for row in found["rows"]), found["rows"]
    assert found["outcomes"]["compared"] > 0
