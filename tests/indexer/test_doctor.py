"""`indexer doctor` on Milvus Lite, on a real Milvus, and where Milvus is away, refuses, hangs or answers wrongly."""

import json
import os
import re
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from pymilvus import MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from indexer.doctor.diagnosis import Result
from indexer.doctor.examine import examine
from indexer.doctor.trial import Trial
from mind.milvus.collection import ALIAS, EMBEDDING
from mind.milvus.connection import Connection
from mind.milvus.inspection import Inspection
from mind.milvus.schemas import items
from mind.milvus.store import Store
from mind.milvus.version import Version
from tests.commands import run_here
from tests.fake_milvus import fake_milvus
from tests.ports import free_port

BEFORE = ["connect", "version", "edition", "clock", "own database"]
TRIAL = ["create", "insert", "flush", "compact", "index", "rename", "load", "count", "search"]
TRIAL += ["filter", "order", "change", "limits", "alias"]
STEPS = [*BEFORE, *TRIAL, "drop"]


OWN = f"recall_doctor_{os.getpid():08x}"
"""The database of `doctor` in this test process; other processes examine the same Milvus."""


@pytest.fixture(autouse=True)
def own_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.doctor.examine.secrets", SimpleNamespace(token_hex=lambda _: f"{os.getpid():08x}"))


def doctor(uri: str, *words: str) -> dict[str, Any]:
    done = run_here("indexer", "doctor", "--milvus-uri", uri, "--format", "json", *words)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    return found


