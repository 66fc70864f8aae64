"""The HTTP gateway over real HTTP and gRPC, in front of a recall server with canned answers."""

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from pydantic import BaseModel, ValidationError

from clients.gateway.article import ArticleBody
from clients.gateway.operations import figures, parse
from clients.gateway.options import load_settings
from clients.gateway.pages import TitlesBody
from clients.gateway.v1 import RecallBody
from clients.options import OptionError
from protos.recall.v1 import recall_pb2
from tests import ROOT
from tests.canned_recall import CannedRecall, running
from tests.gateway import serving

HUGE = 2**63 - 1
ARTICLE_RECALL = """{
  "top_k": 50,
  "hist_item": [[43,23,65,675,3456,8654,123454,54367,234561],[675,3456,8654,123454,76543,1234,9769,5670,65443,123098,34219,234098]]
}"""  # noqa: E501 - as printed there
MANY_FIELDS = {f"field{number}": 1 for number in range(101)}
# What curl sends for -d ''.
FORM = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def servicer() -> CannedRecall:
    return CannedRecall()


@pytest.fixture
def target(servicer: CannedRecall) -> Iterator[str]:
    with running(servicer) as target:
        yield target


@pytest.fixture
def client(target: str) -> Iterator[httpx.Client]:
    with serving("--server", target) as url, httpx.Client(base_url=url) as client:
        yield client


@contextmanager
def with_options(target: str, *options: str) -> Iterator[httpx.Client]:
    """A client of a gateway with these options."""
    with serving("--server", target, *options) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def is_problem(response: httpx.Response, status: int, reason: str) -> dict[str, str]:
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, str] = response.json()
    assert (response.status_code, problem["status"], problem["reason"]) == (status, status, reason)
    assert problem["type"].endswith(reason.lower().replace("_", "-")) and problem["title"] and problem["detail"]
    return problem


def test_the_articles_recall_and_count_as_its_curl_sends_them(client: httpx.Client) -> None:
    headers = {"accept": "application/json", "content-type": "application/json"}
    answer = client.post("/rec/recall", content=ARTICLE_RECALL, headers=headers)
    assert answer.json() == [list(range(234562, 234612)), list(range(234099, 234149))]
    assert client.post("/rec/count", content="", headers=FORM).json() == 3706


def test_the_articles_changes_are_refused_unless_enabled(client: httpx.Client, servicer: CannedRecall) -> None:
    for path in ("/rec/insert_data", "/qa/drop"):
        is_problem(client.post(path, content="", headers=FORM), 403, "NOT_ENABLED")
    assert not servicer.calls["DropItems"]


def test_drop_drops_what_is_released_with_the_token(target: str, servicer: CannedRecall, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    with with_options(target, "--allow-drop", "--server-token-file", str(token)) as client:
        answer = client.post("/qa/drop", content="", headers=FORM)
        assert answer.json() == {"status": True, "msg": "dropped items_ab12, 3706 items"}
    request, metadata, _ = servicer.calls["DropItems"][0]
    assert (request.collection, request.allow_live, metadata["authorization"]) == ("items_ab12", True, "Bearer secret")


def test_insert_runs_the_operators_command_once_at_a_time(target: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    answers = []
    command = f"{sys.executable} -c 'open(\"{gate}\").read()'"
    with serving("--server", target, "--insert-command", command) as url:
        post = functools.partial(httpx.post, f"{url}/rec/insert_data", headers=FORM, timeout=60)
        first = threading.Thread(target=lambda: answers.append(post()))
        first.start()
        with gate.open("w"):  # opens when the command has opened it too
            is_problem(post(), 409, "ALREADY_RUNNING")
        first.join()
    assert answers[0].json()["status"] is True


@pytest.mark.parametrize(
    ("command", "timeout_s", "status", "reason"),
    [
        (f"{sys.executable} -c 'raise SystemExit(3)'", "60", 502, "INSERT_FAILED"),
        ("/no/such/program", "60", 502, "INSERT_FAILED"),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", "0.1", 504, "INSERT_TIMEOUT"),
    ],
)
def test_an_insert_that_fails_says_so(target: str, command: str, timeout_s: str, status: int, reason: str) -> None:
    with with_options(target, "--insert-command", command, "--insert-timeout-s", timeout_s) as client:
        is_problem(client.post("/rec/insert_data", headers=FORM), status, reason)


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (None, None, 200),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", 200),
        ("http://localhost:8000", "localhost:8000", 200),
        ("https://elsewhere.example", "127.0.0.1:8000", 403),
        ("http://rebound.example:8000", "rebound.example:8000", 403),
        ("null", "127.0.0.1:8000", 403),
        ("http://[", "127.0.0.1:8000", 403),
        ("http://203.0.113.5", "127.0.0.1:8000", 403),
        ("http://shop.example", "shop.example", 200),
        ("https://shop.example", "127.0.0.1:8000", 200),  # a proxy took the name away
    ],
)
def test_other_sites_pages_cannot_change_anything(
    target: str, servicer: CannedRecall, origin: str | None, host: str | None, status: int
) -> None:
    headers = {name: value for name, value in (("origin", origin), ("host", host)) if value}
    with with_options(target, "--allow-drop", "--allow-host", "shop.example") as client:
        assert client.post("/qa/drop", headers=headers).status_code == status
    assert len(servicer.calls["DropItems"]) == (status == 200)


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("", False),
        ("[::1]:8000", True),
        ("192.0.2.7", True),
        ("LOCALHOST", True),
        ("localhost.", True),
        ("recall.Example.com:443", True),
        ("a.shop.example", True),
        ("shop.example.evil.example", False),
    ],
)
def test_it_answers_under_its_own_names_alone(target: str, tmp_path: Path, host: str, admitted: bool) -> None:
    """By DNS rebinding a page reaches it under the page's own name, and could read users and their histories."""
    users = tmp_path / "users.txt"
    users.write_text("user_id:7 target_item:0 hist_item:3\n")
    options = ["--users", str(users), "--allow-host", "recall.example.com", "--allow-host", "*.shop.example"]
    with with_options(target, *options) as client:
        for path in ("/", "/explorer/setup", "/v1/info", "/static/explorer.js", "/healthz"):
            answer = client.get(path, headers={"host": host})
            if admitted:
                assert answer.status_code == 200
            else:
                says = is_problem(answer, 403, "HOST_NOT_ALLOWED")["detail"]
                assert repr(host) in says and "--allow-host" in says
                assert answer.headers["x-content-type-options"] == "nosniff"


