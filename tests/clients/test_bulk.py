"""`recall-client bulk`: the answers, what is asked of the server, and runs that end early."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from clients.bulk_answers import Columns
from clients.bulk_input import open_histories
from clients.bulk_parts import open_parts
from clients.cli import app
from protos.recall.v1 import recall_pb2
from tests import ROOT
from tests.canned_recall import INFO, KEYED_INFO, CannedRecall, running
from tests.waiting import wait_until

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "going away", ())
TIMED_OUT = (grpc.StatusCode.DEADLINE_EXCEEDED, "too slow", ())
OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full", (("grpc-retry-pushback-ms", "-1"),))
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "filter: no attribute 'yeer'", (("error-reason", "FILTER_INVALID"),))


class Limited(CannedRecall):
    """Tells limits that tests choose, and can hold back the answer to user 0."""

    def __init__(self, **limits):
        super().__init__()
        self.limits = limits
        self.free = threading.Event()
        self.free.set()

    def GetServerInfo(self, request, context):  # noqa: N802
        super().GetServerInfo(request, context)
        info = recall_pb2.GetServerInfoResponse()
        info.CopyFrom(KEYED_INFO if self.keyed else INFO)
        info.limits.MergeFrom(recall_pb2.Limits(**self.limits))
        return info

    def Recall(self, request, context):  # noqa: N802
        if request.users[0].hist_item[:1] == [0]:
            self.free.wait(30)
        return super().Recall(request, context)


@pytest.fixture
def servicer():
    return CannedRecall()


@pytest.fixture
def target(servicer):
    with running(servicer) as target:
        yield target


@pytest.fixture
def files(tmp_path):
    """--input and --output."""
    return tmp_path / "histories.parquet", tmp_path / "candidates.parquet"


@pytest.fixture
def bulk(target, files):
    """Runs the command on the files, ten users a request; 100 columns, no colours."""

    def run(*options, **env):
        env = {"RECALL_SERVER": target, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"} | env
        paths = ["--input", str(files[0]), "--output", str(files[1])]
        return CliRunner().invoke(app, ["bulk", *paths, "--users-per-request", "10", *options], env=env)

    return run


@pytest.fixture
def start(target, files):
    """Starts the command in a process of its own and waits for its first part."""
    started = []

    def run(*options):
        command = [sys.executable, "-m", "clients", "bulk", "--input", files[0], "--output", files[1], *options]
        process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"RECALL_SERVER": target}
        )
        started.append(process)
        wait_until(lambda: (parts_of(files[1]) / "00000.parquet").exists())
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def parts_of(output):
    return output.with_name(f"{output.name}.parts")


def write_users(path, count):
    """Users 1000, 1001, ... with the histories [0, 1], [1, 2], ...; those of 1003 and 1004 are empty and null."""
    histories = [[user, user + 1] for user in range(count)]
    histories[3:5] = [[], None]
    table = pa.table(
        {
            "noise": ["x"] * count,
            "user_id": range(1000, 1000 + count),
            "hist_item": pa.array(histories, pa.list_(pa.int64())),
        }
    )
    pq.write_table(table, path, row_group_size=17)


def asked(servicer):
    """Number of users of each request, in the order of their arrival."""
    return [len(request.users) for request, _, _ in servicer.calls["Recall"]]


def test_the_answers_are_those_of_recall(bulk, target, files, tmp_path):
    write_users(files[0], 95)
    result = bulk("--top-k", "3", "--users-per-part", "40")
    assert result.exit_code == 0, result.output
    table = pq.read_table(files[1])
    assert table.schema.equals(Columns.of("user_id", pa.int64(), text=False).schema)
    assert pa.types.is_dictionary(table.schema.field("model_version").type)
    assert table["user_id"].to_pylist() == list(range(1000, 1095))

    users = tmp_path / "users.jsonl"
    rows = [{"user_id": row["user_id"], "hist_item": row["hist_item"] or []} for row in read(files[0])]
    users.write_text("\n".join(map(json.dumps, rows)))
    lines = CliRunner().invoke(app, ["recall", "--input", str(users), "--top-k", "3", "--server", target]).stdout
    for row, line in zip(table.to_pylist(), map(json.loads, lines.splitlines()), strict=True):
        assert row["model_version"] == "ab12"
        assert row["scores"] == pytest.approx(line["scores"])
        assert f"USER_STATUS_{row['status']}" == line["status"]
        assert [row[name] for name in ("user_id", "item_ids", "interest")] == [
            line[name] for name in ("user_id", "item_ids", "interest")
        ]
    assert table.to_pylist()[4]["status"] == "EMPTY_HISTORY"

    metadata = pq.read_metadata(files[1])
    assert [metadata.row_group(group).num_rows for group in range(3)] == [40, 40, 15]
    assert "95 users in" in result.stderr
    assert "OK (93 users), EMPTY_HISTORY (2 users)" in result.stderr
    assert "model ab12 (95 users)\n" in result.stderr
    assert str(files[1]) in result.stderr
    assert not parts_of(files[1]).exists()


def read(path):
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize("user_type", [pa.int64(), pa.int32(), pa.string(), pa.large_string()])
@pytest.mark.parametrize(
    "history_type", [pa.list_(pa.int64()), pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.large_list(pa.int16())]
)
def test_types_of_other_writers(bulk, servicer, files, user_type, history_type):
    users = pa.array(["7", "8", None], pa.string()).cast(user_type)
    histories = pa.array([[5, None, 6], [None], None], history_type)
    pq.write_table(pa.table({"who": users, "clicks": histories}), files[0])
    assert bulk("--user-column", "who", "--history-column", "clicks", "--top-k", "1").exit_code == 0
    table = pq.read_table(files[1])
    assert table["who"].type == user_type
    assert table["who"].to_pylist() == users.to_pylist()
    assert table["item_ids"].to_pylist() == [[7], [7], [7]]  # after 6 comes 7; 7 is the popular item
    (request, _, _) = servicer.calls["Recall"][0]
    assert [list(user.hist_item) for user in request.users] == [[5, 6], [], []]


def test_every_option_reaches_the_server(bulk, servicer, files, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    exclude = pa.array([[9], None, [1, 2]], pa.list_(pa.int64()))
    nobody = pa.nulls(3, pa.list_(pa.null()))  # what pandas writes when all lists are empty
    table = pa.table({"user_id": ["a", "b", "c"], "hist_item": [[1]] * 3, "exclude_item_ids": exclude, "none": nobody})
    pq.write_table(table, files[0])
    options = [
        "--filter",
        "year > 1990",
        "--exclude-history",
        "--merge",
        "round-robin",
        "--server-token-file",
        str(token),
    ]
    assert bulk(*options).exit_code == 0
    assert bulk("--overwrite", "--exclude-column", "none").exit_code == 0
    (request, metadata, _), (other, _, _) = servicer.calls["Recall"]
    assert (request.top_k, request.filter, request.exclude_history) == (50, "year > 1990", True)
    assert request.merge_strategy == recall_pb2.MERGE_STRATEGY_ROUND_ROBIN
    assert metadata["authorization"] == "Bearer secret"
    assert [list(user.exclude_item_ids) for user in request.users] == [[9], [], [1, 2]]
    assert [list(user.exclude_item_ids) for user in other.users] == [[], [], []]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--user-column", "who"], "no column 'who'; there are: user_id, hist_item, price, text, floats"),
        (["--user-column", "price"], "column 'price' is double, must be int64 or string"),
        (["--history-column", "user_id"], "column 'user_id' is int64, must be list<int64>"),
        (["--exclude-column", "price"], "column 'price' is double, must be list<int64> or list<string>"),
        (
            ["--exclude-column", "floats"],
            "column 'floats' is list<element: double>, must be list<int64> or list<string>",
        ),
    ],
)
def test_a_column_that_does_not_fit_is_named(bulk, servicer, files, options, message):
    columns = {"user_id": [1], "hist_item": [[2]], "price": [0.5], "text": [["a"]], "floats": [[0.5]]}
    pq.write_table(pa.table(columns), files[0])
    result = bulk(*options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {files[0]}: {message}")
    assert not servicer.calls
    assert not parts_of(files[1]).exists()


@pytest.mark.parametrize("history_type", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
def test_text_ids_go_out_and_come_back_as_they_are(bulk, servicer, files, history_type):
    servicer.keyed = True
    histories = pa.array([["a", None, "0042"], [None], None, ["x, <b>", "ключ"]], history_type)
    excluded = pa.array([["42"], [], None, None], pa.list_(pa.string()))
    pq.write_table(pa.table({"user_id": list("abcd"), "hist_item": histories, "exclude_item_ids": excluded}), files[0])
    result = bulk("--top-k", "2")
    assert result.exit_code == 0, result.output
    table = pq.read_table(files[1])
    assert table.schema.equals(Columns.of("user_id", pa.string(), text=True).schema)
    assert table["item_ids"].to_pylist() == [["0042+1", "0042+2"], ["TOP-7"], ["TOP-7"], ["ключ+1", "ключ+2"]]
    users = servicer.calls["Recall"][0][0].users
    assert [list(user.hist_item_keys) for user in users] == [["a", "0042"], [], [], ["x, <b>", "ключ"]]
    assert [list(user.exclude_item_keys) for user in users] == [["42"], [], [], []]


@pytest.mark.parametrize(("keyed", "history"), [(True, ["a"]), (False, [1])])
def test_users_without_candidates_have_empty_lists_of_the_kind(bulk, servicer, files, monkeypatch, keyed, history):
    servicer.keyed = keyed
    monkeypatch.setattr("tests.canned_recall.candidates", lambda *_: recall_pb2.UserCandidates(status=4))
    pq.write_table(pa.table({"user_id": [1], "hist_item": [history]}), files[0])
    assert bulk().exit_code == 0
    table = pq.read_table(files[1])
    assert table["item_ids"].type.value_type == (pa.string() if keyed else pa.int64())
    assert table.to_pylist()[0]["item_ids"] == []


@pytest.mark.parametrize("servicer", [Limited(max_request_bytes=500)])
def test_requests_are_cut_by_the_bytes_of_text_ids(bulk, servicer, files):
    servicer.limits["max_history"] = 2
    servicer.keyed = True
    histories = pa.array([["я" * 50] * length for length in (9, 1, 1, 1, 0)])  # at most 103 bytes an id, two of a user
    pq.write_table(pa.table({"user_id": range(5), "hist_item": histories}), files[0])
    assert bulk("--concurrency", "1").exit_code == 0
    assert asked(servicer) == [3, 2]
    assert all(request.ByteSize() < 500 for request, _, _ in servicer.calls["Recall"])


@pytest.mark.parametrize(
    ("keyed", "column", "says"),
    [
        (False, ["a"], "column 'hist_item' is list<string>, must be list<int64>: this release has integer ids"),
        (True, [1], "column 'hist_item' is list<int64>, must be list<string>: this release has text ids"),
    ],
)
def test_ids_of_the_other_kind_are_refused_by_the_column(bulk, servicer, files, keyed, column, says):
    servicer.keyed = keyed
    pq.write_table(pa.table({"user_id": [1], "hist_item": [column]}), files[0])
    result = bulk()
    assert result.exit_code == 1 and says in result.stderr
    assert not servicer.calls["Recall"]


def test_parts_with_ids_of_the_other_kind_are_not_mixed(bulk, servicer, files):
    """A file of empty histories fits both kinds, so only the parts tell."""
    pq.write_table(pa.table({"user_id": range(40), "hist_item": pa.nulls(40)}), files[0])
    servicer.failures = [*[None] * 3, INVALID]
    assert bulk("--concurrency", "1", "--users-per-part", "20").exit_code == 1
    servicer.keyed = True
    result = bulk("--users-per-part", "20")
    assert result.exit_code == 1
    found = " ".join(result.stderr.split())
    assert "item_ids is string, was int64; --restart starts again" in found
    assert bulk("--restart").exit_code == 0
    assert read(files[1])[0]["item_ids"] == ["TOP-7"]


def test_other_files_are_refused(bulk, files):
    files[0].write_text("user_id,hist_item\n1,2\n")
    assert "histories.parquet: cannot be read as Parquet" in bulk().stderr
    files[0].write_bytes(b"PAR1" + b"\xff" * 40 + (40).to_bytes(4, "little") + b"PAR1")  # a damaged footer
    assert "histories.parquet: cannot be read as Parquet" in bulk().stderr
    pq.write_table(pa.table({"user_id": pa.array([], pa.int64()), "hist_item": pa.nulls(0)}), files[0])
    assert "histories.parquet has no users" in bulk().stderr
    pq.write_table(pa.table({"scores": [1], "hist_item": [[2]]}), files[0])
    assert "the output already has a column 'scores'" in bulk("--user-column", "scores").stderr
    assert not files[1].exists()


@pytest.mark.parametrize(
    ("servicer", "options", "sizes"),
    [
        (Limited(), ["--users-per-request", "7"], [7, 7, 7, 4]),
        (Limited(max_users=8), [], [8, 8, 8, 1]),
        (Limited(max_candidates=60), ["--top-k", "10"], [6, 6, 6, 6, 1]),
        (Limited(max_candidates=5), ["--top-k", "10"], [1] * 25),  # the server says what is wrong with that
        # Two ids make a user of at most 16 + 2 x 10 bytes; the 3rd and 4th have none.
        (Limited(max_request_bytes=80), [], [2, 3, *[2] * 10]),
        (Limited(max_request_bytes=1), [], [1] * 25),
    ],
)
def test_requests_keep_the_limits_of_the_server(bulk, servicer, files, options, sizes):
    write_users(files[0], 25)
    assert bulk("--concurrency", "1", *options).exit_code == 0
    assert asked(servicer) == sizes
    assert pq.read_table(files[1])["user_id"].to_pylist() == list(range(1000, 1025))


@pytest.mark.parametrize("servicer", [Limited(max_history=4, max_exclude=2)])
def test_a_history_is_cut_to_the_limit_and_exclusions_where_they_still_break_it(bulk, servicer, files):
    lists = pa.array([list(range(1, 100)), [1, 2, 3, 4]], pa.list_(pa.int64()))
    pq.write_table(pa.table({"user_id": [1, 2], "hist_item": lists, "exclude_item_ids": lists}), files[0])
    assert bulk().exit_code == 0
    users = servicer.calls["Recall"][0][0].users
    assert [list(user.hist_item) for user in users] == [[96, 97, 98, 99], [1, 2, 3, 4]]
    assert [len(user.exclude_item_ids) for user in users] == [3, 3]


@pytest.mark.parametrize(("servicer", "most"), [(Limited(), 4), (Limited(max_concurrent_requests=2), 2)])
def test_so_many_requests_are_in_flight(bulk, servicer, files, most):
    write_users(files[0], 200)
    servicer.delay_s = 0.02
    assert bulk("--concurrency", "4").exit_code == 0
    assert len(asked(servicer)) == 20
    assert servicer.most_at_once == most


@pytest.mark.parametrize("servicer", [Limited()])
def test_answers_do_not_pile_up_behind_a_slow_one(bulk, servicer, files):
    write_users(files[0], 400)
    servicer.free.clear()
    with futures.ThreadPoolExecutor(1) as pool:
        counted = pool.submit(lambda: (wait_until(lambda: len(asked(servicer)) >= 7), time.sleep(0.3), asked(servicer)))
        pool.submit(lambda: (counted.result(), servicer.free.set()))
        assert bulk("--concurrency", "2", "--top-k", "1").exit_code == 0
    assert len(counted.result()[2]) == 7  # 4 x 2 requests were begun, the first of which is not answered
    assert [row["item_ids"] for row in read(files[1])[5:]] == [[user + 2] for user in range(5, 400)]


def test_a_large_row_group_is_read_in_pieces(files):
    count, length = 100_000, 20
    items = pa.array(np.arange(count * length))
    histories = pa.ListArray.from_arrays(pa.array(np.arange(0, len(items) + 1, length, np.int32)), items)
    table = pa.table({"user_id": np.arange(count), "hist_item": histories})
    pq.write_table(table, files[0], compression="none", row_group_size=count)
    del items, histories, table
    assert files[0].stat().st_size > 16_000_000
    before, users = pa.total_allocated_bytes(), 0
    for rows in open_histories(files[0], "user_id", "hist_item", None).read(5, 1000):
        users += len(rows.user_ids)
        assert pa.total_allocated_bytes() - before < 8_000_000
    assert users == count - 5


def test_passing_failures_are_asked_again(bulk, servicer, files):
    write_users(files[0], 30)
    # The info, then four attempts of the channel itself; after the others it makes none.
    servicer.failures = [None, *[UNAVAILABLE] * 4, OVERLOADED, TIMED_OUT, OVERLOADED]
    result = bulk("--top-k", "1", "--concurrency", "1")
    assert result.exit_code == 0, result.stderr
    assert len(asked(servicer)) == 7 + 3
    assert len(read(files[1])) == 30


def test_a_server_that_goes_and_comes_back(servicer, files):
    write_users(files[0], 300)
    servicer.delay_s = 0.01
    first = running(servicer)
    target = first.__enter__()

    def come_back():
        wait_until(lambda: len(asked(servicer)) >= 5)
        first.__exit__(None, None, None)
        time.sleep(0.2)
        server = grpc.server(futures.ThreadPoolExecutor(8))
        servicer.add_to(server)
        assert server.add_insecure_port(target)
        server.start()
        return server

    arguments = ["--input", str(files[0]), "--output", str(files[1]), "--server", target, "--top-k", "1"]
    with futures.ThreadPoolExecutor(1) as pool:
        second = pool.submit(come_back)
        result = CliRunner().invoke(app, ["bulk", *arguments, "--users-per-request", "5"])
        second.result().stop(None).wait()
    assert result.exit_code == 0, result.stderr
    assert [row["item_ids"] for row in read(files[1])[5:]] == [[user + 2] for user in range(5, 300)]


def test_a_server_that_stays_away_is_exit_code_3(bulk, servicer, files):
    write_users(files[0], 30)
    servicer.failures = [None, None, *[OVERLOADED] * 100]
    result = bulk("--give-up-after-s", "0.3", "--concurrency", "1", "--users-per-part", "10")
    assert result.exit_code == 3
    assert result.stderr == (
        "stopped with 10 of 30 users saved; the same command continues from there\n"
        "error: queue is full [RESOURCE_EXHAUSTED]\n"
    )
    servicer.failures = []
    assert "30 users, 10 of them earlier, in" in bulk("--users-per-part", "10").stderr
    assert len(read(files[1])) == 30


def test_a_refused_request_ends_the_run_and_keeps_the_parts(bulk, servicer, files):
    write_users(files[0], 100)
    servicer.failures = [*[None] * 6, INVALID]
    result = bulk("--concurrency", "1", "--users-per-part", "20")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "stopped with 40 of 100 users saved; the same command continues from there",
        "error: filter: no attribute 'yeer' [FILTER_INVALID]",
    ]
    assert len(asked(servicer)) == 6
    assert not files[1].exists()
    servicer.calls.clear()
    assert bulk("--users-per-part", "20").exit_code == 0
    assert sum(asked(servicer)) == 60


def test_a_run_that_saved_nothing_leaves_nothing(bulk, servicer, files):
    write_users(files[0], 10)
    servicer.failures = [None, INVALID]
    assert bulk("--filter", "yeer > 3").exit_code == 1
    assert not parts_of(files[1]).exists()
    assert bulk().exit_code == 0


def test_a_killed_run_goes_on(bulk, start, servicer, files):
    write_users(files[0], 600)
    options = ["--users-per-part", "50", "--top-k", "2"]
    assert bulk(*options).exit_code == 0
    whole = files[1].read_bytes()
    files[1].unlink()

    servicer.delay_s = 0.05
    process = start("--users-per-request", "10", "--concurrency", "2", *options)
    process.kill()
    process.wait()
    assert not files[1].exists()
    saved = len(list(parts_of(files[1]).glob("[0-9]*.parquet"))) * 50
    assert 50 <= saved < 600
    (parts_of(files[1]) / "part.tmp").write_text("half a part")
    time.sleep(0.2)  # for the requests of the dead
    servicer.calls.clear()
    servicer.delay_s = 0
    result = bulk(*options, "--users-per-request", "7")
    assert f"600 users, {saved} of them earlier, in" in result.stderr
    assert sum(asked(servicer)) == 600 - saved
    assert files[1].read_bytes() == whole
    assert not parts_of(files[1]).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run(start, servicer, files, number, code):
    write_users(files[0], 600)
    servicer.delay_s = 0.05
    process = start("--users-per-part", "50", "--users-per-request", "10", "--concurrency", "2")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    saved = len(list(parts_of(files[1]).glob("[0-9]*.parquet"))) * 50
    assert f"stopped with {saved} of 600 users saved; the same command continues from there" in stderr.splitlines()
    assert "Traceback" not in stderr


@pytest.fixture
def stopped(bulk, servicer, files):
    """A run that ended after 40 of 100 users."""
    write_users(files[0], 100)
    servicer.failures = [*[None] * 6, INVALID]
    assert bulk("--concurrency", "1", "--users-per-part", "20", "--filter", "a > 1").exit_code == 1
    servicer.calls.clear()


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--filter", "a > 2"], "filter is 'a > 2', was 'a > 1'; --restart"),
        (["--filter", "a > 1", "--top-k", "7"], "top_k is 7, was 50; --restart"),
        (["--filter", "a > 1", "--exclude-history"], "exclude_history is True, was False; --restart"),
        (["--merge", "round-robin"], "filter is '', was 'a > 1'; merge_strategy is 'round_robin', was 'best_score'; -"),
    ],
)
def test_parts_of_another_question_are_not_mixed(bulk, stopped, servicer, files, options, difference):
    result = bulk(*options)
    assert result.exit_code == 1
    assert f"candidates.parquet.parts belongs to another run: {difference}" in result.stderr
    assert not servicer.calls
    assert bulk(*options, "--restart").exit_code == 0
    assert sum(asked(servicer)) == 100
    assert len(read(files[1])) == 100


def test_parts_of_another_input_are_not_mixed(bulk, stopped, files):
    write_users(files[0], 101)
    result = bulk("--filter", "a > 1")
    assert result.exit_code == 1
    assert "input_rows is 101, was 100" in result.stderr


def test_a_missing_part_is_noticed(bulk, stopped, files):
    (parts_of(files[1]) / "00000.parquet").unlink()
    result = bulk("--filter", "a > 1")
    assert result.exit_code == 1
    assert "part 0 is missing; --restart starts again" in result.stderr


def test_two_runs_do_not_write_the_same_parts(bulk, stopped, servicer, files):
    identity = json.loads((parts_of(files[1]) / "run.json").read_text())
    with open_parts(files[1], identity, restart=False, overwrite=False):
        result = bulk("--filter", "a > 1")
    assert result.exit_code == 1
    assert "candidates.parquet.parts is being written by another process" in result.stderr
    assert not servicer.calls


def test_an_output_that_exists_is_not_replaced_unasked(bulk, servicer, files):
    write_users(files[0], 10)
    files[1].write_text("of yesterday")
    result = bulk()
    assert result.exit_code == 1
    assert "candidates.parquet exists; --overwrite replaces it" in result.stderr
    assert files[1].read_text() == "of yesterday"
    assert not servicer.calls
    assert bulk("--overwrite").exit_code == 0
    assert len(read(files[1])) == 10


def test_a_run_killed_at_its_very_end_ends_again(tmp_path):
    output = tmp_path / "candidates.parquet"
    schema = Columns.of("user_id", pa.int64(), text=False).schema
    rows = [{"user_id": user, "item_ids": [1], "status": "OK", "model_version": "ab12"} for user in (1, 2)]
    with open_parts(output, {"top_k": 1}, restart=False, overwrite=False) as parts:
        for row in rows:
            parts.write(pa.Table.from_pylist([row], schema))
        shutil.copytree(parts.directory, tmp_path / "kept")
        assert [len(table) for table in parts.join()] == [1, 1]
    assert not parts.directory.exists()

    (tmp_path / "kept").rename(parts.directory)  # the output is there, and so are the parts
    with open_parts(output, {"top_k": 1}, restart=False, overwrite=False) as parts:
        assert parts.rows == 2
        assert [len(table) for table in parts.join()] == [1, 1]
    assert pq.read_table(output)["user_id"].to_pylist() == [1, 2]

    (parts.directory).mkdir()  # run.json was removed already, a part was not
    shutil.copy(output, parts.directory / "00001.parquet")
    with open_parts(output, {"top_k": 2}, restart=False, overwrite=True) as parts:
        assert parts.rows == 0
    assert not parts.directory.exists()


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        open_parts(tmp_path / "out.parquet", {}, restart=False, overwrite=False) as parts,
        monkeypatch.context() as disk,
    ):
        disk.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*out\.parquet\.parts/00000\.parquet'"):
            parts.write(pa.table({"user_id": [1]}))


def test_a_release_in_the_middle_shows(bulk, servicer, files):
    write_users(files[0], 50)
    servicer.model_versions = ["aa11", "aa11", "ab12"]
    result = bulk("--concurrency", "1")
    assert result.exit_code == 0
    assert pq.read_table(files[1])["model_version"].to_pylist() == ["aa11"] * 20 + ["ab12"] * 30
    assert "model ab12 (30 users), aa11 (20 users)" in result.stderr
    assert "the release changed during the run" in result.stderr


def test_a_bar_on_a_terminal_only(bulk, files):
    write_users(files[0], 50)
    assert bulk().stderr.count("\n") == 3
    assert "50 of 50 users" in bulk("--overwrite", FORCE_COLOR="1", TERM="xterm").stderr


def test_what_bulk_needs_is_said():
    code = "import sys; sys.modules['pyarrow'] = None; from clients.__main__ import main; main()"
    arguments = ["bulk", "--input", __file__, "--output", "candidates.parquet"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: recall-client bulk needs numpy and pyarrow: pip install 'mind-recall[bulk]'\n"