def step(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(step for step in found["steps"] if step["name"] == name)


def state(uri: str) -> tuple[Any, ...]:
    """Everything that `doctor` could have touched."""
    client = MilvusClient(uri, timeout=30)
    names = sorted(client.list_collections(timeout=30))
    databases = OWN in client.list_databases(timeout=30)
    live = client.describe_collection(ALIAS, timeout=30)["collection_name"]
    client.close()
    return names, databases, live


@pytest.fixture
def used(milvus_uri: str) -> Iterator[str]:
    """A Milvus with a live collection and the collection of release records."""
    with Store(Connection(milvus_uri)) as store:
        for name in ("items_0123456789ab_01234567", "release_records"):
            if name not in store.collections():
                store.create_collection(name, items(4, {}))
                store.open(name, EMBEDDING)
        store.point_alias("items_0123456789ab_01234567")
    yield milvus_uri
    with Store(Connection(milvus_uri)) as store:
        store.drop_alias()
    client = MilvusClient(milvus_uri, timeout=30)
    for name in ("items_0123456789ab_01234567", "release_records"):
        client.drop_collection(name, timeout=30)
    client.close()


def test_a_milvus_that_works(used: str) -> None:
    before = state(used)
    found = doctor(used)
    assert [step["name"] for step in found["steps"]] == STEPS + ["drop database"] * used.startswith("http")
    assert found["ok"], found
    assert found["tested"] == Version(found["version"]).is_tested
    assert step(found, "filter")["detail"] == "4 filters"
    if used.startswith("http"):
        assert step(found, "edition")["detail"] == "Standalone"
        assert re.fullmatch(r"\d\.\d s (ahead of|behind) this machine", step(found, "clock")["detail"])
    assert state(used) == before
    shown = run_here("indexer", "doctor", "--milvus-uri", used, env={"COLUMNS": "120"})
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[-1].startswith("result     everything works")
    assert state(used) == before


@pytest.mark.parametrize("interrupted", ["insert", "alias"])
def test_nothing_is_left_after_a_failure_or_ctrl_c(
    used: str, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(used)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trial, interrupted, stop)
    done = run_here("indexer", "doctor", "--milvus-uri", used)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert state(used) == before


def test_no_database_is_left_if_its_first_collection_is_interrupted(
    milvus_server_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, interrupted = Inspection.drop, iter([True])

    def drop(asked: Inspection, name: str) -> None:
        if next(interrupted, False):
            raise KeyboardInterrupt
        real(asked, name)

    monkeypatch.setattr(Inspection, "drop", drop)
    client = MilvusClient(milvus_server_uri, timeout=30)
    assert run_here("indexer", "doctor", "--milvus-uri", milvus_server_uri).returncode == 130
    assert OWN not in client.list_databases(timeout=30)
    client.close()


def test_a_milvus_that_is_not_there() -> None:
    port = free_port()
    found = doctor(f"http://127.0.0.1:{port}", "--timeout-s", "2")
    assert [step["name"] for step in found["steps"]] == ["connect"]
    connect = step(found, "connect")
    assert connect["detail"].startswith(f"no Milvus answers at http://127.0.0.1:{port}")
    assert connect["next"] == "check --milvus-uri, the credentials, the network, and that Milvus runs"
    shown = run_here("indexer", "doctor", "--milvus-uri", f"http://127.0.0.1:{port}", "--timeout-s", "2")
    assert "-> check --milvus-uri" in shown.stdout and "result     failed: connect" in shown.stdout


def test_a_milvus_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        found = doctor(f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout-s", "1")
    assert [step["name"] for step in found["steps"]] == ["connect"]
    assert step(found, "connect")["result"] == "failed"


def version(text: str) -> milvus_pb2.GetVersionResponse:
    return milvus_pb2.GetVersionResponse(version=text)


def test_a_milvus_that_hangs_half_way() -> None:
    """Every later step is skipped, so that nobody waits for each of them; what may be left is named."""
    answers = {"GetVersion": version("v2.6.4"), "DescribeCollection": grpc.StatusCode.DEADLINE_EXCEEDED}
    with fake_milvus(answers) as (uri, called):  # rows are inserted after a look at the fields
        diagnosis = examine(Connection(uri, timeout_s=1))
        assert called.count("DescribeCollection") == 1
    results = {step.name: step.result for step in diagnosis.steps}
    assert (results["create"], results["insert"]) == (Result.OK, Result.FAILED)
    assert {results[name] for name in TRIAL[TRIAL.index("flush") :]} == {Result.SKIPPED}
    assert "look into the log of Milvus" in next(step.next for step in diagnosis.steps if step.name == "insert")


def test_a_user_without_rights() -> None:
    allowed: dict[str, Any] = {"Connect": None, "GetVersion": version("2.5.16")}
    with fake_milvus(allowed, others=grpc.StatusCode.PERMISSION_DENIED) as (uri, _):
        found = doctor(uri)
    assert found["tested"] is False
    note = "Milvus 2.5.16 is not tested with this version of mind-recall (tested: Milvus 2.3.5, Milvus Lite 3.2)"
    assert (step(found, "version")["result"], step(found, "version")["detail"]) == ("note", note)
    assert "PrivilegeCreateDatabase: permission deny to reader" in step(found, "own database")["detail"]
    create = step(found, "create")
    assert create["result"] == "failed"
    assert "PrivilegeCreateCollection: permission deny to reader in the `default` database" in create["detail"]
    assert create["next"] == "grant the privilege that the message names to the user of --milvus-token-file"
    assert step(found, "search") == {
        "name": "search",
        "result": "skipped",
        "seconds": 0,
        "detail": "needs the step load",
        "next": "",
    }


def test_the_user_of_an_untested_version_is_asked_for_the_table(used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mind.milvus.version.TESTED_SERVERS", ())
    monkeypatch.setattr("mind.milvus.version.TESTED_LITE", "4")
    done = run_here("indexer", "doctor", "--milvus-uri", used)
    assert done.returncode == 0
    assert "please send this table to the project, in an issue" in done.stdout.splitlines()[-1]


def test_an_old_milvus_is_refused_with_what_to_do() -> None:
    with fake_milvus({"GetVersion": version("v2.2.16")}) as (uri, _):
        found = doctor(uri)
        done = run_here("indexer", "status", "--milvus-uri", uri)
    too_old = f"{uri}: Milvus 2.2.16 is too old: 2.3.2 or newer is needed; upgrade Milvus"
    assert step(found, "connect")["detail"] == too_old
    assert (done.returncode, done.stderr) == (1, f"error: {too_old}\n")


def test_a_wrong_answer_is_a_failure(lite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.rows
    monkeypatch.setattr(Store, "rows", lambda *asked, **more: real(*asked, **more)[1:])  # not the first ones
    diagnosis = examine(Connection(lite))
    order = next(step for step in diagnosis.steps if step.name == "order")
    assert order.result is Result.FAILED and not diagnosis.ok
    assert order.detail.startswith("the first ids above 99: Milvus says [101, 102")
    shown = run_here("indexer", "doctor", "--milvus-uri", lite, env={"COLUMNS": "120"}).stdout
    assert "Milvus says [101, 102" in shown and "-> do not release with this Milvus" in shown
    assert order.next == "do not release with this Milvus; send this table to the project"


def test_what_could_not_be_removed_is_named() -> None:
    failed = common_pb2.Status(code=1, reason="no drop today")
    answers = {
        "GetVersion": version("milvus_lite-3.2.2"),
        "CreateCollection": common_pb2.Status(code=1, reason="full"),
        "ShowCollections": lambda _: milvus_pb2.ShowCollectionsResponse(status=failed),
    }
    with fake_milvus(answers) as (uri, _):
        diagnosis = examine(Connection(uri))
    drop = diagnosis.steps[-1]
    assert (drop.name, drop.result) == ("drop", Result.FAILED)
    assert re.search(
        r"no drop today; drop the collections doctor_\w+_new, doctor_\w+, doctor_\w+_wide yourself", drop.detail
    )