def test_its_names_come_from_where_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Box7")
    assert load_settings([]).names == ("localhost", "127.0.0.1")
    assert load_settings(["--listen", "0.0.0.0:80"]).names == ("localhost", "box7")
    monkeypatch.setenv("RECALL_GATEWAY_ALLOW_HOST", "a.example, b.example")
    assert load_settings(["--listen", "shop.lan:80"]).names == ("localhost", "shop.lan", "a.example", "b.example")


@pytest.mark.parametrize(
    ("site", "mode", "admitted"),
    [
        ("same-origin", "cors", True),
        ("none", "navigate", True),
        ("cross-site", "navigate", True),  # a link to the page
        ("cross-site", "no-cors", False),
        ("same-site", "cors", False),
    ],
)
def test_a_browser_tells_which_site_a_request_comes_from(
    client: httpx.Client, servicer: CannedRecall, site: str, mode: str, admitted: bool
) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    answer = client.get("/v1/count", headers=headers)
    if admitted:
        assert answer.json()["count"] == "3706"
    else:
        is_problem(answer, 403, "OTHER_SITE")
    assert len(servicer.calls["CountItems"]) == admitted
    if site == "cross-site":
        is_problem(client.post("/v1/recall", headers=headers, json={"users": [{}]}), 403, "OTHER_SITE")
    assert not servicer.calls["Recall"]


def test_recall_is_the_services_answer_with_ids_as_strings(client: httpx.Client, servicer: CannedRecall) -> None:
    users = [{"hist_item": [43, str(HUGE - 2)], "exclude_item_ids": ["5"]}, {}]
    body = {"users": users, "top_k": 2, "filter": "year > 1990", "merge_strategy": "round_robin"}
    answer = client.post("/v1/recall", json=body).json()
    first, second = answer["results"]
    assert first["item_ids"] == [str(HUGE - 1), str(HUGE)] and first["scores"] == [1.0, 0.9]
    assert first["status"] == "USER_STATUS_OK" and first["unknown_item_ids"] == [str(HUGE - 2)]
    assert second["status"] == "USER_STATUS_EMPTY_HISTORY" and second["fallback"] and second["interest"] == [-1]
    assert answer["model_version"] == "ab12" and answer["timings"]["total_ms"] == 3.25
    request = servicer.calls["Recall"][0][0]
    assert answer["timings"]["history_ms"] == 0
    client.post("/v1/recall", json={"users": [{"user_id": "ann"}], "top_k": 2, "exclude_shown": True})
    of_ann = servicer.calls["Recall"][1][0]
    assert (of_ann.users[0].user_id, of_ann.exclude_shown, request.exclude_shown) == ("ann", True, False)
    assert list(request.users[0].hist_item) == [43, HUGE - 2] and list(request.users[0].exclude_item_ids) == [5]
    assert (request.filter, request.merge_strategy, request.exclude_history) == ("year > 1990", 2, False)


def test_pages_follow_one_another_by_their_token(client: httpx.Client, servicer: CannedRecall) -> None:
    body = {"users": [{"hist_item": [43]}], "top_k": 2}
    assert client.post("/v1/recall", json=body).json()["next_page_token"] == ""
    token = client.post("/v1/recall", json=body | {"paged": True}).json()["next_page_token"]
    assert client.post("/v1/recall", json=body | {"page_token": token}).json()["next_page_token"] == "cC4u"
    assert [request.page_token for request, *_ in servicer.calls["Recall"]] == [b"", b"", b"p."]
    for wrong in ("x", "!!!!", "A" * 190_004, 5):
        is_problem(client.post("/v1/recall", json=body | {"page_token": wrong}), 400, "REQUEST_INVALID")


