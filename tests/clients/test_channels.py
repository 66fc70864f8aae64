"""The channel of a call: every client sends it, and shows which channel answered."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from clients import AsyncRecallClient, RecallClient
from clients.bench.histories import Clicks
from clients.bench.mix import Shape
from clients.bench.traffic import Traffic
from clients.cli import app
from clients.gateway.operations import figures, parse
from protos.recall.v1 import recall_pb2
from tests.canned_recall import INFO, CannedRecall, running
from tests.gateway import serving

CHANNELS = [
    recall_pb2.ChannelInfo(name="live", model_version="ab12", collection="items_ab12", item_count=3706, split=0.9),
    recall_pb2.ChannelInfo(name="b", collection="items_cd34", refused_collection="items_ef56", split=0.1),
    recall_pb2.ChannelInfo(name="c", refused_release="Milvus has no alias 'channel_c'"),
]


@pytest.fixture
def recall() -> CannedRecall:
    return CannedRecall()


@pytest.fixture
def target(recall: CannedRecall) -> Iterator[str]:
    with running(recall) as target:
        yield target


def invoke(*words: str) -> Any:
    """Run the command line."""
    return CliRunner().invoke(app, words, env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def calls(client: Any, **channel: str) -> list[Any]:
    """A call of each method that has a channel."""
    return [
        client.recall([[1]], top_k=2, **channel, split_key="ann"),
        client.explain([1], top_k=2, **channel, split_key="ann"),
        client.count_items(**channel),
        client.get_server_info(**channel),
        client.similar_items([1], top_k=2, **channel),
        client.get_items([1], return_attributes=[], **channel),
        client.find_similar_users([[1]], top_k=2, **channel),
        client.upsert_users({"ann": [1]}, **channel),
        client.log_feedback("click", [1], user_id="ann", **channel),
        client.reload(**channel),
    ]


def sent(recall: CannedRecall) -> dict[str, tuple[str, str]]:
    """The channel and the key of the last call of each method."""
    last = {method: found[-1][0] for method, found in recall.calls.items()}
    return {method: (request.channel, getattr(request, "split_key", "")) for method, request in last.items()}


SENT = {
    **dict.fromkeys(("Recall", "Explain"), ("b", "ann")),
    **dict.fromkeys(("CountItems", "GetServerInfo", "SimilarItems", "GetItems"), ("b", "")),
    **dict.fromkeys(("FindSimilarUsers", "UpsertUsers", "LogFeedback", "Reload"), ("b", "")),
}


def test_every_method_sends_the_channel(recall: CannedRecall, target: str) -> None:
    with RecallClient(target, timeout_s=20) as client:
        answers = calls(client, channel="b")
        assert sent(recall) == SENT
        assert [answer.channels for answer in (answers[0], answers[4])] == [("b",), ("b",)]
        calls(client)
    assert {channel for channel, _ in sent(recall).values()} == {""}


async def test_the_asyncio_client_sends_the_same(recall: CannedRecall, target: str) -> None:
    async with AsyncRecallClient(target, timeout_s=20) as client:
        for call in calls(client, channel="b"):
            await call
    assert sent(recall) == SENT


def test_a_batch_that_is_split_stays_in_one_channel(recall: CannedRecall, target: str) -> None:
    with RecallClient(target, timeout_s=20, max_users=2) as client:
        client.recall([[1], [2], [3]], top_k=2, split_key="ann")
    assert [request.split_key for request, *_ in recall.calls["Recall"]] == ["ann", "ann"]


def test_a_ready_update_carries_its_own_channel(target: str) -> None:
    request = recall_pb2.UpsertUsersRequest(users=[recall_pb2.UserUpdate(user_id="ann", hist_item=[1])])
    with RecallClient(target, timeout_s=20) as client, pytest.raises(ValueError, match="a ready request carries its"):
        client.upsert_users(request, channel="b")


@pytest.mark.parametrize(
    ("words", "method", "expected"),
    [
        (["recall", "--hist-item", "1", "--split-key", "ann"], "Recall", ("", "ann")),
        (["recall", "--hist-item", "1", "--channel", "b"], "Recall", ("b", "")),
        (["explain", "--hist-item", "1", "--channel", "b", "--split-key", "ann"], "Explain", ("b", "ann")),
        (["similar", "--item-ids", "1", "--channel", "b"], "SimilarItems", ("b", "")),
        (["count", "--channel", "b"], "CountItems", ("b", "")),
        (["items", "1", "--channel", "b"], "GetItems", ("b", "")),
        (["info", "--channel", "b"], "GetServerInfo", ("b", "")),
        (["admin", "reload", "--channel", "b"], "Reload", ("b", "")),
    ],
)
def test_commands_send_it(
    recall: CannedRecall, target: str, words: list[str], method: str, expected: tuple[str, str]
) -> None:
    done = invoke(*words, "--server", target)
    assert done.exit_code == 0, done.output
    assert sent(recall)[method] == expected


def test_the_answer_tells_the_channel(recall: CannedRecall, target: str) -> None:
    assert "channel b · model ab12" in invoke("recall", "--hist-item", "1", "--channel", "b", "--server", target).output
    assert "channel" not in invoke("recall", "--hist-item", "1", "--server", target).output
    found = json.loads(
        invoke("recall", "--hist-item", "1", "--channel", "b", "--format", "json", "--server", target).output
    )
    assert found["channel"] == "b"


def test_info_shows_the_channels(recall: CannedRecall, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "channels" not in invoke("info", "--server", target).output
    several = recall_pb2.GetServerInfoResponse(channel="live", channels=CHANNELS)
    several.MergeFrom(INFO)
    monkeypatch.setattr("tests.canned_recall.INFO", several)
    lines = " ".join(invoke("info", "--server", target).output.split())
    assert "live: items_ab12, 0.9 of the split" in lines
    assert "b: items_cd34, 0.1 of the split, refuses items_ef56" in lines
    assert "c: no release: Milvus has no alias 'channel_c'" in lines


def test_a_load_test_asks_a_channel() -> None:
    shape = Shape(channel="b", top_k=5)
    assert shape.title() == "top 5, channel b"
    _, request = Traffic([shape], [Clicks([1])], 10, seed=0).next()
    assert request.channel == "b"


def test_the_operations_view_is_that_of_the_default_channel() -> None:
    samples = parse(
        'recall_release_info{channel="b",collection="items_cd34",model_version="cd34"} 1.0\n'
        'recall_release_info{channel="live",collection="items_ab12",model_version="ab12"} 1.0\n'
        'recall_serving{channel="live"} 1.0\nrecall_serving{channel="b"} 0.0\n'
    )
    found = figures(samples)
    assert (found["serving"], found["collection"]) == (True, "items_ab12")
    assert found["channels"] == [
        {"name": "live", "collection": "items_ab12", "serving": True},
        {"name": "b", "collection": "items_cd34", "serving": False},
    ]


def test_the_gateway_passes_it_on(recall: CannedRecall, target: str) -> None:
    with serving("--server", target) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        users = [{"hist_item": [1]}]
        answer = http.post("/v1/recall", json={"users": users, "channel": "b", "split_key": "ann"})
        assert (answer.status_code, answer.json()["channel"]) == (200, "b")
        http.post("/v1/explain", json={"user": users[0], "channel": "b", "split_key": "ann"}).raise_for_status()
        assert http.post("/v1/similar", json={"queries": [{"item_ids": [1]}], "channel": "b"}).json()["channel"] == "b"
        http.post("/v1/items", json={"item_ids": [1], "return_attributes": [], "channel": "b"}).raise_for_status()
        feedback = {"kind": "click", "item_ids": [1], "user_id": "ann", "channel": "b"}
        http.post("/v1/feedback", json=feedback).raise_for_status()
        http.get("/v1/count", params={"channel": "b"}).raise_for_status()
        http.get("/v1/info", params={"channel": "b"}).raise_for_status()
        names = ("Recall", "Explain", "SimilarItems", "GetItems", "LogFeedback", "CountItems", "GetServerInfo")
        expected = {name: (SENT | {"LogFeedback": ("b", "")})[name] for name in names}
        assert {name: found for name, found in sent(recall).items() if name in names} == expected
        assert http.post("/v1/recall", json={"users": users, "channel": "B!"}).status_code == 400
        assert http.post("/v1/recall", json={"users": users, "split_key": "x" * 129}).status_code == 400
