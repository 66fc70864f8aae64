"""Which items match a filter: asked once, shared, and brought up to date when items change."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mind import cells
from mind.milvus.change_log import ROOM, ChangeLog
from mind.sequences import Int64
from server.errors import StoreUnavailableError
from server.release import Release
from server.serving import changes, matching
from server.serving.matching import Matches, MatchingItems
from tests.fake_store import FakeStore
from tests.server.conftest import Clock

BELOW = "item_id < 1020"  # 1000, 1007 and 1014


def ids(release: Release, matches: Matches) -> list[int]:
    return sorted([*release.vocabulary.item_id[matches.rows - 1].tolist(), *matches.fresh_ids.tolist()])


async def test_milvus_is_asked_once(store: FakeStore, release: Release, clock: Clock) -> None:
    items = MatchingItems(store)
    found = await asyncio.gather(*(items.of(release, BELOW, 1) for _ in range(5)))
    clock.now += matching.REFRESH_S
    found.append(await items.of(release, BELOW, 1))
    assert [ids(release, each) for each in found] == [[1000, 1007, 1014]] * 6
    assert store.filters == [BELOW]


async def test_what_changes_is_seen_at_the_next_look(store: FakeStore, release: Release, clock: Clock) -> None:
    items = MatchingItems(store)
    await items.of(release, BELOW, 1)
    store.delete(release.collection, [1007])
    store.add(release.collection, 5, np.full(16, 2, np.float32))
    store.add(release.collection, 5_000, np.full(16, 3, np.float32))
    assert ids(release, await items.of(release, BELOW, 1)) == [1000, 1007, 1014]  # looked a moment ago
    clock.now += 2 * changes.LOOK_S
    found = await items.of(release, BELOW, 1)
    assert ids(release, found) == [5, 1000, 1014]
    assert found.fresh_vectors.tolist() == [[2] * 16]
    assert store.filters == [BELOW, f"({BELOW}) and item_id in [5, 1007, 5000]"]


async def test_what_is_searched_by_cells_follows_the_changes(
    store: FakeStore, release: Release, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "EXACT_ROWS", 5)
    table = release.item_embedding
    items, divided = MatchingItems(store), replace(release, cells=cells.cells_of(table, table))
    for gone in ([], [1028, 1035]):
        if gone:
            store.delete(release.collection, gone)
        clock.now += 2 * changes.LOOK_S
        found = await items.of(divided, "item_id > 1020", 1)
        assert found.members is not None
        assert sorted(found.members.rows.tolist()) == found.rows.tolist()
        assert found.members.bounds[-1] == len(found) == 197 - len(gone)
        assert not set(gone) & set(ids(release, found))
    assert (await items.of(divided, BELOW, 1)).members is None  # so few are all scored


async def test_changes_that_milvus_shows_late_are_seen_too(store: FakeStore, release: Release, clock: Clock) -> None:
    items = MatchingItems(store)
    await items.of(release, BELOW, 1)
    there = store.collections[release.collection]
    there.log = there.log.with_batch([5])
    clock.now += 2 * changes.LOOK_S
    assert ids(release, await items.of(release, BELOW, 1)) == [1000, 1007, 1014]
    store.add(release.collection, 5, np.full(16, 2, np.float32))
    there.log = there.log.model_copy(update={"newest": there.log.batches[1].token, "batches": there.log.batches[1:]})
    for later in changes.READ_AGAIN_S[1:]:
        clock.now += later
        assert ids(release, await items.of(release, BELOW, 1)) == [5, 1000, 1007, 1014]
    asked = len(store.filters)
    clock.now += 10
    await items.of(release, BELOW, 1)
    assert len(store.filters) == asked  # the change is old enough


async def test_a_fresh_item_can_change_and_go(store: FakeStore, release: Release, clock: Clock) -> None:
    items, there = MatchingItems(store), store.collections[release.collection]
    store.add(release.collection, 5, np.full(16, 2, np.float32))
    assert (await items.of(release, BELOW, 1)).fresh_vectors.tolist() == [[2] * 16]
    there.vectors[np.flatnonzero(there.item_ids == 5)] = 4
    there.log = there.log.with_batch([5])
    clock.now += 2 * changes.LOOK_S
    assert (await items.of(release, BELOW, 1)).fresh_vectors.tolist() == [[4] * 16]
    store.delete(release.collection, [5])
    clock.now += 2 * changes.LOOK_S
    found = await items.of(release, BELOW, 1)
    assert (len(found), len(found.fresh_ids), found.fresh_vectors.shape) == (3, 0, (0, 16))


async def test_broad_filters_are_read_by_what_they_leave_out(store: FakeStore, release: Release, clock: Clock) -> None:
    items, broad = MatchingItems(store), "item_id > 1020"
    everything = store.collections[release.collection].item_ids.tolist()
    assert ids(release, await items.of(release, broad, 1)) == everything[3:]
    assert store.filters == [f"not ({broad})"]  # nothing was changed, so all items are known
    store.delete(release.collection, [1028])
    store.add(release.collection, 5_000, np.full(16, 3, np.float32))
    clock.now += 2 * changes.LOOK_S
    for filter_ in (broad, "item_id > 1021"):
        found = await items.of(release, filter_, 1)
        assert 1028 not in ids(release, found) and found.fresh_ids.tolist() == [5_000]
        assert len(found) == await store.count(release.collection, filter_)


async def test_a_broad_filter_whose_negation_matches_too_little_is_read_itself(
    store: FakeStore, release: Release
) -> None:
    there, broad = store.collections[release.collection], "item_id > 1020"
    there.item_ids, there.vectors = there.item_ids[:-1], there.vectors[:-1]  # past the indexer
    assert len(await MatchingItems(store).of(release, broad, 1)) == 196
    assert store.filters == [f"not ({broad})", broad]


async def test_what_milvus_said_while_it_was_loading_is_soon_asked_again(
    store: FakeStore, release: Release, clock: Clock
) -> None:
    items, there = MatchingItems(store), store.collections[release.collection]
    everything = there.item_ids, there.vectors
    there.item_ids, there.vectors = there.item_ids[2:], there.vectors[2:]  # a part of it is there
    assert ids(release, await items.of(release, BELOW, 1)) == [1014]
    there.item_ids, there.vectors = everything
    assert ids(release, await items.of(release, BELOW, 1)) == [1014]  # asked a moment ago
    clock.now += matching.DOUBTED_S
    assert ids(release, await items.of(release, BELOW, 1)) == [1000, 1007, 1014]
    clock.now += 2 * matching.DOUBTED_S
    await items.of(release, BELOW, 1)
    assert store.filters == [BELOW] * 2  # all rows were counted, so this answer is kept


@pytest.mark.parametrize("lost", [0, 1])
async def test_rows_are_counted_against_the_journal(
    store: FakeStore, release: Release, clock: Clock, lost: int
) -> None:
    items, there = MatchingItems(store), store.collections[release.collection]
    store.delete(release.collection, [1007, 1014, 1021])
    store.add(release.collection, 5_000, np.ones(16, np.float32))
    store.add(release.collection, 5_007, np.ones(16, np.float32))
    there.item_ids, there.vectors = there.item_ids[lost:], there.vectors[lost:]
    for _ in range(2):
        assert len(await items.of(release, BELOW, 1)) == 1 - lost
        clock.now += changes.READ_AGAIN_S[-1] + matching.DOUBTED_S
    assert store.filters.count(BELOW) == 1 + lost


async def test_after_very_many_changes_everything_is_read_again(
    store: FakeStore, release: Release, clock: Clock
) -> None:
    items, there = MatchingItems(store), store.collections[release.collection]
    await items.of(release, BELOW, 1)
    there.item_ids, there.vectors = there.item_ids[1:], there.vectors[1:]
    there.log = there.log.with_batch(list(range(ROOM)))
    clock.now += 2 * changes.LOOK_S
    assert ids(release, await items.of(release, BELOW, 1)) == [1007, 1014]
    assert store.filters == [BELOW, BELOW]


async def test_what_came_past_the_indexer_is_found_by_and_by(store: FakeStore, release: Release, clock: Clock) -> None:
    items, there = MatchingItems(store), store.collections[release.collection]
    await items.of(release, BELOW, 1)
    there.item_ids, there.vectors = there.item_ids[1:], there.vectors[1:]
    clock.now += matching.REFRESH_S + 1
    assert ids(release, await items.of(release, BELOW, 1)) == [1000, 1007, 1014]  # read again meanwhile
    while items._reading:
        await asyncio.sleep(0)
    assert ids(release, await items.of(release, BELOW, 1)) == [1007, 1014]
    clock.now += changes.REMEMBERED_S + 1
    await items.of(release, BELOW, 1)
    assert store.filters == [BELOW] * 3


async def test_who_has_no_time_leaves_and_the_next_has_the_answer(store: FakeStore, release: Release) -> None:
    items, go_on = MatchingItems(store), asyncio.Event()
    ask = store.matching

    async def slow(*arguments: Any) -> Int64:
        await go_on.wait()
        return await ask(*arguments)

    store.matching = slow  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError, match="which items match the filter"):
        await items.of(release, BELOW, 0.01)
    go_on.set()
    assert len(await items.of(release, BELOW, 10)) == 3
    assert store.filters == [BELOW]


async def test_a_milvus_that_is_away_is_said(store: FakeStore, release: Release, clock: Clock) -> None:
    items = MatchingItems(store)
    await items.of(release, BELOW, 1)
    store.fault = StoreUnavailableError("Milvus does not answer: gone")
    clock.now += 2 * changes.LOOK_S
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="gone"):
            await items.of(release, BELOW, 1)
    store.fault = None
    assert len(await items.of(release, BELOW, 1)) == 3


async def test_memory_is_bounded_and_the_least_used_go_first(store: FakeStore, release: Release) -> None:
    items = MatchingItems(store, max_bytes=2 * 3 * 4)
    for filter_ in (BELOW, "item_id < 1019", BELOW, "item_id < 1018", BELOW, "item_id < 1019"):
        assert len(await items.of(release, filter_, 1)) == 3
    assert store.filters == [BELOW, "item_id < 1019", "item_id < 1018", "item_id < 1019"]


async def test_collections_that_were_not_followed_meanwhile_are_read_again(store: FakeStore, release: Release) -> None:
    items, there = MatchingItems(store), store.collections[release.collection]
    await items.of(release, BELOW, 1)
    for name in ("items_1", "items_2"):
        store.collections[name] = there
        await items.of(replace(release, collection=name), BELOW, 1)
    there.item_ids, there.vectors = there.item_ids[1:], there.vectors[1:]
    assert ids(release, await items.of(release, BELOW, 1)) == [1007, 1014]


def test_a_log_tells_what_changed_since() -> None:
    start = ChangeLog()
    one = start.with_batch([1, 2])
    three = one.with_batch([3]).with_batch([1, 4])
    assert start.changed_since(start) == one.changed_since(one) == set()
    assert one.changed_since(start) == {1, 2}
    assert three.changed_since(one) == {1, 3, 4}
    assert ChangeLog.from_json(three.to_json()).changed_since(start) == {1, 2, 3, 4}


def test_a_log_says_when_anything_may_have_changed() -> None:
    before = ChangeLog().with_batch([1])
    many = before.with_batch(list(range(ROOM)))
    assert many.changed_since(before) is None
    assert many.with_batch([5]).changed_since(many) == {5}
    assert many.with_batch([5]).changed_since(before) is None
    assert before.changed_since(many) is None  # another log took its place
    assert ChangeLog.from_json("what a later version writes").changed_since(before) is None
    log = before
    for _ in range(2_000):
        log = log.with_batch([2**63 - 1])
    assert len(log.to_json()) < 65_535 and log.changed_since(before) is None