def test_feedback_is_passed_on(client: httpx.Client, servicer: CannedRecall) -> None:
    body = {"kind": "click", "item_ids": [str(HUGE), 5], "user_id": "ann", "recall_id": "ab-0"}
    assert client.post("/v1/feedback", json=body | {"time_ms": 1_700_000_000_000}).json() == {}
    [(request, *_)] = servicer.calls["LogFeedback"]
    assert request == recall_pb2.LogFeedbackRequest(**(body | {"item_ids": [HUGE, 5]}), time_ms=1_700_000_000_000)
    for wrong in ({"item_ids": []}, {"item_ids": ["x"]}, {"kind": ""}, {"time_ms": -1}):
        is_problem(client.post("/v1/feedback", json=body | wrong), 400, "REQUEST_INVALID")


def test_attributes_are_lists_of_numbers_texts_and_null(client: httpx.Client, servicer: CannedRecall) -> None:
    body = {"users": [{"hist_item": [43]}], "top_k": 2, "return_attributes": ["year", "title", "genres"]}
    answer = client.post("/v1/recall", json=body).json()
    assert answer["attributes_detail"] == ""
    assert answer["results"][0]["attributes"] == {
        "year": [1990, None],
        "title": ["Film 0", None],
        "genres": [["Crime", "Drama"], None],
    }
    assert client.post("/v1/recall", json={"users": [{}]}).json()["results"][0]["attributes"] == {}
    assert list(servicer.calls["Recall"][0][0].return_attributes) == ["year", "title", "genres"]
    is_problem(client.post("/v1/recall", json=body | {"return_attributes": ["a"] * 65}), 400, "REQUEST_INVALID")


def test_items_have_attributes(client: httpx.Client, servicer: CannedRecall) -> None:
    body = {"item_ids": [43, str(HUGE)], "return_attributes": ["title", "genres"]}
    answer = client.post("/v1/items", json=body).json()
    assert answer["item_ids"] == ["43", str(HUGE)]
    assert answer["attributes"] == {"title": ["Film 0", None], "genres": [["Crime", "Drama"], None]}
    assert list(servicer.calls["GetItems"][0][0].item_ids) == [43, HUGE]
    is_problem(client.post("/v1/items", json={"item_ids": []}), 400, "REQUEST_INVALID")
    is_problem(client.post("/v1/items", json={"item_ids": ["KIT-1"]}), 400, "REQUEST_INVALID")


def test_rules_about_candidates_are_passed_on(client: httpx.Client, servicer: CannedRecall) -> None:
    at_most = [{"attribute": "category", "count": count} for count in (7, 5, 6)]
    rules = {"at_most": at_most, "per_interest_min": 4, "diversity": 0.25}
    for path, users in (("recall", {"users": [{"hist_item": [43]}]}), ("explain", {"user": {"hist_item": [43]}})):
        assert client.post(f"/v1/{path}", json=users | rules | {"top_k": 20}).status_code == 200
        request = servicer.calls[path.capitalize()][0][0]
        assert [(rule.attribute, rule.count) for rule in request.at_most] == [("category", 5)]
        assert (request.per_interest_min, request.diversity) == (4, 0.25)


