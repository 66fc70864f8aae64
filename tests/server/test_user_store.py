"""One contract, three stores of remembered users: in memory, Milvus Lite and a real Milvus server."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from pymilvus import AsyncMilvusClient, MilvusClient

from mind.milvus.aio_user_store import MilvusUserStore
from mind.milvus.users import USERS, StoredUser, UserVectors, is_user_vectors, user_id_of, user_key
from server.errors import StoreError
from server.users.ports import UserStore
from tests.fake_user_store import FakeUserStore
from tests.releases import item_store
from tests.server.recorder import Recorder, assert_same_answers
from tests.waiting import PATIENCE_S

ODD = ["a", "ü/'\"x\\n", "100%", "a b", "é" * 64, "\n", "7", "a/0", '"] or user_key != "']
WANTED = UserVectors(model_version="0123456789ab", num_interests=2, dim=4)


def remove_user_collections(uri: str) -> None:
    client = MilvusClient(uri, timeout=30)
    for name in client.list_collections(timeout=30):
        if name == USERS or is_user_vectors(name):
            client.drop_collection(name, timeout=30)
    client.close()


@pytest.fixture
async def milvus(milvus_uri: str) -> AsyncIterator[MilvusUserStore]:
    remove_user_collections(milvus_uri)
    connection = item_store(milvus_uri, timeout_s=20)
    yield MilvusUserStore(connection)
    await connection.close()
    remove_user_collections(milvus_uri)


def user(*item_ids: int, at: int = 5) -> StoredUser:
    return StoredUser(np.array(item_ids, np.int64), at)


async def contract(store: UserStore, waited: UserStore | None = None) -> None:
    """What remembering users relies on. `waited`: the same store, for questions whose number depends on time."""
    await histories_are_kept(store)
    await vectors_are_kept(store, waited or store)
    await what_is_deleted_is_gone(store, waited or store)


async def histories_are_kept(store: UserStore) -> None:
    await store.open()
    await store.open()
    assert await store.count() == 0
    assert await store.read([]) == {}
    assert await store.updated_at(["nobody"], strong=True) == {}
    assert await store.changed(0, "", 10) == {}
    await store.delete(["nobody"])

    users = {user_id: user(number, -(2**63), 2**63 - 1, at=number) for number, user_id in enumerate(ODD)}
    await store.write(users)
    found = await store.read([*ODD, "nobody", "a"], strong=True)
    assert {user_id: (one.hist_item.tolist(), one.updated_at) for user_id, one in found.items()} == {
        user_id: ([number, -(2**63), 2**63 - 1], number) for number, user_id in enumerate(ODD)
    }
    await store.write({"a": user(at=70), "long": user(*range(4096), at=71)})  # in the place of what was there
    assert await store.updated_at(["a", "long", "nobody"], strong=True) == {"a": 70, "long": 71}
    assert (await store.read(["a"]))["a"].hist_item.tolist() == []
    assert (await store.read(["long"]))["long"].hist_item.tolist() == list(range(4096))
    assert await store.count() == len(ODD) + 1

    seen: dict[str, int] = {}
    after = ""
    while page := await store.changed(3, after, 2):
        assert len(page) <= 2 and not page.keys() & seen.keys()
        seen |= page
        after = max(page, key=user_key)
    assert seen == {"a": 70, "long": 71} | {user_id: number for number, user_id in enumerate(ODD) if number >= 3}


async def vectors_are_kept(store: UserStore, waited: UserStore) -> None:
    vectors = await store.open_vectors(WANTED)
    assert vectors == WANTED and not vectors.complete
    await store.mark(WANTED.model_copy(update={"synced_from": 9}))
    assert (await store.open_vectors(WANTED)).synced_from == 9
    nobody = await store.nearest(WANTED, np.eye(4, dtype=np.float32)[:2], 3, 10)
    assert nobody.keys == [] and nobody.lengths.tolist() == [0, 0]
    assert await store.encoded_at(WANTED, ["a"]) == {}
    east, north = [1, 0, 0, 0], [0, 1, 0, 0]
    half = [0.6, 0.8, 0, 0]
    nothing = [0, 0, 0, 0]
    interests = np.array([[east, north], [half, nothing], [north, nothing]], np.float32)
    await store.write_vectors(WANTED, ["a", ODD[1], "7"], [70, 1, 6], interests)
    await until_nearest(waited, east, {"a": 1.0, ODD[1]: 0.6})
    assert await store.encoded_at(WANTED, ["a", ODD[1], "100%"]) == {"a": 70, ODD[1]: 1}
    found_ = await store.nearest(WANTED, np.array([east, north], np.float32), 3, 10)
    assert found_.lengths.tolist() == [3, 3]
    whose = list(map(user_id_of, found_.keys))
    assert whose[:2] == ["a", ODD[1]] and set(whose[3:5]) == {"a", "7"}
    np.testing.assert_allclose(found_.scores, [1, 0.6, 0, 1, 1, 0.8], atol=1e-6)

    await store.write_vectors(WANTED, ["a"], [72], np.array([[half, nothing]], np.float32))  # one interest fewer
    await until_nearest(waited, north, {"7": 1.0, "a": 0.8, ODD[1]: 0.8})


async def what_is_deleted_is_gone(store: UserStore, waited: UserStore) -> None:
    await store.delete(["a", ODD[1], "nobody"])
    await store.delete_vectors(WANTED, ["7"])
    assert await store.updated_at(["a", ODD[1], "7"], strong=True) == {"7": 6}
    await until_nearest(waited, [0, 1, 0, 0], {})
    assert await store.encoded_at(WANTED, ["a", ODD[1], "7"]) == {}
    assert set(await store.read(["a", "long", "7"], strong=True)) == {"long", "7"}
    assert await store.count() == len(ODD) - 1


async def until_nearest(store: UserStore, query: list[int], expected: dict[str, float]) -> None:
    """Wait until a search sees what was written."""
    limit = len(expected) or 3
    async with asyncio.timeout(PATIENCE_S):
        scores: dict[str, float] | None = None
        while scores != pytest.approx(expected):
            found = await store.nearest(WANTED, np.array([query], np.float32), limit, 10)
            scores = dict(zip(map(user_id_of, found.keys), found.scores.tolist(), strict=True))


async def recorded(store: UserStore) -> Recorder:
    """The contract, kept by a store; what the store answered."""
    recorder = Recorder(store)
    await contract(recorder, store)  # type: ignore[arg-type]
    return recorder


async def test_the_store_in_memory() -> None:
    await recorded(FakeUserStore())


async def test_milvus_answers_as_the_store_in_memory_does(milvus: MilvusUserStore) -> None:
    assert_same_answers(await recorded(milvus), await recorded(FakeUserStore()))


async def test_what_was_confirmed_is_seen_by_every_server(milvus: MilvusUserStore, milvus_uri: str) -> None:
    if milvus_uri.endswith(".db"):
        other, connection = milvus, None  # one process alone
    else:
        connection = item_store(milvus_uri, timeout_s=20)
        other = MilvusUserStore(connection)
    await milvus.open()
    for click in range(10):
        await milvus.write({"ann": user(click, at=click)})
        await milvus.updated_at(["ann"], strong=True)
        assert (await other.read(["ann"]))["ann"].hist_item.tolist() == [click]
    if connection:
        await connection.close()


async def test_a_deletion_reaches_collections_that_are_not_in_memory(milvus: MilvusUserStore, milvus_uri: str) -> None:
    await milvus.open()
    old = WANTED.model_copy(update={"model_version": "0" * 12})
    east = np.array([[[1, 0, 0, 0], [0, 0, 0, 0]]], np.float32)
    for vectors in (WANTED, old):
        await milvus.open_vectors(vectors)
        await milvus.write_vectors(vectors, ["ann"], [1], east)
        await milvus.write_vectors(vectors, ["bob"], [1], east)
    await milvus.count()
    client = AsyncMilvusClient(milvus_uri, timeout=20)
    await client.release_collection(old.collection)
    await milvus.delete(["ann"])
    await milvus.open_vectors(old)
    for vectors in (WANTED, old):
        rows = await client.query(
            vectors.collection, filter="updated_at >= 0", output_fields=["interest_key"], consistency_level="Strong"
        )
        assert [row["interest_key"] for row in rows] == ["bob/0"]
    await client.close()


async def test_collections_without_an_index_are_completed(
    milvus: MilvusUserStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopped(*arguments: object) -> None:
        raise StoreError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(milvus, "_create_index", stopped)
        with pytest.raises(StoreError, match="stopped"):
            await milvus.open()
        with pytest.raises(StoreError, match="stopped"):
            await milvus.open_vectors(WANTED)
    await contract(milvus)


async def test_somebody_elses_users_are_left_alone(milvus: MilvusUserStore, milvus_uri: str) -> None:
    client = MilvusClient(milvus_uri, timeout=20)
    await asyncio.to_thread(client.create_collection, USERS, 4)
    with pytest.raises(StoreError, match="has a collection 'users' that another program made: its fields are"):
        await milvus.open()
    client.close()
