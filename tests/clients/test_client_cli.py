import base64
import json
import re
import signal
import socket
import subprocess
import sys

import grpc
import pytest
from typer.testing import CliRunner

from clients.cli import app
from protos.recall.v1 import recall_pb2
from tests import ROOT
from tests.canned_recall import CannedRecall, running


@pytest.fixture
def servicer():
    return CannedRecall()


@pytest.fixture
def run(servicer):
    """Runs the command line against the canned server; 100 columns, no colours."""
    with running(servicer) as target:
        env = {"RECALL_SERVER": target, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
        yield lambda *arguments, **kwargs: CliRunner().invoke(app, arguments, env=env, **kwargs)


@pytest.fixture
def titles(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text('item_id,title\n66,"Heat [1995], uncut"\n43,Casino\n')
    return path


def words(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def test_recall_shows_a_table(run, servicer, titles):
    result = run("recall", "--hist-item", "43,1001,65", "--top-k", "2", "--titles", str(titles))
    assert result.exit_code == 0
    assert "the model does not know 1 of the history: 1001" in result.output
    rows = words(result.output)
    assert ["item", "title", "score", "interest"] in rows
    assert ["1", "66", "Heat", "[1995],", "uncut", "1.0000", "●", "0"] in rows
    assert ["2", "67", "0.9000", "●", "1"] in rows
    assert "model ab12 · items_ab12 · 3.2 ms in the server" in result.output


def test_recall_passes_every_option(run, servicer, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    options = ["--filter", "year > 1990", "--exclude-history", "--exclude", "1, 2", "--merge", "round-robin"]
    assert run("recall", "--hist-item", "43", *options, "--server-token-file", str(token)).exit_code == 0
    request, metadata, _ = servicer.calls["Recall"][0]
    assert (request.top_k, request.filter, request.exclude_history) == (50, "year > 1990", True)
    assert (list(request.users[0].exclude_item_ids), request.merge_strategy) == ([1, 2], 2)
    assert metadata["authorization"] == "Bearer secret"


def test_without_what_was_shown_a_user_has_a_name(run, servicer, tmp_path):
    assert run("recall", "--user-id", "ann", "--hist-item", "43", "--exclude-shown").exit_code == 0
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_id": 7, "hist_item": [43]}')
    assert run("recall", "--input", str(users), "--exclude-shown").exit_code == 0
    assert run("recall", "--input", str(users)).exit_code == 0
    one, many, nameless = (request for request, *_ in servicer.calls["Recall"])
    assert (one.users[0].user_id, list(one.users[0].hist_item), one.exclude_shown) == ("ann", [43], True)
    assert (many.users[0].user_id, list(many.users[0].hist_item), many.exclude_shown) == ("7", [43], True)
    assert (nameless.users[0].user_id, nameless.exclude_shown) == ("", False)
    assert run("explain", "--user-id", "ann", "--exclude-shown").exit_code == 0
    assert servicer.calls["Explain"][0][0].exclude_shown
    assert run("recall", "--user-id", "ann", "--hist-item", "43").exit_code == 2
    assert "give --hist-item or --user-id" in run("explain").output


def test_pages_follow_one_another_by_the_token_that_is_printed(run, servicer, tmp_path):
    first = run("recall", "--hist-item", "43", "--top-k", "2", "--paged").output
    token = re.search(r"next page: --page-token (\S+)", first)[1]
    second = json.loads(run("recall", "--hist-item", "43", "--page-token", token, "--format", "json").output)
    assert base64.b64decode(token) == b"p." == servicer.calls["Recall"][1][0].page_token
    assert base64.b64decode(second["next_page_token"]) == b"p.."
    assert "next page" not in run("recall", "--hist-item", "43").output
    refused = run("recall", "--hist-item", "43", "--page-token", "no token")
    assert refused.exit_code == 2 and "in base64" in refused.output
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_id": 7, "hist_item": [43]}')
    assert run("recall", "--input", str(users), "--paged").exit_code == 2


def test_feedback_names_items_and_a_user(run, servicer):
    words = ("--kind", "buy", "--items", "5, 6", "--user-id", "ann", "--recall-id", "ab-0")
    assert run("feedback", *words).output == "2 logged\n"
    [(request, *_)] = servicer.calls["LogFeedback"]
    assert (request.kind, list(request.item_ids), request.user_id, request.recall_id) == ("buy", [5, 6], "ann", "ab-0")
    assert request.time_ms > 1_700_000_000_000
    assert run("feedback", "--kind", "buy", "--items", "x").exit_code == 2


def test_with_neighbours_the_table_tells_what_found_each_candidate(run, servicer):
    rows = words(run("recall", "--hist-item", "43", "--top-k", "3", "--neighbours", "on").output)
    assert ["item", "score", "interest", "source"] in rows
    assert [row[-1] for row in rows if row[:1] and row[0] in "123"] == ["search", "neighbours", "both"]
    assert servicer.calls["Recall"][0][0].neighbours == 1
    run("recall", "--hist-item", "43", "--neighbours", "off")
    assert servicer.calls["Recall"][1][0].neighbours == 2
    assert "source" not in run("recall", "--hist-item", "43").output


def test_attributes_are_columns_of_the_table_and_lists_of_json(run, servicer):
    rows = words(run("recall", "--hist-item", "43", "--top-k", "3", "--attributes", "year, genres").output)
    assert ["item", "year", "genres", "score", "interest"] in rows
    assert ["1", "44", "1990", "Crime,", "Drama", "1.0000", "●", "0"] in rows
    assert ["2", "45", "0.9000", "●", "1"] in rows  # it has no values
    assert list(servicer.calls["Recall"][0][0].return_attributes) == ["year", "genres"]
    options = "--hist-item", "43", "--top-k", "2", "--attributes", "year,genres", "--format", "json"
    [user] = json.loads(run("recall", *options).output)["results"]
    assert user["attributes"] == {"year": [1990, None], "genres": [["Crime", "Drama"], None]}


def test_a_refused_user_is_a_failure(run):
    for command in ("recall", "explain"):
        result = run(command, "--user-id", "x" * 129)
        assert result.exit_code == 1
        assert "user_id has 129 bytes, must be 1 to 128" in result.stdout


def test_items_are_shown_with_all_attributes_or_those_asked_for(run, servicer):
    shown = run("items", "43,44").output
    assert shown.startswith("not in the collection, or without these attributes: 44\n")
    rows = words(shown)
    assert ["item", "genres"] in rows and ["43", "Crime,", "Drama"] in rows and ["44"] in rows
    assert list(servicer.calls["GetItems"][0][0].return_attributes) == ["genres"]
    answer = json.loads(run("items", "43", "--attributes", "title,year", "--format", "json").output)
    assert (answer["item_ids"], answer["attributes"]) == ([43], {"title": ["Film 0"], "year": [1990]})


def test_rules_about_candidates_are_passed_on(run, servicer):
    rules = ["--at-most", "category=5", "--at-most", "a=b=2", "--per-interest-min", "4", "--diversity", "0.25"]
    for command, options in (("recall", ["--top-k", "20"]), ("explain", [])):
        assert run(command, "--hist-item", "43", *options, *rules).exit_code == 0
        request = servicer.calls[command.capitalize()][0][0]
        assert [(rule.attribute, rule.count) for rule in request.at_most] == [("category", 5), ("a=b", 2)]
        assert (request.per_interest_min, request.diversity) == (4, 0.25)


def test_boosts_pins_and_exploring_are_passed_on(run, servicer):
    boosts = ["--boost", "margin > 0.3=0.2", "--boost", "year == 1990=-2", "--boost-newer", "published_at=0.5/14"]
    places = ["--pin", "44,43", "--explore", "0.125", "--explore-filter", "year > 1990", "--seed", "7"]
    for command, options in (("recall", ["--top-k", "20"]), ("explain", [])):
        assert run(command, "--hist-item", "43", *options, *boosts, *places).exit_code == 0
        request = servicer.calls[command.capitalize()][0][0]
        assert [(boost.filter, round(boost.add, 6)) for boost in request.boosts[:2]] == [
            ("margin > 0.3", 0.2),
            ("year == 1990", -2),
        ]
        newer = request.boosts[2]
        assert (newer.attribute, newer.weight, newer.half_life_days) == ("published_at", 0.5, 14)
        assert list(request.pin_item_ids) == [44, 43]
        assert request.explore == recall_pb2.Explore(share=0.125, filter="year > 1990", seed=7)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--boost", "year > 1990"], "is not a filter and a number"),
        (["--boost", "=1"], "is not a filter and a number"),
        (["--boost", "year > 1990=nan"], "is not a filter and a number"),
        (["--boost-newer", "published_at=0.5"], "is not an attribute, a weight and days"),
        (["--boost-newer", "=0.5/14"], "is not an attribute, a weight and days"),
        (["--pin", "KIT-1"], "is not a list of 64-bit integers"),
        (["--seed", "7"], "go with --explore"),
        (["--explore", "1.5"], "or equal to 1"),
    ],
)
def test_boosts_that_make_no_sense_are_refused(run, servicer, options, says):
    result = run("recall", "--hist-item", "43", *options)
    assert result.exit_code == 2 and not servicer.calls["Recall"]
    assert says in " ".join(result.output.replace("│", "").split())


@pytest.mark.parametrize("rule", ["category", "=5", "category=", "category=-1", "category=5.5", "category=2147483648"])
def test_a_rule_that_is_no_attribute_and_count_is_refused(run, servicer, rule):
    result = run("recall", "--hist-item", "43", "--at-most", rule)
    assert result.exit_code == 2 and not servicer.calls["Recall"]
    assert f"{rule!r} is not an attribute and a count" in " ".join(result.output.split())
    assert "'a' is there twice" in run("recall", "--hist-item", "43", "--at-most", "a=1", "--at-most", "a=2").output


def test_a_table_shows_the_titles_of_the_release_without_being_asked(run, servicer, titles, monkeypatch):
    info = recall_pb2.GetServerInfoResponse(attributes=[recall_pb2.Attribute(name="title", type="VARCHAR")])
    monkeypatch.setattr("tests.canned_recall.INFO", info)
    rows = words(run("recall", "--hist-item", "43", "--top-k", "2", "--attributes", "year").output)
    assert ["item", "title", "year", "score", "interest"] in rows
    assert ["1", "44", "Film", "0", "1990", "1.0000", "●", "0"] in rows
    run("recall", "--hist-item", "43", "--titles", str(titles))
    run("recall", "--hist-item", "43", "--format", "json")
    assert [list(request.return_attributes) for request, *_ in servicer.calls["Recall"]] == [["title", "year"], [], []]


def test_the_popular_fallback_is_labelled(run):
    result = run("recall", "--hist-item", "")
    assert "empty history: popular items instead" in result.output
    assert ["1", "7", "12.500%", "popular"] in words(result.output)


def test_json_has_protobuf_names_and_numbers(run):
    response = json.loads(run("recall", "--hist-item", "43", "--top-k", "1", "--format", "json").output)
    assert response["results"][0]["item_ids"] == [44]
    assert response["results"][0]["status"] == "USER_STATUS_OK"
    assert (response["model_version"], response["collection"]) == ("ab12", "items_ab12")
    assert response["timings"]["encode_ms"] == 0.4


def test_a_file_of_users_becomes_json_lines(run, servicer, tmp_path):
    servicer.model_versions = ["aa11", "ab12"]
    users = tmp_path / "test.txt"
    lines = [f"user_id:{user} target_item:0 hist_item:{user} hist_item:{user + 1} eval_item:5" for user in range(299)]
    users.write_text("\n".join([*lines, "", '{"user_id": "anna", "hist_item": []}']))
    output = tmp_path / "candidates.jsonl"
    result = run("recall", "--input", str(users), "--output", str(output), "--top-k", "2", "--exclude", "5")
    assert result.exit_code == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(records) == 300
    assert records[7] == {
        "user_id": 7,
        "item_ids": [9, 10],
        "scores": [1, 0.9],
        "interest": [0, 1],
        "source": [],
        "status": "USER_STATUS_OK",
        "detail": "",
        "fallback": False,
        "model_version": "aa11",
        "collection": "items_aa11",
    }
    assert (records[299]["user_id"], records[299]["fallback"]) == ("anna", True)
    assert [len(request.users) for request, _, _ in servicer.calls["Recall"]] == [256, 44]
    assert all(list(user.exclude_item_ids) == [5] for user in servicer.calls["Recall"][1][0].users)
    assert "300 users in" in result.stderr
    assert "299 ok, 1 empty history" in result.stderr
    assert "model aa11, ab12" in result.stderr
    assert "the release changed during the run" in result.stderr


def test_json_lines_go_to_standard_output_unless_told(run, tmp_path):
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_id": 7, "hist_item": [43]}\n')
    assert json.loads(run("recall", "--input", str(users)).stdout)["user_id"] == 7


def test_explain_tells_which_attributes_dropped_hits(run):
    output = run("explain", "--hist-item", "43,65", "--at-most", "genres=2", "--at-most", "year=1").output
    assert "at most  hits dropped by attribute: genres 1, year 1" in output
    assert "by attribute" not in run("explain", "--hist-item", "43,65").output


def test_explain_accounts_for_every_hit(run, titles):
    rows = words(run("explain", "--hist-item", "43,65", "--titles", str(titles)).output)
    assert ["history", "43", "Casino,", "65"] in rows
    assert ["interest", "hits", "best", "kept", "duplicate", "below", "top", "k", "nearest"] in rows
    assert ["●", "0", "made", "by", "43", "Casino", "50%,", "65", "50%"] in rows
    # hits, best, kept, duplicate, below top_k, nearest
    assert ["●", "0", "2", "1.0000", "1", "0", "1", "66", "Heat", "[1995],", "uncut,", "99"] in rows
    assert ["●", "1", "2", "0.9000", "1", "1", "0", "67,", "99"] in rows
    assert ["1", "66", "Heat", "[1995],", "uncut", "1.0000", "●", "0"] in rows


@pytest.mark.parametrize(
    ("arguments", "text", "field"),
    [
        (["count"], "3,706 items in items_ab12 (model ab12)", ("count", 3706)),
        (["count", "--filter", "year > 1990"], "12 items in items_ab12", ("count", 12)),
        (["info"], "items_ab12, 3,706 items, metric IP", ("item_count", 3706)),
        (["health"], "SERVING", ("status", "SERVING")),
        (
            ["admin", "reload"],
            "serving ab12 from items_ab12 (before: items_aa11)",
            ("previous_collection", "items_aa11"),
        ),
        (["admin", "drop-items", "items_aa11", "--yes"], "dropped items_aa11, 3,706 items", ("dropped_count", 3706)),
    ],
)
def test_the_small_commands(run, arguments, text, field):
    result = run(*arguments)
    assert result.exit_code == 0
    assert text in result.output
    assert json.loads(run(*arguments, "--format", "json").stdout)[field[0]] == field[1]


def test_info_counts_what_is_there(run, servicer, monkeypatch):
    info = recall_pb2.GetServerInfoResponse(collection="items_ab12", item_count=3707, metric="IP")
    monkeypatch.setattr("tests.canned_recall.INFO", info)
    assert "items_ab12, 3,706 items (3,707 when it was built), metric IP" in run("info").output
    found = json.loads(run("info", "--format", "json").stdout)
    assert (found["item_count"], found["counted_items"]) == (3707, 3706)


def test_info_tells_the_rest_when_items_cannot_be_counted():
    class Away(CannedRecall):
        def CountItems(self, request, context):  # noqa: N802
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the collection is gone")

    with running(Away()) as target:
        env = {"RECALL_SERVER": target, "COLUMNS": "150", "NO_COLOR": "1", "TERM": "dumb"}
        result = CliRunner().invoke(app, ["info"], env=env)
        found = json.loads(CliRunner().invoke(app, ["info", "--format", "json"], env=env).stdout)
    assert result.exit_code == 0
    assert "items cannot be counted now: the collection is gone (3,706 when it was built), metric IP" in result.output
    assert (found["item_count"], found["counted_items"]) == (3706, None)


def test_dropping_asks_first(run, servicer):
    assert run("admin", "drop-items", "items_aa11", input="n\n").exit_code == 1
    assert servicer.calls["DropItems"] == []
    assert run("admin", "drop-items", "items_aa11", input="y\n").exit_code == 0


def test_health_waits_until_the_server_is_ready(run, servicer):
    servicer.serving = [False]
    assert run("health").exit_code == 1
    servicer.serving = [False, False, True]
    assert run("health", "--wait", "5").exit_code == 0


def test_the_name_of_a_health_service_has_a_limit(run):
    result = run("health", "--service", "x" * 128)
    assert result.exit_code != 0
    assert "128 bytes, expected 127 at most" in result.output


def test_a_refused_request_is_one_line(run, servicer):
    metadata = (("error-reason", "INVALID_FILTER"),)
    servicer.failures = [(grpc.StatusCode.INVALID_ARGUMENT, "filter: no attribute 'yeer'\nin 'yeer > 3'", metadata)]
    result = run("count", "--filter", "yeer > 3")
    assert result.exit_code == 1
    assert result.stderr == "error: filter: no attribute 'yeer' in 'yeer > 3' [INVALID_FILTER]\n"
    assert result.stdout == ""


def test_no_server_is_exit_code_3(run):
    with running(CannedRecall()) as gone:
        pass
    for arguments in (["count"], ["health"], ["health", "--wait", "0.3"]):
        result = run(*arguments, "--server", gone)
        assert result.exit_code == 3
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recall"], "give one of --hist-item, --user-id and --input"),
        (["recall", "--hist-item", "43,x"], "'43,x' is not a list of 64-bit integers"),
        (["recall", "--hist-item", str(2**63)], "is not a list of 64-bit integers"),
        (["recall", "--hist-item", "43", "--top-k", "0"], "--top-k"),
        (["recall", "--input", "/no/such/file"], "does not exist"),
        (["count", "--timeout-ms", "0"], "--timeout-ms"),
    ],
)
def test_a_usage_error_is_exit_code_2(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,3", 'users.txt:2: neither "user_id:U hist_item:I ..." nor {"user_id": U, "hist_item": [I, ...]}'),
        ('{"user_id": 1}', "users.txt:2: neither"),
        ("user_id:1 hist_item:x", "users.txt:2: hist_item has 'x', must be a 64-bit integer: this release has integer"),
        ('{"user_id": 1, "hist_item": "43"}', "users.txt:2: neither"),
        ('{"user_id": 1, "hist_item": ["43"]}', "users.txt:2: hist_item has '43', must be a 64-bit integer"),
        (f"user_id:1 hist_item:{2**63}", "must be a 64-bit integer"),
    ],
)
def test_a_bad_line_is_named(run, tmp_path, line, message):
    users = tmp_path / "users.txt"
    users.write_text(f"user_id:7 hist_item:43\n{line}\n")
    result = run("recall", "--input", str(users))
    assert result.exit_code == 1
    assert message in result.stderr


