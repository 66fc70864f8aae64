"""Attributes of candidates: read once, up to date after changes, absent values told apart, and left out in time."""

import asyncio
from typing import Any

import numpy as np
import pytest

from mind.milvus.collection import is_presence
from mind.milvus.errors import StoreUnavailableError
from mind.transfer import Models
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from server.serving import attributes, changes
from server.serving.attributes import Attributes, Values
from tests.fake_store import FakeStore
from tests.indexer.test_absent_values import clear
from tests.indexer.test_absent_values import released as released
from tests.indexer.test_changes import Released
from tests.releases import item_store
from tests.server.conftest import Clock
from tests.server.test_release import numpy_encoder

ROOM = 2**20
IDS = np.array([1000, 1007, 1014, 1021], np.int64)


def told(found: tuple[list[Values], str]) -> dict[str, list[Any]]:
    """The values by attribute; None where there is none."""
    assert found[1] == ""
    return {
        one.name: [value if there else None for value, there in zip(one.values, one.present, strict=True)]
        for one in found[0]
    }


@pytest.fixture
def priced(store: FakeStore, release: Release) -> FakeStore:
    """A store whose items have a price, those with an odd id none."""
    store.give(release.collection, "price", "INT64", {item: item for item in IDS.tolist() if item % 2 == 0})
    return store


async def read(items: Attributes) -> None:
    """Wait until no column is being read any more."""
    while items._tasks:
        await asyncio.gather(*items._tasks)


async def test_milvus_is_asked_for_a_column_once(priced: FakeStore, release: Release, clock: Clock) -> None:
    items = Attributes(priced, ROOM)
    expected = {"price": [1000, None, 1014, None]}
    assert told(await items.of(release, ["price"], IDS, 1)) == expected  # for these items alone
    await read(items)
    asked = len(priced.value_reads)
    for _ in range(3):
        clock.now += 2 * changes.LOOK_S
        assert told(await items.of(release, ["price"], IDS, 1)) == expected
    assert len(priced.value_reads) == asked


async def test_changes_are_seen_at_the_next_look(priced: FakeStore, release: Release, clock: Clock) -> None:
    items = Attributes(priced, ROOM)
    await items.of(release, ["price"], IDS, 1)
    await read(items)
    priced.change(release.collection, "price", {1000: 5, 1007: 6, 1014: None})
    assert told(await items.of(release, ["price"], IDS, 1)) == {"price": [1000, None, 1014, None]}  # looked just now
    clock.now += 2 * changes.LOOK_S
    assert told(await items.of(release, ["price"], IDS, 1)) == {"price": [5, 6, None, None]}
    priced.change(release.collection, "price", {1014: 9})
    clock.now += 2 * changes.LOOK_S
    assert told(await items.of(release, ["price"], IDS, 1)) == {"price": [5, 6, 9, None]}


async def test_items_that_the_model_does_not_know_have_attributes(
    priced: FakeStore, release: Release, clock: Clock
) -> None:
    items, both = Attributes(priced, ROOM), np.array([5, 1000, 7], np.int64)
    priced.add(release.collection, 5, np.ones(16, np.float32))
    priced.change(release.collection, "price", {5: 55})
    for _ in range(2):
        assert told(await items.of(release, ["price"], both, 1)) == {"price": [55, 1000, None]}
        await read(items)
    priced.add(release.collection, 7, np.ones(16, np.float32))
    priced.change(release.collection, "price", {7: 77, 5: None})
    clock.now += 2 * changes.LOOK_S
    assert told(await items.of(release, ["price"], both, 1)) == {"price": [None, 1000, 77]}


async def test_a_change_while_a_column_is_read_is_not_lost(priced: FakeStore, release: Release, clock: Clock) -> None:
    items = Attributes(priced, ROOM)
    priced.values_held = asyncio.Event()
    await items.of(release, ["price"], IDS, 1)
    while len(priced.value_reads) < 2:
        await asyncio.sleep(0)
    clock.now += 2 * changes.LOOK_S
    priced.change(release.collection, "price", {1000: 5})
    assert told(await items.of(release, ["price"], IDS, 1)) == {"price": [5, None, 1014, None]}
    priced.values_held.set()
    await read(items)
    clock.now += 2 * changes.LOOK_S
    assert told(await items.of(release, ["price"], IDS, 1)) == {"price": [5, None, 1014, None]}
    asked = len(priced.value_reads)
    clock.now += 2 * changes.READ_AGAIN_S[-1]
    await items.of(release, ["price"], IDS, 1)
    clock.now += 2 * changes.LOOK_S
    await items.of(release, ["price"], IDS, 1)
    assert len(priced.value_reads) <= asked + 1


async def test_a_second_attribute_joins_the_first(priced: FakeStore, release: Release, clock: Clock) -> None:
    items = Attributes(priced, ROOM)
    priced.give(release.collection, "title", "VARCHAR", {1007: "seven"})
    await items.of(release, ["price"], IDS, 1)
    await read(items)
    priced.change(release.collection, "price", {1007: 7})
    clock.now += 2 * changes.LOOK_S
    expected = {"title": [None, "seven", None, None], "price": [1000, 7, 1014, None]}
    for _ in range(2):
        assert told(await items.of(release, ["title", "price"], IDS, 1)) == expected
        await read(items)


