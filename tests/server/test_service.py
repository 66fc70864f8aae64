"""The service as it runs: `python -m server` beside Milvus, called by grpcurl and by the shipped client."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients import InvalidRequestError, RecallClient
from mind.artifact import load_artifact
from protos.recall.v1 import recall_pb2
from tests import ROOT
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.server.test_store import build
from tests.waiting import wait_until

GRPCURL = Path(sys.executable).parent / "grpcurl"


class Server:
    """A server process, its log, and its address once it listens."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "server", "--listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            self.log.extend(iter(lines.readline, ""))

    def wait_for(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """The first match of `pattern` in the log."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if matched := re.search(pattern, "".join(self.log)):
                return matched
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} is not in the log:\n{''.join(self.log)}")

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return self.wait_for(r"listening on (\S+)")[1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self._reader.join()


@contextmanager
def running(*options: str) -> Iterator[Server]:
    server = Server(*options)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def released(milvus_uri: str, tmp_path: Path) -> Iterator[Server]:
    """A server on a released collection of 200 items with a year and genres."""
    artifact = load_artifact(make_artifact(tmp_path / "artifacts"))
    item_id = artifact.weights.item_id.tolist()
    columns = {
        "item_id": item_id,
        "title": [f"Title {item}" for item in item_id],
        "year": [1990 + item % 10 for item in item_id],
        "genres": [["Drama"] if item % 2 else ["Comedy", "Drama"] for item in item_id],
    }
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    build(milvus_uri, tmp_path / "artifacts", "--attributes", str(tmp_path / "items.parquet"))
    with running("--milvus-uri", milvus_uri, "--artifacts", str(tmp_path / "artifacts")) as server:
        server.wait_for("serving model")
        yield server


def grpcurl(address: str, *words: str, data: str | None = None, expect: int = 0) -> str:
    options = ["-d", data] if data else []
    command = [GRPCURL, "-plaintext", *options, address, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_items_that_are_added_and_deleted_while_it_serves(released: Server, milvus_uri: str, tmp_path: Path) -> None:
    if milvus_uri.endswith(".db"):
        pytest.skip("the server holds the file, so nobody can change it meanwhile")
    (tmp_path / "new.csv").write_text("item_id,title,year,genres\n5,New,2024,Drama\n")
    (tmp_path / "since.txt").write_text("1,1000,0\n1,1007,1\n1,5,2\n")
    files = ["--attributes", tmp_path / "new.csv", "--interactions", tmp_path / "since.txt"]
    connection = ["--milvus-uri", milvus_uri]
    with RecallClient(released.address, timeout_s=10) as client:

        def seen(history: list[int], filter_: str = "") -> list[int]:
            return list(client.recall([history], top_k=300, filter=filter_).results[0].item_ids)

        assert seen([1000, 1007], "year == 2024") == []
        changed = index("upsert", *files, "--artifact", tmp_path / "artifacts", *connection)
        assert "added      1 items, vectors neighbours" in changed
        wait_until(lambda: 5 in seen([1000, 1007]))
        assert seen([1000, 1007], 'year == 2024 and vector_source != "trained"') == [5]
        wait_until(lambda: seen([1000, 1007], "year == 2024") == [5])  # what matched before was kept
        assert "deleted    2 items" in index("delete", "--ids", "1000,5", *connection)
        wait_until(lambda: not {5, 1000} & set(seen([1000, 1007])))
        wait_until(lambda: seen([1000, 1007], "year == 2024") == [])
        wait_until(lambda: 1000 not in seen([]))  # the fallback
        assert client.count_items().count == 199
    listed = json.loads(index("status", "--format", "json", *connection))
    assert {key: value for key, value in listed[0]["changes"].items() if value} == {"deleted": 1}


def index(*words: object) -> str:
    """Run the indexer; what it printed."""
    done = run_here("indexer", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_grpcurl_and_the_client(released: Server) -> None:
    address = released.address
    assert grpcurl(address, "list").split() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "recall.v1.RecallService",
    ]
    assert "rpc Recall ( .recall.v1.RecallRequest )" in grpcurl(address, "describe", "recall.v1.RecallService")
    assert json.loads(grpcurl(address, "grpc.health.v1.Health/Check")) == {"status": "SERVING"}
    ask = '{"users": [{"hist_item": [1000, 1007]}, {}], "top_k": 5}'
    answer = json.loads(grpcurl(address, "recall.v1.RecallService/Recall", data=ask))
    assert [result["status"] for result in answer["results"]] == ["USER_STATUS_OK", "USER_STATUS_EMPTY_HISTORY"]
    assert len(answer["results"][0]["item_ids"]) == 5
    refused = grpcurl(address, "recall.v1.RecallService/Recall", data='{"users": [{}], "top_k": 0}', expect=67)
    assert "InvalidArgument" in refused and "TOP_K_OUT_OF_RANGE" in refused and "BadRequest" in refused

    with RecallClient(address, timeout_s=10) as client:
        info = client.get_server_info()
        types = {attribute.name: attribute.type for attribute in info.attributes}
        assert types == {"title": "VARCHAR", "year": "INT64", "genres": "ARRAY<VARCHAR>", "vector_source": "VARCHAR"}
        everything = client.recall([[1000, 1007]], top_k=200).results[0]
        assert len(everything.item_ids) == 200
        wanted = 'year >= 1995 and array_contains(genres, "Comedy")'
        passing = {item for item in range(1000, 2400, 7) if item % 10 >= 5 and item % 2 == 0}
        filtered = client.recall([[1000, 1007], []], top_k=200, filter=wanted)
        assert [set(result.item_ids) for result in filtered.results] == [passing, passing]
        assert filtered.results[0].item_ids == [item for item in everything.item_ids if item in passing]
        assert filtered.results[1].fallback
        assert client.count_items(filter=wanted).count == len(passing)
        with pytest.raises(InvalidRequestError, match="'colour == 1', column 1: 'colour' is no attribute"):
            client.recall([[1000]], top_k=5, filter="colour == 1")
        with pytest.raises(InvalidRequestError, match="column 18: expected a field, a value"):
            client.count_items(filter="item_id in [1000,")
        assert not any("Traceback" in line or "1000" in line for line in released.log)
        explained = client.explain([1000, 1007], top_k=195, exclude_history=True)  # so that every item is a hit
        assert {d.item_id for d in explained.dropped if d.reason == recall_pb2.DROP_REASON_HISTORY} == {1000, 1007}


def test_sigterm_drains_under_load(released: Server) -> None:
    answers, errors = [], []
    stop = threading.Event()

    def call() -> None:
        with RecallClient(released.address, timeout_s=10) as client:
            while not stop.is_set():
                try:
                    answers.append(len(client.recall([[1000, 1007]], top_k=5).results[0].item_ids))
                except Exception as error:
                    errors.append(error)
                    return

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: errors or len(answers) > 20)
    assert not errors
    assert released.stop() == 0
    stop.set()
    for thread in threads:
        thread.join()
    # What was accepted was answered; later calls found the door closed, none was cut off half-way.
    assert set(answers) == {5}
    assert all(type(error).__name__ == "UnavailableError" for error in errors), errors
    assert "stopped" in released.log[-1] and not any("ERROR" in line for line in released.log)


def test_the_paddle_encoder_serves_and_stops_as_the_other_does(tmp_path: Path) -> None:
    make_artifact(tmp_path / "artifacts")
    lite = str(tmp_path / "milvus.db")
    build(lite, tmp_path / "artifacts")
    options = ("--milvus-uri", lite, "--artifacts", str(tmp_path / "artifacts"), "--encoder", "paddle")
    with running(*options) as server:
        server.wait_for("serving model")
        with RecallClient(server.address, timeout_s=10) as client:
            assert client.get_server_info().encoder == "paddle"
            assert len(client.recall([[1000, 1007]], top_k=5).results[0].item_ids) == 5
        assert server.stop() == 0
        assert "stopped" in server.log[-1]


def test_milvus_that_is_not_there_yet() -> None:
    options = ("--milvus-uri", "http://127.0.0.1:9", "--watch-interval-s", "0.2", "--search-timeout-ms", "500")
    with running(*options) as server:
        server.wait_for(r"no Milvus answers at http://127\.0\.0\.1:9 \(.*\); `make milvus` starts one\n")
        health = json.loads(grpcurl(server.address, "grpc.health.v1.Health/Check"))
        assert health == {"status": "NOT_SERVING"}  # it listens, and says so
        refused = grpcurl(server.address, "recall.v1.RecallService/GetServerInfo", expect=78)
        assert "NOT_READY" in refused and "no Milvus answers at http://127.0.0.1:9" in refused
        time.sleep(1)
        assert "".join(server.log).count("server.releases: no Milvus answers") == 1  # said once, not at every try
        assert server.stop() == 0


def test_a_lite_file_in_use(tmp_path: Path) -> None:
    make_artifact(tmp_path / "artifacts")
    lite = str(tmp_path / "milvus.db")
    build(lite, tmp_path / "artifacts")
    options = ("--milvus-uri", lite, "--artifacts", str(tmp_path / "artifacts"), "--watch-interval-s", "0.5")
    with running(*options) as first:
        first.wait_for("serving model")
        with running(*options) as second:
            second.wait_for("another process holds this Milvus Lite file")
            first.stop()
            second.wait_for("serving model")  # takes over by itself


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--max-users", "0"], 1, "error: --max-users: Input should be greater than 0 (value: '0')"),
        (
            ["--max-top-k", "500", "--max-candidates", "100"],
            1,
            "--max-top-k is 500: it must not exceed --max-candidates, which is 100",
        ),
        (["--config", "/nowhere.yaml"], 1, "error: --config /nowhere.yaml: no such file"),
        (["--milvus-uri", "foo"], 1, "--milvus-uri is 'foo': expected a path that ends in .db, or http(s)://host:port"),
        (["--listen", "127.0.0.1:99999"], 1, "--listen is '127.0.0.1:99999': expected host:port, port 0 to 65535"),
        (["--milvus-ca-cert", "/nope"], 1, "--milvus-ca-cert is /nope: it needs an https:// address"),
        (["--processes", "2"], 1, "--processes is 2: only one process can use a Milvus Lite file"),
        (["--nonsense"], 2, "No such option: --nonsense"),
        (["--encoder", "torch"], 1, "error: --encoder: Input should be 'numpy', 'cupy' or 'paddle' (value: 'torch')"),
    ],
)
def test_options_that_cannot_work(options: list[str], code: int, says: str) -> None:
    done = run_here("server", *options)
    assert done.returncode == code
    assert says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "module", "processes"),
    [
        (signal.SIGINT, "typer", "1"),
        (signal.SIGINT, "pandas", "1"),
        (signal.SIGTERM, "server.app", "1"),
        (signal.SIGINT, "grpc", "2"),  # of one of the two
        (signal.SIGTERM, "pandas", "2"),
    ],
)
def test_told_to_stop_while_it_imports(number: signal.Signals, module: str, processes: str) -> None:
    options = ["--listen", "127.0.0.1:0", "--milvus-uri", "http://127.0.0.1:1", "--processes", processes]
    command = [sys.executable, "-X", "importtime", "-m", "server", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr
        try:
            log = [next(line for line in process.stderr if line.split()[-1:] == [module])]
            os.killpg(process.pid, number)  # as a terminal does with Ctrl-C
            log += process.stderr.readlines()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, "Traceback" in "".join(log)) == (0, False), "".join(log[-20:])


def test_told_to_stop_while_milvus_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with running("--milvus-uri", uri) as server, silent.accept()[0]:
            assert server.stop() == 0
    assert not any("Traceback" in line or "listening" in line for line in server.log)


def test_no_error_shows_the_token() -> None:
    command = [sys.executable, "-m", "server", "--max-candidates", "10"]
    environment = os.environ | {"RECALL_MILVUS_TOKEN": "secret123"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert (
        done.returncode == 1 and "--max-top-k is 1000: it must not exceed --max-candidates, which is 10" in done.stderr
    )
    assert "secret123" not in done.stdout + done.stderr


def test_flag_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.options import load_settings

    file = tmp_path / "server.yaml"
    file.write_text("max_users: 1\nmax_top_k: 1\nmax_exclude: 1\n")
    monkeypatch.setenv("RECALL_MAX_USERS", "2")
    monkeypatch.setenv("RECALL_MAX_TOP_K", "2")
    settings = load_settings(["--config", str(file), "--max-users", "3"])
    assert (settings.max_users, settings.max_top_k, settings.max_exclude, settings.max_history) == (3, 2, 1, 10_000)
    monkeypatch.setenv("RECALL_CONFIG", str(file))
    assert load_settings([]).max_exclude == 1
