"""`publish --rules`: rules are checked, belong to the release of a collection, and come back with a rollback."""

import json
from pathlib import Path

import pytest

from indexer.catalogue import item_collections
from mind.milvus.connection import Connection
from mind.milvus.rules import ReleaseRules
from mind.milvus.store import Store
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.conftest import release_lite
from tests.releases import item_store
from tests.server.test_store import build

ITEMS = [1000 + 7 * number for number in range(200)]


@pytest.fixture
def two(milvus_uri: str, tmp_path: Path) -> list[str]:
    """Two built collections of one model, both released, the second is live; items have a margin."""
    make_artifact(tmp_path / "artifacts")
    names = []
    for name, number in (("first", 1), ("second", 2)):
        lines = [f"{item},{number * (item % 10) / 10}" for item in ITEMS]
        (tmp_path / f"{name}.csv").write_text("\n".join(["item_id,margin", *lines]))
        build(milvus_uri, tmp_path / "artifacts", "--attributes", str(tmp_path / f"{name}.csv"))
        with Store(Connection(milvus_uri)) as store:
            names += [one.name for one in item_collections(store) if one.name not in names]
    return names


def index(uri: str, *words: object, code: int = 0) -> str:
    """Run the indexer; what it printed."""
    done = run_here("indexer", *words, "--milvus-uri", uri)
    if uri.endswith(".db"):
        release_lite(uri)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules_of(milvus_uri: str, name: str) -> ReleaseRules:
    with Store(Connection(milvus_uri)) as store:
        [record] = store.records.items([name]).values()
    return ReleaseRules.from_json(record.rules)


def test_rules_belong_to_a_release(milvus_uri: str, tmp_path: Path, two: list[str]) -> None:
    first, second = two
    (tmp_path / "one.yaml").write_text("boosts: [{filter: margin > 0.5, add: 0.25}]\n")
    (tmp_path / "two.yaml").write_text("at_most: [{attribute: margin, count: 3}]\ndiversity: 0.5\n")

    index(milvus_uri, "publish", first, "--rules", tmp_path / "one.yaml")
    assert rules_of(milvus_uri, first).boosts[0].add == 0.25
    index(milvus_uri, "publish", second, "--rules", tmp_path / "two.yaml")
    assert rules_of(milvus_uri, second).diversity == 0.5
    assert "rules: 1 at_most, diversity" in index(milvus_uri, "status") and "rules: 1 boosts" in index(
        milvus_uri, "status"
    )
    index(milvus_uri, "publish", second)  # keeps them
    assert rules_of(milvus_uri, second).diversity == 0.5
    index(milvus_uri, "rollback")
    with Store(Connection(milvus_uri)) as store:
        assert store.alias() == first
    told = {one["collection"]: one["rules"] for one in json.loads(index(milvus_uri, "status", "--format", "json"))}
    assert told[first] == {"boosts": [{"filter": "margin > 0.5", "add": 0.25}]}
    index(milvus_uri, "publish", first, "--rules", "none")
    assert rules_of(milvus_uri, first) == ReleaseRules()


async def test_the_server_reads_the_rules_of_a_release(milvus_uri: str, tmp_path: Path, two: list[str]) -> None:
    (tmp_path / "one.yaml").write_text("diversity: 0.5\n")
    index(milvus_uri, "publish", two[0], "--rules", tmp_path / "one.yaml")
    store = item_store(milvus_uri)
    assert await store.rules(two[0]) == '{"diversity":0.5}' and await store.rules(two[1]) == ""
    await store.close()


def test_rules_that_do_not_fit_stop_a_publish(milvus_uri: str, tmp_path: Path, two: list[str]) -> None:
    first, second = two
    (tmp_path / "wrong.yaml").write_text("boosts: [{filter: price > 0.5, add: 0.25}]\n")
    says = index(milvus_uri, "publish", first, "--rules", tmp_path / "wrong.yaml", code=1)
    assert "boosts[0].filter: 'price > 0.5', column 1" in says and "Traceback" not in says
    with Store(Connection(milvus_uri)) as store:
        assert store.alias() == second
    assert rules_of(milvus_uri, first) == ReleaseRules()
