"""Building the collection of a model, on both engines."""

import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path
from unittest.mock import Mock

import pytest
from pymilvus import MilvusClient, MilvusException

from indexer.build import Built, build, choose_index
from indexer.catalogue import item_collections
from indexer.errors import RefusedError, VerificationError
from indexer.items.attributes import Attributes, read_attributes
from indexer.items.changes import delete
from indexer.items.journal import Journal
from indexer.rollout.retire import drop, prune
from indexer.verify import check_contents, filtered_recall, golden_recall
from mind.artifact import Artifact, load_artifact
from mind.milvus.collection import EMBEDDING, VECTOR_SOURCE
from mind.milvus.connection import Connection
from mind.milvus.errors import NotFlushedError, StoreError
from mind.milvus.journal import Changes
from mind.milvus.store import Row, Store
from tests.artifacts import make_artifact, make_weights
from tests.conftest import release_lite, remove_item_collections
from tests.releases import publish

HALF_A_BUILD = """
import sys, time
from pathlib import Path
from indexer.items.attributes import Attributes
from indexer.build import build, choose_index
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.artifact import load_artifact

def stop_half_way(stage, done, total):
    if stage == "insert" and done:
        print(f"inserted {done} of {total}", flush=True)
        time.sleep(60)

connection = Connection(sys.argv[1])
with Store(connection) as store:
    index = choose_index(connection.is_lite, None, {}, {})
    build(store, load_artifact(Path(sys.argv[2])), Attributes(), index, batch_rows=100, on_progress=stop_half_way)
"""


@pytest.fixture
def model(tmp_path: Path) -> Artifact:
    """300 items, 16 dimensions."""
    return load_artifact(make_artifact(tmp_path / "models", items=300))


def build_default(store: Store, model: Artifact, attributes: Attributes | None = None) -> Built:
    """Build with the index that is the default of the engine."""
    index = choose_index(store.connection.is_lite, None, {}, {})
    return build(store, model, attributes or Attributes(), index)


def test_a_build_is_verified_filterable_and_idempotent(milvus_uri: str, tmp_path: Path, model: Artifact) -> None:
    # Items 1000, 1007, 1014, ... get the years 2000 to 2009 in turn; the last one has no row in the file.
    rows = [
        f"{item_id},{2000 + i % 10},{'Drama|War' if i % 2 else 'War'}"
        for i, item_id in enumerate(model.weights.item_id)
    ]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,year,genres", *rows[:-1]]))
    attributes = read_attributes(tmp_path / "items.csv", model.weights.item_id, multi_valued=["genres"])
    with Store(Connection(milvus_uri)) as store:
        built = build_default(store, model, attributes)
        assert built.recall.recall > 0.95
        assert (built.sampled, built.recall.queries) == (300, 32)
        assert store.properties(built.collection) is not None
        assert store.alias() is None
        (found,) = item_collections(store)
        assert (found.name, found.state, found.fingerprint) == (built.collection, "built", built.fingerprint)

        client = MilvusClient(milvus_uri)
        filtered = client.query(built.collection, filter='year == 2003 and array_contains(genres, "Drama")')
        assert sorted(row["item_id"] for row in filtered) == [1000 + 7 * i for i in range(3, 300, 10)]
        (absent,) = client.query(built.collection, filter="year == 0", output_fields=["year", "genres"])
        assert absent == {"item_id": 1000 + 7 * 299, "year": 0, "genres": []}

        again = build_default(store, model, attributes)
        assert (again.collection, built.was_there, again.was_there) == (built.collection, False, True)
        assert item_collections(store) == [found]


def test_what_a_filter_finds_is_measured_where_servers_search_by_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_weights(items=2_000)
    assert filtered_recall(weights) is None  # servers score all items that match
    for module in ("indexer.verify", "mind.cells"):
        monkeypatch.setattr(f"{module}.EXACT_ROWS", 100)
    assert filtered_recall(weights) == 1  # a query meets more rows than there are
    monkeypatch.setattr("mind.cell_search.FIRST_ROWS", 0)
    found = filtered_recall(weights)
    assert found is not None and 0.7 < found <= 1


@pytest.fixture
def killed_build(milvus_uri: str, model: Artifact, tmp_path: Path) -> None:
    """Kill a build of the model between two inserts."""
    release_lite(milvus_uri)
    command = [sys.executable, "-c", HALF_A_BUILD, milvus_uri, tmp_path / "models" / model.model_version]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout and killed.stdout.readline() == "inserted 100 of 300\n"
        killed.kill()