async def test_many_changes_and_age_have_columns_read_again(
    priced: FakeStore, release: Release, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "MOST_CHANGED", 2)
    items = Attributes(priced, ROOM)
    await items.of(release, ["price"], IDS, 1)
    await read(items)
    priced.change(release.collection, "price", {1000: 1, 1007: 2, 1014: 3})
    clock.now += 2 * changes.LOOK_S
    await items.of(release, ["price"], IDS, 1)
    await read(items)
    table = items._tables[release.collection]
    assert table.changed == {}  # the column has the values now
    assert told(await items.of(release, ["price"], IDS, 1)) == {"price": [1, 2, 3, None]}
    priced.collections[release.collection].values["price"][1021] = 4  # past the indexer
    for _ in range(16):  # each look is recent enough to know all changes since the one before
        clock.now += attributes.READ_AGAIN_S / 15
        await items.of(release, ["price"], IDS, 1)
        await read(items)
    assert told(await items.of(release, ["price"], IDS, 1)) == {"price": [1, 2, 3, 4]}


async def test_what_has_no_room_is_read_for_each_request(priced: FakeStore, release: Release, clock: Clock) -> None:
    items = Attributes(priced, 0)
    for _ in range(2):
        assert told(await items.of(release, ["price"], IDS, 1)) == {"price": [1000, None, 1014, None]}
        await read(items)
        clock.now += 2 * changes.LOOK_S
    assert items._tables[release.collection].columns == {}
    assert items._size() == 0


async def test_an_incomplete_answer_of_milvus_is_not_kept(priced: FakeStore, release: Release, clock: Clock) -> None:
    items, there = Attributes(priced, ROOM), priced.collections[release.collection]
    complete = there.item_ids
    there.item_ids = complete[:100]
    await items.of(release, ["price"], IDS, 1)
    await read(items)
    assert items._tables[release.collection].columns == {}
    there.item_ids = complete
    await items.of(release, ["price"], IDS, 1)
    await read(items)
    assert list(items._tables[release.collection].columns) == ["price"]


async def test_without_milvus_known_columns_are_given_and_others_left_out_with_a_reason(
    priced: FakeStore, release: Release, clock: Clock
) -> None:
    items = Attributes(priced, ROOM)
    priced.give(release.collection, "title", "VARCHAR", {1007: "seven"})
    await items.of(release, ["price"], IDS, 1)
    await read(items)
    priced.fault = StoreUnavailableError("Milvus does not answer")
    clock.now += 2 * changes.LOOK_S
    found, why = await items.of(release, ["title", "price"], IDS, 1)
    assert [one.name for one in found] == ["price"]
    assert why == "Milvus did not tell them: Milvus does not answer"
    priced.fault, priced.delay_s = None, 30
    clock.now += 2 * changes.LOOK_S
    found, why = await items.of(release, ["price", "title"], IDS, 0.02)
    assert ([one.name for one in found], why) == (["price"], "Milvus did not tell them within 0.01 s")


async def test_columns_of_the_release_before_make_room(priced: FakeStore, release: Release, clock: Clock) -> None:
    items = Attributes(priced, 4 * len(release.vocabulary) + 1_000)
    items._tables["items_before"] = attributes._Table(changes.Changes(priced, "items_before"))
    before = attributes.ColumnBuilder("INT64", 2_000).done()
    items._tables["items_before"].columns["price"] = before
    await items.of(release, ["price"], IDS, 1)
    await read(items)
    assert list(items._tables[release.collection].columns) == ["price"]
    assert items._tables["items_before"].columns == {}


async def test_both_engines_tell_what_the_file_says(released: Released) -> None:
    record = released.store.records.items([released.collection])[released.collection]
    milvus = item_store(released.store.connection.uri)
    names = [name for name in record.fingerprint.attributes if not is_presence(name)]
    assert sorted(names) == ["in_stock", "price", "tags", "vector_source", "year"]
    expected = {
        "price": [5, None, 30, None],
        "in_stock": [True, False, None, None],
        "year": [1980, None, 1990, None],
        "tags": [("a", "b"), None, None, ("c",)],
        "vector_source": ["trained"] * 4,
    }
    try:
        items = Attributes(milvus, ROOM)
        _, of = await Releases(milvus, Loader(milvus, Models(released.directory / "models"), numpy_encoder)).check()
        for _ in range(2):
            assert told(await items.of(of, list(expected), IDS, 30)) == expected
            await read(items)
        assert sorted(items._tables[released.collection].columns) == sorted(expected)
        clear(released, "item_id,price,tags\n1000,,x\n1007,7,\n5,3,\n")
        deadline = asyncio.get_running_loop().time() + 30
        wanted, both = {"price": [None, 7, 3], "tags": [("x",), None, None]}, np.array([1000, 1007, 5], np.int64)
        while (found := told(await items.of(of, ["price", "tags"], both, 30))) != wanted:
            assert asyncio.get_running_loop().time() < deadline, found
            await asyncio.sleep(0.1)
    finally:
        await milvus.close()