def test_an_empty_file_is_a_mistake(run, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text("\n")
    result = run("recall", "--input", str(users))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "users.txt has no users" in result.stderr


def test_a_file_of_long_histories_is_cut_to_what_the_server_accepts(run, servicer, tmp_path, monkeypatch):
    info = recall_pb2.GetServerInfoResponse(limits=recall_pb2.Limits(max_history=20_000))
    monkeypatch.setattr("tests.canned_recall.INFO", info)
    users = tmp_path / "users.jsonl"
    users.write_text("".join(json.dumps({"user_id": n, "hist_item": list(range(n))}) + "\n" for n in (3, 20_005)))
    result = run("recall", "--input", str(users), "--output", str(tmp_path / "out.jsonl"), "--exclude", "5")
    assert result.exit_code == 0
    short, long = servicer.calls["Recall"][0][0].users
    assert (list(short.hist_item), list(long.hist_item)) == ([0, 1, 2], list(range(5, 20_005)))
    assert list(short.exclude_item_ids) == list(long.exclude_item_ids) == [5]
    assert "1 histories are longer than 20,000 items; their newest items were sent" in " ".join(result.stderr.split())


def test_a_bad_title_is_named(run, titles):
    titles.write_text(titles.read_text() + "x,Ran\n")
    result = run("recall", "--hist-item", "43", "--titles", str(titles))
    assert result.exit_code == 1
    assert "items.csv: line 4: item_id is 'x', not an integer of 64 bits" in result.stderr


@pytest.fixture
def keyed(servicer):
    """The same with text ids."""
    servicer.keyed = True
    return servicer


def test_text_ids_are_read_and_shown_as_they_are(run, keyed, tmp_path):
    titles = tmp_path / "items.csv"
    titles.write_text("sku,title\n0042+1,Pan\n42+1,Wrong\n")
    options = ["--exclude", "42", "--top-k", "2", "--titles", str(titles), "--titles-id-column", "sku"]
    result = run("recall", "--hist-item", "KIT-1, ?X,0042", *options)
    assert result.exit_code == 0, result.output
    assert ["1", "0042+1", "Pan", "1.0000", "●", "0"] in words(result.output)
    assert "the model does not know 1 of the history: ?X" in result.output
    [user] = keyed.calls["Recall"][0][0].users
    assert (list(user.hist_item_keys), list(user.exclude_item_keys)) == (["KIT-1", "?X", "0042"], ["42"])
    assert len(keyed.calls["GetServerInfo"]) == 1
    plain = json.loads(run("recall", "--hist-item", "0042", "--top-k", "1", "--format", "json").output)
    assert plain["results"][0]["item_ids"] == ["0042+1"] and "item_keys" not in plain["results"][0]
    assert ["item", "ids", "text"] in words(run("info").output)


@pytest.mark.parametrize(("key", "shown"), [("[red]", "[red]+1"), ("\x1b[31m", "'\\x1b[31m+1'"), ("a\nb", "'a\\nb+1'")])
def test_a_text_id_cannot_change_the_terminal(run, keyed, key, shown):
    output = run("recall", "--hist-item", key, "--top-k", "1").output
    assert shown in output and "\x1b" not in output
    assert shown in run("explain", "--hist-item", key).output


def test_a_title_cannot_change_the_terminal(run, titles):
    titles.write_text('item_id,title\n44,"[red]\x1b[31mHeat"\n43,"\x1b]0;x\x07Casino"\n', encoding="utf-8")
    for command in ("recall", "explain"):
        output = run(command, "--hist-item", "43", "--top-k", "2", "--titles", str(titles)).output
        assert "[red]\ufffd[31mHeat" in output and "\x1b" not in output and "\x07" not in output


def test_explain_shows_text_ids(run, keyed):
    rows = words(run("explain", "--hist-item", "KIT-1,0042").output)
    assert ["history", "KIT-1,", "0042"] in rows
    assert ["●", "0", "2", "1.0000", "1", "0", "1", "0042+1,", "99"] in rows


def test_a_file_of_text_ids_becomes_json_lines(run, keyed, tmp_path):
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_id": "ann", "hist_item": ["KIT-1", "00 42, x"]}\nuser_id:007 hist_item:a:b hist_item:42\n')
    result = run("recall", "--input", str(users), "--top-k", "1", "--exclude", "5")
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["user_id"], one["item_ids"]) for one in found] == [("ann", ["00 42, x+1"]), ("007", ["42+1"])]
    assert [list(user.hist_item_keys) for user in keyed.calls["Recall"][0][0].users] == [
        ["KIT-1", "00 42, x"],
        ["a:b", "42"],
    ]