def test_boosts_pins_and_exploring_are_passed_on(client: httpx.Client, servicer: CannedRecall) -> None:
    boosts = [{"filter": "year > 1990", "add": 0.5}, {"attribute": "year", "half_life_days": 2, "weight": -1}]
    explore = {"share": 0.25, "filter": "year > 1990", "seed": 7}
    rules = {"boosts": boosts, "pin_item_ids": [43, str(HUGE)], "explore": explore, "now_unix_s": 5}
    for path, users in (("recall", {"users": [{"hist_item": [43]}]}), ("explain", {"user": {"hist_item": [43]}})):
        assert client.post(f"/v1/{path}", json=users | rules | {"top_k": 20}).status_code == 200
        request = servicer.calls[path.capitalize()][0][0]
        assert list(request.boosts) == [recall_pb2.Boost(**boost) for boost in boosts]
        assert list(request.pin_item_ids) == [43, HUGE] and request.now_unix_s == 5
        assert request.explore == recall_pb2.Explore(**explore)


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"boosts": [{"filter": "year > 1990", "add": "1"}]}, "boosts[0].add"),
        ({"boosts": [{"filters": ""}]}, "boosts[0].filters"),
        ({"pin_item_ids": ["KIT-1"]}, "pin_item_ids[0]"),
        ({"explore": {"share": 0}}, "explore.share"),
        ({"explore": {"share": 0.1, "seed": -1}}, "explore.seed"),
        ({"at_most": [{"attribute": "a", "count": 0}]}, "at_most[0].count"),
        ({"at_most": [{"attribute": "a"}]}, "at_most[0].count"),
        ({"at_most": {"a": 1}}, "at_most"),
        ({"at_most": [{"attribute": str(place), "count": 1} for place in range(65)]}, "at_most"),
        ({"per_interest_min": -1}, "per_interest_min"),
        ({"diversity": 1.1}, "diversity"),
        ({"diversity": "0.3"}, "diversity"),
    ],
)
def test_rules_that_make_no_sense_are_refused(client: httpx.Client, rules: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/recall", json={"users": [{}]} | rules)
    is_problem(answer, 400, "REQUEST_INVALID")
    assert field in answer.text


MARKUP = "<script>alert('1')</script>"


def test_text_ids_are_strings_in_the_same_fields(client: httpx.Client, servicer: CannedRecall) -> None:
    servicer.keyed = True
    users = [{"hist_item": ["KIT-1", "?X", "0042"], "exclude_item_ids": ["42"]}, {"hist_item": [MARKUP]}, {}]
    results = client.post("/v1/recall", json={"users": users, "top_k": 2}).json()["results"]
    assert [one["item_ids"] for one in results] == [["0042+1", "0042+2"], [f"{MARKUP}+1", f"{MARKUP}+2"], ["TOP-7"]]
    assert results[0]["unknown_item_ids"] == ["?X"] and not any("key" in name for name in results[0])
    user = servicer.calls["Recall"][0][0].users[0]
    assert (list(user.hist_item_keys), list(user.exclude_item_keys)) == (["KIT-1", "?X", "0042"], ["42"])
    answer = client.post("/v1/explain", json={"user": {"hist_item": ["0042"]}, "top_k": 3}).json()
    assert answer["used_hist_item"] == ["0042"] and answer["interests"][0]["item_ids"] == ["0042+1", "99"]
    assert answer["dropped"][0]["item_id"] == "99" and "key" not in json.dumps(answer)
    assert client.get("/v1/info").json()["id_type"] == "ID_TYPE_TEXT"
    assert client.post("/rec/recall", json={"hist_item": [["0042"]], "top_k": 2}).json() == [["0042+1", "0042+2"]]
    assert len(servicer.calls["GetServerInfo"]) == 2, "once for the kind of ids, once for /v1/info"


def test_the_release_tells_what_digits_are(client: httpx.Client, servicer: CannedRecall) -> None:
    """A release with ids of the other kind may come at any time; requests do not notice."""
    body = {"users": [{"hist_item": ["0042"]}], "top_k": 1}
    for keyed, found in ((False, "43"), (True, "0042+1"), (True, "0042+1"), (False, "43")):
        servicer.keyed = keyed
        assert client.post("/v1/recall", json=body).json()["results"][0]["item_ids"] == [found]
    servicer.keyed = True
    answer = client.post("/v1/explain", json={"user": {"exclude_item_ids": ["KIT-1"]}})
    assert answer.json()["candidates"]["item_ids"] == ["TOP-7"]
    assert len(servicer.calls["GetServerInfo"]) == 4, "once at first, and once whenever the kind changed"


@pytest.mark.parametrize(
    ("path", "body", "keyed", "field", "says"),
    [
        ("/v1/recall", {"users": [{}, {"hist_item": ["1", "KIT-1"]}]}, False, "users[1].hist_item[1]", "integer ids"),
        (
            "/v1/recall",
            {"users": [{}, {"exclude_item_ids": ["A", 1]}]},
            True,
            "users[1].exclude_item_ids[1]",
            "text ids",
        ),
        ("/v1/explain", {"user": {"hist_item": [1]}}, True, "user.hist_item[0]", "text ids"),
        ("/rec/recall", {"hist_item": [["1"], ["x"]]}, False, "hist_item[1][0]", "integer ids"),
    ],
)
def test_ids_of_the_other_kind_are_refused_by_their_place(
    client: httpx.Client, servicer: CannedRecall, path: str, body: object, keyed: bool, field: str, says: str
) -> None:
    servicer.keyed = keyed
    problem = is_problem(client.post(path, json=body), 400, "REQUEST_INVALID")
    assert problem["field"] == field
    assert problem["detail"].startswith(f"{field}: must be a ") and problem["detail"].endswith(
        f"this release has {says}"
    )


@pytest.mark.parametrize("value", [1.5, "", True, None, [1], "x" * 257, "я" * 129, "half \ud800"])
def test_what_is_no_text_id_is_refused_by_its_place(
    client: httpx.Client, servicer: CannedRecall, value: object
) -> None:
    servicer.keyed = True
    content = json.dumps({"users": [{"hist_item": ["A", value]}]})
    headers = {"content-type": "application/json"}
    problem = is_problem(client.post("/v1/recall", content=content, headers=headers), 400, "REQUEST_INVALID")
    assert problem["field"] == "users[0].hist_item[1]"


def test_the_explorers_files_with_text_ids(target: str, servicer: CannedRecall, tmp_path: Path) -> None:
    servicer.keyed = True
    titles = tmp_path / "titles.csv"
    titles.write_text('sku,title\n0042,Pan\n42,Hose\n0042+1,"Pan, small"\n')
    users = tmp_path / "users.jsonl"
    line = {"user_id": "ann", "hist_item": [MARKUP, "0042"], "eval_item": ["0042+1"]}
    users.write_text(json.dumps(line) + "\nuser_id:b hist_item:0042 eval_item:a:b\n")
    options = ["--titles", str(titles), "--users", str(users)]
    with with_options(target, *options) as client:
        assert client.get("/explorer/setup").json()["users"] == [
            line,
            {"user_id": "b", "hist_item": ["0042"], "eval_item": ["a:b"]},
        ]
        assert client.post("/explorer/titles", json={"item_ids": ["0042", "042"]}).json() == {"0042": "Pan"}
        found = client.get("/explorer/items", params={"search": "42"}).json()
        assert found == [{"item_id": "42", "title": "Hose"}], "the item with this id; no title contains it"
        titled = client.post("/v1/explain", json={"user": {"hist_item": ["0042"]}, "top_k": 3}).json()["titles"]
        assert titled == {"0042": "Pan", "0042+1": "Pan, small"}
        page = client.get("/").text
        assert MARKUP not in page


def test_a_batch_stays_one_request(client: httpx.Client, servicer: CannedRecall) -> None:
    client.post("/v1/recall", json={"users": [{}] * 300, "top_k": 1})
    assert [len(request.users) for request, *_ in servicer.calls["Recall"]] == [300]


def test_explain_info_count_and_health(client: httpx.Client, servicer: CannedRecall) -> None:
    answer = client.post("/v1/explain", json={"user": {"hist_item": [3]}, "top_k": 3}).json()
    assert [interest["item_ids"] for interest in answer["interests"]][:2] == [["4", "99"], ["5", "99"]]
    assert answer["dropped"][0]["reason"] == "DROP_REASON_BELOW_TOP_K" and answer["titles"] == {}
    asked = {"user": {"hist_item": [3]}, "top_k": 3, "at_most": [{"attribute": "genres", "count": 2}]}
    [first, second, *_] = client.post("/v1/explain", json=asked).json()["dropped"]
    assert (first["reason"], first["at_most"], second["at_most"]) == ("DROP_REASON_AT_MOST", ["genres"], [])
    info = client.get("/v1/info").json()
    assert info["item_count"] == "3706" and info["limits"]["max_top_k"] == 1000
    assert client.get("/v1/count").json()["count"] == "3706"
    assert client.get("/v1/count", params={"filter": "year > 1990"}).json()["count"] == "12"
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    servicer.serving = [False]
    is_problem(client.get("/readyz"), 503, "NOT_READY")
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("value", [1.5, "4a", "", "１", True, None, HUGE + 1, -(2**63) - 1, "9" * 30, 1e300, [1]])
def test_what_is_no_item_id_is_refused_by_its_place(client: httpx.Client, value: object) -> None:
    problem = is_problem(
        client.post("/v1/recall", json={"users": [{}, {"hist_item": [1, value]}]}), 400, "REQUEST_INVALID"
    )
    assert problem["field"] == "users[1].hist_item[1]" and problem["detail"].startswith("users[1].hist_item[1]: ")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"users": [{}], "topk": 5}, "topk"),
        ({"users": [{}], "top_k": 0}, "top_k"),
        ({"users": [{}], "top_k": "5"}, "top_k"),
        ({"users": [{}], "exclude_history": 1}, "exclude_history"),
        ({"users": [{}], "merge_strategy": "best"}, "merge_strategy"),
        ({"users": []}, "users"),
        ({}, "users"),
    ],
)
def test_a_wrong_body_is_refused_by_its_field(client: httpx.Client, body: object, field: str) -> None:
    assert is_problem(client.post("/v1/recall", json=body), 400, "REQUEST_INVALID")["field"] == field


