"""Text ids as they run: `python -m server` beside Milvus, while the indexer changes items under their text ids."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from tests.artifacts import make_artifact
from tests.server.test_service import Server, grpcurl, index, running
from tests.server.test_store import build
from tests.waiting import wait_until

KITS = [f"KIT-{item}" for item in range(200)]


@pytest.fixture
def shop(milvus_uri: str, tmp_path: Path) -> Iterator[Server]:
    """A server on a released collection of the items KIT-0 to KIT-199, which have a price."""
    make_artifact(tmp_path / "artifacts", keyed=True)
    lines = [f"{key},{price},{price % 3}" for price, key in enumerate(KITS)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,price,shelf", *lines]))
    build(milvus_uri, tmp_path / "artifacts", "--attributes", str(tmp_path / "items.csv"))
    with running("--milvus-uri", milvus_uri, "--artifacts", str(tmp_path / "artifacts")) as server:
        server.wait_for("serving model")
        yield server


def test_a_shop_is_answered_in_its_own_ids(shop: Server) -> None:
    def ask(method: str, **request: Any) -> Any:
        return json.loads(grpcurl(shop.address, f"recall.v1.RecallService/{method}", data=json.dumps(request)))

    info = ask("GetServerInfo")
    assert info["id_type"] == "ID_TYPE_TEXT"
    assert [attribute["name"] for attribute in info["attributes"]] == ["price", "shelf", "vector_source"]
    user = {"hist_item_keys": ["KIT-3", "KIT-9", "KIT-03"], "exclude_item_keys": ["KIT-11"]}
    [everything] = ask("Recall", users=[user], top_k=200)["results"]
    assert set(everything["item_keys"]) == set(KITS) - {"KIT-11"}
    assert everything["unknown_item_keys"] == ["KIT-03"]
    for filter_, passing in (
        ('item_id like "KIT-1%" and price < 100', {"KIT-1"} | {f"KIT-{item}" for item in range(10, 20)}),
        ('item_id in ["KIT-5", "KIT-150", "KIT-999"]', {"KIT-5", "KIT-150"}),
        ('item_id == "KIT-7"', {"KIT-7"}),
    ):
        [found] = ask("Recall", users=[user], top_k=200, filter=filter_)["results"]
        assert set(found["item_keys"]) == passing - {"KIT-11"}
        assert found["item_keys"] == [key for key in everything["item_keys"] if key in passing]
        assert int(ask("CountItems", filter=filter_)["count"]) == len(passing)
    [priced] = ask("Recall", users=[user], top_k=5, return_attributes=["price"])["results"]
    assert priced["attributes"] == [
        {"name": "price", "integers": [str(KITS.index(key)) for key in priced["item_keys"]]}
    ]
    told = ask("GetItems", item_keys=["KIT-9", "KIT-3", "KIT-999"], return_attributes=["price"])
    assert told["item_keys"] == ["KIT-9", "KIT-3", "KIT-999"]
    assert told["attributes"] == [{"name": "price", "integers": ["9", "3", "0"], "absent": [2]}]
    rules = {"at_most": [{"attribute": "shelf", "count": 3}], "diversity": 0.2, "per_interest_min": 1}
    [varied] = ask("Recall", users=[user], top_k=9, **rules)["results"]
    assert sorted(KITS.index(key) % 3 for key in varied["item_keys"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    refused = grpcurl(
        shop.address,
        "recall.v1.RecallService/Recall",
        data=json.dumps({"users": [{"hist_item": [1]}], "top_k": 5}),
        expect=67,
    )
    assert "users[0].hist_item: has 1 ids, but the ids of this release are text" in refused
    assert "item_id needs a string" in grpcurl(
        shop.address, "recall.v1.RecallService/CountItems", data='{"filter": "item_id == 7"}', expect=67
    )
    assert not any("Traceback" in line or "KIT-" in line for line in shop.log)


def test_items_come_and_go_by_their_text_ids(shop: Server, milvus_uri: str, tmp_path: Path) -> None:
    if milvus_uri.endswith(".db"):
        pytest.skip("the server holds the file, so nobody can change it meanwhile")
    (tmp_path / "new.csv").write_text("item_id,price\nNEW/Ü-1,1000\n")
    (tmp_path / "since.csv").write_text(
        "user_id,item_id,timestamp\nann,KIT-1,0\nann,KIT-2,1\nann,NEW/Ü-1,2\nbob,KIT-2,0\nbob,NEW/Ü-1,1\n"
    )
    with grpc.insecure_channel(shop.address) as channel:
        stub: Any = recall_pb2_grpc.RecallServiceStub(channel)

        def seen(history: list[str], filter_: str = "") -> list[str]:
            user = recall_pb2.User(hist_item_keys=history)
            answer = stub.Recall(recall_pb2.RecallRequest(users=[user], top_k=300, filter=filter_), timeout=10)
            return list(answer.results[0].item_keys)

        assert seen(["KIT-1"], "price == 1000") == []
        files = ["--attributes", tmp_path / "new.csv", "--interactions", tmp_path / "since.csv"]
        connection = ["--milvus-uri", milvus_uri]
        changed = index("upsert", *files, "--artifact", tmp_path / "artifacts", *connection)
        assert "added      1 items, vectors neighbours" in changed
        wait_until(lambda: "NEW/Ü-1" in seen(["KIT-1", "KIT-2"]))
        wait_until(lambda: seen(["KIT-1"], "price == 1000") == ["NEW/Ü-1"])
        assert seen(["KIT-1"], 'item_id == "NEW/Ü-1"') == ["NEW/Ü-1"]
        assert "deleted    2 items" in index("delete", "--ids", "KIT-0,NEW/Ü-1", *connection)
        wait_until(lambda: not {"NEW/Ü-1", "KIT-0"} & set(seen(["KIT-1"])))
        wait_until(lambda: "KIT-0" not in seen([]))  # the fallback
        assert stub.CountItems(recall_pb2.CountItemsRequest()).count == 199
