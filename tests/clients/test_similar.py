"""Similar items in the Python clients, the command line and the gateway, before a server with canned answers."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from clients import AsyncRecallClient, ItemStatus, RecallClient
from clients.cli import app
from protos.recall.v1 import recall_pb2
from tests.canned_recall import CannedRecall, running
from tests.clients.test_gateway import is_problem
from tests.gateway import serving

BIG = 2**63 - 2


@pytest.fixture
def servicer() -> CannedRecall:
    return CannedRecall()


@pytest.fixture
def target(servicer: CannedRecall) -> Iterator[str]:
    with running(servicer) as target:
        yield target


@pytest.fixture
def client(target: str) -> Iterator[RecallClient]:
    with RecallClient(target, timeout_s=20, max_users=2, max_candidates=12) as client:
        yield client


@pytest.fixture
def run(target: str) -> Callable[..., Result]:
    env = {"RECALL_SERVER": target, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return lambda *arguments: CliRunner().invoke(app, arguments, env=env)


@pytest.fixture
def gateway(target: str) -> Iterator[httpx.Client]:
    with serving("--server", target) as url, httpx.Client(base_url=url) as client:
        yield client


def sent(servicer: CannedRecall) -> list[Any]:
    return [request for request, *_ in servicer.calls["SimilarItems"]]


def test_a_query_is_an_id_or_a_list_or_a_message(client: RecallClient, servicer: CannedRecall) -> None:
    message = recall_pb2.ItemQuery(item_ids=[7], exclude_item_ids=[8])
    found = client.similar_items(
        [50, [5, 181], message, [], [5]], top_k=3, filter="year > 1990", exclude_item_ids=[[1], [2], [], [], []]
    )
    assert found.item_ids == [[51, 52, 53], [182, 183, 184], [8, 9, 10], [], []]
    OK, UNKNOWN, INVALID = ItemStatus.OK, ItemStatus.UNKNOWN, ItemStatus.INVALID  # noqa: N806
    assert found.statuses == (OK, OK, OK, INVALID, UNKNOWN)
    assert str(found.statuses[4]) == "UNKNOWN" and str(ItemStatus(77)) == "77"
    assert (found.model_versions, found.collections, len(found.timings)) == (("ab12",), ("items_ab12",), 3)
    requests = sent(servicer)
    assert [len(request.queries) for request in requests] == [2, 2, 1]
    assert all((one.top_k, one.filter, one.by) == (3, "year > 1990", recall_pb2.SOURCE_SEARCH) for one in requests)
    assert requests[0].queries[1] == recall_pb2.ItemQuery(item_ids=[5, 181], exclude_item_ids=[2])
    assert requests[1].queries[0] == message


def test_attributes_count_as_items_when_a_batch_is_split(client: RecallClient, servicer: CannedRecall) -> None:
    found = client.similar_items([43, 50], top_k=3, by="both", return_attributes=["year", "genres"])
    assert found.attributes[0] == {"year": [1990, None, 1992], "genres": [["Crime", "Drama"], None, ["Crime", "Drama"]]}
    assert [list(one.source) for one in found.results] == [[2, 3, 1]] * 2
    assert [len(request.queries) for request in sent(servicer)] == [1, 1]


async def test_the_asyncio_client_has_the_method_too(target: str, servicer: CannedRecall) -> None:
    async with AsyncRecallClient(target, timeout_s=20, max_users=1) as client:
        found = await client.similar_items([[43], [44]], top_k=1, by="neighbours")
    assert found.item_ids == [[44], [45]]
    assert [list(one.weights) for one in found.results] == [[0.25], [0.25]]
    assert [request.by for request in sent(servicer)] == [recall_pb2.SOURCE_NEIGHBOURS] * 2


def test_text_ids(servicer: CannedRecall, client: RecallClient) -> None:
    servicer.keyed = True
    found = client.similar_items(["KIT-1", ["?", "0042"]], top_k=2, exclude_item_ids=[["KIT-2"], []])
    assert found.item_ids == [["KIT-1+1", "KIT-1+2"], ["0042+1", "0042+2"]]
    assert list(found.results[1].unknown) == [0]
    assert list(sent(servicer)[0].queries[0].exclude_item_keys) == ["KIT-2"]


@pytest.mark.parametrize(
    ("queries", "options", "error", "says"),
    [
        ("KIT-1", {}, TypeError, "queries is the text 'KIT-1', must be a list with one query for each answer"),
        ([[1, "a"]], {}, TypeError, r"queries\[0\]\[1\] is 'a'"),
        ([1.5], {}, TypeError, r"queries\[0\]\[0\] is 1.5"),
        ([2**64], {}, ValueError, r"queries\[0\]\[0\] is .* does not fit 64 bits"),
        ([1], {"by": "search"}, ValueError, "by is 'search', must be one of embedding, neighbours, both"),
        ([1], {"exclude_item_ids": []}, ValueError, "exclude_item_ids has 0 lists for 1 queries"),
        ([recall_pb2.ItemQuery()], {"exclude_item_ids": [[1]]}, ValueError, "an ItemQuery message carries its own"),
    ],
)
def test_what_cannot_be_sent(client: RecallClient, queries: Any, options: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        client.similar_items(queries, top_k=1, **options)


def test_the_command_shows_a_table(run: Callable[..., Result], servicer: CannedRecall) -> None:
    result = run("similar", "--item-ids", "5, 43", "--top-k", "3", "--exclude", "7", "--attributes", "year")
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines()]
    assert (
        ["item", "year", "cosine"] in rows and ["1", "44", "1990", "0.9375"] in rows and ["2", "45", "0.8750"] in rows
    )
    assert "unknown: number 1 of the given items" in result.output
    assert "model ab12 · items_ab12 · 3.2 ms in the server" in result.output
    rows = [line.split() for line in run("similar", "--item-ids", "43", "--by", "both").output.splitlines()]
    assert ["item", "cosine", "weight", "source"] in rows and ["2", "45", "0.8750", "0.1250", "both"] in rows
    one, other = sent(servicer)
    assert one.queries[0] == recall_pb2.ItemQuery(item_ids=[5, 43], exclude_item_ids=[7])
    assert (other.top_k, other.by) == (10, recall_pb2.SOURCE_BOTH)
    assert "no similar items" in run("similar", "--item-ids", "5").output
    found = json.loads(run("similar", "--item-ids", "43", "--top-k", "1", "--format", "json").output)
    assert (found["results"][0]["item_ids"], found["results"][0]["status"]) == ([44], "ITEM_STATUS_OK")


def test_the_gateway_answers_in_json(gateway: httpx.Client, servicer: CannedRecall) -> None:
    queries = [{"item_ids": ["50", BIG]}, {"item_ids": [5], "exclude_item_ids": ["6"]}, {"item_ids": []}]
    body = {"queries": queries, "top_k": 1, "by": "both", "filter": "year > 1990", "return_attributes": ["year"]}
    answer = gateway.post("/v1/similar", json=body).json()
    assert answer["results"][0] == {
        "item_ids": [str(BIG + 1)],
        "scores": [0.9375],
        "source": ["SOURCE_NEIGHBOURS"],
        "weights": [0.25],
        "status": "ITEM_STATUS_OK",
        "unknown": [],
        "detail": "",
        "attributes": {"year": [1990]},
    }
    assert [one["status"] for one in answer["results"][1:]] == ["ITEM_STATUS_UNKNOWN", "ITEM_STATUS_INVALID"]
    assert (answer["model_version"], answer["timings"]["search_ms"]) == ("ab12", 2.5)
    [request] = sent(servicer)
    assert request.queries[1] == recall_pb2.ItemQuery(item_ids=[5], exclude_item_ids=[6])
    assert (request.by, request.filter, list(request.return_attributes)) == (3, "year > 1990", ["year"])
    for wrong in ({"queries": []}, {"queries": [{"item_ids": ["KIT"]}]}, body | {"by": "search"}, {}):
        is_problem(gateway.post("/v1/similar", json=wrong), 400, "REQUEST_INVALID")
    many = is_problem(gateway.post("/v1/similar", json={"queries": [{}] * 4_097}), 400, "REQUEST_INVALID")
    assert "has 4097 queries, the limit is 4096" in many["detail"]
    servicer.keyed = True
    [found] = gateway.post("/v1/similar", json={"queries": [{"item_ids": ["KIT-1"]}], "top_k": 1}).json()["results"]
    assert found["item_ids"] == ["KIT-1+1"]