def test_a_prepared_file_without_the_ids_themselves_is_refused(run, keyed, tmp_path):
    """Where ids are text, mind.prepare writes integers, and the users with their own ids to another file."""
    (tmp_path / "test").mkdir()
    prepared, own = tmp_path / "test" / "test.txt", tmp_path / "test_users.jsonl"
    prepared.write_text("user_id:5 target_item:0 hist_item:12 eval_item:13\n")
    own.write_text('{"user_id": "cust_5", "hist_item": ["KIT-12"], "eval_item": ["KIT-13"]}\n')
    refused = run("recall", "--input", str(prepared))
    assert refused.exit_code == 1
    assert f"test.txt has integers instead of text ids; give {own}, which has the text ids" in refused.stderr
    found = json.loads(run("recall", "--input", str(own), "--top-k", "1").stdout)
    assert (found["user_id"], found["item_ids"]) == ("cust_5", ["KIT-12+1"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"user_id": 1, "hist_item": ["A", 43]}',
            "users.txt:1: hist_item has 43, must be text: this release has text",
        ),
        ('{"user_id": 1, "hist_item": "KIT"}', "users.txt:1: neither"),
    ],
)
def test_a_line_of_the_other_kind_is_named(run, keyed, tmp_path, line, message):
    users = tmp_path / "users.txt"
    users.write_text(f"{line}\n")
    result = run("recall", "--input", str(users))
    assert result.exit_code == 1 and message in result.stderr


