"""Rules about candidates as they run: `python -m server` beside Milvus, asked by the shipped client."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import RecallClient
from protos.recall.v1.recall_pb2 import DROP_REASON_AT_MOST, DROP_REASON_DIVERSITY
from tests.artifacts import make_artifact
from tests.server.test_service import Server, running
from tests.server.test_store import build

ITEMS = [1000 + 7 * number for number in range(200)]
HISTORIES = [[1000, 1007], [1700], []]


def category(item: int) -> str:
    return "" if item % 3 == 0 else f"c{item % 5}"


@pytest.fixture
def shop(milvus_uri: str, tmp_path: Path) -> Iterator[Server]:
    """A server on a released collection, two thirds of whose items have one of five categories."""
    make_artifact(tmp_path / "artifacts")
    lines = [f"{item},{category(item)},{'big|red' if item % 2 else 'red'}" for item in ITEMS]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,category,labels", *lines]))
    options = "--attributes", str(tmp_path / "items.csv"), "--multi-valued", "labels"
    build(milvus_uri, tmp_path / "artifacts", *options)
    with running("--milvus-uri", milvus_uri, "--artifacts", str(tmp_path / "artifacts")) as server:
        server.wait_for("serving model")
        yield server


def test_the_best_items_with_room_are_candidates(shop: Server) -> None:
    with RecallClient(shop.address, timeout_s=30) as client:
        everything = client.recall(HISTORIES, top_k=200).item_ids
        for _ in range(3):
            found = client.recall(HISTORIES, top_k=20, at_most={"category": 2, "labels": 12})
            for ranked, own in zip(everything, found.item_ids, strict=True):
                seen: Counter[str] = Counter()
                expected = []
                for item in ranked:
                    values = [category(item)] if category(item) else []
                    values += ["big", "red"] if item % 2 else ["red"]
                    most = {"big": 12, "red": 12}
                    if all(seen[value] < most.get(value, 2) for value in values):
                        seen.update(values)
                        expected.append(item)
                assert own == expected[:20]
                assert len(own) == 12  # each has the label red
        told = "12 of 20: at_most allows no more of the items that are not excluded"
        assert [result.detail for result in found.results[:2]] == [told] * 2
        one = client.explain(HISTORIES[0], top_k=20, at_most={"category": 2, "labels": 12})
        assert list(one.candidates.item_ids) == found.item_ids[0]
        assert DROP_REASON_AT_MOST in {hit.reason for hit in one.dropped}
        assert all(bool(hit.at_most) == (hit.reason == DROP_REASON_AT_MOST) for hit in one.dropped)
        assert {name for hit in one.dropped for name in hit.at_most} <= {"category", "labels"}


def test_diversity_and_interests_change_the_list_and_not_its_length(shop: Server) -> None:
    with RecallClient(shop.address, timeout_s=30) as client:
        plain = client.recall(HISTORIES, top_k=20).item_ids
        diverse = client.recall(HISTORIES, top_k=20, diversity=0.5).item_ids
        assert [len(items) for items in diverse] == [20] * 3
        assert diverse[2] == plain[2]  # the popular list
        assert all(own[0] == before[0] and own != before for own, before in zip(diverse[:2], plain[:2], strict=True))
        explained = client.explain(HISTORIES[0], top_k=20, diversity=0.5)
        gone = {hit.item_id for hit in explained.dropped if hit.reason == DROP_REASON_DIVERSITY}
        assert gone == set(plain[0]) - set(diverse[0])
        shared = client.recall(HISTORIES, top_k=20, per_interest_min=5)
        for result in shared.results[:2]:
            assert len(result.item_ids) == 20 and list(result.scores) == sorted(result.scores, reverse=True)