def test_bodies_that_are_no_json_or_no_text(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"{", b"\xff", b'{"users": [{}], "filter": "\\ud800"}', b"[" * 100_000):
        is_problem(client.post("/v1/recall", content=content, headers=headers), 400, "REQUEST_INVALID")


def status(code: grpc.StatusCode, message: str, reason: str = "", pushback_ms: str = "-1"):
    metadata = (("error-reason", reason), ("grpc-retry-pushback-ms", pushback_ms))
    return code, message, metadata if reason else metadata[1:]


@pytest.mark.parametrize(
    ("failure", "http_status", "reason", "field"),
    [
        (
            status(grpc.StatusCode.INVALID_ARGUMENT, "top_k: is 5000, at most 1000", "TOP_K_OUT_OF_RANGE"),
            400,
            "TOP_K_OUT_OF_RANGE",
            "top_k",
        ),
        (
            status(grpc.StatusCode.INVALID_ARGUMENT, "users[3].hist_item: wrong", "X"),
            400,
            "X",
            "users[3].hist_item",
        ),
        (status(grpc.StatusCode.FAILED_PRECONDITION, "no", "COLLECTION_GONE"), 409, "COLLECTION_GONE", None),
        (status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "OVERLOADED"), 429, "OVERLOADED", None),
        (
            status(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"),
            413,
            "RESOURCE_EXHAUSTED",
            None,
        ),
        (status(grpc.StatusCode.UNIMPLEMENTED, "off"), 501, "UNIMPLEMENTED", None),
        (status(grpc.StatusCode.UNAUTHENTICATED, "token", "ADMIN_TOKEN"), 502, "ADMIN_TOKEN", None),
        (status(grpc.StatusCode.INTERNAL, "internal error", "INTERNAL"), 502, "INTERNAL", None),
        (status(grpc.StatusCode.UNAVAILABLE, "stopping", "STOPPING"), 503, "STOPPING", None),
        (status(grpc.StatusCode.DEADLINE_EXCEEDED, "late", "DEADLINE_EXCEEDED"), 504, "DEADLINE_EXCEEDED", None),
    ],
)
def test_every_failure_of_the_server_is_a_problem(
    client: httpx.Client, servicer: CannedRecall, failure, http_status: int, reason: str, field: str | None
) -> None:
    servicer.failures = [failure]
    answer = client.post("/v1/recall", json={"users": [{}]})
    problem = is_problem(answer, http_status, reason)
    assert problem.get("field") == field and problem["detail"] == failure[1]
    assert ("retry-after" in answer.headers) == (http_status in (429, 503))


