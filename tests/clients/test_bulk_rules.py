"""`recall-client bulk` with rules about candidates, attributes, and what users were shown."""

from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos.recall.v1 import recall_pb2
from tests.canned_recall import CannedRecall
from tests.clients.test_bulk import bulk, files, target, write_users
from tests.server.test_service import running
from tests.server.test_store import build

__all__ = ["bulk", "files", "target"]
TYPES = {
    "genres": "ARRAY<VARCHAR>", "title": "VARCHAR", "year": "INT64", "price": "DOUBLE", "sold": "BOOL",
    "sizes": "ARRAY<INT64>",
}  # fmt: skip


class Shop(CannedRecall):
    """Has attributes of all types; may lack them for a while, and says that a rule was not applied."""

    def __init__(self) -> None:
        super().__init__()
        self.missing = 0
        self.note = ""
        self.limits = recall_pb2.Limits()

    def GetServerInfo(self, request: Any, context: Any) -> recall_pb2.GetServerInfoResponse:  # noqa: N802
        info = super().GetServerInfo(request, context)
        del info.attributes[:]
        info.attributes.extend(recall_pb2.Attribute(name=name, type=type_) for name, type_ in TYPES.items())
        info.limits.MergeFrom(self.limits)
        return info

    def Recall(self, request: Any, context: Any) -> recall_pb2.RecallResponse:  # noqa: N802
        answer = super().Recall(request, context)
        for found in answer.results:
            found.detail = self.note
            count = len(found.item_ids)
            for values in found.attributes:
                if values.name in ("price", "sold", "sizes"):
                    values.ClearField("integers")
                    values.numbers.extend([0.5] * count if values.name == "price" else [])
                    values.booleans.extend([True] * count if values.name == "sold" else [])
                    lists = [recall_pb2.AttributeList(integers=[1, 2])] * count if values.name == "sizes" else []
                    values.lists.extend(lists)
        if self.missing and request.return_attributes:
            self.missing -= 1
            answer.attributes_detail = "Milvus did not tell them within 0.1 s"
            for found in answer.results:
                found.ClearField("attributes")
        return answer


@pytest.fixture
def servicer() -> Shop:
    return Shop()


def test_rules_are_asked_for_each_user(bulk: Any, servicer: Shop, files: Any) -> None:
    write_users(files[0], 25)
    rules = ["--at-most", "genres=3", "--at-most", "title=1", "--per-interest-min", "2", "--diversity", "0.25"]
    result = bulk(*rules, "--top-k", "4")
    assert result.exit_code == 0, result.output
    requests = [request for request, *_ in servicer.calls["Recall"]]
    assert len(requests) == 3
    for request in requests:
        assert [(rule.attribute, rule.count) for rule in request.at_most] == [("genres", 3), ("title", 1)]
        assert (request.per_interest_min, request.diversity) == (2, 0.25)
        assert not request.exclude_shown and not any(user.user_id for user in request.users)
    assert "genres" in bulk("--at-most", "genres").stderr
    assert pq.read_table(files[1])["detail"].to_pylist() == [""] * 25


def test_attributes_of_all_types_are_columns_beside_the_candidates(bulk: Any, servicer: Shop, files: Any) -> None:
    write_users(files[0], 12)
    result = bulk("--attributes", "title, year,genres,price,sold,sizes,title", "--top-k", "2")
    assert result.exit_code == 0, result.output
    table = pq.read_table(files[1])
    found = table.to_pylist()
    assert found[0]["item_ids"] == [2, 3]
    assert found[0]["attributes"] == {
        "title": ["Film 0", None],
        "year": [1990, None],
        "genres": [["Crime", "Drama"], None],
        "price": [0.5, None],
        "sold": [True, None],
        "sizes": [[1, 2], None],
    }
    assert found[3]["attributes"]["title"] == ["Film 0"]  # who has no history gets one popular item
    assert table["attributes"].type.names == ["title", "year", "genres", "price", "sold", "sizes"]
    assert table["attributes"].combine_chunks().field("year").type == pa.large_list(pa.int64())


def test_attributes_that_are_late_are_asked_for_again(bulk: Any, servicer: Shop, files: Any) -> None:
    write_users(files[0], 30)
    servicer.missing = 2
    result = bulk("--attributes", "title", "--top-k", "1", "--concurrency", "1")
    assert result.exit_code == 0, result.output
    assert len(servicer.calls["Recall"]) == 3 + 2
    servicer.failures = [*[None] * 3, (grpc.StatusCode.INVALID_ARGUMENT, "enough", ())]
    options = ["--attributes", "title", "--top-k", "1", "--users-per-part", "10", "--overwrite"]
    assert bulk(*options, "--concurrency", "1").exit_code == 1
    assert "20 of them earlier" in bulk(*options).stderr
    assert all(row["attributes"]["title"] == ["Film 0"] for row in pq.read_table(files[1]).to_pylist())
    servicer.missing = 1_000
    late = bulk("--attributes", "title", "--overwrite", "--give-up-after-s", "0.2")
    assert late.exit_code == 3
    assert "attributes are missing: Milvus did not tell them within 0.1 s" in late.stderr


