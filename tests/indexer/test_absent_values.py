"""Values that items do not have: built, counted, removed, carried over, and found by filters, on both engines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.build import MAX_ATTRIBUTES, _stored, build, choose_index
from indexer.errors import RefusedError
from indexer.items.attributes import Attributes, read_attributes
from indexer.items.changes import ChangeSummary, upsert
from indexer.rollout import rollout
from mind.artifact import load_artifact
from mind.milvus.collection import is_presence
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import Models
from mind.weights import Weights
from server.edge.filters import canonical
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.indexer.test_changes import Released, quiet

FILE = "item_id,price,in_stock,year,tags\n1000,5,true,1980,a|b\n1007,,false,,\n1014,30,,1990,\n1021,,,,c\n"
"""The first items of the model; the others have no row."""


@pytest.fixture
def released(milvus_uri: str, tmp_path: Path) -> Iterator[Released]:
    """A live collection of `FILE`, and besides of items without any value."""
    model = load_artifact(make_artifact(tmp_path / "models", items=10))
    with Store(Connection(milvus_uri)) as store:
        one = Released(store, model, "", tmp_path)
        one.collection = built(one, FILE)
        rollout.publish(store, Models(tmp_path / "models"), one.collection)
        yield one


def built(released: Released, text: str) -> str:
    """Build a collection from a file; it is not published."""
    path = released.file("items.csv", text)
    attributes = read_attributes(path, released.model.weights.item_id, multi_valued=["tags"] if "tags" in text else [])
    index = choose_index(released.store.connection.is_lite, None, {}, {})
    return build(released.store, released.model, attributes, index).collection


def found(released: Released, filter_: str) -> set[int]:
    """The items that match, of those in `FILE` and of new ones."""
    record = released.store.records.items([released.collection])[released.collection]
    text = canonical(f"({filter_}) and item_id <= 1021", record.fingerprint.attributes, 16)
    return {row["item_id"] for row in released.store.rows(released.collection, text, 99)}


def clear(released: Released, text: str) -> ChangeSummary:
    """Upsert a file whose empty cells remove values."""
    return upsert(released.journal, released.model, None, released.attributes(text), None, quiet, clear_empty=True)


def test_an_empty_cell_matches_no_comparison(released: Released) -> None:
    for filter_, items in {
        "price < 20": {1000},
        "not (price < 20)": {1014},
        "price != 5": {1014},
        "price is null": {1007, 1021},
        "not (price is null)": {1000, 1014},
        "in_stock == false": {1007},
        "not in_stock": {1007},
        "in_stock is null": {1014, 1021},
        "year < 1985": {1000},
        "year not in [1980]": {1014},
        "price < 20 or year is null": {1000, 1007, 1021},
        "not array_contains(tags, 'a')": {1021},
        "array_length(tags) == 0": set(),
        "tags is null": {1007, 1014},
        "price is not null and in_stock is not null": {1000},
    }.items():
        assert found(released, filter_) == items, filter_


def test_an_upsert_removes_a_value_only_if_told_to(released: Released) -> None:
    text = "item_id,price,year,tags\n1000,,1981,\n1007,,,\n5,,1999,a\n"
    kept = released.upsert(text)
    assert (kept.changed, kept.added, kept.unchanged, kept.kept) == (1, {"attributes": 1}, {1007}, 2)
    assert found(released, "price < 20 and year == 1981 and array_contains(tags, 'a')") == {1000}
    assert found(released, "price is null and array_contains(tags, 'a')") == {5}
    removed = clear(released, text)
    assert (removed.changed, removed.unchanged, removed.kept) == (1, {1007, 5}, 0)
    assert found(released, "price < 20") == set()
    assert found(released, "price is null and tags is null") == {1000, 1007}
    again = clear(released, text)
    assert (again.changed, again.unchanged) == (0, {1000, 1007, 5})
    released.upsert("item_id,price\n1000,7\n")
    assert found(released, "price == 7") == {1000}


def test_a_deleted_item_comes_back_with_what_it_had(released: Released) -> None:
    released.delete(1007, 1014)
    assert released.upsert("item_id,year\n1007,2000\n1014,\n").kept == 1
    assert found(released, "price is null and year == 2000 and in_stock == false") == {1007}
    assert found(released, "in_stock is null and price == 30 and year == 1990") == {1014}


def test_removed_values_are_carried_over(released: Released) -> None:
    clear(released, "item_id,price,in_stock\n1000,,false\n")
    released.upsert("item_id,year,tags\n5,1999,a\n")
    name = built(released, FILE.replace("1021,,", "1021,9,"))
    models = Models(released.directory / "models")
    done = rollout.publish(released.store, models, name, with_changes=True)
    assert done.carried is not None and done.carried.summary.replaced == 2
    released.collection = name
    assert found(released, "price is null") == {5, 1000, 1007}
    assert found(released, "price == 9") == {1021}
    assert found(released, "in_stock == false") == {1000, 1007}
    assert found(released, "price is null and in_stock is null and array_contains(tags, 'a')") == {5}


def test_a_collection_of_an_earlier_version_keeps_its_placeholders(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored_before(attributes: Attributes, weights: Weights, items: int) -> Attributes:
        stored = _stored(attributes, weights, items).columns
        return Attributes(tuple(one for one in stored if not is_presence(one.name)))

    with monkeypatch.context() as earlier:
        earlier.setattr("indexer.build._stored", stored_before)
        old = built(released, FILE)
    clear(released, "item_id,year\n1000,\n")
    models = Models(released.directory / "models")
    done = rollout.publish(released.store, models, old, with_changes=True)
    assert done.carried is not None and done.carried.left_attributes == {"year"}
    released.collection = old
    assert found(released, "price < 20") == {1000, 1007, 1021}
    with pytest.raises(RefusedError, match=r"an earlier version built it, so an item cannot lose a value"):
        clear(released, "item_id,price\n1000,\n")
    summary = released.upsert("item_id,price,year\n1000,,1981\n5,,1999\n", {5: [1.0] * 16})
    assert (summary.added, summary.changed, summary.kept) == ({"given": 1}, 1, 0)
    assert found(released, "price == 5 and year == 1981") == {1000}
    assert found(released, "price == 0 and year == 1999") == {5}
    rollout.publish(released.store, models, built(released, FILE), with_changes=True)
    released.collection = built(released, FILE)
    assert found(released, "price is null and year == 1999") == {5}
    assert found(released, "price is null") == {5, 1007, 1021}


def test_build_and_upsert_tell_how_many_cells_are_empty(lite: str, tmp_path: Path) -> None:
    make_artifact(tmp_path / "models", items=10)
    (tmp_path / "items.csv").write_text(FILE)
    options = ["--milvus-uri", lite, "--artifact", tmp_path / "models", "--attributes", tmp_path / "items.csv"]
    done = run_here("indexer", "build", *options, "--multi-valued", "tags", "--publish")
    assert "price INT64, 2 of 10 items, 2 cells are empty" in done.stdout
    assert "tags ARRAY<VARCHAR>, 2 of 10 items, 2 cells are empty" in done.stdout
    assert "6 items have no row in the file, so they have no values" in done.stdout
    (tmp_path / "items.csv").write_text("item_id,price,year\n1000,,1981\n")
    done = run_here("indexer", "upsert", *options)
    assert "kept       1 values whose cells are empty; --clear-empty removes them" in done.stdout
    done = run_here("indexer", "upsert", *options, "--clear-empty")
    assert "changed    1 items" in done.stdout and "kept" not in done.stdout
    done = run_here("indexer", "upsert", *options[:4], "--vectors", tmp_path / "items.csv", "--clear-empty")
    assert done.returncode == 2 and "--clear-empty needs --attributes" in done.stderr


def test_the_most_attributes_leave_room_for_the_journal(released: Released) -> None:
    names = [f"a{number}" for number in range(MAX_ATTRIBUTES + 1)]
    released.collection = built(released, f"item_id,{','.join(names[:-1])}\n1000,{','.join(['1'] * MAX_ATTRIBUTES)}\n")
    clear(released, "item_id,a0\n1000,\n")
    assert found(released, "a0 is null and a1 == 1") == {1000}
    if not released.store.connection.is_lite:
        with pytest.raises(RefusedError, match=f"the file has {len(names)} attributes; the limit on a Milvus server"):
            built(released, f"item_id,{','.join(names)}\n1000,{','.join('1' for _ in names)}\n")