def test_retry_after_is_what_the_server_asked_for_in_whole_seconds(
    client: httpx.Client, servicer: CannedRecall
) -> None:
    servicer.failures = [status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "OVERLOADED", "10")] * 4
    assert client.post("/rec/count").headers["retry-after"] == "1"


def test_no_server_and_a_slow_server(servicer: CannedRecall, target: str) -> None:
    servicer.delay_s = 0.5
    with with_options(target, "--timeout-ms", "100") as client:
        is_problem(client.post("/v1/recall", json={"users": [{}]}), 504, "DEADLINE_EXCEEDED")
    with with_options("127.0.0.1:1") as client:
        answer = client.post("/v1/recall", json={"users": [{}]})
        assert answer.status_code in (503, 504) and answer.json()["reason"] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        assert client.get("/").status_code == client.get("/openapi.json").status_code == 200


def test_large_bodies_are_refused_announced_or_not(target: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    with with_options(target, "--max-body-bytes", "1000") as client:
        body = {"users": [{"hist_item": list(range(1000))}]}
        problem = is_problem(client.post("/v1/recall", json=body), 413, "BODY_TOO_LARGE")
        assert "1000" in problem["detail"]
        is_problem(client.post("/v1/recall", content=chunks()), 413, "BODY_TOO_LARGE")
        assert client.post("/v1/recall", json={"users": [{}]}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/v1/recall", {"users": [{}] * 4097}, "users: has 4097 users, the limit is 4096"),
        ("/rec/recall", {"hist_item": [[1]] * 4097}, "hist_item: has 4097 users, the limit is 4096"),
        (
            "/v1/recall",
            {"users": [dict.fromkeys(map(str, range(101)), 1)]},
            "users[0]: has 101 fields, the limit is 100",
        ),
        ("/v1/recall", {"users": [{"hist_item": [*range(9), "x", "y"]}]}, "users[0].hist_item[9]: must be a 64-bit"),
        ("/explorer/titles", {"item_ids": [True] * 100_000}, "item_ids[0]: must be a 64-bit"),
    ],
)
def test_a_body_with_many_mistakes_costs_as_much_as_one(
    client: httpx.Client, path: str, body: object, detail: str
) -> None:
    problem = is_problem(client.post(path, json=body), 400, "REQUEST_INVALID")
    assert problem["detail"].startswith(detail)


@pytest.mark.parametrize(
    ("body", "name"), [(RecallBody, "users"), (ArticleBody, "hist_item"), (TitlesBody, "item_ids")]
)
def test_lists_end_at_their_first_mistake(body: type[BaseModel], name: str) -> None:
    for wrong in ([None] * 3, [[None] * 3] * 3, [{"hist_item": [None] * 3}] * 3):
        with pytest.raises(ValidationError) as caught:
            body.model_validate({name: wrong})
        assert caught.value.error_count() == 1


def test_a_text_that_titles_are_searched_for_is_short(client: httpx.Client) -> None:
    problem = is_problem(client.get("/explorer/items", params={"search": "x" * 201}), 400, "REQUEST_INVALID")
    assert problem["detail"] == "search: String should have at most 200 characters"


def test_unknown_paths_and_methods_are_problems(client: httpx.Client) -> None:
    is_problem(client.get("/v2/recall"), 404, "NOT_FOUND")
    refused = client.get("/v1/recall")
    is_problem(refused, 405, "METHOD_NOT_ALLOWED")
    assert refused.headers["allow"] == "POST"
    is_problem(client.get("/v1/info", params={"server": "compared"}), 404, "NOT_COMPARED")


def test_headers_for_browsers_are_on_every_answer(client: httpx.Client) -> None:
    for path in ("/", "/v1/info", "/static/explorer.js", "/nowhere"):
        headers = client.get(path, headers={"origin": "https://elsewhere.example"}).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_the_docs_come_from_here_alone_and_their_examples_work(target: str) -> None:
    with with_options(target, "--allow-users") as client:
        _docs_work(client)


def _docs_work(client: httpx.Client) -> None:
    page = client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 9 and all(url.startswith("/") for url in loaded)
    for url in loaded:
        assert client.get(url).status_code == 200, url
    assert "swagger" in client.get("/swagger/swagger-ui-bundle.js").text[:1000].lower()
    description = client.get("/openapi.json").json()
    tried = 0
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content:
                assert client.request(method, path, json=content["example"]).status_code == 200
                tried += 1
            assert "422" not in operation["responses"]
    assert tried == 9
    assert "7" in json.dumps(description["paths"]["/v1/recall"]["post"]["requestBody"]), "the model's popular item"
    is_problem(client.get("/swagger/..%2fdoor.py"), 404, "NOT_FOUND")


