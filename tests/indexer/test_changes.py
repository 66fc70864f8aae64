"""Items that are added, changed and deleted between two builds, on both engines."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymilvus import SegmentState

from indexer import verify
from indexer.build import build, choose_index
from indexer.commands.items import show_carried
from indexer.errors import AttributesError, RefusedError, VerificationError
from indexer.items.attributes import Attributes, read_attributes
from indexer.items.carry_over import Carried
from indexer.items.changes import ChangeSummary, Proposal, Upsert, delete, upsert
from indexer.items.item_files import ItemFile
from indexer.items.journal import Journal
from indexer.items.journal_repair import repair
from indexer.rollout import rollout
from indexer.rollout.choice import Choice
from indexer.rollout.retire import drop, prune
from indexer.rollout.rollout import LeftBehind
from indexer.rollout.switch import switch
from indexer.verify import check_contents, check_count
from mind.artifact import Artifact, load_artifact
from mind.data.paddlerec import read_train
from mind.fresh_items import Neighbours, from_neighbours
from mind.milvus.collection import EMBEDDING, VECTOR_SOURCE
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError
from mind.milvus.journal import APPLIED, CHANGED_AT, NAMES, NEIGHBOURS, PENDING, Changes, Clicked, journal_of
from mind.milvus.records import RECORDS
from mind.milvus.store import Row, Store
from mind.transfer import Models
from tests.artifacts import make_artifact
from tests.conftest import release_lite, remove_item_collections
from tests.releases import publish, rollback

KINDS = ["War", "Drama", "Comedy"]
ALL = "item_id > -9"


def quiet(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass
class Released:
    """A live collection with year, genres and in_stock, of the items 1000, 1007, ..., 1000 + 7 * 199."""

    store: Store
    model: Artifact
    collection: str
    directory: Path

    @property
    def journal(self) -> Journal:
        return Journal(self.store, self.collection)

    def file(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def attributes(self, text: str) -> ItemFile:
        columns = {name: kind for name, kind in self.journal.columns.items() if name != VECTOR_SOURCE}
        return ItemFile(self.file("attributes.csv", text), "item_id", columns, 0, 3)

    def vectors(self, rows: dict[int, list[float]]) -> ItemFile:
        lists = pa.array(list(rows.values()), pa.list_(pa.float64()))
        pq.write_table(pa.table({"item_id": list(rows), EMBEDDING: lists}), self.directory / "vectors.parquet")
        return ItemFile(self.directory / "vectors.parquet", "item_id", {}, 16, 3)

    def upsert(
        self, attributes: str = "", vectors: dict[int, list[float]] | None = None, bought: str = ""
    ) -> ChangeSummary:
        return upsert(
            self.journal,
            self.model,
            self.vectors(vectors) if vectors else None,
            self.attributes(attributes) if attributes else None,
            read_train(self.file("since.txt", bought)) if bought else None,
            quiet,
        )

    def delete(self, *ids: int) -> ChangeSummary:
        return delete(self.journal, np.array(ids), quiet)

    def item(self, item_id: int) -> Row | None:
        return self.journal.items([item_id]).get(item_id)

    def state(self) -> tuple[list[Any], list[Any]]:
        """All rows of collection and journal, in a form that compares."""
        one, other = (
            [sorted((field, str(value)) for field, value in row.items()) for row in self.store.rows(name, ALL, 999)]
            for name in (self.collection, journal_of(self.collection))
        )
        return one, other


def build_model(store: Store, model: Artifact, directory: Path) -> str:
    """Build with year 2000 to 2009 in turn, one genre of `KINDS` in turn, everything in stock."""
    lines = [f"{one},{2000 + i % 10},{KINDS[i % 3]},true" for i, one in enumerate(model.weights.item_id.tolist())]
    (directory / "items.csv").write_text("\n".join(["item_id,year,genres,in_stock", *lines]))
    attributes = read_attributes(directory / "items.csv", model.weights.item_id, multi_valued=["genres"])
    index = choose_index(store.connection.is_lite, None, {}, {})
    return build(store, model, attributes, index).collection


def release_in(uri: str, directory: Path) -> Iterator[Released]:
    model = load_artifact(make_artifact(directory / "models"))
    with Store(Connection(uri)) as store:
        collection = build_model(store, model, directory)
        publish(store, collection)
        yield Released(store, model, collection, directory)


@pytest.fixture
def released(milvus_uri: str, tmp_path: Path) -> Iterator[Released]:
    """On both engines, for what they might do differently."""
    yield from release_in(milvus_uri, tmp_path)


@pytest.fixture
def on_server(milvus_server_uri: str, tmp_path: Path) -> Iterator[Released]:
    remove_item_collections(milvus_server_uri)
    yield from release_in(milvus_server_uri, tmp_path)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Released]:
    """On Milvus Lite, which is fast."""
    yield from release_in(str(tmp_path / "milvus.db"), tmp_path)
    release_lite(str(tmp_path / "milvus.db"))


def test_changed_attributes(lite: Released) -> None:
    summary = lite.upsert("item_id,year,in_stock\n1000,1999,\n1007,2001,false\n1014,2002,true\n")
    assert (summary.changed, summary.unchanged, summary.added) == (2, {1014}, {})
    row = lite.item(1000)
    assert row is not None and (row["year"], row["genres"], row["in_stock"]) == (1999, ["War"], True)  # others stay
    np.testing.assert_array_equal(row[EMBEDDING], lite.model.weights.item_embedding[1])
    assert row[VECTOR_SOURCE] == "trained"
    assert lite.store.count(lite.collection, "in_stock == false") == 1
    assert lite.store.changes(lite.collection) == Changes(changed=2)
    check_contents(lite.store, lite.collection, lite.model.weights)


def test_new_items_in_three_ways(released: Released) -> None:
    embedding = released.model.weights.item_embedding
    bought = "1,1000,0\n1,5,1\n2,1000,0\n2,1007,1\n2,5,2\n3,1014,0\n3,6,1\n"
    summary = released.upsert(
        "item_id,year,genres,in_stock\n5,2024,War,true\n7,2003,Drama,true\n8,2024,,true\n",
        {6: [0.5] * 16, 8: [-0.25] * 16},
        bought,
    )
    assert summary.added == {"given": 2, "neighbours": 1, "attributes": 1}
    assert (summary.changed, summary.unchanged) == (0, set())
    given, near, alike = released.item(8), released.item(5), released.item(7)
    assert given is not None and near is not None and alike is not None
    assert given[EMBEDDING].tolist() == [-0.25] * 16 and (given["year"], given["genres"]) == (2024, None)
    assert [row[VECTOR_SOURCE] for row in (given, near, alike)] == ["given", "neighbours", "attributes"]
    # 1000 was bought by users 1 and 2, 1007 by user 2, item 5 by both: 2 / sqrt(2 * 2) and 1 / sqrt(1 * 2)
    mean = (embedding[1] + embedding[2] / np.sqrt(2)) / (1 + 1 / np.sqrt(2))
    np.testing.assert_allclose(
        near[EMBEDDING] / np.linalg.norm(near[EMBEDDING]), mean / np.linalg.norm(mean), atol=1e-5
    )
    assert released.store.count(released.collection) == 204
    assert released.store.changes(released.collection) == Changes(added=4)
    check_contents(released.store, released.collection, released.model.weights)


def test_changes_are_in_the_storage_of_milvus_when_the_command_ends(on_server: Released) -> None:
    """Milvus 2.3.5 that is killed can lose rows that are in its log alone."""
    on_server.upsert("item_id,year\n1000,1950\n", vectors={5: [1.0] * 16})
    on_server.delete(1007)
    client = on_server.store.session.client
    for name in (on_server.collection, journal_of(on_server.collection), RECORDS):
        segments = client.list_persistent_segments(name, timeout=30)
        [rows] = client.query(name, "", ["count(*)"], timeout=30, consistency_level="Strong")
        assert sum(segment.num_rows for segment in segments) >= rows["count(*)"]
        assert {segment.state for segment in segments} == {SegmentState.Flushed}


def test_the_same_again_changes_nothing(lite: Released) -> None:
    arguments = ("item_id,year\n5,2024\n7,2003\n1000,1999\n", {8: [1.0] * 16}, "1,1000,0\n1,5,1\n")
    lite.upsert(*arguments)
    lite.delete(1007, 77)
    before = lite.state()
    summary = lite.upsert(*arguments)
    assert (summary.added, summary.changed, summary.unchanged) == ({}, 0, {5, 7, 8, 1000})
    assert lite.state() == before
    again = lite.delete(1007, 77)
    assert (again.deleted, again.unchanged, again.unknown) == (0, {1007}, {77})
    (items, journal), (items_before, journal_before) = lite.state(), before
    assert items == items_before
    differs = {field for row, old in zip(journal, journal_before, strict=True) for field, _ in set(row) ^ set(old)}
    assert differs == {CHANGED_AT}  # the newer time counts when it is carried over


def test_deleted_items_stay_away_until_they_are_named(released: Released) -> None:
    bought = "1,1000,0\n1,5,1\n"
    released.upsert("item_id,year\n5,2024\n1007,1950\n", None, bought)
    assert released.delete(1000, 1007, 5).deleted == 3
    assert released.store.changes(released.collection) == Changes(deleted=2)
    assert released.store.count(released.collection) == 198
    check_contents(released.store, released.collection, released.model.weights)
    released.upsert("", None, bought)  # was bought before it was withdrawn
    assert released.item(5) is None
    assert released.upsert("item_id,in_stock\n5,true\n1007,true\n").changed == 1  # 5 is added, 1007 changed
    row = released.item(1007)
    assert row is not None and (row["year"], row["genres"]) == (1950, ["Drama"])
    np.testing.assert_array_equal(row[EMBEDDING], released.model.weights.item_embedding[2])
    fresh = released.item(5)
    assert fresh is not None and (fresh["year"], fresh[VECTOR_SOURCE]) == (2024, "neighbours")
    assert released.store.changes(released.collection) == Changes(added=1, changed=1, deleted=1)


def test_a_better_source_replaces_a_worse_one_and_not_the_other_way_round(lite: Released) -> None:
    lite.upsert("item_id,year,genres\n5,2003,War\n")
    sources = [lite.item(5)]
    lite.upsert("item_id,genres\n5,Drama\n")
    sources.append(lite.item(5))
    assert [row and row[VECTOR_SOURCE] for row in sources] == ["attributes"] * 2
    assert sources[0] and sources[1] and not np.array_equal(sources[0][EMBEDDING], sources[1][EMBEDDING])
    lite.upsert("", None, "1,1000,0\n1,5,1\n")
    near = lite.item(5)
    lite.upsert("item_id,genres\n5,War\n")
    after = lite.item(5)
    assert near and after and after[VECTOR_SOURCE] == "neighbours" and after["genres"] == ["War"]
    np.testing.assert_array_equal(near[EMBEDDING], after[EMBEDDING])
    lite.upsert("", {5: [1.0] * 16})
    lite.upsert("", None, "1,1000,0\n1,5,1\n")
    given = lite.item(5)
    assert given and given[VECTOR_SOURCE] == "given" and given["genres"] == ["War"]


def clicked(released: Released, item_id: int) -> Clicked:
    """What the journal says of clicks on an item."""
    return Clicked.from_json(released.journal.rows([item_id])[item_id][NEIGHBOURS])


def test_the_journal_says_which_items_a_new_one_follows(released: Released) -> None:
    # 5 follows 1000 at once, and 1007 twice: at once of user 2, a click later of user 1; each was clicked twice
    bought = "1,1007,0\n1,1000,1\n1,5,2\n1,1014,3\n2,1000,0\n2,5,1\n2,1007,2\n2,5,3\n3,6,0\n3,1014,1\n4,1014,0\n4,7,1\n"
    released.upsert("", {7: [1.0] * 16}, bought)
    told = dict(clicked(released, 5).before)
    from_1000 = (1 + 1 + 0.8**2) / (2 + 1)  # also the second click of user 2 on 5, two clicks later
    assert told == pytest.approx({1000: from_1000**0.5, 1007: ((0.8 + 1) / (2 + 1)) ** 0.5}, abs=1e-6)
    assert [item_id for item_id, _ in clicked(released, 5).together] == [1000, 1007, 1014]
    assert clicked(released, 6) == Clicked([(1014, pytest.approx(3**-0.5, abs=1e-6))], [])  # which came before it
    assert clicked(released, 7) == Clicked([], [(1014, 0.5)])  # its vector is given, and it is a neighbour all the same
    before = released.state()
    assert released.upsert("", None, bought).changed == 0 and released.state() == before
    released.upsert("item_id,year\n5,1980\n", {7: [0.5] * 16})
    assert dict(clicked(released, 5).before) == told and clicked(released, 7).before == [(1014, 0.5)]
    released.upsert("", {5: [1.0] * 16})  # its vector is not derived any more
    assert clicked(released, 5).together == [] and dict(clicked(released, 5).before) == told
    released.upsert("", None, "1,1014,0\n1,5,1\n1,7,2\n")  # of newer clicks
    assert [item_id for item_id, _ in clicked(released, 5).before] == [1014]
    assert clicked(released, 7).before == [(1014, pytest.approx((0.8 / 2) ** 0.5, abs=1e-6))]


def test_what_new_items_follow_is_carried_over(lite: Released) -> None:
    new = load_artifact(make_artifact(lite.directory / "models", items=230, seed=1))  # knows 2400, too
    lite.upsert("", None, "1,1000,0\n1,5,1\n1,2400,2\n2,77,0\n2,1007,1\n2,77,2\n")
    before = clicked(lite, 5)
    assert dict(clicked(lite, 2400).before) == pytest.approx({1000: (0.8 / 2) ** 0.5}, abs=1e-6)
    lite.delete(77)
    carry(lite, new)
    assert clicked(lite, 5) == before and before.before == [(1000, pytest.approx(0.5**0.5, abs=1e-6))]
    assert not lite.journal.rows([2400])  # nothing to change: the model knows what it follows
    again = load_artifact(make_artifact(lite.directory / "models", items=230, seed=2))
    lite.upsert("", {8: [1.0] * 16}, "1,1000,0\n1,8,1\n")
    carry(lite, again)
    assert clicked(lite, 5) == before and not lite.journal.rows([8])  # a given vector belongs to its model


def test_what_an_earlier_version_wrote_is_read() -> None:
    assert Clicked.from_json("[[1000, 0.5]]") == Clicked([(1000, 0.5)], [])
    assert Clicked.from_json("[]") == Clicked([], [])
    both = Clicked([(1000, 0.5)], [(1007, 0.25)])
    assert Clicked.from_json(both.to_json()) == both
    worst = [(-(2**63) + 1, 0.123456)] * 70  # the most that a text may have to hold
    assert len(Clicked(worst[:20], worst[20:]).to_json()) < 4_096


class StoppedError(Exception):
    """Instead of a kill."""


class Stopping(Store):
    """Writes so often, and then stops for ever."""

    left = 10**9

    def _write(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoppedError

    def upsert(self, name: str, rows: list[Row]) -> None:
        if rows:
            self._write()
        super().upsert(name, rows)

    def delete(self, name: str, item_id: list[int]) -> None:
        if item_id:
            self._write()
        super().delete(name, item_id)


@pytest.mark.parametrize("allowed", range(6))
def test_stopped_at_any_step(tmp_path: Path, allowed: int) -> None:
    model = load_artifact(make_artifact(tmp_path / "models"))
    with Stopping(Connection(str(tmp_path / "milvus.db"))) as store:
        released = Released(store, model, build_model(store, model, tmp_path), tmp_path)
        publish(store, released.collection)
        arguments = ("item_id,year\n1000,1999\n5,2024\n", {5: [0.5] * 16})
        # journal: the vector, the attributes, and deletes; then delete, upsert, mark
        store.left = allowed
        with pytest.raises(StoppedError):
            released.upsert(*arguments)
            released.delete(1007, 1014)
            raise AssertionError("was not stopped")
        store.left = 10**9
        check_count(store, released.collection, 200)
        check_contents(store, released.collection, model.weights)  # what a publish, a rollback and a server ask for
        released.upsert(*arguments)
        released.delete(1007, 1014)
        assert store.changes(released.collection) == Changes(added=1, changed=1, deleted=2)
        assert (store.count(released.collection), store.count(released.journal.name, PENDING)) == (199, 0)
        assert [released.item(item_id) is None for item_id in (1000, 5, 1007, 1014)] == [False, False, True, True]


KILLED = """
import sys
from pathlib import Path
import numpy as np
from indexer.items.changes import delete
from indexer.items.journal import Journal
from indexer.items.journal_repair import repair
from mind.milvus.connection import Connection
from mind.milvus.store import Store

