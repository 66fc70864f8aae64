"""The clients before a real server whose release has text ids."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from clients import InvalidRequestError, RecallClient, ids_of
from clients.cli import app
from tests.artifacts import make_artifact
from tests.gateway import serving
from tests.server.test_service import running
from tests.server.test_store import build

HISTORY = ["KIT-1", "KIT-2"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that recalls KIT-0, KIT-1, ..., KIT-199."""
    directory = tmp_path_factory.mktemp("shop")
    make_artifact(directory / "artifacts", keyed=True)
    lite = str(directory / "milvus.db")
    build(lite, directory / "artifacts")
    with running("--milvus-uri", lite, "--artifacts", str(directory / "artifacts"), "--users") as server:
        server.wait_for("serving model")
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[RecallClient]:
    with RecallClient(address, timeout_s=20) as client:
        yield client


@pytest.fixture
def run(address: str) -> Callable[..., Result]:
    env = {"RECALL_SERVER": address, "RECALL_TIMEOUT_MS": "20000", "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return lambda *arguments: CliRunner().invoke(app, arguments, env=env)


def test_an_answer_has_the_ids_of_the_shop(client: RecallClient) -> None:
    answer = client.recall(
        [HISTORY, ["KIT-5", "no such item"], []], top_k=20, exclude_history=True, exclude_item_ids=[["KIT-3"], [], []]
    )
    first, second, popular = answer.item_ids
    assert len(first) == len(second) == 20 and not {"KIT-1", "KIT-2", "KIT-3"} & set(first) and "KIT-5" not in second
    assert all(item_id.startswith("KIT-") for item_id in (*first, *second, *popular))
    assert ids_of(answer.results[1], "unknown_item_ids") == ["no such item"]
    explained = client.explain(HISTORY, top_k=20, exclude_history=True, exclude_item_ids=["KIT-3"])
    assert ids_of(explained.candidates, "item_ids") == first
    assert ids_of(explained, "used_hist_item") == HISTORY
    with pytest.raises(InvalidRequestError, match=r"users\[0\]\.hist_item: ") as refused:
        client.recall([[1, 2]], top_k=5)
    assert refused.value.reason == "WRONG_ID_TYPE"


def test_every_way_to_ask_gives_the_same(
    client: RecallClient, run: Callable[..., Result], address: str, tmp_path: Path
) -> None:
    [expected] = client.recall([HISTORY], top_k=5).item_ids
    found = json.loads(run("recall", "--hist-item", ",".join(HISTORY), "--top-k", "5", "--format", "json").stdout)
    assert found["results"][0]["item_ids"] == expected

    users, given, made = (tmp_path / name for name in ("users.jsonl", "users.parquet", "candidates.parquet"))
    users.write_text(json.dumps({"user_id": "ann", "hist_item": HISTORY}))
    assert json.loads(run("recall", "--input", str(users), "--top-k", "5").stdout)["item_ids"] == expected
    pq.write_table(pa.table({"user_id": ["ann"], "hist_item": [HISTORY]}), given)
    done = run("bulk", "--input", str(given), "--output", str(made), "--top-k", "5")
    assert done.exit_code == 0, done.output
    assert pq.read_table(made).to_pylist()[0]["item_ids"] == expected

    assert run("users", "upsert", "--user-id", "ann", "--hist-item", "KIT-1").exit_code == 0
    assert run("users", "upsert", "--user-id", "ann", "--append", "KIT-2").exit_code == 0
    assert client.recall(["ann"], top_k=5).item_ids == [expected]
    assert "ann" in run("users", "similar", "--hist-item", ",".join(HISTORY)).stdout
    assert "2 items in" in run("count", "--filter", 'item_id in ["KIT-1", "KIT-7", "none"]').stdout

    with serving("--server", address, "--timeout-ms", "20000") as url:
        body = {"users": [{"hist_item": HISTORY}, {"user_id": "ann"}], "top_k": 5}
        results = httpx.post(f"{url}/v1/recall", json=body, timeout=30).json()["results"]
        assert [one["item_ids"] for one in results] == [expected, expected]
        assert httpx.post(f"{url}/rec/recall", json={"hist_item": [HISTORY], "top_k": 5}, timeout=30).json() == [
            expected
        ]
