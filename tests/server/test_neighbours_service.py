"""Neighbours of the newest clicks as they run: `python -m server` beside Milvus, asked by the shipped client."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from clients import RecallClient
from mind.artifact import load_artifact, write_artifact
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from protos.recall.v1.recall_pb2 import NEIGHBOURS_OFF, NEIGHBOURS_ON, SOURCE_BOTH, SOURCE_NEIGHBOURS, SOURCE_SEARCH
from tests.artifacts import hyper_parameters_of, make_artifact, make_weights, with_keys, with_neighbours
from tests.server.test_service import Server, index, running
from tests.server.test_store import build
from tests.waiting import wait_until

BONUS = 8.0


def released(uri: str, directory: Path, bonus: float = BONUS, keyed: bool = False) -> list[str]:
    """Build and publish a model with neighbours; the options of a server for it."""
    weights = with_neighbours(with_keys(make_weights()) if keyed else make_weights(), bonus)
    write_artifact(directory, hyper_parameters_of(weights), weights, {}, {})
    build(uri, directory)
    return ["--milvus-uri", uri, "--artifacts", str(directory)]


@pytest.fixture
def server(milvus_uri: str, tmp_path: Path) -> Iterator[Server]:
    with running(*released(milvus_uri, tmp_path / "models")) as server:
        server.wait_for("serving model")
        yield server


def test_a_release_adds_neighbours_unless_a_request_says_no(server: Server) -> None:
    with RecallClient(server.address, timeout_s=10) as client:
        assert client.get_server_info().neighbours == NEIGHBOURS_ON
        histories = [[1000, 1007, 1014], [1021]]
        default, on, off = (
            client.recall(histories, top_k=8, neighbours=wanted).results for wanted in ("default", "on", "off")
        )
        assert default == on != off
        assert set(on[0].source) == {SOURCE_SEARCH, SOURCE_NEIGHBOURS, SOURCE_BOTH}
        assert [len(user.source) for user in (*on, *off)] == [8, 8, 0, 0]
        explained = client.explain(histories[0], top_k=8)
        assert explained.candidates == on[0]
        bonus = {
            item: interest.neighbour_scores[place] + interest.neighbour_bonuses[place]
            for interest in explained.interests
            for place, item in enumerate(interest.neighbour_item_ids)
        }
        ranks = [
            bonus.get(item, score) for item, score in zip(on[0].item_ids, on[0].scores, strict=True)
        ]  # a neighbour's place is its score and bonus
        assert ranks == sorted(ranks, reverse=True) and max(explained.interests[0].neighbour_bonuses) > 1
        drops = [hit for hit in explained.dropped if hit.source == SOURCE_NEIGHBOURS]
        found = sum(len(interest.neighbour_item_ids) for interest in explained.interests)
        kept = found - len(drops)
        assert (
            sum(source != SOURCE_SEARCH for source in on[0].source)
            >= kept
            >= list(on[0].source).count(SOURCE_NEIGHBOURS)
        )
    with grpc.insecure_channel(server.address) as channel:
        stub = recall_pb2_grpc.RecallServiceStub(channel)
        wrong = recall_pb2.RecallRequest(users=[recall_pb2.User(hist_item=[1000])], top_k=1)
        wrong.neighbours = 7
        with pytest.raises(grpc.RpcError, match="neighbours: is 7, must be 0 to 2"):
            stub.Recall(wrong, timeout=10)


def test_a_neighbour_that_is_deleted_is_not_recalled_any_more(server: Server, milvus_uri: str) -> None:
    if milvus_uri.endswith(".db"):
        pytest.skip("the server holds the file, so nobody can change it meanwhile")
    with RecallClient(server.address, timeout_s=10) as client:

        def neighbours() -> list[int]:
            (user,) = client.recall([[1000, 1007, 1014]], top_k=8).results
            pairs = zip(user.item_ids, user.source, strict=True)
            return [item for item, source in pairs if source != SOURCE_SEARCH]

        before = neighbours()
        assert f"deleted    {len(before)} items" in index(
            "delete", "--ids", ",".join(map(str, before)), "--milvus-uri", milvus_uri
        )
        wait_until(lambda: not set(before) & set(neighbours()))
        (user,) = client.recall([[1000, 1007, 1014]], top_k=200).results
        assert not set(before) & set(user.item_ids)


def test_a_fresh_item_is_a_neighbour_of_what_users_clicked_before_it(
    server: Server, milvus_uri: str, tmp_path: Path
) -> None:
    if milvus_uri.endswith(".db"):
        pytest.skip("the server holds the file, so nobody can change it meanwhile")
    connection = ["--milvus-uri", milvus_uri]

    def upsert(clicks: str) -> str:
        (tmp_path / "since.txt").write_text(clicks)
        files = ["--interactions", tmp_path / "since.txt", "--artifact", tmp_path / "models"]
        return index("upsert", *files, *connection)

    with RecallClient(server.address, timeout_s=10) as client:

        def source(history: list[int], **options: object) -> int:
            (user,) = client.recall([history], top_k=200, **options).results  # type: ignore[arg-type]
            return dict(zip(user.item_ids, user.source, strict=True)).get(5, 0)

        def similar(item_id: int) -> list[int]:
            return list(client.similar_items([item_id], top_k=50, by="neighbours").item_ids[0])

        assert source([1007]) == 0 and 5 not in similar(1007)
        assert "added      1 items, vectors neighbours" in upsert("1,1000,0\n1,1007,1\n1,5,2\n")
        wait_until(lambda: source([1007]) == SOURCE_BOTH)
        assert source([1000, 1014]) == SOURCE_BOTH and source([1014]) == SOURCE_SEARCH
        assert source([1007], filter="vector_source == 'neighbours'") == SOURCE_BOTH
        assert source([1007], filter="vector_source == 'trained'") == 0
        wait_until(lambda: 5 in similar(1007))
        explained = client.explain([1007], top_k=200)
        added = [
            item
            for interest in explained.interests
            for item, is_added in zip(interest.neighbour_item_ids, interest.neighbour_fresh, strict=True)
            if is_added
        ]
        assert added == [5]
        assert "changed    1 items" in upsert("1,1014,0\n1,5,1\n1,1007,2\n")
        wait_until(lambda: (source([1014]), source([1007])) == (SOURCE_BOTH, SOURCE_SEARCH))
        index("delete", "--ids", "5", *connection)
        wait_until(lambda: source([1014]) == 0 and 5 not in similar(1014))


def test_text_ids_and_a_release_that_adds_none_by_default(milvus_uri: str, tmp_path: Path) -> None:
    options = released(milvus_uri, tmp_path / "models", bonus=0, keyed=True)
    with running(*options) as server, RecallClient(server.address, timeout_s=10) as client:
        server.wait_for("serving model")
        assert client.get_server_info().neighbours == NEIGHBOURS_OFF
        history = ["KIT-1", "KIT-2"]
        assert not client.recall([history], top_k=8).results[0].source
        (user,) = client.recall([history], top_k=8, neighbours="on").results
        assert len(user.source) == len(user.item_keys) == 8
        explained = client.explain(history, top_k=8, neighbours="on")
        assert any(interest.neighbour_item_keys for interest in explained.interests)
        for interest in explained.interests:
            assert len(interest.neighbour_item_keys) == len(interest.neighbour_scores)
            assert len(interest.neighbour_item_keys) == len(interest.neighbour_bonuses)


def test_a_model_without_neighbours_ignores_the_wish(milvus_uri: str, tmp_path: Path) -> None:
    assert load_artifact(make_artifact(tmp_path / "models")).weights.neighbours is None
    build(milvus_uri, tmp_path / "models")
    with running("--milvus-uri", milvus_uri, "--artifacts", str(tmp_path / "models")) as server:
        server.wait_for("serving model")
        with RecallClient(server.address, timeout_s=10) as client:
            assert client.get_server_info().neighbours == 0
            plain, wished = (client.recall([[1000]], top_k=8, neighbours=wanted) for wanted in ("off", "on"))
            assert plain.results == wished.results
