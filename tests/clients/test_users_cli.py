"""`recall-client users`, and retries of the calls behind it, against the canned server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import Result
from typer.testing import CliRunner

from clients import RecallClient, UnavailableError
from clients.cli import app
from tests.canned_recall import CannedRecall, running

Run = Callable[..., Result]
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "gone", ())
OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", ())


@pytest.fixture
def servicer() -> CannedRecall:
    return CannedRecall()


@pytest.fixture
def target(servicer: CannedRecall) -> Iterator[str]:
    with running(servicer) as target:
        yield target


@pytest.fixture
def run(target: str) -> Run:
    env = {"RECALL_SERVER": target, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return lambda *arguments, **options: CliRunner().invoke(app, arguments, env=env, **options)


def test_upsert_one_user(run: Run, servicer: CannedRecall) -> None:
    assert run("users", "upsert", "--user-id", "7", "--append", "50,181").output == "1 stored\n"
    assert run("users", "upsert", "--user-id", "7", "--hist-item", "50").output == "1 stored\n"
    appended, replaced = (request.users[0] for request, *_ in servicer.calls["UpsertUsers"])
    assert (appended.user_id, list(appended.append_item_ids), list(appended.hist_item)) == ("7", [50, 181], [])
    assert (replaced.user_id, list(replaced.append_item_ids), list(replaced.hist_item)) == ("7", [], [50])


def test_upsert_a_file_in_its_order(run: Run, servicer: CannedRecall, tmp_path: Path) -> None:
    lines = [{"user_id": n, "hist_item": [n]} for n in range(300)]
    lines += [{"user_id": "299", "append_item_ids": [5]}, {"user_id": "", "hist_item": [1]}]
    file = tmp_path / "clicks.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    done = run("users", "upsert", "--input", str(file))
    assert done.exit_code == 1
    assert "301 stored, 1 refused" in done.output and "user_id has 0 bytes" in done.output
    calls = [request.users for request, *_ in servicer.calls["UpsertUsers"]]
    assert [len(users) for users in calls] == [256, 44, 2]  # 299 again: after the call with its history
    assert [list(user.append_item_ids) for user in calls[2] if user.user_id == "299"] == [[5]]


def test_the_kinds_of_clicks(run: Run, servicer: CannedRecall, tmp_path: Path) -> None:
    kinds = ("--events", "view,hover,buy")
    done = run("users", "upsert", "--user-id", "7", "--append", "50,181,3", *kinds)
    assert done.output == "1 stored, 1 clicks left out, whose kinds are no history for the model\n"
    file = tmp_path / "clicks.jsonl"
    file.write_text(
        '{"user_id": "a", "hist_item": [1, 2], "events": ["buy", "view"]}\n{"user_id": "b", "hist_item": [3]}'
    )
    assert run("users", "upsert", "--input", str(file)).output == "2 stored\n"
    one, many = (request.users for request, *_ in servicer.calls["UpsertUsers"])
    assert list(one[0].events) == ["view", "hover", "buy"]
    assert [list(user.events) for user in many] == [["buy", "view"], []]
    refused = run("users", "upsert", "--user-id", "7", "--append", "50", *kinds)
    assert refused.exit_code == 2 and "--events has 3 kinds for 1 ids, must be one for each" in refused.output
    refused = run("users", "upsert", "--input", str(file), *kinds)
    assert refused.exit_code == 2 and "--events goes with --user-id" in refused.output


def test_what_users_were_shown(run: Run, servicer: CannedRecall, tmp_path: Path) -> None:
    assert run("users", "upsert", "--user-id", "7", "--shown", "5,6").output == "1 stored\n"
    assert run("users", "upsert", "--user-id", "7", "--append", "1", "--shown", "5").output == "1 stored\n"
    file = tmp_path / "clicks.jsonl"
    file.write_text('{"user_id": 8, "hist_item": [1], "shown_item_ids": [2]}\n{"user_id": 9, "shown_item_ids": [3]}')
    assert run("users", "upsert", "--input", str(file)).output == "2 stored\n"
    (alone,), (beside,), many = (request.users for request, *_ in servicer.calls["UpsertUsers"])
    assert (list(alone.append_item_ids), list(alone.shown_item_ids)) == ([], [5, 6])
    assert (list(beside.append_item_ids), list(beside.shown_item_ids)) == ([1], [5])
    assert [(user.user_id, list(user.hist_item), list(user.shown_item_ids)) for user in many] == [
        ("8", [1], [2]),
        ("9", [], [3]),
    ]
    for given, says in (
        ({"shown_item_ids": 5}, "clicks.jsonl:1: neither"),
        ({"shown_item_ids": [5, "x"]}, "clicks.jsonl:1: shown_item_ids has 'x', must be a 64-bit integer"),
    ):
        file.write_text(json.dumps({"user_id": "7"} | given))
        refused = run("users", "upsert", "--input", str(file))
        assert refused.exit_code == 1 and says in refused.output
    refused = run("users", "upsert", "--input", str(file), "--shown", "5")
    assert refused.exit_code == 2 and "--shown goes with --user-id" in refused.output
    assert run("users", "upsert", "--user-id", "7").exit_code == 2


@pytest.mark.parametrize(
    ("events", "says"),
    [("view", "must be a list of texts"), ([1], "must be a list of texts"), (["view", "buy"], "has 2 kinds for 1 ids")],
)
def test_kinds_in_a_file_that_are_none_are_named(run: Run, tmp_path: Path, events: object, says: str) -> None:
    file = tmp_path / "clicks.jsonl"
    file.write_text(json.dumps({"user_id": "7", "hist_item": [1], "events": events}))
    done = run("users", "upsert", "--input", str(file))
    assert done.exit_code == 1 and f"clicks.jsonl:1: events {says}" in done.output


@pytest.mark.parametrize("line", ['{"user_id": "7"}', "7", '{"user_id": "7", "hist_item": "x"}', '{"hist_item": [1]}'])
def test_a_line_that_cannot_be_read_is_named(run: Run, tmp_path: Path, line: str) -> None:
    file = tmp_path / "clicks.jsonl"
    file.write_text(line)
    done = run("users", "upsert", "--input", str(file))
    assert done.exit_code == 1 and 'clicks.jsonl:1: neither {"user_id": U, "hist_item":' in done.output


def test_text_ids_of_users_to_remember(run: Run, servicer: CannedRecall, tmp_path: Path) -> None:
    servicer.keyed = True
    assert run("users", "upsert", "--user-id", "7", "--append", "KIT-1,0042").output == "1 stored\n"
    file = tmp_path / "clicks.jsonl"
    file.write_text('{"user_id": "a", "hist_item": ["x, y", "42"]}\n{"user_id": "b", "append_item_ids": ["z"]}')
    assert run("users", "upsert", "--input", str(file)).output == "2 stored\n"
    one, many = (request.users for request, *_ in servicer.calls["UpsertUsers"])
    assert list(one[0].append_item_keys) == ["KIT-1", "0042"]
    assert [list(many[0].hist_item_keys), list(many[1].append_item_keys)] == [["x, y", "42"], ["z"]]
    assert run("users", "similar", "--hist-item", "KIT-1").exit_code == 0
    assert list(servicer.calls["FindSimilarUsers"][0][0].users[0].hist_item_keys) == ["KIT-1"]


@pytest.mark.parametrize(
    ("keyed", "ids", "says"),
    [
        (False, ["x"], "append_item_ids has 'x', must be a 64-bit integer: this release has integer ids"),
        (True, [5], "append_item_ids has 5, must be text: this release has text ids"),
    ],
)
def test_ids_of_the_other_kind_are_named(
    run: Run, servicer: CannedRecall, tmp_path: Path, keyed: bool, ids: list[object], says: str
) -> None:
    servicer.keyed = keyed
    file = tmp_path / "clicks.jsonl"
    file.write_text(json.dumps({"user_id": "7", "append_item_ids": ids}))
    done = run("users", "upsert", "--input", str(file))
    assert done.exit_code == 1 and f"clicks.jsonl:1: {says}" in done.output
    assert not servicer.calls["UpsertUsers"]


def test_similar_users_are_a_table(run: Run) -> None:
    done = run("users", "similar", "--user-id", "7", "--top-k", "2")
    assert [line.split() for line in done.output.splitlines() if "0." in line] == [
        ["1", "bob", "0.7500"],
        ["2", "cid", "0.5000"],
    ]
    assert run("users", "similar", "--user-id", "nobody").output.strip() == "unknown user"
    assert (
        json.loads(run("users", "similar", "--hist-item", "1", "--format", "json").output)["collection"] == "users_ab12"
    )


def test_delete_asks_first(run: Run, servicer: CannedRecall) -> None:
    assert run("users", "delete", "7", input="n\n").exit_code == 1
    assert not servicer.calls["DeleteUsers"]
    done = run("users", "delete", "7", "nobody", "--yes")
    assert done.output.splitlines() == ["7: forgotten", "nobody: was not remembered"]


def test_recall_by_user_id(run: Run, servicer: CannedRecall) -> None:
    assert run("recall", "--user-id", "7", "--top-k", "3").exit_code == 0
    assert servicer.calls["Recall"][0][0].users[0].user_id == "7"
    refused = run("recall", "--user-id", "7", "--hist-item", "1")
    assert refused.exit_code == 2 and "give one of --hist-item, --user-id and --input" in refused.output


def test_an_append_is_never_sent_twice_unless_it_was_turned_away(servicer: CannedRecall, target: str) -> None:
    with RecallClient(target, timeout_s=10) as client:
        servicer.failures = [UNAVAILABLE]
        with pytest.raises(UnavailableError):
            client.upsert_users(append_item_ids={"7": [1]})
        assert len(servicer.calls["UpsertUsers"]) == 1
        servicer.failures = [OVERLOADED]
        client.upsert_users(append_item_ids={"7": [1]})
        assert len(servicer.calls["UpsertUsers"]) == 3
        servicer.failures = [UNAVAILABLE]
        client.delete_users(["7"])  # harmless to repeat
        assert len(servicer.calls["DeleteUsers"]) == 2
