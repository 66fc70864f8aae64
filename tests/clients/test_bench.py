"""The load test: what it asks, how it counts, what it shows, and the bounds that it holds a service to."""

import asyncio
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from clients.bench.histories import Clicks, draw_histories, read_histories
from clients.bench.latency import Latency
from clients.bench.load import Outcome, Plan, Tally
from clients.bench.loops import closed_loop, open_loop
from clients.bench.mix import MixError, Shape, check, read_mix
from clients.bench.page import page
from clients.bench.summary import missed, own_limit, summarize
from clients.bench.traffic import Traffic
from clients.cli import app
from clients.user_files import FileError
from protos.recall.v1 import recall_pb2
from tests import ROOT
from tests.canned_recall import INFO, CannedRecall, running
from tests.waiting import wait_until

OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "too much", (("error-reason", "OVERLOADED"),))
LIMITS = INFO.limits


class FailsEverySecond(CannedRecall):
    """Answers the first call and every second one after it."""

    def Recall(self, request: Any, context: Any) -> recall_pb2.RecallResponse:  # noqa: N802
        with self._lock:
            if len(self.calls["Recall"]) % 2:
                self.failures = [OVERLOADED]
        return super().Recall(request, context)


@pytest.fixture
def servicer() -> CannedRecall:
    return CannedRecall()


@pytest.fixture
def run(servicer: CannedRecall) -> Iterator[Any]:
    with running(servicer) as target:
        yield lambda *words: bench("--server", target, *words)


