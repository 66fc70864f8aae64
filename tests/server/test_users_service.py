"""Remembered users as they run: servers beside Milvus, the shipped client, the indexer's command line."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients import RecallClient
from mind.artifact import load_artifact
from protos.recall.v1 import recall_pb2
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.server.test_service import Server, running
from tests.server.test_store import build
from tests.server.test_user_store import remove_user_collections

OK, UNKNOWN_USER = recall_pb2.USER_STATUS_OK, recall_pb2.USER_STATUS_UNKNOWN_USER


@dataclass
class World:
    """Servers of one release, two where Milvus admits them, and a client of each."""

    uri: str
    artifacts: Path
    servers: list[Server]
    clients: list[RecallClient]

    def indexer(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run_here("indexer", *words, "--milvus-uri", self.uri)


@pytest.fixture
def world(milvus_uri: str, tmp_path: Path) -> Iterator[World]:
    is_lite = milvus_uri.endswith(".db")
    if not is_lite:
        remove_user_collections(milvus_uri)
    artifacts = tmp_path / "artifacts"
    make_artifact(artifacts)
    build(milvus_uri, artifacts)
    options = ("--milvus-uri", milvus_uri, "--artifacts", str(artifacts), "--users", "--watch-interval-s", "0.2")
    with ExitStack() as stack:
        servers = [stack.enter_context(running(*options)) for _ in range(1 if is_lite else 2)]
        for server in servers:
            server.wait_for("users are in step with model")
        clients = [stack.enter_context(RecallClient(server.address, timeout_s=20)) for server in servers]
        yield World(milvus_uri, artifacts, servers, clients)
    if not is_lite:
        remove_user_collections(milvus_uri)


def test_what_was_answered_is_seen_by_every_server_at_once(world: World) -> None:
    a, b = world.clients[0], world.clients[-1]
    history: list[int] = []
    for click in range(1000, 1070, 7):
        history.append(click)
        a.upsert_users(append_item_ids={"ann": [click]})
        answer = b.recall(["ann", history], top_k=5).results
        assert answer[0] == answer[1]
        a, b = b, a  # the next click comes through the other server
    assert list(a.explain("ann", top_k=5).used_hist_item) == history[-8:]


def test_what_was_shown_is_left_out_by_every_server(world: World) -> None:
    a, b = world.clients[0], world.clients[-1]
    ann = recall_pb2.User(user_id="ann", hist_item=[1000, 1007])
    items = a.recall([[1000, 1007]], top_k=60).item_ids[0]
    for place in range(20):  # more updates than rows that stay side by side
        a.upsert_users(shown_item_ids={"ann": items[2 * place : 2 * place + 2]})
        found = b.recall([ann, [1000, 1007]], top_k=20, exclude_shown=True).item_ids
        assert found == [items[2 * place + 2 : 2 * place + 22], items[:20]]
        a, b = b, a
    explained = a.explain(ann, top_k=5, exclude_shown=True)
    dropped = {hit.item_id for hit in explained.dropped if hit.reason == recall_pb2.DROP_REASON_SHOWN}
    assert dropped == set(items[:40])
    assert [one.status for one in b.delete_users(["ann"]).results] == [OK]
    assert a.recall([ann], top_k=20, exclude_shown=True).item_ids == [items[:20]]


def test_a_user_lives_through_a_release_and_dies_for_good(world: World) -> None:
    a, b = world.clients[0], world.clients[-1]
    a.upsert_users({"ann": [1000, 1007], "bob": [1000, 1007], "ü/'\"": [1014]})
    first = a.find_similar_users(["ann"], top_k=5)
    assert first.results[0].user_ids[0] == "bob" and first.results[0].scores[0] == pytest.approx(1)

    if len(world.servers) > 1:  # Milvus Lite admits no indexer beside a server
        second = load_artifact(make_artifact(world.artifacts, seed=1)).model_version
        built = world.indexer("build", "--artifact", str(world.artifacts / second))
        assert built.returncode == 0, built.stderr
        refused = world.indexer("publish")
        assert refused.returncode == 1
        assert f"3 users are remembered and must be encoded with model {second}" in " ".join(refused.stderr.split())
        published = world.indexer("publish", "--artifact", str(world.artifacts))
        assert published.returncode == 0, published.stderr
        assert "3 remembered, 3 of them encoded now" in published.stdout
        for server in world.servers:
            server.wait_for(f"users are in step with model {second}")
        for client in (a, b):
            similar = client.find_similar_users(["ann"], top_k=5)
            assert (similar.model_version, similar.collection) == (second, f"users_{second}")
            assert similar.results[0].user_ids[0] == "bob"

    deleted = b.delete_users(["ann", "nobody"])
    assert [one.status for one in deleted.results] == [OK, UNKNOWN_USER]
    assert a.recall(["ann"], top_k=5).results[0].status == UNKNOWN_USER
    assert "ann" not in a.find_similar_users(["bob"], top_k=5).results[0].user_ids
    if len(world.servers) > 1:
        rolled_back = world.indexer("rollback", "--artifact", str(world.artifacts))
        assert rolled_back.returncode == 0, rolled_back.stderr
        for server in world.servers:
            server.wait_for(rf"(?s)users are in step with model {second}.*in step with model {first.model_version}")
        back = a.find_similar_users(["bob"], top_k=5)
        assert back.model_version == first.model_version and "ann" not in back.results[0].user_ids
    log = "".join(line for server in world.servers for line in server.log)
    assert "Traceback" not in log and not re.search(r"\bann\b", log)