with Store(Connection(sys.argv[1])) as store:
    journal = Journal(store, sys.argv[2])
    journal.batch_rows = 10
    real = store.delete

    def slow(name, item_id):
        real(name, item_id)
        print("deleted", flush=True)
        sys.stdin.read()

    store.delete = slow
    delete(journal, np.arange(1000, 1140, 7), lambda *_: None)
"""


def test_kill_9_between_a_change_and_its_mark(milvus_uri: str, tmp_path: Path) -> None:
    model = load_artifact(make_artifact(tmp_path / "models"))
    with Store(Connection(milvus_uri)) as store:
        collection = build_model(store, model, tmp_path)
        publish(store, collection)
    release_lite(milvus_uri)
    command = [sys.executable, "-c", KILLED, milvus_uri, collection]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == "deleted\n"
        os.kill(killed.pid, signal.SIGKILL)
    with Store(Connection(milvus_uri)) as store:
        store.load(collection)
        assert store.changes(collection) == Changes(pending_known=20)  # 10 of them are gone
        assert store.count(collection) == 190
        check_contents(store, collection, model.weights)
        delete(Journal(store, collection), np.arange(1000, 1140, 7), quiet)
        assert store.changes(collection) == Changes(deleted=20)
        assert store.count(collection) == 180


def test_changes_that_milvus_lost_or_finds_late(lite: Released, monkeypatch: pytest.MonkeyPatch) -> None:
    lite.delete(1000, 1007)
    journal = journal_of(lite.collection)
    row = lite.store.rows(journal, [1007])
    lite.store.delete(journal, [1007])
    monkeypatch.setattr(verify, "SETTLE_S", 0)
    lost = "Milvus finds 1 of the 2 changes that were written to it"
    with pytest.raises(VerificationError, match=lost):
        lite.delete(1014)
    collection = build_model(
        lite.store, load_artifact(make_artifact(lite.directory / "models", seed=1)), lite.directory
    )
    with pytest.raises(VerificationError, match=lost):
        rollout.publish(lite.store, Models(lite.directory / "models"), collection, with_changes=True)
    assert lite.store.alias() == lite.collection
    lite.store.upsert(journal, row)
    monkeypatch.setattr(verify, "SETTLE_S", 10)
    real, late = lite.store.count, iter([1])
    monkeypatch.setattr(lite.store, "count", lambda *asked: next(late, 0) or real(*asked))
    assert lite.delete(1014).deleted == 1


def test_a_release_does_not_count_what_it_leaves_behind_where_milvus_lost_changes(
    lite: Released, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = build_model(lite.store, load_artifact(make_artifact(lite.directory / "models", seed=1)), lite.directory)
    publish(lite.store, other)
    journal = Journal(lite.store, other)
    delete(journal, np.array([1000, 1007]), quiet)
    assert rollback(lite.store).left_behind == LeftBehind(other, upserted=0, deleted=2)
    publish(lite.store, other)
    lite.store.delete(journal.name, [1007])
    monkeypatch.setattr(verify, "SETTLE_S", 0)
    done = rollback(lite.store)
    assert (done.live, done.before, done.left_behind) == (lite.collection, other, None)
    assert f"what {other} leaves behind cannot be counted: {journal.name}: Milvus finds 1 of the 2" in caplog.text


def test_changes_that_milvus_lost_are_applied_again_before_a_release(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Milvus that was killed came back with an item that had been deleted, so that a rollback was refused."""
    monkeypatch.setattr(verify, "SETTLE_S", 0)
    deleted = released.store.rows(released.collection, [1000, 1007])
    released.upsert("item_id,year\n1014,1900\n", {5: [1.0] * 16})
    released.delete(1000, 1007)
    before = released.state()
    released.store.upsert(released.collection, deleted)
    publish(released.store, released.collection)
    assert released.item(1000) is None and released.item(1007) is None
    released.store.delete(released.collection, [5])
    publish(released.store, released.collection)
    assert released.state() == before
    released.store.delete(released.collection, [1021])  # nothing in the journal explains that
    with pytest.raises(VerificationError, match="holds 198 rows, but the model has 200 items"):
        publish(released.store, released.collection)