def test_the_explorers_files(target: str, tmp_path: Path) -> None:
    titles = tmp_path / "titles.csv"
    titles.write_text('item_id,title\n4,Toy Story\n5,"Story of Toys, A"\n6,Heat\n')
    users = tmp_path / "users.txt"
    users.write_text(
        'user_id:7 target_item:0 hist_item:3 hist_item:4 eval_item:5\n\n{"user_id": "u8", "hist_item": [6]}\n'
    )
    drawn = tmp_path / "map.json"
    drawn.write_text('{"model_version": "ab12", "item_ids": []}')
    with with_options(
        target, "--titles", str(titles), "--users", str(users), "--map", str(drawn), "--compare-with", target
    ) as client:
        setup = client.get("/explorer/setup").json()
        assert client.post("/explorer/titles", json={"item_ids": ["4", -1, 999]}).json() == {"4": "Toy Story"}
        is_problem(client.post("/explorer/titles", json={"item_ids": ["1" * 5_000]}), 400, "REQUEST_INVALID")
        assert setup["compares"] and setup["has_titles"] and setup["maps"] == ["ab12"]
        assert setup["users"] == [
            {"user_id": "7", "hist_item": ["3", "4"], "eval_item": ["5"]},
            {"user_id": "u8", "hist_item": ["6"], "eval_item": []},
        ]
        search = {"search": "toy"}
        found = [item["title"] for item in client.get("/explorer/items", params=search).json()]
        assert found == ["Toy Story", "Story of Toys, A"]
        assert client.get("/explorer/items", params={"search": " "}).json() == []
        assert client.get("/explorer/maps/ab12").json() == json.loads(drawn.read_text())
        is_problem(client.get("/explorer/maps/other"), 404, "NOT_FOUND")
        titled = client.post("/v1/explain?server=compared", json={"user": {"hist_item": [3]}, "top_k": 3}).json()
        assert titled["titles"] == {"4": "Toy Story", "5": "Story of Toys, A", "6": "Heat"}


def test_users_are_remembered_only_where_the_operator_allows_it(
    client: httpx.Client, target: str, servicer: CannedRecall
) -> None:
    paths = {"upsert": {"users": [{"user_id": "7", "hist_item": [3]}]}, "similar": {"users": [{}]}}
    for path, body in {**paths, "delete": {"user_ids": ["7"]}}.items():
        is_problem(client.post(f"/v1/users/{path}", json=body), 403, "NOT_ENABLED")
    updates = [
        {"user_id": "7", "append_item_ids": ["3", HUGE], "events": ["view", "hover"]},
        {"user_id": "7", "hist_item": [4]},
        {"user_id": "", "hist_item": [4]},
    ]
    with with_options(target, "--allow-users") as allowed:
        written = allowed.post("/v1/users/upsert", json={"users": updates}).json()["results"]
        assert [one["status"] for one in written] == ["USER_STATUS_OK", "USER_STATUS_OK", "USER_STATUS_INVALID"]
        assert [(one["history_length"], one["dropped"]) for one in written[:2]] == [(2, 1), (1, 0)]
        [sent] = [request.users for request, *_ in servicer.calls["UpsertUsers"]]
        assert [(one.user_id, *one.append_item_ids, *one.hist_item) for one in sent][:2] == [("7", 3, HUGE), ("7", 4)]
        similar = allowed.post("/v1/users/similar", json={"users": [{"user_id": "7"}], "top_k": 2}).json()
        assert similar["results"][0]["user_ids"] == ["bob", "cid"]
        deleted = allowed.post("/v1/users/delete", json={"user_ids": ["7", "nobody"]}).json()["results"]
        assert [one["status"] for one in deleted] == ["USER_STATUS_OK", "USER_STATUS_UNKNOWN_USER"]


METRICS = """# TYPE recall_request_duration_seconds histogram
recall_request_duration_seconds_bucket{le="0.005",method="Recall",status="OK"} 3.0
recall_request_duration_seconds_bucket{le="+Inf",method="Recall",status="OK"} 4.0
recall_request_duration_seconds_bucket{le="+Inf",method="Explain",status="OK"} 9.0
recall_request_duration_seconds_count{method="Recall",status="OK"} 4.0
recall_request_duration_seconds_count{method="Explain",status="OK"} 9.0
recall_request_duration_seconds_sum{method="Recall",status="OK"} 0.02
recall_request_failures_total{method="Recall",reason="OVERLOADED",status="RESOURCE_EXHAUSTED"} 2.0
recall_request_failures_total{method="Recall",reason="A \\"b\\"",status="INVALID_ARGUMENT"} 5.0
recall_release_info{collection="items_ab12",model_version="ab12"} 1.0
recall_serving 1.0
recall_sampled_recall_ratio_sum 1.96
recall_sampled_recall_ratio_count 2.0
recall_users_total{status="OK"} 4.0
recall_milvus_errors_total{kind="away"} NaN
recall_shadow_requests_total{channel="b",outcome="compared"} 3.0
recall_shadow_requests_total{channel="b",outcome="busy"} 2.0
recall_shadow_requests_total{channel="c",outcome="busy"} 0.0
recall_shadow_overlap_ratio_sum{channel="b"} 1.5
recall_shadow_overlap_ratio_count{channel="b"} 6.0
recall_shadow_latency_ratio_bucket{channel="b",le="1.0"} 1.0
recall_shadow_latency_ratio_bucket{channel="b",le="2.0"} 3.0
recall_shadow_latency_ratio_bucket{channel="b",le="+Inf"} 3.0
process_open_fds 12.0
"""