def bench(*words: str) -> Any:
    env = {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(
        app, ["bench", "--duration-s", "0.3", "--warm-up-s", "0", "--timeout-ms", "60000", *words], env=env
    )


@pytest.fixture
def users(tmp_path: Path) -> str:
    path = tmp_path / "test.txt"
    path.write_text("user_id:1 hist_item:10 hist_item:11 hist_item:12\nuser_id:2 hist_item:20 hist_item:21\n")
    return str(path)


def write_mix(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mix.yaml"
    path.write_text(text)
    return path


def outcome_of(latency_ms: list[float], late_ms: list[float] = (), failed: int = 0, **fields: Any) -> Outcome:
    """Ten seconds of single users."""
    failures = Counter({"UNAVAILABLE STOPPING": failed} if failed else {})
    seconds = array("d", [each / 1000 for each in latency_ms])
    tally = Tally(Shape(name="<all & sundry>"), seconds, failures, Counter({"OK": len(latency_ms)}))
    late = array("d", [each / 1000 for each in late_ms])
    plan = fields.pop("plan", Plan(100.0, 16, 0, 10))
    return Outcome(plan, [tally], INFO, "users.txt", {"ab12"}, late_s=late, elapsed_s=10, **fields)


def test_percentiles_are_those_of_the_samples() -> None:
    latency = Latency(ms / 1000 for ms in range(1000, 0, -1))
    assert [latency.percentile_ms(percent) for percent in (50, 95, 99, 99.9, 100)] == [500, 950, 990, 999, 1000]
    assert latency.max_ms == 1000
    spectrum = latency.spectrum()
    assert spectrum[:4] == [(0, 1), (25, 250), (50, 500), (62.5, 625)]
    assert spectrum[-1] == (100, 1000)
    percents = [percent for percent, _ in spectrum]
    assert percents == sorted(set(percents))
    assert 99.8 < percents[-2] < 100, "down to a single sample"
    assert Latency([]).spectrum() == Latency([]).buckets() == []


def test_every_sample_is_in_one_bucket() -> None:
    buckets = Latency([0.0009, 0.001, 0.0011, 0.0012, 0.004, 0.0101]).buckets()
    counts = {round(bucket.to_ms, 2): bucket.count for bucket in buckets if bucket.count}
    assert counts == {1: 2, 1.25: 2, 4: 1, 12.5: 1}
    assert buckets[-1].share == 1
    assert [bucket.to_ms for bucket in buckets[2:4]] == pytest.approx([1.6, 2]), "empty ones between are there too"


async def test_an_open_loop_keeps_its_times_whatever_holds_it_up() -> None:
    class EveryMillisecond(random.Random):
        def expovariate(self, lambd: float = 1.0) -> float:
            return 1 / lambd

    due, waited = [], []

    async def call(at: float) -> None:
        if not due:
            time.sleep(0.02)  # the loop stands still
        due.append(at)
        waited.append(time.perf_counter() - at)

    await open_loop(call, 1_000, 0.0305, EveryMillisecond())
    assert len(due) == 30, "none is left out"
    assert [b - a for a, b in itertools.pairwise(due)] == pytest.approx([0.001] * 29)
    assert waited[5] >= 0.014, "a call counts from when it was due, not from when the loop came to it"


async def test_arrivals_are_poisson_and_the_seed_gives_the_same_again() -> None:
    async def arrivals(seed: int) -> list[float]:
        due: list[float] = []

        async def call(at: float) -> None:
            due.append(at)

        await open_loop(call, 10_000, 0.2, random.Random(seed))
        return [b - a for a, b in itertools.pairwise(due)]

    first, again = await arrivals(1), await arrivals(1)
    assert first[:1_000] == pytest.approx(again[:1_000], abs=1e-9)
    assert sum(first) / len(first) == pytest.approx(1e-4, rel=0.15)
    assert sum(gap > 1e-4 for gap in first) / len(first) == pytest.approx(0.368, abs=0.05), "1/e of the gaps are longer"


async def test_a_closed_loop_has_as_many_calls_at_once_as_callers() -> None:
    at_once, most = 0, 0

    async def call(_: float) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1

    await closed_loop(call, 7, 0.05)
    assert (at_once, most) == (0, 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("requests: []", "requests is [], must be a list of at least one request shape"),
        ("shapes: []", "must have only the key `requests`"),
        ("requests: [7]", "requests[0] is 7, must have fields such as top_k: 50"),
        ("requests: [{top_k: 0}]", "requests[0].top_k is 0: Input should be greater than or equal to 1"),
        ("requests: [{}, {users: 1.5}]", "requests[1].users is 1.5: Input should be a valid integer"),
        ("requests: [{weight: 0}]", "requests[0].weight is 0: Input should be greater than 0"),
        ("requests: [{weight: .inf}]", "requests[0].weight is inf: Input should be a finite number"),
        ("requests: [{topk: 5}]", "requests[0].topk: unknown field; did you mean top_k?"),
        ("requests: [{history: 20-1}]", "requests[0].history is '20-1': must be a number of items such as 20"),
        ("requests: [{merge: best}]", "requests[0].merge is 'best': Input should be 'best-score' or 'round-robin'"),
        ("requests: [{", "cannot be read: "),
    ],
)
def test_a_fault_of_a_mix_names_field_value_and_limit(tmp_path: Path, text: str, says: str) -> None:
    path = write_mix(tmp_path, text)
    with pytest.raises(MixError, match=f"^{re.escape(str(path))}: .*{re.escape(says.partition(': ')[0])}") as caught:
        read_mix(path, Shape())
    assert says in str(caught.value)


def test_a_mix_takes_from_the_options_what_it_leaves_out(tmp_path: Path) -> None:
    path = write_mix(tmp_path, "requests: [{top_k: 5}, {name: long, weight: 2, history: 7, filter: year > 1990}]")
    first, second = read_mix(path, Shape(top_k=20, users=8, history="1-3", exclude_history=True))
    assert first.title() == "top 5, 8 users, history 1-3, exclude_history"
    assert (second.title(), second.top_k, second.users, second.history) == ("long", 20, 8, (7, 7))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"top_k": 2_000}, "request 'top 2000': top_k is 2,000, the server's max_top_k is 1,000"),
        ({"users": 300}, "users is 300, the server's max_users is 256"),
        ({"users": 250, "top_k": 900}, "users times top_k is 225,000, the server's max_candidates is 200,000"),
    ],
)
def test_shapes_are_held_to_the_servers_limits(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(MixError, match=says):
        check([Shape(), Shape(**fields)], LIMITS)
    check([Shape(**fields)], recall_pb2.Limits())  # a server that tells none


def test_requests_have_their_shape_and_their_share() -> None:
    shapes = [Shape(weight=3, history="1-2"), Shape(weight=1, users=4, top_k=7, exclude_history=True)]
    users = [Clicks(range(10), (99,))]
    traffic, again = (Traffic(shapes, users, 5, seed=3) for _ in range(2))
    sent = [traffic.next() for _ in range(1_000)]
    assert sent == [again.next() for _ in range(1_000)]
    assert sum(number == 0 for number, _ in sent) == pytest.approx(750, abs=50)
    lengths = {len(user.hist_item) for number, request in sent if number == 0 for user in request.users}
    assert lengths == {1, 2}
    request = next(request for number, request in sent if number == 1)
    assert (len(request.users), request.top_k, request.exclude_history) == (4, 7, True)
    assert list(request.users[0].hist_item) == [5, 6, 7, 8, 9], "the newest, as many as the server takes"
    assert list(request.users[0].exclude_item_ids) == [99]


def test_histories_come_from_every_file_that_the_client_reads(tmp_path: Path, users: str) -> None:
    assert read_histories(Path(users)) == [Clicks([10, 11, 12]), Clicks([20, 21])]
    table = pa.table({"user_id": ["a", "b"], "hist_item": [[1, 2], []], "exclude_item_ids": [[5], None]})
    pq.write_table(table, tmp_path / "users.parquet")
    assert read_histories(tmp_path / "users.parquet") == [Clicks([1, 2], [5]), Clicks([], [])]
    (tmp_path / "empty.txt").touch()
    with pytest.raises(FileError, match="has no users"):
        read_histories(tmp_path / "empty.txt")


def test_text_ids_of_a_load_test(run: Any, servicer: CannedRecall, tmp_path: Path) -> None:
    servicer.keyed = True
    assert run("--callers", "1").exit_code == 0
    assert {item for request, *_ in servicer.calls["Recall"][1:] for item in request.users[0].hist_item_keys} == {
        "TOP-7"
    }
    lines = tmp_path / "users.jsonl"
    lines.write_text('{"user_id": 1, "hist_item": ["KIT-1", "0042"]}')
    table = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": [1], "hist_item": [["KIT-1", "0042"]], "exclude_item_ids": [["5"]]}), table)
    for file, excluded in ((lines, []), (table, ["5"])):
        assert read_histories(file, text=True) == [Clicks(["KIT-1", "0042"], excluded or ())]
        assert run("--callers", "1", "--histories", str(file), "--history", "1").exit_code == 0
        user = servicer.calls["Recall"][-1][0].users[0]
        assert (list(user.hist_item_keys), list(user.exclude_item_keys)) == (["0042"], excluded)
        with pytest.raises(FileError, match="this release has integer ids"):
            read_histories(file)


def test_drawn_histories_are_as_long_as_a_shape_or_the_model_wants(run: Any, servicer: CannedRecall) -> None:
    drawn = draw_histories([1, 2, 3], 4, random.Random(0))
    assert {len(clicks.hist_item) for clicks in drawn} == {4}
    assert {item for clicks in drawn for item in clicks.hist_item} == {1, 2, 3}
    assert run("--callers", "1", "--history", "200").exit_code == 0  # more than the model looks at
    assert {len(request.users[0].hist_item) for request, _, _ in servicer.calls["Recall"][1:]} == {200}


def test_a_closed_loop_is_counted_and_shown(run: Any, servicer: CannedRecall, users: str, tmp_path: Path) -> None:
    mix = write_mix(tmp_path, "requests: [{name: home, top_k: 5}, {name: mail, weight: 2, users: 3, history: 1}]")
    result = run("--callers", "2", "--histories", users, "--mix", str(mix), "--exclude-history")
    assert result.exit_code == 0, result.output
    assert "closed loop: 2 callers, 0." in result.output
    assert re.findall(r"^ ?(home|mail|all) ", result.output, re.MULTILINE) == ["home", "mail", "all"]
    assert servicer.most_at_once <= 2
    requests = [request for request, _, _ in servicer.calls["Recall"]]
    assert {(len(each.users), each.top_k, each.exclude_history) for each in requests} == {(1, 5, True), (3, 50, True)}
    assert {tuple(user.hist_item) for each in requests if each.top_k == 50 for user in each.users} <= {(12,), (21,)}


def test_an_open_loop_as_json(run: Any, users: str) -> None:
    result = run("--rate", "100", "--histories", users, "--format", "json", "--seed", "4")
    found = json.loads(result.stdout)
    assert (found["load"]["calls_per_s"], found["load"]["seed"], found["load"]["histories"]) == (100, 4, users)
    assert (found["model_versions"], found["server"]["collection"]) == (["ab12"], "items_ab12")
    total = found["total"]
    assert total["requests"] == total["statuses"]["OK"] == sum(bucket["count"] for bucket in found["histogram"]) > 10
    assert 0 < total["p50_ms"] <= total["p99_ms"] <= total["max_ms"] == found["percentiles"][-1]["ms"]


def test_without_a_file_histories_are_of_popular_items(run: Any, servicer: CannedRecall) -> None:
    result = run("--callers", "1")
    assert result.exit_code == 0
    assert "random items of the 1 most popular" in result.output
    asked, *sent = [request for request, _, _ in servicer.calls["Recall"]]
    assert (list(asked.users[0].hist_item), asked.top_k) == ([], 1_000)
    assert {item for request in sent for item in request.users[0].hist_item} == {7}
    assert {len(request.users[0].hist_item) for request in sent} <= set(range(1, INFO.maxlen + 1))


def test_failures_are_counted_by_reason_and_sent_once(users: str) -> None:
    servicer = FailsEverySecond()
    with running(servicer) as target:
        result = bench("--server", target, "--callers", "2", "--histories", users, "--max-errors", "10")
    found = re.search(r"failed: ([\d,]+) RESOURCE_EXHAUSTED OVERLOADED", result.output)
    assert found
    calls = len(servicer.calls["Recall"]) - 1  # the first asks whether the server takes the shape
    assert int(found[1].replace(",", "")) == pytest.approx(calls / 2, abs=1)
    assert result.exit_code == 4
    assert re.fullmatch(r"missed: [\d.]+ % of \d+ requests failed, --max-errors is 10 %\n", result.stderr)


def test_connections_are_shared_out_among_the_requests(users: str) -> None:
    class NotesPeers(CannedRecall):
        peers: ClassVar[list[str]] = []

        def Recall(self, request: Any, context: Any) -> recall_pb2.RecallResponse:  # noqa: N802
            self.peers.append(context.peer())
            return super().Recall(request, context)

    servicer = NotesPeers()
    with running(servicer) as target:
        plan = ["--callers", "6", "--connections", "3", "--duration-s", "1"]
        assert bench("--server", target, "--histories", users, *plan).exit_code == 0
    assert len(set(servicer.peers)) == 3


def test_a_refused_shape_ends_it_at_once(run: Any, servicer: CannedRecall, users: str) -> None:
    refused = (grpc.StatusCode.INVALID_ARGUMENT, "filter: no attribute 'yeer'", (("error-reason", "FILTER_INVALID"),))
    servicer.failures = [None, refused]  # type: ignore[list-item]  # GetServerInfo comes first
    result = run("--filter", "yeer > 3", "--histories", users)
    assert (result.exit_code, result.stderr) == (1, "error: filter: no attribute 'yeer' [FILTER_INVALID]\n")
    assert len(servicer.calls["Recall"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--rate", "5", "--callers", "5"], 2, "--rate and --callers exclude each other"),
        (["--history", "x"], 1, "--history is 'x': must be a number of items such as 20, or a range such as 1-20"),
        (["--top-k", "2000"], 1, "top_k is 2,000, the server's max_top_k is 1,000"),
        (["--rate", "0"], 2, "--rate"),
        (["--max-errors", "101"], 2, "--max-errors"),
        (["--server", "127.0.0.1:9"], 3, "no server answers at 127.0.0.1:9"),
    ],
)
def test_a_mistake_is_named(run: Any, words: list[str], code: int, says: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr


def test_bounds_that_were_missed_are_told() -> None:
    summary = summarize(outcome_of([10.0] * 98 + [70.0, 80.0], failed=1))
    assert missed(summary, None, None) == missed(summary, 70, 1) == []
    assert missed(summary, 69, 0.5) == [
        "p99 is 70.0 ms, --max-p99-ms is 69",
        "0.99 % of 101 requests failed, --max-errors is 0.5 %",
    ]
    assert missed(summarize(outcome_of([])), 5, None) == [
        "p99 is unknown, because no request was answered, --max-p99-ms is 5"
    ]


def test_a_load_generator_that_is_the_limit_says_so() -> None:
    assert own_limit(summarize(outcome_of([10.0] * 100, [0.2] * 100, busy=0.5))) == ""
    late = own_limit(summarize(outcome_of([10.0] * 100, [4.0] * 100, busy=0.5)))
    assert "sent 1 % of the requests at least 4.0 ms late" in late
    closed = Plan(None, 64, 0, 10)
    busy = own_limit(summarize(outcome_of([10.0] * 100, [4.0] * 100, busy=0.95, plan=closed)))
    assert busy.startswith("the load generator is the limit: its loop worked 95% of the time")


@pytest.mark.parametrize("latency_ms", [[], [5.0], [float(ms) for ms in range(1, 2_000)]])
def test_the_page_needs_nothing_else(latency_ms: list[float]) -> None:
    text = page(summarize(outcome_of(latency_ms, failed=3)))
    assert "&lt;all &amp; sundry&gt;" in text and "<all" not in text
    assert "3 UNAVAILABLE STOPPING" in text
    assert not re.search(r"https?://|<script|<link|src=", text)
    assert text.count("<svg") == (2 if latency_ms else 0)
    assert "nan" not in text


def test_the_page_is_written(run: Any, users: str, tmp_path: Path) -> None:
    assert run("--histories", users, "--html", str(tmp_path / "bench.html")).exit_code == 0
    assert "Load test of items_ab12" in (tmp_path / "bench.html").read_text()


def test_ctrl_c_shows_what_was_measured(servicer: CannedRecall) -> None:
    with running(servicer) as target:
        command = [sys.executable, "-m", "clients", "bench", "--server", target]
        command += ["--callers", "2", "--duration-s", "100", "--warm-up-s", "0"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: len(servicer.calls["Recall"]) > 20)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate()
    assert (process.returncode, errors) == (130, "")
    assert "(interrupted)" in output and "OK" in output
