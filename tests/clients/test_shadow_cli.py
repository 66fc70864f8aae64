"""`recall-client shadow`: what it shows of a shadow channel, and what it says where there is none."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from clients.cli import app
from protos.recall.v1 import recall_pb2
from tests.canned_recall import INFO, CannedRecall, running

Run = Callable[..., Any]


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs `shadow` against the canned server; 110 columns, no colours."""
    with running(CannedRecall()) as target:
        env = {"RECALL_SERVER": target, "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
        yield lambda *arguments: CliRunner().invoke(app, ["shadow", *arguments], env=env)


def summary(channel: str = "b", **fields: Any) -> recall_pb2.ShadowSummary:
    """A summary of 5 drawn requests, 3 of which were compared."""
    outcomes = {"compared": 3, "busy": 1, "attributes": 1, "failed": 0, "invented": 1}
    half = recall_pb2.ShadowValues(count=4, mean=0.5, p05=0.1, p50=0.5, p95=0.9)
    compared = {
        "since_ms": 1_767_225_600_000,
        "live_model_version": "ab12",
        "live_collection": "items_ab12",
        "model_version": "cd34",
        "collection": "items_cd34",
        "users_both": 4,
        "users_live": 1,
        "users_neither": 5,
        "overlap": half,
        "rbo": half,
        "live_ms": recall_pb2.ShadowValues(count=1, mean=2, p05=2, p50=2, p95=2),
        "score_difference": -0.25,
        "candidates": 40,
        "new_candidates": 1,
        "shadow_short": 2,
        "shadow_empty": 1,
        "gained": [recall_pb2.ShadowItem(item_id=66, lists=1200), recall_pb2.ShadowItem(item_id=7, lists=1)],
        "lost": [recall_pb2.ShadowItem(item_key="KIT-1", lists=-3)],
    }
    return recall_pb2.ShadowSummary(
        channel=channel,
        live_channel="live",
        share=0.05,
        outcomes=[recall_pb2.ShadowOutcome(outcome=name, requests=count) for name, count in outcomes.items()],
        **(compared | fields),
    )


def serve(monkeypatch: pytest.MonkeyPatch, *summaries: recall_pb2.ShadowSummary, processes: int = 1) -> None:
    info = recall_pb2.GetServerInfoResponse()
    info.CopyFrom(INFO)
    info.shadows.extend(summaries)
    info.processes, info.instance = processes, "0123abcd"
    monkeypatch.setattr("tests.canned_recall.INFO", info)


def words(output: str) -> list[str]:
    return [" ".join(line.split()) for line in output.splitlines()]


def test_the_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, summary())
    result = run()
    assert result.exit_code == 0
    lines = words(result.output)
    for line in (
        "channel b, asked 5.0% of the requests to live",
        "drawn 6 requests",
        "3 compared",
        "1 not asked, to leave the time to live requests",
        "1 name attributes that the channel's release does not have",
        "1 invented",
        "compared since 2026-01-01 00:00:00 UTC",
        "live model ab12, items_ab12",
        "b model cd34, items_cd34",
        "overlap 0.5 0.1 0.5 0.9 4 users",
        "ms in live 2 2 2 2 1 request",
        "scores differ by -0.25 standard deviations of users",
        "66 +1,200",
        "KIT-1 -3",
    ):
        assert line in lines, line
    text = " ".join(lines)
    assert "4 in both (40.0%), 1 in live alone (10.0%), 0 in b alone (0.0%), 5 in neither (50.0%)" in text
    assert "live 0, of which 0 are empty; b 2, of which 1 are empty" in text
    assert "2.5% of the candidates of b are unknown to the model of live" in text
    assert "failed" not in text


def test_nothing_was_compared_yet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, recall_pb2.ShadowSummary(channel="b", live_channel="live", share=1), processes=2)
    output = run().output
    assert "no requests were compared with these releases yet" in output
    assert "of process 0123abcd, one of 2" in output


def test_one_of_several_channels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, summary(), summary("uk-home"))
    assert "channel b" in run().output
    assert "channel uk-home" in run().output
    assert "channel b" not in run("--channel", "uk-home").output


def test_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, summary())
    [found] = json.loads(run("--format", "json").stdout)
    assert (found["channel"], found["share"], found["overlap"]["p95"]) == ("b", 0.05, 0.9)
    assert [found["gained"][0]["item_id"], found["lost"][0]["item_id"]] == [66, "KIT-1"]
    assert {each["outcome"]: each["requests"] for each in found["outcomes"]}["compared"] == 3


def test_a_channel_that_is_no_shadow(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, summary())
    result = run("--channel", "c")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the server has no shadow channel c; its option --shadow names b" in result.stderr
    serve(monkeypatch)
    assert "the server has no shadow channel; its option --shadow names none" in run().stderr