def test_the_figures_of_the_operations_view() -> None:
    found = figures(parse(METRICS))
    assert (found["serving"], found["collection"], found["refused"]) == (True, "items_ab12", False)
    assert (found["requests"], found["shed"], found["milvus_errors"]) == (13, 2, 0)
    assert found["latency"] == {"count": 4, "sum": 0.02, "buckets": [["0.005", 3], ["+Inf", 4]]}
    assert [each["reason"] for each in found["failures"]] == ['A \\"b\\"', "OVERLOADED"]
    assert (found["sampled_recall"]["sum"], found["users"]) == (1.96, {"OK": 4})
    b, c = found["shadows"]
    assert (b["channel"], b["outcomes"]) == ("b", {"compared": 3, "busy": 2})
    assert (b["overlap"]["sum"], b["overlap"]["count"], b["rbo"]["count"]) == (1.5, 6, 0)
    assert b["latency_ratio"]["buckets"][1] == ["2.0", 3]
    assert (c["channel"], c["outcomes"], c["latency_ratio"]["buckets"]) == ("c", {"busy": 0}, [])


def test_metrics_that_cannot_be_read_are_told(client: httpx.Client, target: str) -> None:
    is_problem(client.get("/explorer/operations"), 404, "NOT_FOUND")
    metrics = ("--metrics", "http://127.0.0.1:1/metrics", "--metrics", f"{client.base_url}/healthz")
    with with_options(target, *metrics) as reading:
        away, other = reading.get("/explorer/operations").json()["servers"]
        assert away["server"] == "127.0.0.1:1" and "refused" in away["error"]
        assert other["error"] == "these are no metrics of a recall server"


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_SERVER", "there:1")
    monkeypatch.setenv("RECALL_GATEWAY_ALLOW_DROP", "true")
    monkeypatch.setenv("RECALL_GATEWAY_INSERT_COMMAND", "python -m indexer 'a b'")
    settings = load_settings([])
    assert (settings.server, settings.allow_drop) == ("there:1", True)
    assert settings.insert_command == ("python", "-m", "indexer", "a b")
    settings = load_settings(["--server", "here:2", "--no-allow-drop"])
    assert (settings.server, settings.allow_drop) == ("here:2", False)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--listen", "8000"),
        ("--titles", "/no/such.csv"),
        ("--metrics", "file:///etc/passwd"),
        ("--metrics", "http://ann:secret@there/metrics"),
        ("--timeout-ms", "0"),
        ("--max-body-bytes", "many"),
        ("--insert-command", "'unclosed"),
        ("--log-level", "loud"),
    ],
)
def test_wrong_options_are_named_with_their_value(option: str, value: str) -> None:
    with pytest.raises(OptionError, match=re.escape(value)) as raised:
        load_settings([option, value])
    assert str(raised.value).startswith(option)


def test_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    (tmp_path / "text").touch()
    tls = ("--server-ca-cert", "--server-client-cert", "--server-client-key")
    for option in ("--server-token-file", *tls):
        files = dict.fromkeys(tls, "text") | {option: "secret"}
        with pytest.raises(OptionError, match=f"{option} is '.*secret': cannot be read: "):
            load_settings([word for name, file in files.items() for word in (name, str(tmp_path / file))])


def test_a_client_certificate_needs_its_key_and_tls(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = str(tmp_path / "file")
    with pytest.raises(OptionError, match="--server-client-cert and --server-client-key must be given together"):
        load_settings(["--server-ca-cert", file, "--server-client-cert", file])
    with pytest.raises(OptionError, match="--server-client-cert needs --server-ca-cert or --server-tls"):
        load_settings(["--server-client-cert", file, "--server-client-key", file])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(target: str, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "clients.gateway", "--listen", "127.0.0.1:0", "--server", target]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:[1-9]\d*", line)))
        assert httpx.post(f"{url}/rec/count").json() == 3706
        process.send_signal(number)
        assert "Traceback" not in process.communicate()[1]
    assert process.returncode == 0


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clients.gateway"]
    refused = subprocess.run([*command, "--titles", "/no/such.csv"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1) and "/no/such.csv" in refused.stderr
    # A module on the path stands for an installation without the extra.
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('no', name='fastapi')")
    bare = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True, check=False
    )
    assert bare.stderr == "error: the gateway needs fastapi and uvicorn: pip install 'mind-recall[gateway]'\n"
