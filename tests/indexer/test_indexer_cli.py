"""The command line of the indexer: what people and schedulers see."""

import io
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from indexer import display
from indexer.__main__ import app
from indexer.catalogue import item_collections
from indexer.items.journal import Journal
from indexer.options import Milvus, milvus_options
from indexer.progress import Progress
from mind.artifact import load_artifact
from mind.milvus.collection import EMBEDDING, ITEM_ID, VECTOR_SOURCE
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.options import Options
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.ports import free_port
from tests.releases import publish
from tests.waiting import wait_until


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process."""
    return run_here("indexer", *arguments)


@pytest.fixture
def silent_port() -> Iterator[socket.socket]:
    """A socket that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_log_is_told_every_minute_how_far_a_command_is(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(display, "err", Console(file=log))
    monkeypatch.setattr(display, "TELL_S", 0.01)
    with display.progress() as on_progress:
        on_progress("insert", 20_000, 367_982)
        wait_until(lambda: "insert: 20,000 of 367,982, " in log.getvalue())
        on_progress("flush", 0, 0)
        wait_until(lambda: "flush: " in log.getvalue())


def test_the_life_of_two_releases(lite: str, tmp_path: Path) -> None:
    make_artifact(tmp_path / "a", items=120)
    make_artifact(tmp_path / "b", items=130, seed=1)
    (tmp_path / "items.csv").write_text("item_id,year,tags\n1000,1999,a|b\n1007,2001,\n5,2000,\n")
    runner = CliRunner(env={"RECALL_MILVUS_URI": lite})

    def invoke(*arguments: object) -> str:
        result = runner.invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "has no item collection" in invoke("status")
    attributes = ["--attributes", tmp_path / "items.csv", "--multi-valued", "tags", "--type", "year=DOUBLE"]
    output = invoke("build", "--artifact", tmp_path / "a", *attributes)
    assert "year DOUBLE, 2 of 120 items" in output
    assert "tags ARRAY<VARCHAR>, 1 of 120 items" in output
    assert "118 items have no row in the file" in output
    assert "recall@50 1.000 over 32 interest vectors" in output
    first = json.loads(invoke("status", "--format", "json"))[0]["collection"]
    assert f"python -m indexer publish {first}" in output
    refused = runner.invoke(app, ["publish", "--wait"])
    assert (refused.exit_code, "--wait needs at least one --server" in refused.stderr) == (2, True)
    assert json.loads(invoke("status", "--format", "json"))[0]["state"] == "built"
    assert f"live       {first}" in invoke("publish")
    assert "was live already" in invoke("build", "--artifact", tmp_path / "a", *attributes, "--publish")
    assert f"previously {first}" in invoke("build", "--artifact", tmp_path / "b", "--publish")
    assert (invoke("count"), invoke("count", first)) == ("130\n", "120\n")

    listed = json.loads(invoke("status", "--format", "json"))
    assert [(row["state"], row["fingerprint"]["count"]) for row in listed] == [("live", 130), ("published", 120)]
    second = listed[0]["collection"]
    lines = invoke("status").splitlines()
    assert lines[0].split() == ["collection", "items", "index", "state", "since", "(UTC)"]
    assert lines[1].split()[:4] == [second, "130", "FLAT", "live"]
    assert max(map(len, lines)) <= 80

    assert f"live       {first}" in invoke("rollback")
    assert invoke("prune", "--keep", 0) == f"dropped    {second}\n"
    refused = runner.invoke(app, ["drop", first], input="n\n")
    assert (refused.exit_code, "not dropped" in refused.stderr) == (1, True)
    assert "the collection is live; publish another one first" in runner.invoke(app, ["drop", first, "--yes"]).stderr
    assert invoke("drop", first, "--yes", "--allow-live") == f"dropped    {first}\n"
    assert runner.invoke(app, ["count"]).stderr == "error: no collection is live; name the collection to count\n"


def test_status_counts_what_is_live(lite: str, tmp_path: Path) -> None:
    runner = CliRunner(env={"RECALL_MILVUS_URI": lite})
    artifact = load_artifact(make_artifact(tmp_path / "a", items=120))
    assert runner.invoke(app, ["build", "--artifact", str(tmp_path / "a"), "--publish"]).exit_code == 0
    assert json.loads(runner.invoke(app, ["status", "--format", "json"]).stdout)[0]["problem"] == ""
    with Store(Connection(lite)) as store:
        (live,) = item_collections(store)
        vector = artifact.weights.item_embedding[1].tolist()
        row = {ITEM_ID: 7, EMBEDDING: vector, VECTOR_SOURCE: "trained"}
        store.insert(live.name, [row])  # by somebody else
    problem = f"{live.name}: holds 121 rows, but the model has 120 items; drop the collection and build again"
    assert json.loads(runner.invoke(app, ["status", "--format", "json"]).stdout)[0]["problem"] == problem
    assert problem in runner.invoke(app, ["status"]).stdout


def test_items_come_and_go_between_two_releases(lite: str, tmp_path: Path) -> None:
    make_artifact(tmp_path / "models", items=120)
    (tmp_path / "items.csv").write_text(
        "\n".join(["item_id,year", *(f"{1000 + 7 * i},{2000 + i % 5}" for i in range(120))])
    )
    (tmp_path / "new.csv").write_text("item_id,year\n5,2003\n6,2002\n1000,1980\n")
    (tmp_path / "since.txt").write_text("1,1000,0\n1,5,1\n")
    (tmp_path / "given.csv").write_text(f"item_id,embedding\n7,{'|'.join(['0.1'] * 16)}\n")
    (tmp_path / "gone.txt").write_text("item_id\n1007\n\n1014\n")
    runner = CliRunner(env={"RECALL_MILVUS_URI": lite})

    def invoke(*arguments: object) -> list[str]:
        result = runner.invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return [" ".join(line.split()) for line in result.stdout.splitlines()]

    models = ["--artifact", tmp_path / "models"]
    built = invoke("build", *models, "--attributes", tmp_path / "items.csv", "--publish")
    assert "read items.csv: 121 lines: 1 header, 120 rows, 0 blank; ids in item_id" in built
    files = ["--attributes", tmp_path / "new.csv", "--interactions", tmp_path / "since.txt"]
    assert invoke("upsert", *files, "--vectors", tmp_path / "given.csv", *models)[1:] == [
        "read given.csv: 2 lines: 1 header, 1 rows, 0 blank; ids in item_id",
        "read new.csv: 4 lines: 1 header, 3 rows, 0 blank; ids in item_id",
        "added 1 items, vectors attributes",
        "added 1 items, vectors given",
        "added 1 items, vectors neighbours",
        "changed 1 items",
    ]
    assert invoke("upsert", *files, *models)[1:] == [
        "read new.csv: 4 lines: 1 header, 3 rows, 0 blank; ids in item_id",
        "unchanged 3 items",
    ]
    assert invoke("delete", "--ids-file", tmp_path / "gone.txt")[1:] == ["deleted 2 items"]
    assert invoke("delete", "--ids", "1007,77")[1:] == [
        "unchanged 1 items",
        "unknown 1 items (77): they are not in the collection",
    ]
    assert invoke("count") == ["121"]
    first, changes = invoke("status")[1:]
    assert (first.split()[1], changes) == ("121", "3 added, 1 changed, 2 deleted")
    assert max(map(len, runner.invoke(app, ["status"]).stdout.splitlines())) <= 80

    make_artifact(tmp_path / "models", items=120, seed=1)
    invoke("build", *models, "--attributes", tmp_path / "items.csv")
    carried = invoke("publish", "--carry-over", *models)
    assert carried[0].startswith("carried changes of items_")
    assert carried[1:7] == [
        "added 1 items, vectors attributes",
        "added 1 items, vectors neighbours",
        "changed 1 items",
        "deleted 2 items",
        "replaced 1 attribute values of the new build are replaced by earlier upserts",
        "left out 1 items (7): their vectors were given for the previous model",
    ]
    assert invoke("count") == ["120"]


@pytest.fixture
def second_release(lite: str, tmp_path: Path) -> tuple[str, str]:
    """Names of two collections, of 120 items each: the first is live, the second was built."""
    for seed in (0, 1):
        make_artifact(tmp_path / "models", items=120, seed=seed)
        arguments = ["build", "--artifact", str(tmp_path / "models"), "--milvus-uri", lite]
        assert CliRunner().invoke(app, [*arguments, *([] if seed else ["--publish"])]).exit_code == 0
    with Store(Connection(lite)) as store:
        first, second = item_collections(store)
    return first.name, second.name


@pytest.mark.parametrize("command", ["upsert", "delete"])
def test_a_release_while_items_are_changed(
    lite: str, tmp_path: Path, second_release: tuple[str, str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = second_release
    (tmp_path / "new.csv").write_text(f"item_id,embedding\n7,{'|'.join(['0.1'] * 16)}\n")
    vectors = ["--vectors", tmp_path / "new.csv", "--artifact", tmp_path / "models"]
    arguments = [command, *map(str, vectors if command == "upsert" else ["--ids", "1000"])]
    apply = Journal.apply

    def slow(journal: Journal, on_progress: Progress) -> None:
        apply(journal, on_progress)
        publish(journal._store, second)

    runner = CliRunner(env={"RECALL_MILVUS_URI": lite})
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "apply", slow)
        late = runner.invoke(app, arguments)
        assert late.exit_code == 1
        again = f"run the same command again to change {second}"
        assert late.stderr == f"error: {second} was released while this command changed {first}; {again}\n"
        assert runner.invoke(app, [*arguments, "--collection", first]).exit_code == 0  # it was named
    assert runner.invoke(app, arguments).exit_code == 0
    count = "121\n" if command == "upsert" else "119\n"
    assert runner.invoke(app, ["count"]).stdout == count


def test_changes_that_a_release_leaves_behind_are_told(
    lite: str, tmp_path: Path, second_release: tuple[str, str]
) -> None:
    first, second = second_release
    models = ["--artifact", str(tmp_path / "models")]

    def invoke(*arguments: str) -> list[str]:
        result = CliRunner().invoke(app, [*arguments, "--milvus-uri", lite])
        assert result.exit_code == 0, result.output
        return [" ".join(line.split()) for line in result.stdout.splitlines()]

    invoke("delete", "--ids", "1000,1007")
    options = f"--carry-over {' '.join(models)} --milvus-uri {lite}"
    left = f"warning 0 items added or changed and 2 deleted in {first} were not carried over; "
    told = f"{left}`python -m indexer publish {second} {options}` carries them over"
    assert invoke("build", *models, "--publish")[-1] == told
    assert invoke("rollback") == [f"live {first}, previously {second}"]
    assert invoke("publish", second, *models)[1:] == [told]
    assert invoke("count") == ["120"]
    assert invoke(*shlex.split(told.partition("`python -m indexer ")[2].partition("`")[0]))[1] == "deleted 2 items"
    assert invoke("count") == ["118"]

    (tmp_path / "new.csv").write_text(f"item_id,embedding\n7,{'|'.join(['0.1'] * 16)}\n")
    invoke("upsert", "--vectors", str(tmp_path / "new.csv"), *models)
    invoke("delete", "--ids", "1014")
    left = f"warning 1 items added or changed and 3 deleted in {second} were not carried over; "
    assert invoke("rollback")[1:] == [f"{left}repeat those `upsert` and `delete` commands that {first} lacks"]
    assert invoke("publish", first, "--carry-over", *models)[0].startswith("carried nothing")  # so nothing else helps
    assert invoke("publish", second, "--carry-over", *models)[-1] == f"live {second}, previously {first}"


def test_a_printed_command_reaches_the_same_milvus(lite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_artifact(tmp_path / "models", items=120)
    build = ["build", "--artifact", str(tmp_path / "models"), "--milvus-uri", lite]
    for variable, option in ((None, f" --milvus-uri {lite}"), ("", f" --milvus-uri {lite}"), (lite, "")):
        result = CliRunner(env={"RECALL_MILVUS_URI": variable}).invoke(app, build)
        name = result.stdout.splitlines()[-2].split()[1]
        assert result.stdout.splitlines()[-1] == f"next       python -m indexer publish {name}{option}"
    secret = Connection("http://root:secret@127.0.0.1:19530")
    assert milvus_options(secret) == " --milvus-uri http://127.0.0.1:19530"
    far = Connection("https://milvus:19530", token="secret", db_name="shop", ca_cert=Path("my ca.pem"), server_name="m")
    where = " --milvus-uri https://milvus:19530"
    assert milvus_options(far) == f"{where} --milvus-db-name shop --milvus-ca-cert 'my ca.pem' --milvus-server-name m"
    monkeypatch.setenv("RECALL_MILVUS_DB_NAME", "shop")
    monkeypatch.setenv("RECALL_MILVUS_SERVER_NAME", "m")
    assert milvus_options(far) == f"{where} --milvus-ca-cert 'my ca.pem'"


def test_help_names_the_commands() -> None:
    result = run("--help")
    assert result.returncode == 0
    commands = ("build", "publish", "upsert", "delete", "status", "count", "rollback", "prune", "drop")
    for word in (*commands, "Examples", "Exit code"):
        assert word in result.stdout


def test_nobody_listens() -> None:
    port = free_port()
    result = run("status", "--milvus-uri", f"http://user:secret@127.0.0.1:{port}", "--timeout-s", 2)
    assert (result.returncode, result.stdout) == (1, "")
    why = f"no Milvus answers at http://127.0.0.1:{port} (connection refused); `make milvus` starts one"
    assert result.stderr == f"error: {why}\n"


def test_a_server_that_hangs(silent_port: socket.socket) -> None:
    started = time.monotonic()
    address = f"http://127.0.0.1:{silent_port.getsockname()[1]}"
    result = run("status", "--milvus-uri", address, "--timeout-s", 1)
    assert time.monotonic() - started < 10
    assert (result.returncode, result.stderr) == (
        1,
        f"error: {address}: cannot connect: Milvus did not answer within 1 s (--timeout-s)\n",
    )


def test_an_interrupt_is_one_line(silent_port: socket.socket) -> None:
    address = f"http://127.0.0.1:{silent_port.getsockname()[1]}"
    command = [sys.executable, "-m", "indexer", "status", "--milvus-uri", address, "--timeout-s", "30"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        connection, _ = silent_port.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_a_lite_file_in_use_by_another_process(lite: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "indexer", "status", "--milvus-uri", lite]
    with Store(Connection(lite)):
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith(f"error: {lite}: another process holds this Milvus Lite file; stop it, or")
    assert f"milvus-lite server --host 127.0.0.1 --data-dir {lite}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["status", "--milvus-uri", "{tmp}/missing/milvus.db"], 1, "missing not exists"),
        (["status", "--milvus-uri", "{tmp}/file.db"], 1, "file.db: cannot be opened as a Milvus Lite file: "),
        (
            ["status", "--milvus-uri", "milvus"],
            1,
            "--milvus-uri is 'milvus': expected a path that ends in .db, or",
        ),
        (
            ["status", "--milvus-uri", "http://h", "--milvus-ca-cert", "ca.pem"],
            1,
            "--milvus-ca-cert is ca.pem: it needs an https:// address, but --milvus-uri is 'http://h'",
        ),
        (
            ["status", "--milvus-uri", "https://h", "--milvus-client-key", "k"],
            1,
            "--milvus-client-key is k, but --milvus-client-cert is not given",
        ),
        (
            ["status", "--milvus-uri", "https://h", "--milvus-ca-cert", "{tmp}/ca.pem"],
            1,
            "ca.pem: cannot be read: No such file",
        ),
        (
            ["status", "--milvus-token-file", "{tmp}/token"],
            1,
            "--milvus-token-file {tmp}/token: cannot be read: No such",
        ),
        (["status", "--milvus-token", "abc"], 1, "--milvus-token: a flag shows in the process list"),
        (["status", "--timeout-s", "0"], 1, "--timeout-s: Input should be greater than or equal to 0.1 (value: '0')"),
        (["build", "--artifact", "{tmp}"], 1, "holds no model"),
        (
            ["build", "--artifact", "{tmp}/a", "--search-param", "ef=9", "--index-type", "HNSW"],
            1,
            "ef=9: ef must be at least 50",
        ),
        (["build", "--artifact", "{tmp}/a", "--attributes", "{tmp}/x.csv"], 1, "x.csv: cannot be read: No such file"),
        (["build", "--artifact", "{tmp}/a", "--index-param", "M"], 2, "'M': expected NAME=VALUE"),
        (["build", "--artifact", "{tmp}/a", "--type", "year=INT64"], 2, "need --attributes, whose columns"),
        (["build"], 2, "--artifact"),
        (["upsert"], 2, "at least one of --attributes, --interactions and --vectors"),
        (
            ["upsert", "--attributes", "{tmp}/x.csv"],
            1,
            "no collection is live; name the collection to change with --collection",
        ),
        (["delete"], 2, "give either --ids or --ids-file"),
        (["delete", "--ids", "1", "--ids-file", "x"], 2, "give either --ids or --ids-file"),
        (["delete", "--ids-file", "{tmp}/x.txt"], 1, "x.txt: cannot be read: No such file"),
        (["delete", "--ids", "1", "--collection", "items_x"], 1, "items_x: there is no item collection with this name"),
        (["publsh"], 2, "publsh"),
    ],
)
def test_faults_are_one_line_and_an_exit_code(
    tmp_path: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    make_artifact(tmp_path / "a", items=60)
    (tmp_path / "file.db").write_text("not Milvus")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    result = CliRunner().invoke(app, arguments, env={"RECALL_MILVUS_URI": str(tmp_path / "milvus.db")})
    assert result.exit_code == exit_code, result.output
    assert message.format(tmp=tmp_path) in " ".join(result.stderr.replace("│", " ").split())
    if exit_code == 1:
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1


def test_server_and_indexer_find_milvus_by_the_same_options(tmp_path: Path) -> None:
    def milvus(group: type[Options]) -> dict[str, str]:
        return {name: repr(field) for name, field in group.model_fields.items() if name.startswith("milvus_")}

    assert milvus(Milvus) == milvus(Settings)
    environment = {"RECALL_MILVUS_URI": str(tmp_path / "milvus.db"), "RECALL_MILVUS_TOKEN_FILE": "/no/such/file"}
    result = CliRunner().invoke(app, ["status"], env=environment)
    assert result.exit_code == 1 and "RECALL_MILVUS_TOKEN_FILE /no/such/file: cannot be read" in result.stderr