def test_replaced_rows_of_a_journal_that_milvus_shows_again_change_nothing(on_server: Released) -> None:
    """Milvus 2.3.5 may show them after a restart; to insert a row under a key that exists has the same effect."""
    store, journal = on_server.store, journal_of(on_server.collection)
    on_server.upsert("item_id,year\n1000,1901\n1007,1901\n1014,1901\n", {5: [1.0] * 16})
    earlier = store.rows(journal, [5, 1000, 1007])
    on_server.delete(5, 1000, 1014)
    deleted = store.rows(journal, [1000, 1014])
    on_server.upsert("item_id,year\n1000,1902\n1007,1902\n")
    before = on_server.state()
    for rows in (earlier, [row | {APPLIED: False} for row in earlier + deleted], deleted[:1]):
        store.insert(journal, rows)
    items = store.rows(on_server.collection, [1021])
    store.insert(on_server.collection, [row | {"item_id": 1014} for row in items])  # which was deleted
    assert store.count(journal) > 4
    publish(store, on_server.collection)
    assert on_server.state() == before
    assert store.count(journal) == 4
    assert repair(store, journal, 2) == 0


def test_a_milvus_that_never_returns_the_marks_ends_the_command(
    lite: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite.delete(1000)
    journal = Journal(lite.store, lite.collection)
    journal.stage(list(journal.rows([1000]).values()))
    journal.batch_rows = 1
    monkeypatch.setattr(lite.store, "upsert", lambda *_: None)
    with pytest.raises(StoreError, match=f"{journal.name}: 1 changes were applied, but Milvus still returns them"):
        journal.apply(quiet)


def test_what_the_journal_does_not_explain_is_refused(lite: Released) -> None:
    lite.delete(1000, 1007)
    lite.store.delete(lite.collection, [1014])
    with pytest.raises(
        VerificationError, match="holds 197 rows, but the model has 200 items, and its journal explains 198 to 198"
    ):
        check_count(lite.store, lite.collection, 200)
    lite.upsert("", {5: [1.0] * 16})  # as many as there should be, and not the right ones
    lite.store.upsert(lite.collection, [row | {"item_id": 6} for row in lite.store.rows(lite.collection, [5])])
    with pytest.raises(VerificationError, match="item 1014 is missing"):
        check_contents(lite.store, lite.collection, lite.model.weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "item_id,colour\n1000,red\n",
            "the collection has no attribute 'colour'; its attributes are year, genres, in_stock",
        ),
        ("id,year\n1000,1\n", "has no column 'item_id'; its columns are id, year"),
        ("item_id,year\n1000,1999\n1007,new\n", "row 2: year is 'new', which is not a valid INT64"),
        ("item_id,year\n1000,1\n5,1\n6,2\n1007,1\n1000,3\n", "row 5: item_id 1000 is in row 1 already"),
        ("item_id,year\n,1\n", "row 1: item_id is empty"),
        ("item_id,year\nabc,1\n", "row 1: item_id is 'abc', which is not a valid INT64"),
        ("item_id,year\n9223372036854775808,1\n", "item_id is '9223372036854775808', which is not a valid INT64"),
        (
            "item_id,year\n-9223372036854775808,1\n",
            "row 1: item_id is -9223372036854775808, but the smallest item id is -2^63 + 1",
        ),
        (
            f"item_id,genres\n1000,{'|'.join('x' * 17)}\n",
            "row 1: genres has 17 values; the limit of this collection is 16",
        ),
        ("item_id,year,year\n1000,1,2\n", "has 2 columns 'year'"),
        (
            "item_id,vector_source\n1000,trained\n",
            "the collection has no attribute 'vector_source'; its attributes are",
        ),
        ("item_id,year\n", "the file has no rows after the header"),
        (f"item_id,{'y' * 200_000}\n1000,1\n", "cannot be read: field larger than field limit"),
    ],
)
def test_bad_attributes_change_nothing(lite: Released, text: str, message: str) -> None:
    with pytest.raises(AttributesError, match=r"attributes\.csv: ") as caught:
        lite.upsert(text, {5: [1.0] * 16})
    assert message in str(caught.value)
    assert lite.store.changes(lite.collection) == Changes()


