"""Similar items as they run: `python -m server` beside Milvus, while the indexer changes items."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients import ItemStatus, RecallClient
from mind.artifact import load_artifact, write_artifact
from protos.recall.v1.recall_pb2 import SOURCE_BOTH, SOURCE_NEIGHBOURS, SOURCE_SEARCH
from tests.artifacts import hyper_parameters_of, make_weights, with_keys, with_neighbours
from tests.server.test_neighbours_service import released
from tests.server.test_service import Server, index, running
from tests.server.test_store import build
from tests.waiting import wait_until

KITS = [f"KIT-{item}" for item in range(200)]
OK, UNKNOWN = ItemStatus.OK, ItemStatus.UNKNOWN


@pytest.fixture
def shop(milvus_uri: str, tmp_path: Path) -> Iterator[Server]:
    """A server on a released collection of the items KIT-0 to KIT-199, which have a price; the model has neighbours."""
    weights = with_neighbours(with_keys(make_weights(), KITS))
    write_artifact(tmp_path / "models", hyper_parameters_of(weights), weights, {}, {})
    lines = [f"{key},{price}" for price, key in enumerate(KITS)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,price", *lines]))
    build(milvus_uri, tmp_path / "models", "--attributes", str(tmp_path / "items.csv"))
    with running("--milvus-uri", milvus_uri, "--artifacts", str(tmp_path / "models")) as server:
        server.wait_for("serving model")
        yield server


def test_similar_items_in_the_order_of_cosines(milvus_uri: str, tmp_path: Path) -> None:
    with running(*released(milvus_uri, tmp_path / "models")) as server:
        server.wait_for("serving model")
        [artifact] = (tmp_path / "models").iterdir()
        table = load_artifact(artifact).weights.item_embedding[1:].astype(np.float64)
        units = table / np.linalg.norm(table, axis=1, keepdims=True)
        with RecallClient(server.address, timeout_s=20) as client:
            found = client.similar_items([1000, [1007, 1014]], top_k=197)
            for rows, item_ids in zip(([0], [1, 2]), found.item_ids, strict=True):
                cosines = units @ units[rows].sum(axis=0)
                expected = [1000 + 7 * row for row in np.argsort(-cosines).tolist() if row not in rows]
                assert item_ids == expected[:197]
            near, both = (client.similar_items([1000], top_k=20, by=by).results[0] for by in ("neighbours", "both"))
            assert set(near.source) == {SOURCE_NEIGHBOURS}
            assert (
                {SOURCE_SEARCH, SOURCE_NEIGHBOURS}
                <= set(both.source)
                <= {SOURCE_SEARCH, SOURCE_NEIGHBOURS, SOURCE_BOTH}
            )
            assert list(near.weights) == sorted(near.weights, reverse=True)


def test_text_ids_with_filters_and_attributes(shop: Server) -> None:
    with RecallClient(shop.address, timeout_s=20) as client:
        found = client.similar_items(
            ["KIT-3", ["KIT-5", "KIT-05"], "KIT-05"],
            top_k=200,
            filter="price < 20",
            exclude_item_ids=[["KIT-4"], [], []],
            return_attributes=["price"],
        )
        assert found.statuses == (OK, OK, UNKNOWN)
        assert set(found.item_ids[0]) == set(KITS[:20]) - {"KIT-3", "KIT-4"}
        assert list(found.results[1].unknown) == [1]
        assert found.attributes[0] == {"price": [KITS.index(key) for key in found.item_ids[0]]}
        assert "match the filter" in found.results[0].detail


def test_items_that_come_and_go(shop: Server, milvus_uri: str, tmp_path: Path) -> None:
    if milvus_uri.endswith(".db"):
        pytest.skip("the server holds the file, so nobody can change it meanwhile")
    (tmp_path / "new.csv").write_text("item_id,price\nNEW-1,1000\n")
    (tmp_path / "since.csv").write_text(
        "user_id,item_id,timestamp\nann,KIT-1,0\nann,NEW-1,1\nbob,KIT-1,0\nbob,NEW-1,1\n"
    )
    with RecallClient(shop.address, timeout_s=20) as client:

        def ask(*item_ids: str) -> list[str]:
            found = client.similar_items([item_ids], top_k=200)
            return list(found.item_ids[0]) if found.statuses == (OK,) else [str(found.statuses[0])]

        assert ask("NEW-1") == ["UNKNOWN"]
        files = ["--attributes", tmp_path / "new.csv", "--interactions", tmp_path / "since.csv"]
        connection = ["--milvus-uri", milvus_uri]
        assert "added      1 items" in index("upsert", *files, "--artifact", tmp_path / "models", *connection)
        wait_until(lambda: ask("NEW-1") != ["UNKNOWN"])
        assert ask("NEW-1")[0] == "KIT-1"  # whose vector it got
        wait_until(lambda: ask("KIT-1")[0] == "NEW-1")
        assert "deleted    2 items" in index("delete", "--ids", "KIT-1,NEW-1", *connection)
        wait_until(lambda: ask("NEW-1") == ["UNKNOWN"])
        wait_until(lambda: "KIT-1" not in ask("KIT-2"))
        assert set(ask("KIT-1")) == set(KITS) - {"KIT-1"}  # the model still knows it