@pytest.mark.usefixtures("killed_build")
def test_a_killed_build_leaves_what_is_live(milvus_uri: str, model: Artifact) -> None:
    live = "items_00000000000a_0000000a"
    with Store(Connection(milvus_uri)) as store:
        store.create(live, 16, {})
        store.point_alias(live)
        assert [collection.state for collection in item_collections(store)] == ["live", "incomplete"]
        built = build_default(store, model)
        assert store.count(built.collection) == 300
        # Milvus Lite has one process: what another one left there is dropped at once
        left = [] if store.connection.is_lite else ["incomplete"]
        assert [collection.state for collection in item_collections(store)] == ["live", "built", *left]
        prune(store, keep=1, incomplete=True, in_use=set(), on_drop=lambda name: None)
        assert [collection.name for collection in item_collections(store)] == [live, built.collection]


@pytest.mark.usefixtures("killed_build")
def test_a_build_drops_what_was_killed_long_ago(
    milvus_uri: str, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.build.ABANDONED_S", 0)
    with Store(Connection(milvus_uri)) as store:
        build_default(store, model)
        assert [collection.state for collection in item_collections(store)] == ["built"]


@pytest.mark.parametrize("at", ["insert", "verify"])
def test_builds_of_the_same_model_do_not_mix(milvus_uri: str, model: Artifact, at: str) -> None:
    """The slow one pauses while the other one builds and publishes."""
    with Store(Connection(milvus_uri)) as store:
        fast: list[Built] = []

        def overtake(stage: str, done: int, total: int) -> None:
            if stage == at and not fast:
                fast.append(build_default(store, model))
                publish(store, fast[0].collection)

        index = choose_index(store.connection.is_lite, None, {}, {})
        if store.connection.is_lite:  # its one process has one build, so the fast one takes the slow one for dead
            with pytest.raises(StoreError, match="building_"):
                build(store, model, Attributes(), index, on_progress=overtake)
        else:
            slow = build(store, model, Attributes(), index, on_progress=overtake)
            assert (slow.collection, slow.was_there) == (fast[0].collection, True)
        assert [(one.name, one.state) for one in item_collections(store)] == [(fast[0].collection, "live")]
        check_contents(store, fast[0].collection, model.weights)


def test_a_build_that_was_killed_before_it_wrote_the_record(
    milvus_uri: str, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store:
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(store.records, "write", Mock(side_effect=KeyboardInterrupt))
            build_default(store, model)
        (unfinished,) = item_collections(store)
        assert unfinished.state == "incomplete"
        assert build_default(store, model).was_there
        (finished,) = item_collections(store)
        assert (finished.name, finished.state) == (unfinished.name, "built")


def test_built_again_after_a_drop_that_was_interrupted(
    lite: str, model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = load_artifact(make_artifact(tmp_path / "models", items=300, seed=1))
    with Store(Connection(lite)) as store:
        names = [build_default(store, each).collection for each in (model, live)]
        for name in names:
            publish(store, name)
        delete(Journal(store, names[0]), model.weights.item_id[:1], lambda *_: None)
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(store, "drop", Mock(side_effect=KeyboardInterrupt))
            drop(store, names[0], allow_live=False)
        assert [one.state for one in item_collections(store)] == ["live", "incomplete"]
        assert not build_default(store, model).was_there
        assert {one.name: one.state for one in item_collections(store)} == {names[1]: "live", names[0]: "built"}
        assert store.changes(names[0]) == Changes()


def test_what_an_earlier_version_left_half_built_is_replaced(milvus_uri: str, model: Artifact) -> None:
    with Store(Connection(milvus_uri)) as store:
        name = build_default(store, model).collection
        store.drop(name)
        store.create(name, 16, {})
        assert not build_default(store, model).was_there
        check_contents(store, name, model.weights)


def test_a_live_collection_is_not_replaced_even_if_unfinished(milvus_uri: str, model: Artifact) -> None:
    with Store(Connection(milvus_uri)) as store:
        unfinished = build_default(store, model).collection
        store.records.delete(unfinished)
        store.point_alias(unfinished)
        with pytest.raises(
            RefusedError,
            match=f"{unfinished}: a collection of this name exists, is live and has no release record",
        ):
            build_default(store, model)
        assert store.alias() == unfinished


def test_an_index_that_finds_too_little_is_not_kept(tmp_path: Path, model: Artifact) -> None:
    with Store(Connection(str(tmp_path / "milvus.db"))) as store:
        index = choose_index(True, "IVF_FLAT", {"nlist": 64}, {"nprobe": 1})
        with pytest.raises(VerificationError) as caught:
            build(store, model, Attributes(), index, min_recall=0.9)
        assert item_collections(store) == []
        assert str(caught.value).startswith(f"items_{model.model_version}_")
        assert ": IVF_FLAT finds 0." in str(caught.value)
        assert "the minimum is 0.9 (--min-recall); raise --search-param nprobe=... above 1" in str(caught.value)


@pytest.mark.parametrize("index_type", ["IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN"])
def test_an_index_of_lists_needs_no_parameter(milvus_uri: str, model: Artifact, index_type: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        if store.connection.is_lite and index_type in ("IVF_PQ", "SCANN"):
            index_type = "IVF_FLAT"  # Milvus Lite has neither
        parts = {"m": 8} if index_type == "IVF_PQ" else {}
        chosen = choose_index(store.connection.is_lite, index_type, {}, {"nprobe": 7})
        built = build(store, model, Attributes(), chosen, min_recall=0)
        assert (built.fingerprint.index_type, built.fingerprint.index_params) == (
            index_type,
            {"nlist": 7} | parts,
        )  # 300 / 39
        asked = choose_index(store.connection.is_lite, index_type, {"nlist": 3}, {"nprobe": 3})
        assert build(store, model, Attributes(), asked, 0).fingerprint.index_params == {"nlist": 3} | parts


def test_building_again_holds_the_index_to_the_limit_of_now(tmp_path: Path, model: Artifact) -> None:
    with Store(Connection(str(tmp_path / "milvus.db"))) as store:
        index = choose_index(True, "IVF_FLAT", {"nlist": 64}, {"nprobe": 32})
        found = build(store, model, Attributes(), index, min_recall=0).recall
        assert 0.5 < found.recall < 0.99
        assert build(store, model, Attributes(), index, min_recall=found.recall).recall == found
        with pytest.raises(
            VerificationError, match=r"IVF_FLAT finds 0\.\d+ .*, but the minimum is 0\.99 \(--min-recall\)"
        ):
            build(store, model, Attributes(), index, min_recall=0.99)
        assert [collection.state for collection in item_collections(store)] == ["built"]


def test_recall_is_that_of_the_items_that_are_there(tmp_path: Path, model: Artifact) -> None:
    nearest = model.weights.golden_interest_vectors[0, 0]
    with Store(Connection(str(tmp_path / "milvus.db"))) as store:
        built = build_default(store, model)  # FLAT: what is exact stays so
        delete(Journal(store, built.collection), model.weights.item_id[::3], lambda *_: None)
        new = {EMBEDDING: 9 * nearest, VECTOR_SOURCE: "given"}
        store.upsert(built.collection, [{"item_id": item_id, **new} for item_id in (5, 1001, 10**9)])
        assert golden_recall(store, built.collection, {}, model.weights).recall == 1

        every_third = model.weights.item_id[1::3].tolist()
        store.delete(built.collection, every_third)  # the journal does not know: as if the index did not find them
        assert golden_recall(store, built.collection, {}, model.weights).recall < 0.75


@pytest.mark.parametrize("allowed", [True, False])
def test_segments_are_joined_before_they_are_indexed_where_milvus_can(
    allowed: bool,
    milvus_server_uri: str,
    model: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    remove_item_collections(milvus_server_uri)
    with Store(Connection(milvus_server_uri)) as store:

        def insert_and_flush(name: str, rows: list[Row]) -> None:
            Store.insert(store, name, rows)
            store.flush(name)  # or as much as Milvus keeps in one segment would have to be inserted

        def refuse(*_: object, **__: object) -> None:
            raise MilvusException(message="PrivilegeCompaction is not granted")

        monkeypatch.setattr(store, "insert", insert_and_flush)
        if not allowed:
            monkeypatch.setattr(store.session.client, "compact", refuse)
        built = build(store, model, Attributes(), choose_index(False, None, {}, {}), batch_rows=100)
        assert built.recall.recall > 0.95
        assert store.segments(built.collection) == (1 if allowed else 3)
        assert store.session.client.describe_index(built.collection, EMBEDDING)["index_type"] == "HNSW"
    assert ("could not be joined" in caplog.text and "is not granted" in caplog.text) is not allowed


def test_a_flush_that_never_ends_ends_the_build(
    tmp_path: Path, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymilvus.client.grpc_handler.GrpcHandler.get_flush_state", lambda *_, **__: False)
    uri = str(tmp_path / "milvus.db")
    late = r"did not write the rows of building_\w+ to its storage within 1 s \(--wait-s\); see the log of Milvus"
    with Store(Connection(uri, wait_s=1)) as store, pytest.raises(NotFlushedError, match=late):
        build_default(store, model)
    release_lite(uri)


def test_joining_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = str(tmp_path / "milvus.db")
    with Store(Connection(uri, wait_s=0.5)) as store:
        store.create("items", 4, {})
        monkeypatch.setattr(store, "connection", Connection("http://127.0.0.1:19530", wait_s=0.5))
        monkeypatch.setattr(store.session.client, "list_persistent_segments", lambda *_, **__: ["one", "two"])
        monkeypatch.setattr(store.session.client, "compact", lambda *_, **__: 1)
        monkeypatch.setattr(store.session.client, "get_compaction_state", lambda *_, **__: "Executing")
        dropped: list[str] = []
        monkeypatch.setattr(store, "drop_index", dropped.append)
        store.join_segments("items", 0)
        assert dropped == ["items"]
    release_lite(uri)
    late = "compacting items is not done after 0.5 s (--wait-s)"
    assert f"could not be joined; Milvus may join them later: {late}" in caplog.text


def test_an_index_is_waited_for_as_long_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def states(*told: tuple[str, int, int]) -> None:
        each = chain(told, repeat(told[-1]))
        names = "state", "indexed_rows", "pending_index_rows"
        monkeypatch.setattr(
            store.session.client, "describe_index", lambda *_, **__: dict(zip(names, next(each), strict=True))
        )

    uri = str(tmp_path / "milvus.db")
    with Store(Connection(uri, wait_s=0.5)) as store:
        store.create("items", 4, {})
        seen: list[int] = []
        # "Finished" is said of nothing too; and in the end Milvus indexes joined segments anew, which nobody waits for.
        states(("Finished", 0, 120), ("InProgress", 50, 70), ("InProgress", 100, 20), ("Finished", 120, 80))
        store.index("items", "FLAT", {}, 120, seen.append)
        assert seen == [0, 50, 100, 120]
        store.create("more", 4, {})
        states(("InProgress", 0, 120), ("InProgress", 50, 70))
        with pytest.raises(
            StoreError,
            match=r"index of more has 50 of 120 rows, is InProgress and made no progress for 0.5 s \(--wait-s\)",
        ):
            store.index("more", "FLAT", {}, 120, seen.append)
    release_lite(uri)


def test_a_collection_that_changed_afterwards_is_noticed(tmp_path: Path, model: Artifact) -> None:
    path = str(tmp_path / "milvus.db")
    with Store(Connection(path)) as store:
        name = build_default(store, model).collection
        client = MilvusClient(path)
        client.upsert(name, [{"item_id": 1007, EMBEDDING: model.weights.item_embedding[1], VECTOR_SOURCE: "trained"}])
        with pytest.raises(VerificationError, match=f"{name}: item 1007 has another vector"):
            check_contents(store, name, model.weights)
        client.delete(name, ids=[1000])
        with pytest.raises(VerificationError, match=f"{name}: holds 299 rows, but the model has 300 items"):
            build_default(store, model)


def test_long_texts_make_smaller_messages(tmp_path: Path) -> None:
    model = load_artifact(make_artifact(tmp_path / "models", items=1600))
    (tmp_path / "items.csv").write_text(f"item_id,text\n1000,{'x' * 65_000}\n")
    attributes = read_attributes(tmp_path / "items.csv", model.weights.item_id)
    inserted = []
    with Store(Connection(str(tmp_path / "milvus.db"))) as store:
        build(
            store,
            model,
            attributes,
            choose_index(True, None, {}, {}),
            on_progress=lambda stage, done, total: inserted.append(done) if stage == "insert" else None,
        )
    # 48 MiB over 64 + 16 * 4 + 16 + 65,000 + 16 + 8 + 16 + 16 bytes a row
    assert inserted == [0, 771, 1542, 1600]


def test_defaults_and_limits_of_the_index() -> None:
    assert choose_index(True, None, {}, {}).type == "FLAT"
    hnsw = choose_index(False, None, {"M": 16}, {})
    assert (hnsw.type, hnsw.build_params) == ("HNSW", {"M": 16, "efConstruction": 200})
    assert hnsw.search_params == {"ef": 128}
    with pytest.raises(RefusedError, match="ef=20: ef must be at least 50"):
        choose_index(False, None, {}, {"ef": 20})