def test_text_that_is_no_text_changes_nothing(lite: Released) -> None:
    path = lite.directory / "items.parquet"
    genres = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"item_id": [1000], "genres": genres}), path)
    kinds = {name: kind for name, kind in lite.journal.columns.items() if name != VECTOR_SOURCE}
    with pytest.raises(AttributesError, match=r"items\.parquet: cannot be read as Parquet: a text in it is not UTF-8"):
        upsert(lite.journal, lite.model, None, ItemFile(path, "item_id", kinds, 0, 3), None, quiet)
    assert lite.store.changes(lite.collection) == Changes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({5: [1.0] * 15}, "row 1: embedding has 15 numbers, but the vectors of the model have 16"),
        ({4: [1.0] * 16, 5: [float("nan")] * 16}, "row 2: embedding has NaN, empty or infinite values"),
        ({5: [1e300] * 16}, "row 1: embedding has NaN, empty or infinite values"),
        ({5: [None] * 16}, "row 1: embedding has NaN, empty or infinite values"),
        (
            {5: [1.0] * 16, 1007: [1.0] * 16},
            "item 1007 is an item of the model, and such items keep their trained vectors",
        ),
    ],
)
def test_bad_vectors_change_nothing(lite: Released, rows: dict[int, list[float]], message: str) -> None:
    with pytest.raises((AttributesError, RefusedError)) as caught:
        lite.upsert("", rows)
    assert message in str(caught.value) and "vectors.parquet: " in str(caught.value)
    assert lite.store.changes(lite.collection) == Changes()


