"""What a server knows of the items of a collection without asking, and the exact search among them."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from indexer.items.changes import ChangeSummary, Proposal, Upsert, delete
from indexer.items.journal import Journal
from mind.artifact import Float32, load_artifact
from mind.encoder import NumpyEncoder
from mind.milvus.change_log import ROOM
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import Models
from server.errors import StoreUnavailableError
from server.loader import Loader
from server.ports import ItemStore
from server.release import Release
from server.releases import Releases
from server.serving import changes, local
from server.serving.local import LocalItems
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.releases import item_store
from tests.server.conftest import Clock
from tests.server.test_store import build
from tests.waiting import PATIENCE_S


async def same_as_the_store(items: LocalItems, store: ItemStore, release: Release, limit: int = 30) -> None:
    """Compare the hits of some interests with those of the store, which searches exactly."""
    queries = release.golden_interest_vectors.reshape(-1, 16)
    found = await items.search(release, queries, limit)
    expected = await store.search(release.collection, queries, limit, {}, 1)
    assert found.item_ids.tolist() == expected.item_ids.tolist()
    assert found.lengths.tolist() == expected.lengths.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def vector(number: float) -> Float32:
    return np.full(16, number, np.float32)


async def test_a_collection_as_it_was_built(store: FakeStore, release: Release, clock: Clock) -> None:
    items = LocalItems(store)
    assert not items.knows(release)
    await items.look(release)
    assert items.knows(release)
    await same_as_the_store(items, store, release)
    await same_as_the_store(items, store, release, limit=300)  # more than there are


async def test_what_happened_before_and_what_happens_meanwhile(
    store: FakeStore, release: Release, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "READ_ITEMS", 2)
    store.delete(release.collection, [1007, 1014, 1021])
    store.add(release.collection, 5, vector(0.3))
    store.add(release.collection, 5_000, vector(-0.3))
    items = LocalItems(store)
    await items.look(release)
    await same_as_the_store(items, store, release)
    store.delete(release.collection, [1028])
    store.add(release.collection, 6, vector(0.2))
    clock.now += 2 * changes.LOOK_S
    await items.look(release)
    await same_as_the_store(items, store, release)
    known = items.known(release)
    assert known.gone.tolist() == [2, 3, 4, 5] and known.items.fresh_ids.tolist() == [5, 6, 5_000]


async def test_a_deleted_item_that_is_added_again_and_a_fresh_one_that_goes(
    store: FakeStore, release: Release, clock: Clock
) -> None:
    items = LocalItems(store)
    store.delete(release.collection, [1007])
    store.add(release.collection, 5, vector(0.3))
    await items.look(release)
    store.add(release.collection, 1007, release.item_embedding[2])
    store.delete(release.collection, [5])
    clock.now += 2 * changes.LOOK_S
    await items.look(release)
    await same_as_the_store(items, store, release)
    assert not len(items.known(release).gone) and not len(items.known(release).items.fresh_ids)


async def test_more_changes_than_the_log_holds_are_read_from_the_journal(
    store: FakeStore, release: Release, clock: Clock
) -> None:
    items = LocalItems(store)
    await items.look(release)
    for item_id in range(5_000, 5_002 + ROOM // 5):
        store.add(release.collection, item_id, vector(0.1))
    there = store.collections[release.collection]
    assert len(there.log.batches) < len(there.added)
    clock.now += 2 * changes.LOOK_S
    await items.look(release)
    assert len(items.known(release).items.fresh_ids) == len(there.added)


async def test_what_was_seen_last_stays_while_milvus_is_away(store: FakeStore, release: Release, clock: Clock) -> None:
    items = LocalItems(store)
    store.delete(release.collection, [1007])
    await items.look(release)
    store.fault = StoreUnavailableError("Milvus does not answer")
    clock.now += 10
    with pytest.raises(StoreUnavailableError):
        await items.look(release)
    store.fault = None
    await same_as_the_store(items, store, release)


async def test_it_follows_by_itself(store: FakeStore, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "FOLLOW_S", 0.01)
    items = LocalItems(store)
    looked = asyncio.Event()

    def served() -> list[Release]:
        if items.knows(release) and len(items.known(release).gone):
            looked.set()
        return [release]

    following = asyncio.create_task(items.follow(served))
    store.fault = StoreUnavailableError("Milvus does not answer")
    await asyncio.sleep(0)
    store.fault = None
    store.delete(release.collection, [1007])
    await asyncio.wait_for(looked.wait(), 30)
    following.cancel()
    await same_as_the_store(items, store, release)


async def test_two_collections_are_known(store: FakeStore, release: Release, tmp_path: Path) -> None:
    items = LocalItems(store)
    await items.look(release)
    others = []
    for seed in (1, 2):
        store.publish(load_artifact(make_artifact(tmp_path, seed=seed)))
        releases = Releases(
            store,
            Loader(store, Models(tmp_path), lambda artifact: NumpyEncoder(artifact.weights, artifact.hyper_parameters)),
        )
        await releases.check()
        others.append(releases.current)
        await items.look(others[-1])
    assert [items.knows(each) for each in (release, *others)] == [False, True, True]
    for other in others:
        await same_as_the_store(items, store, other)


async def test_a_real_collection_is_known_and_followed(milvus_uri: str, tmp_path: Path) -> None:
    artifact = load_artifact(make_artifact(tmp_path))
    build(milvus_uri, tmp_path, "--index-type", "FLAT")
    store = item_store(milvus_uri, timeout_s=20)

    def change(collection: str) -> None:
        with Store(Connection(milvus_uri)) as milvus:
            journal = Journal(milvus, collection)
            new = [Proposal(5, vector=vector(0.3)), Proposal(6, vector=vector(-0.3))]
            Upsert(journal, artifact, ChangeSummary()).stage(new)
            journal.apply(lambda *_: None)
            delete(journal, np.array([1007, 1014]), lambda *_: None)

    releases = Releases(
        store, Loader(store, Models(tmp_path), lambda each: NumpyEncoder(each.weights, each.hyper_parameters))
    )
    try:
        await releases.check()
        release, items = releases.current, LocalItems(store)
        await items.look(release)
        await same_as_the_store(items, store, release)
        await asyncio.to_thread(change, release.collection)
        later = LocalItems(store)
        async with asyncio.timeout(PATIENCE_S):
            for each in (items, later):  # one that saw the changes as they came, and one that came afterwards
                while (
                    not each.knows(release)
                    or len(each.known(release).gone) + len(each.known(release).items.fresh_ids) != 4
                ):
                    await each.look(release)
                    await asyncio.sleep(0.05)
        for each in (items, later):
            assert each.known(release).gone.tolist() == [2, 3]
            assert each.known(release).items.fresh_ids.tolist() == [5, 6]
            await same_as_the_store(each, store, release)
    finally:
        await store.close()