def test_text_for_an_integer_release_is_refused_by_name(run):
    result = run("explain", "--hist-item", "43", "--exclude", "KIT-1")
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert "--exclude" in said and "'KIT-1' is not a list of 64-bit integers such as 43,23,65; this release has" in said


def test_the_client_needs_no_extras_and_the_command_line_says_which():
    code = """
import sys
for name in ("google.rpc", "grpc_status", "numpy", "rich", "typer"):
    sys.modules[name] = None
from clients import RecallClient
from clients.__main__ import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: the command line needs rich and typer: pip install 'mind-recall[cli]'\n"


@pytest.mark.parametrize(("module", "imported", "code"), [("clients", "typer", 130), ("clients.gateway", "fastapi", 0)])
def test_ctrl_c_during_the_imports_ends_it_quietly(module: str, imported: str, code: int) -> None:
    command = [sys.executable, "-X", "importtime", "-m", module]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        log = [next(line for line in process.stderr if line.split()[-1:] == [imported])]
        process.send_signal(signal.SIGINT)
        log += process.stderr.readlines()
    assert (process.returncode, "Traceback" in "".join(log)) == (code, False), "".join(log[-20:])


def test_ctrl_c_ends_a_call_that_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "clients", "info", "--server", target, "--timeout-ms", "60000"]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process, silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            errors = process.communicate()[1]
    assert (process.returncode, errors) == (130, "")