def test_extreme_ids_and_vectors_in_csv(lite: Released) -> None:
    most, least = 2**63 - 1, -(2**63) + 1
    path = lite.file("v.csv", f"item_id,embedding\n{most},{'|'.join(['0.5'] * 16)}\n{least},{'|'.join('1' * 16)}\n")
    upsert(lite.journal, lite.model, ItemFile(path, "item_id", {}, 16), None, None, quiet)
    assert [bool(lite.item(item_id)) for item_id in (most, least)] == [True, True]
    lite.delete(most, least)
    assert [bool(lite.item(item_id)) for item_id in (most, least)] == [False, False]
    assert lite.store.count(lite.collection) == 200


def test_an_item_of_which_nothing_is_known_is_left_out(tmp_path: Path) -> None:
    model = load_artifact(make_artifact(tmp_path / "models"))
    with Store(Connection(str(tmp_path / "milvus.db"))) as store:
        rows = "1000,acme,1,0.5,true\n1007,acme,2,0.5,true\n1014,other,,1.5,true\n1021,other,4,1.5,false\n"
        (tmp_path / "items.csv").write_text(f"item_id,maker,stock,price,sold\n{rows}")
        attributes = read_attributes(tmp_path / "items.csv", model.weights.item_id)
        collection = build(store, model, attributes, choose_index(True, None, {}, {})).collection
        released = Released(store, model, collection, tmp_path)
        summary = released.upsert("item_id,maker\n5,acme\n6,nobody\n")  # 6 has no stock rather than stock 0
        assert (summary.added, summary.no_vector) == ({"attributes": 1}, {6})
        released.upsert("item_id,stock\n5,0\n")
        released.upsert("item_id,maker,stock\n7,acme,0\n8,acme,\n")
        at_twice, at_once, without = (released.item(item_id) for item_id in (5, 7, 8))
        assert at_twice and at_once and without
        np.testing.assert_array_equal(at_twice[EMBEDDING], at_once[EMBEDDING])
        assert not np.array_equal(at_once[EMBEDDING], without[EMBEDDING])