def test_an_attribute_counts_as_another_candidate(bulk: Any, servicer: Shop, files: Any) -> None:
    write_users(files[0], 12)
    servicer.limits.max_candidates = 60
    assert bulk("--attributes", "title,year", "--top-k", "5", "--concurrency", "1").exit_code == 0
    assert [len(request.users) for request, *_ in servicer.calls["Recall"]] == [4, 4, 4]


def test_an_attribute_that_the_release_lacks_is_named(bulk: Any, servicer: Shop, files: Any) -> None:
    write_users(files[0], 5)
    result = bulk("--attributes", "title,colour")
    assert result.exit_code == 1
    assert "--attributes: the release has no attribute 'colour'; it has: genres, title, year," in result.stderr
    assert not servicer.calls["Recall"]


def test_what_users_were_shown_needs_their_ids(bulk: Any, servicer: Shop, files: Any) -> None:
    pq.write_table(pa.table({"user_id": [7, None, 9], "hist_item": [[1], [2], [3]]}), files[0])
    assert bulk("--exclude-shown").exit_code == 0
    [request] = [request for request, *_ in servicer.calls["Recall"]]
    assert request.exclude_shown
    assert [user.user_id for user in request.users] == ["7", "", "9"]
    pq.write_table(pa.table({"name": ["ann", "bo" * 50], "hist_item": [[1], [2]]}), files[0])
    servicer.limits.max_request_bytes = 120
    servicer.calls.clear()
    assert bulk("--exclude-shown", "--user-column", "name", "--overwrite", "--concurrency", "1").exit_code == 0
    asked = [[user.user_id for user in request.users] for request, *_ in servicer.calls["Recall"]]
    assert asked == [["ann"], ["bo" * 50]]  # both would have more bytes than a request may


def test_a_rule_that_was_not_applied_is_told(bulk: Any, servicer: Shop, files: Any) -> None:
    write_users(files[0], 12)
    servicer.note = "at_most is not applied to genres: Milvus did not tell them within 0.1 s"
    result = bulk("--at-most", "genres=3")
    assert f"12 users have a detail, such as: {servicer.note}" in result.stderr
    assert set(pq.read_table(files[1])["detail"].to_pylist()) == {servicer.note}


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--at-most", "genres=4"], "at_most is {'genres': 4}, was {'genres': 3}"),
        (["--at-most", "genres=3", "--diversity", "0.5"], "diversity is 0.5, was 0"),
        (["--at-most", "genres=3", "--attributes", "title"], "return_attributes is ['title'], was []"),
    ],
)
def test_parts_with_other_rules_are_not_mixed(
    bulk: Any, servicer: Shop, files: Any, options: list[str], difference: str
) -> None:
    write_users(files[0], 40)
    servicer.failures = [*[None] * 3, (grpc.StatusCode.INVALID_ARGUMENT, "enough", ())]
    rules = ["--at-most", "genres=3", "--users-per-part", "10"]
    assert bulk(*rules, "--concurrency", "1").exit_code == 1
    result = bulk(*options, "--users-per-part", "10")
    assert result.exit_code == 1 and f"belongs to another run: {difference}" in " ".join(result.stderr.split())
    assert bulk(*rules).exit_code == 0  # and the same question goes on


def test_the_real_server_answers_varied_lists_with_attributes(tmp_path: Any, files: Any) -> None:
    from typer.testing import CliRunner

    from clients.cli import app
    from tests.artifacts import make_artifact

    make_artifact(tmp_path / "artifacts")
    items = ["item_id,title,category", *(f"{1000 + 7 * row},Item {row},{row % 5}" for row in range(200))]
    (tmp_path / "items.csv").write_text("\n".join(items) + "\n")
    lite = str(tmp_path / "milvus.db")
    build(lite, tmp_path / "artifacts", "--attributes", str(tmp_path / "items.csv"))
    pq.write_table(pa.table({"user_id": [1, 2, 3], "hist_item": [[1000, 1007], [1021], []]}), files[0])
    options = ["--top-k", "8", "--at-most", "category=2", "--attributes", "title,category", "--exclude-shown"]
    with running("--users", "--milvus-uri", lite, "--artifacts", str(tmp_path / "artifacts")) as server:
        server.wait_for("serving model")
        words = ["--input", str(files[0]), "--output", str(files[1]), "--server", server.address]
        done = CliRunner().invoke(app, ["bulk", *words, *options])
    assert done.exit_code == 0, done.output
    for row in pq.read_table(files[1]).to_pylist()[:2]:
        rows = [(item - 1000) // 7 for item in row["item_ids"]]
        assert len(rows) == 8 and row["status"] == "OK"
        assert row["attributes"] == {"title": [f"Item {one}" for one in rows], "category": [one % 5 for one in rows]}
        assert all(row["attributes"]["category"].count(value) <= 2 for value in range(5))
