"""The log of candidates and feedback, through real gRPC, and the way back into `mind.prepare`."""

import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from mind.data.paddlerec import read_train
from mind.data.prepared import user_keys
from protos.recall.v1 import recall_pb2
from server.watching import line_sink
from tests.commands import run_here
from tests.server.test_server import failure
from tests.server.test_server_users import Running, Start, artifact, start, stored

__all__ = ["artifact", "start"]
CLICKS = recall_pb2.User(hist_item=[1000, 1007])


async def log(running: Running, *item_ids: int, **fields: Any) -> None:
    request = recall_pb2.LogFeedbackRequest(item_ids=item_ids, **({"kind": "click"} | fields))
    await running.recall.LogFeedback(request)


async def lines(running: Running, path: Path) -> list[dict[str, Any]]:
    """What is in the log once the server has stopped."""
    await running.server.stop(0)
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_candidates_and_clicks_are_rows_with_the_id_of_their_list(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    running = await start(feedback_log=str(path), feedback_sample=1)
    before = int(time.time() * 1000)
    answer = await running.ask(stored("ann"), CLICKS, top_k=2)
    unknown, clicked = answer.results
    assert len({unknown.recall_id, clicked.recall_id}) == 2
    await log(running, clicked.item_ids[1], recall_id=clicked.recall_id, user_id="bob", time_ms=before)
    await log(running, 5, 6, recall_id=clicked.recall_id, kind="buy")
    assert (await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())).feedback_enabled
    *candidates, click, first, second = await lines(running, path)
    assert [(line["user_id"], line["item_id"], line["rank"]) for line in candidates] == [
        ("ann", unknown.item_ids[0], 0),
        ("ann", unknown.item_ids[1], 1),
        (clicked.recall_id, clicked.item_ids[0], 0),
        (clicked.recall_id, clicked.item_ids[1], 1),
    ]
    assert {line["event"] for line in candidates} == {"candidate"}
    assert {line["recall_id"] for line in candidates} == {unknown.recall_id, clicked.recall_id}
    assert {(line["model_version"], line["collection"]) for line in candidates} == {
        (answer.model_version, answer.collection)
    }
    assert candidates[2]["score"] == pytest.approx(clicked.scores[0], abs=1e-6)
    assert click == {
        "user_id": "bob",
        "item_id": clicked.item_ids[1],
        "timestamp": before,
        "event": "click",
        "recall_id": clicked.recall_id,
    }
    assert [(line["user_id"], line["item_id"], line["event"]) for line in (first, second)] == [
        (clicked.recall_id, 5, "buy"),
        (clicked.recall_id, 6, "buy"),
    ]
    assert all(before <= line["timestamp"] <= time.time() * 1000 for line in (*candidates, first))


async def test_nothing_is_logged_unless_it_is_asked_for(start: Start, tmp_path: Path) -> None:
    running = await start()
    assert (await running.ask(CLICKS)).results[0].recall_id == ""
    code, reason, message, _ = await failure(log(running, 5, user_id="ann"))
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "FEEDBACK_DISABLED")
    assert "--feedback-log" in message
    assert not (await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())).feedback_enabled
    quiet = await start(feedback_log=str(tmp_path / "log.jsonl"))  # without --feedback-sample: feedback alone
    assert (await quiet.ask(CLICKS)).results[0].recall_id
    assert await lines(quiet, tmp_path / "log.jsonl") == []


async def test_the_log_is_data_for_the_next_model(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    running = await start(feedback_log=str(path), feedback_sample=1)
    clicks: dict[str, list[int]] = {f"u{user}": [] for user in range(12)}
    now = int(time.time() * 1000)
    for user_id, items in clicks.items():
        [found] = (await running.ask(recall_pb2.User(user_id=user_id, hist_item=[1000]), top_k=20)).results
        for place in range(6):
            items.append(found.item_ids[(len(user_id) * place + place) % 20])
            shared = {"recall_id": found.recall_id, "user_id": user_id, "time_ms": now + place}
            await log(running, items[-1], **shared)
            await log(running, found.item_ids[7], kind="hide", **shared)
    await running.server.stop(0)
    output = tmp_path / "data"
    done = run_here("mind.prepare", path, "--output", output, "--event", "event", "--history", "click")
    assert done.returncode == 0, done.stderr
    train = read_train(output / "train")
    names = user_keys(output / "train")
    assert names and len(train) >= 8  # the other users are held out
    for place, user in enumerate(train.user_id.tolist()):
        assert train[place].tolist() == clicks[names.name(user)]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"item_ids": []}, "item_ids: has 0 ids, must have 1 to 1000"),
        ({"item_ids": range(1_001)}, "item_ids: has 1001 ids, must have 1 to 1000"),
        ({"item_ids": [], "item_keys": ["A"]}, "item_keys: has 1 ids, but the ids of this release are integers"),
        ({"kind": ""}, "kind: has 0 bytes, must have 1 to 64"),
        ({"kind": "ü" * 33}, "kind: has 66 bytes, must have 1 to 64"),
        ({"kind": "candidate"}, "kind: is 'candidate', which the server itself writes"),
        ({"recall_id": "x" * 65}, "recall_id: has 65 bytes, the limit is 64"),
        ({"user_id": ""}, "user_id: is empty, and so is recall_id; give one of them"),
        ({"user_id": "x" * 129}, "user_id: has 129 bytes, must have 1 to 128"),
        ({"time_ms": 1_700_000_000}, "time_ms: is 1700000000, must be 0 for now, or milliseconds since 1970"),
        ({"time_ms": 2**62}, "time_ms: is 4611686018427387904, must be"),
    ],
)
async def test_feedback_that_cannot_be_is_named(
    start: Start, tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    running = await start(feedback_log=str(tmp_path / "log.jsonl"))
    request = recall_pb2.LogFeedbackRequest(**({"item_ids": [5], "kind": "click", "user_id": "ann"} | fields))
    code, reason, message, _ = await failure(running.recall.LogFeedback(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert reason == ("WRONG_ID_TYPE" if "item_keys" in fields else "FEEDBACK_INVALID")
    assert message.startswith(says)


async def test_feedback_that_cannot_be_kept_is_sent_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start(feedback_log=str(tmp_path / "log.jsonl"), feedback_sample=1)
    monkeypatch.setattr(line_sink, "MAX_WAITING", 0)
    code, reason, *_ = await failure(log(running, 5, user_id="ann"))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert len((await running.ask(CLICKS)).results[0].item_ids) == 5  # which loses its line, and nothing else


async def test_a_server_that_cannot_open_its_log_does_not_start(start: Start, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="--feedback-log"):
        await start(feedback_log=str(tmp_path / "nowhere" / "log.jsonl"))