def test_no_more_of_the_catalogue_is_learnt_from_than_fits_in_memory(
    lite: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.items.changes.MAX_LEARNT", 50)
    read: list[int] = []

    class Watched(Journal):
        def items(self, item_id: list[int]) -> dict[int, Row]:
            read.extend(item_id)
            return super().items(item_id)

    vectors = []
    for _ in range(2):
        Upsert(Watched(lite.store, lite.collection), lite.model, ChangeSummary()).stage([Proposal(5, {"year": 2003})])
        vectors.append(lite.journal.rows([5])[5][EMBEDDING])
        lite.store.delete(lite.journal.name, [5])
    assert len(read) == 100 and read[:50] == read[50:] and max(read) > 2000
    np.testing.assert_array_equal(*vectors)


LIMIT = 2**19


class Limited(Store):
    """Refuses large messages, as Milvus does."""

    def upsert(self, name: str, rows: list[Row]) -> None:
        size = sum(np.asarray(row.get(EMBEDDING, ()), np.float32).nbytes for row in rows)
        assert size <= LIMIT, f"a message of {size:,} bytes"
        super().upsert(name, rows)


def test_batches_fit_into_a_message_whatever_the_length_of_the_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.items.journal.MAX_MESSAGE_BYTES", LIMIT)
    models = [load_artifact(make_artifact(tmp_path / "models", dim=dim)) for dim in (16, 2200)]
    with Limited(Connection(str(tmp_path / "milvus.db"))) as store:
        index = choose_index(True, None, {}, {})
        short, long = (build(store, model, Attributes(), index).collection for model in models)
        publish(store, short)
        delete(Journal(store, short), models[0].weights.item_id[:100], quiet)
        carried = rollout.publish(store, Models(tmp_path / "models"), long, with_changes=True).carried
        assert carried and carried.summary.deleted == 100
        assert delete(Journal(store, long), models[0].weights.item_id[100:], quiet).deleted == 100


def carry(released: Released, model: Artifact) -> Carried:
    """Build a model, release it with what was changed, and go on with it."""
    collection = build_model(released.store, model, released.directory)
    done = rollout.publish(released.store, Models(released.directory / "models"), collection, with_changes=True)
    carried = done.carried
    assert done.live == collection == released.store.alias() and carried is not None
    released.model, released.collection = model, collection
    return carried


def test_carried_over_to_a_new_model(released: Released) -> None:
    # The new model knows 230 items: 1000, ..., 2393 as before, and 2400 to 2603, which are new items of the old one.
    new = load_artifact(make_artifact(released.directory / "models", items=230, seed=1))
    old = released.collection
    released.upsert(
        "item_id,year,in_stock\n1000,1999,false\n2400,1980,true\n7,2003,true\n", {8: [1.0] * 16, 2407: [1.0] * 16}
    )
    released.upsert("", None, "1,1000,0\n1,1007,1\n1,5,2\n1,2414,3\n")
    released.delete(1014, 2414)
    carried = carry(released, new)
    assert (carried.source, carried.left_given, carried.left_attributes) == (old, {8}, set())
    assert carried.summary.added == {"neighbours": 1, "attributes": 1}
    assert (carried.summary.changed, carried.summary.deleted) == (2, 2)
    weights, rows = new.weights, {item_id: released.item(item_id) for item_id in (1000, 2400, 2407, 7, 5)}
    assert rows[1000] and (rows[1000]["year"], rows[1000]["in_stock"]) == (1999, False)
    assert rows[2400] and (rows[2400]["year"], rows[2400][VECTOR_SOURCE]) == (1980, "trained")
    assert rows[2407] and rows[2407][VECTOR_SOURCE] == "trained"  # known now: its own vector
    pair = Neighbours(np.array([1000, 1007]), np.ones(2, np.float32))
    assert rows[5]
    np.testing.assert_array_equal(rows[5][EMBEDDING], from_neighbours(pair, new.vocabulary, weights.item_embedding))
    assert [released.item(item_id) for item_id in (1014, 2414, 8)] == [None] * 3
    assert released.store.changes(released.collection) == Changes(added=2, changed=2, deleted=2)
    check_contents(released.store, released.collection, weights)


def test_a_deletion_outlives_models_that_do_not_know_the_item(lite: Released) -> None:
    small, large = (
        load_artifact(make_artifact(lite.directory / "models", items=items, seed=1)) for items in (100, 230)
    )
    bought = "1,1000,0\n1,5,1\n1,2393,2\n"
    lite.upsert("", None, bought)
    lite.delete(5, 2393)  # 2393 is an item of all models but the small ones, 5 of none
    for model in (small, load_artifact(make_artifact(lite.directory / "models", items=100, seed=2))):
        carried = carry(lite, model)
        assert (carried.summary.deleted, carried.summary.unknown) == (2, set())
        assert lite.store.changes(lite.collection) == Changes()  # no item is there, and none that was built is gone
        check_contents(lite.store, lite.collection, model.weights)
        assert lite.upsert("", None, bought).added == {}
        assert lite.delete(5, 2393).unchanged == {5, 2393}
    carry(lite, large)
    assert (lite.item(5), lite.item(2393)) == (None, None)
    assert lite.store.changes(lite.collection) == Changes(deleted=1)
    lite.upsert("item_id,genres\n5,War\n2393,War\n")
    fresh, known = lite.item(5), lite.item(2393)
    assert fresh and fresh[VECTOR_SOURCE] == "attributes" and fresh[EMBEDDING].any()
    assert known and (known[VECTOR_SOURCE], known["year"]) == ("trained", 2009)


def test_values_of_the_new_build_that_were_replaced_are_counted(
    lite: Released, capsys: pytest.CaptureFixture[str]
) -> None:
    lite.upsert("item_id,year,genres\n1000,1999,War\n1007,1950,Comedy\n")  # built as 2000 and War, 2001 and Drama
    show_carried(carry(lite, load_artifact(make_artifact(lite.directory / "models", seed=1))))
    assert "replaced   3 attribute values of the new build are replaced by earlier upserts" in capsys.readouterr().out
    lite.upsert("item_id,year\n1007,2001\n")  # what the next build says, so that it ends there
    assert carry(lite, load_artifact(make_artifact(lite.directory / "models", seed=2))).summary.replaced == 2
    assert lite.journal.rows([1007])[1007][NAMES] == '["genres"]'


def test_changes_made_while_others_are_carried(lite: Released, monkeypatch: pytest.MonkeyPatch) -> None:
    new = load_artifact(make_artifact(lite.directory / "models", seed=1))
    lite.delete(1000)
    old = Released(lite.store, lite.model, lite.collection, lite.directory)
    collection = build_model(lite.store, new, lite.directory)

    def busy(store: Store, choice: Choice) -> None:
        old.delete(1007)  # just before the alias moves
        old.upsert("item_id,year\n1021,1980\n")
        switch(store, choice)
        Released(store, new, collection, lite.directory).upsert("item_id,year\n1021,1990\n")  # and just after
        raise StoppedError  # before it can look again

    models = Models(lite.directory / "models")
    with monkeypatch.context() as interrupted:
        interrupted.setattr("indexer.rollout.rollout.switch", busy)
        with pytest.raises(StoppedError):
            rollout.publish(lite.store, models, collection, with_changes=True)
    carried = rollout.publish(lite.store, models, collection, with_changes=True).carried
    after = Released(lite.store, new, collection, lite.directory)
    assert carried is not None and after.item(1000) is None and after.item(1007) is None
    row = after.item(1021)
    assert row is not None and row["year"] == 1990  # the later change stands


def test_given_vectors_are_carried_within_one_model(lite: Released) -> None:
    lite.upsert("", {8: [1.0] * 16})
    index = choose_index(True, "FLAT", {}, {}, 0.9)  # the same model, searched in another way
    attributes = read_attributes(lite.directory / "items.csv", lite.model.weights.item_id, multi_valued=["genres"])
    collection = build(lite.store, lite.model, attributes, index).collection
    carried = rollout.publish(lite.store, Models(lite.directory / "models"), collection, with_changes=True).carried
    assert carried is not None and carried.left_given == set() and carried.summary.added == {"given": 1}


def test_what_grew_longer_since_is_carried_where_it_fits(lite: Released) -> None:
    def with_titles(model: Artifact, longest: int) -> str:
        lines = [f"{item_id},{'x' * longest}" for item_id in model.weights.item_id.tolist()]
        titles = lite.file("titles.csv", "\n".join(["item_id,title", *lines]))
        attributes = read_attributes(titles, model.weights.item_id)
        return build(lite.store, model, attributes, choose_index(True, None, {}, {})).collection

    publish(lite.store, with_titles(lite.model, 80))
    lite.collection = str(lite.store.alias())
    lite.upsert(f"item_id,title\n1000,short\n1007,{'y' * 150}\n")
    models = Models(lite.directory / "models")
    new = load_artifact(make_artifact(lite.directory / "models", seed=1))
    for longest, left in ((90, set()), (60, {"title"})):  # room for 180 bytes, then for 120
        name = with_titles(new, longest)
        carried = rollout.publish(lite.store, models, name, with_changes=True).carried
        assert carried is not None and carried.left_attributes == left
        titles = {item_id: row["title"] for item_id, row in Journal(lite.store, name).items([1000, 1007]).items()}
        assert titles[1000] == "short" and (titles[1007] == "y" * 150) is not bool(left)


def test_an_item_that_came_back_is_carried_back(lite: Released) -> None:
    first = lite.collection
    index = choose_index(True, "FLAT", {}, {}, 0.9)
    attributes = read_attributes(lite.directory / "items.csv", lite.model.weights.item_id, multi_valued=["genres"])
    second = build(lite.store, lite.model, attributes, index).collection
    models = Models(lite.directory / "models")
    lite.delete(1007)
    rollout.publish(lite.store, models, second, with_changes=True)
    assert not Journal(lite.store, second).items([1007])
    publish(lite.store, first)
    lite.upsert("item_id,year\n1007,2001\n")
    rollout.publish(lite.store, models, second, with_changes=True)
    assert Journal(lite.store, second).items([1007])[1007]["genres"] == ["Drama"]


def test_a_walk_misses_no_row_whatever_order_they_were_written_in(released: Released) -> None:
    written = [1350, 1070, 1210, 1140, 1280]
    for item_id in written:
        released.delete(item_id)
    journal = released.journal
    journal.batch_rows = 2
    walked = [row["item_id"] for rows in journal.walk(journal.name, ALL) for row in rows]
    assert walked == sorted(written)


def test_the_journal_goes_with_its_collection(lite: Released) -> None:
    lite.delete(1000)
    journal = journal_of(lite.collection)
    drop(lite.store, lite.collection, allow_live=True)
    assert not {lite.collection, journal} & set(lite.store.collections())
    build_model(lite.store, lite.model, lite.directory)
    lite.delete(1000)
    lite.store.session.client.drop_collection(lite.collection)  # from outside: the journal is left
    dropped: list[str] = []
    prune(lite.store, 2, False, set(), dropped.append)
    assert dropped == [journal]
    build_model(lite.store, lite.model, lite.directory)
    lite.delete(1000)
    lite.store.session.client.drop_collection(lite.collection)
    build_model(lite.store, lite.model, lite.directory)  # does not take it for its own either
    assert lite.store.changes(lite.collection) == Changes() and lite.store.count(lite.collection) == 200


def test_changes_are_carried_in_the_order_in_which_they_were_made_whatever_the_clocks_say(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, models = released.collection, Models(released.directory / "models")
    new = load_artifact(make_artifact(released.directory / "models", seed=1))
    second = build_model(released.store, new, released.directory)
    old = released.model

    def at(hour: int) -> None:
        monkeypatch.setattr("indexer.items.journal.now", lambda: f"2026-01-01T{hour:02}:00:00.000000+00:00")

    at(12)
    released.upsert("item_id,year\n1000,1980\n1007,1980\n1014,1980\n")
    released.delete(1021)
    publish(released.store, second)  # without the changes
    at(11)
    released.model, released.collection = new, second
    released.upsert("item_id,year\n1000,1990\n1021,1990\n")
    released.delete(1007)
    publish(released.store, first)
    released.model, released.collection = old, first
    released.delete(1021)  # once more, where it is deleted already
    rollout.publish(released.store, models, second, with_changes=True)
    items = Journal(released.store, second).items([1000, 1007, 1014, 1021])
    assert {item: row["year"] for item, row in items.items()} == {1000: 1990, 1014: 1980}


def test_a_change_by_a_slow_clock_while_others_are_carried_is_not_lost(
    lite: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite.delete(1000)
    old = Released(lite.store, lite.model, lite.collection, lite.directory)
    new = load_artifact(make_artifact(lite.directory / "models", seed=1))
    collection = build_model(lite.store, new, lite.directory)

    def busy(store: Store, choice: Choice) -> None:
        with monkeypatch.context() as slow:
            slow.setattr("indexer.items.journal.now", lambda: "2001-01-01T00:00:00.000000+00:00")
            old.delete(1007)
        switch(store, choice)

    monkeypatch.setattr("indexer.rollout.rollout.switch", busy)
    rollout.publish(lite.store, Models(lite.directory / "models"), collection, with_changes=True)
    assert not Journal(lite.store, collection).items([1000, 1007])


def test_the_newest_build_is_published_whatever_the_clock_of_its_machine(
    lite: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.build.now", lambda: "2001-01-01T00:00:00.000000+00:00")
    new = build_model(lite.store, load_artifact(make_artifact(lite.directory / "models", seed=1)), lite.directory)
    assert publish(lite.store).live == new
