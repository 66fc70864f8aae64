"""One contract, three stores of remembered users: in memory, Milvus Lite and a real Milvus server."""

import asyncio
import random
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from pymilvus import AsyncMilvusClient, MilvusClient

from mind.milvus import histories, schemas
from mind.milvus.aio_user_store import MilvusUserStore
from mind.milvus.connection import Connection
from mind.milvus.histories import HISTORIES, USER_HASH, Head, StoredUser, appended, deleted, replaced, tidied
from mind.milvus.shown import MAX_ROWS, SHOWN, added, counting
from mind.milvus.store import Store
from mind.milvus.users import (
    HIST_ITEM,
    UNUSED,
    UPDATED_AT,
    USER_KEY,
    USERS,
    UserVectors,
    is_user_vectors,
    now_ms,
    user_id_of,
    user_key,
)
from server.errors import StoreError
from server.users.ports import UserStore
from tests.fake_user_store import FakeUserStore
from tests.releases import item_store
from tests.server.recorder import Recorder, assert_same_answers
from tests.waiting import PATIENCE_S

OPENED = """
import asyncio, sys
import numpy as np
from mind.milvus.aio_user_store import MilvusUserStore
from mind.milvus.wire import write_search
from tests.releases import item_store

async def main():
    connection = item_store(sys.argv[1])
    await MilvusUserStore(connection).open()
    before = set(sys.modules)
    write_search("users", np.zeros((1, 4), np.float32), 10, ())
    print(sorted(set(sys.modules) - before))
    await connection.close()

asyncio.run(main())
"""
ODD = ["a", "ü/'\"x\\n", "100%", "a b", "é" * 64, "\n", "7", "a/0", '"] or user_key != "']
WANTED = UserVectors(model_version="0123456789ab", num_interests=2, dim=4)


def remove_user_collections(uri: str) -> None:
    client = MilvusClient(uri, timeout=30)
    for name in client.list_collections(timeout=30):
        if name in (USERS, HISTORIES, SHOWN) or is_user_vectors(name):
            client.drop_collection(name, timeout=30)
    client.close()


@pytest.fixture
async def milvus(milvus_uri: str) -> AsyncIterator[MilvusUserStore]:
    remove_user_collections(milvus_uri)
    connection = item_store(milvus_uri, timeout_s=20)
    yield MilvusUserStore(connection)
    await connection.close()
    remove_user_collections(milvus_uri)


def test_the_first_search_imports_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", OPENED, str(tmp_path / "milvus.db")], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def user(*item_ids: int, before: StoredUser | None = None) -> StoredUser:
    return replaced(before, np.array(item_ids, np.int64), 4_096)


def more(before: StoredUser, *item_ids: int) -> StoredUser:
    return appended(before, np.array(item_ids, np.int64), 4_096)


async def contract(store: UserStore, waited: UserStore | None = None) -> None:
    """What remembering users relies on. `waited`: the same store, for questions whose number depends on time."""
    await histories_are_kept(store)
    await what_was_shown_is_kept_apart(store)
    await rows_of_several_servers_are_one_history(store)
    await vectors_are_kept(store, waited or store)
    await what_is_deleted_is_gone(store, waited or store)


async def histories_are_kept(store: UserStore) -> None:
    await store.open()
    await store.open()
    assert await store.count() == 0
    assert await store.read([]) == {}
    assert await store.heads(["nobody"], strong=True) == {}
    assert await store.changed(0, "", 10) == ([], "")
    await store.forget(["nobody"])

    users = {user_id: user(number, -(2**63), 2**63 - 1) for number, user_id in enumerate(ODD)}
    await store.write(users)
    found = await store.read([*ODD, "nobody", "a"], strong=True)
    assert {user_id: (one.hist_item.tolist(), one.version, one.cut) for user_id, one in found.items()} == {
        user_id: ([number, -(2**63), 2**63 - 1], users[user_id].version, users[user_id].cut)
        for number, user_id in enumerate(ODD)
    }
    longer, long = more(found["a"], 5), user(*range(4096))
    await store.write({"a": longer, "long": long})  # "a" in the place of what was there
    assert await store.heads(["a", "long", "nobody"], strong=True) == {
        "a": Head(longer.version, remembered=True, stale=False),
        "long": Head(long.version, remembered=True, stale=False),
    }
    histories = {user_id: ids.tolist() for user_id, ids in (await store.histories(["a", "long", "nobody"])).items()}
    assert histories == {"a": [0, -(2**63), 2**63 - 1, 5], "long": list(range(4096))}
    assert await store.count() == len(ODD) + 1

    seen: list[str] = []
    page, after = await store.changed(0, "", 2)
    while page:
        assert len(page) <= 2
        seen += page
        page, after = await store.changed(0, after, 2)
    assert sorted(seen) == sorted([*ODD, "long"])
    assert await store.changed(2**62, "", 2) == ([], "")


async def rows_of_several_servers_are_one_history(store: UserStore) -> None:
    await store.write({"two": user(1, 2)})
    before = (await store.read(["two"], strong=True))["two"]
    await store.write({"two": more(before, 3)})
    await store.write({"two": more(before, 4)})  # by a server that read at the same moment
    both = (await store.read(["two"], strong=True))["two"]
    assert both.hist_item.tolist()[:2] == [1, 2] and sorted(both.hist_item.tolist()) == [1, 2, 3, 4]
    assert (await store.histories(["two"]))["two"].tolist() == both.hist_item.tolist()
    assert len(both.rows) == 2 and not (await store.heads(["two"], strong=True))["two"].stale

    await store.write({"two": user(9, before=both)})
    late = more(both, 5)
    await store.write({"two": late})  # by a server that read before the replacement
    assert (await store.heads(["two"], strong=True))["two"].stale
    mixed = (await store.read(["two"], strong=True))["two"]
    assert mixed.hist_item.tolist() == [9, 5]  # clicks 1 to 4 do not count
    assert (await store.histories(["two"]))["two"].tolist() == [9, 5]
    await store.write({"two": tidied(mixed)})
    one = (await store.read(["two"], strong=True))["two"]
    assert len(one.rows) == 1 and one.hist_item.tolist() == [9, 5]
    assert not (await store.heads(["two"], strong=True))["two"].stale

    await store.write({"two": deleted(one)})
    await store.write({"two": more(one, 7)})  # by a server that read before the deletion
    head = (await store.heads(["two"], strong=True))["two"]
    assert (head.remembered, head.stale) == (False, True)
    assert await store.histories(["two"]) == {}
    gone = (await store.read(["two"], strong=True))["two"]
    assert gone.hist_item.tolist() == [] and len(gone.rows) == 2
    anew = more(gone, 6)
    await store.write({"two": anew})
    assert (await store.heads(["two"], strong=True))["two"].remembered
    assert (await store.histories(["two"]))["two"].tolist() == [6]
    await store.write({"two": deleted((await store.read(["two"], strong=True))["two"])})


async def what_was_shown_is_kept_apart(store: UserStore) -> None:
    """An update adds a row, the one that finds `MAX_ROWS` merges them, and 5,000 items take two rows."""
    assert await store.read(["fan"], name=SHOWN) == {}
    for number in range(MAX_ROWS):
        before = (await store.read(["fan"], strong=True, name=SHOWN)).get("fan")
        assert len(before.rows if before else ()) == number
        shown = np.arange(number * 400, number * 400 + 500)  # 100 of them again
        await store.write({"fan": added(before, shown, 5_000, since=-1)}, SHOWN)
    full = (await store.read(["fan"], strong=True, name=SHOWN))["fan"]
    assert len(full.rows) == MAX_ROWS and len(full.hist_item) == 8_000
    newest = counting(full, 5_000, since=-1)
    assert newest.hist_item.tolist() == list(range(1_500, 6_500))
    assert counting(full, 5_000, since=int(full.stamp[-301])).hist_item.tolist() == list(range(6_200, 6_500))
    await store.write({"fan": added(full, np.array([7]), 5_000, since=-1)}, SHOWN)
    merged = (await store.read(["fan"], strong=True, name=SHOWN))["fan"]
    assert len(merged.rows) == 2 and merged.hist_item.tolist() == [*range(1_501, 6_500), 7]
    late = added(full, np.array([9]), 5_000, since=-1)
    await store.write({"fan": deleted(merged)}, SHOWN)
    await store.write({"fan": late}, SHOWN)  # by a server that read before the deletion
    head = (await store.heads(["fan", "nobody"], strong=True, name=SHOWN))["fan"]
    assert (head.remembered, head.stale) == (False, True)
    assert await store.read(["fan"], strong=True) == {}  # histories are others


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
    await until_nearest(waited, north, {"a": 1.0, "7": 1.0})  # "7" may be in a message of its own
    assert await store.encoded_at(WANTED, ["a", ODD[1], "100%"]) == {"a": 70, ODD[1]: 1}
    found_ = await store.nearest(WANTED, np.array([east, north], np.float32), 3, 10)
    assert found_.lengths.tolist() == [3, 3]
    whose = list(map(user_id_of, found_.keys))
    assert whose[:2] == ["a", ODD[1]] and set(whose[3:5]) == {"a", "7"}
    np.testing.assert_allclose(found_.scores, [1, 0.6, 0, 1, 1, 0.8], atol=1e-6)

    await store.write_vectors(WANTED, ["a"], [72], np.array([[half, nothing]], np.float32))  # one interest fewer
    await until_nearest(waited, north, {"7": 1.0, "a": 0.8, ODD[1]: 0.8})


async def what_is_deleted_is_gone(store: UserStore, waited: UserStore) -> None:
    stored = await store.read(["a", ODD[1]], strong=True)
    await store.write({user_id: deleted(one) for user_id, one in stored.items()})
    await store.forget(["a", ODD[1], "nobody"])
    await store.delete_vectors(WANTED, ["7"])
    heads = await store.heads(["a", ODD[1], "7"], strong=True)
    assert {user_id: head.remembered for user_id, head in heads.items()} == {"a": False, ODD[1]: False, "7": True}
    await until_nearest(waited, [0, 1, 0, 0], {})
    assert await store.encoded_at(WANTED, ["a", ODD[1], "7"]) == {}
    assert set(await store.histories(["a", "long", "7"])) == {"long", "7"}
    assert await store.count() == len(ODD) - 1  # tombstones do not count


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
    recorder, rng = Recorder(store), random.Random(1)
    with pytest.MonkeyPatch.context() as patch:  # the same versions and times in every store
        patch.setattr(secrets, "randbits", rng.getrandbits)
        patch.setattr(histories, "now_ms", iter(range(1_700_000_000_000, 2**63)).__next__)
        await contract(recorder, store)  # type: ignore[arg-type]
    return recorder


async def test_the_store_in_memory() -> None:
    await recorded(FakeUserStore())


async def test_milvus_answers_as_the_store_in_memory_does(milvus: MilvusUserStore) -> None:
    assert_same_answers(await recorded(milvus), await recorded(FakeUserStore()))


async def test_many_users_are_written_and_read_in_parts_by_threads(
    milvus: MilvusUserStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("aio_user_store._INLINE_USERS", "aio_store._INLINE_BYTES"):
        monkeypatch.setattr(f"mind.milvus.{name}", 0)
    for name in ("_WRITTEN_BYTES", "_FOUND"):  # a row, and a query, at a time
        monkeypatch.setattr(f"mind.milvus.aio_user_store.{name}", 1)
    assert_same_answers(await recorded(milvus), await recorded(FakeUserStore()))


async def test_before_the_first_update_nobody_is_remembered(milvus: MilvusUserStore) -> None:
    assert await milvus.histories(["nobody"]) == {}
    assert await milvus.heads(["nobody"], strong=True) == {}


async def test_what_was_confirmed_is_seen_by_every_server(milvus: MilvusUserStore, milvus_uri: str) -> None:
    if milvus_uri.endswith(".db"):
        other, connection = milvus, None  # one process alone
    else:
        connection = item_store(milvus_uri, timeout_s=20)
        other = MilvusUserStore(connection)
    await milvus.open()
    before = None
    for click in range(10):
        await milvus.write({"ann": user(click, before=before)})
        await milvus.heads(["ann"], strong=True)
        assert (await other.histories(["ann"]))["ann"].tolist() == [click]
        before = (await other.read(["ann"]))["ann"]
    if connection:
        await connection.close()


def write_earlier_format(uri: str, **users: tuple[int, list[int]]) -> None:
    """Write when a user was updated and its history, as an earlier version of this project did."""
    with Store(Connection(uri)) as store:
        if USERS not in store.collections():
            store.create_collection(USERS, schemas.users())
        store.open(USERS, UNUSED)
        rows = [
            {USER_KEY: user_key(id_), UPDATED_AT: at, HIST_ITEM: ids, UNUSED: [0.0, 0.0]}
            for id_, (at, ids) in users.items()
        ]
        store.upsert(USERS, rows)
        store.count(USERS)


async def test_histories_of_the_earlier_format_are_read_continued_and_deleted(
    milvus: MilvusUserStore, milvus_uri: str
) -> None:
    write_earlier_format(milvus_uri, ann=(7, [1, 2]), **{"b/b": (now_ms(), [3])}, cid=(9, [4]), dan=(9, [6]))
    everybody = ["ann", "b/b", "cid", "dan", "nobody"]
    await milvus.open()
    assert {id_: ids.tolist() for id_, ids in (await milvus.histories(everybody)).items()} == {
        "ann": [1, 2],
        "b/b": [3],
        "cid": [4],
        "dan": [6],
    }
    assert await milvus.count() == 4
    stored = await milvus.read(everybody, strong=True)
    assert {id_: one.version for id_, one in stored.items() if id_ != "b/b"} == {"ann": 7, "cid": 9, "dan": 9}
    assert await milvus.changed(8, "", 2) == (["b/b", "cid"], "cid")

    written = {"ann": more(stored["ann"], 5), "b/b": user(8, before=stored["b/b"]), "cid": deleted(stored["cid"])}
    await milvus.write(written)
    for _ in range(2):  # while the row of the deleted user is there, and without it
        heads = await milvus.heads(everybody, strong=True)
        assert {id_: (head.version, head.remembered, head.stale) for id_, head in heads.items()} == {
            "ann": (written["ann"].version, True, False),
            "b/b": (written["b/b"].version, True, False),
            "cid": (written["cid"].version, False, False),
            "dan": (9, True, False),
        }
        found = {id_: ids.tolist() for id_, ids in (await milvus.histories(everybody)).items()}
        assert found == {"ann": [1, 2, 5], "b/b": [8], "dan": [6]}
        assert await milvus.count() == 5 + ("cid" in await left_of_earlier_format(milvus_uri))
        await milvus.forget(["cid"])
    assert await left_of_earlier_format(milvus_uri) == {"ann", "b/b", "dan"}  # a server of that version may need them


async def left_of_earlier_format(uri: str) -> set[str]:
    client = AsyncMilvusClient(uri, timeout=20)
    rows = await client.query(USERS, filter=f"{UPDATED_AT} >= 0", output_fields=[USER_KEY], consistency_level="Strong")
    await client.close()
    return {user_id_of(row[USER_KEY]) for row in rows}


async def test_clicks_that_a_server_of_the_earlier_version_writes_meanwhile_are_kept(
    milvus: MilvusUserStore, milvus_uri: str
) -> None:
    write_earlier_format(milvus_uri, ann=(7, [1, 2]))
    await milvus.open()
    before = (await milvus.read(["ann"], strong=True))["ann"]
    await asyncio.to_thread(write_earlier_format, milvus_uri, ann=(now_ms(), [1, 2, 3]))
    await milvus.write({"ann": more(before, 4)})
    await milvus.heads(["ann"], strong=True)
    assert {1, 2, 3, 4} == set((await milvus.histories(["ann"]))["ann"].tolist())


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
    await milvus.forget(["ann"])
    await milvus.open_vectors(old)
    for vectors in (WANTED, old):
        rows = await client.query(
            vectors.collection, filter="updated_at >= 0", output_fields=["interest_key"], consistency_level="Strong"
        )
        assert [row["interest_key"] for row in rows] == ["bob/0"]
    await client.close()


async def test_collections_without_an_index_are_completed(
    milvus: MilvusUserStore, milvus_uri: str, monkeypatch: pytest.MonkeyPatch
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
    client = AsyncMilvusClient(milvus_uri, timeout=20)
    by_hash = set() if milvus_uri.endswith(".db") else {USER_HASH}  # Milvus Lite reads all rows in any case
    assert set(await client.list_indexes(HISTORIES)) == {UNUSED} | by_hash
    await client.close()


async def test_somebody_elses_users_are_left_alone(milvus: MilvusUserStore, milvus_uri: str) -> None:
    client = MilvusClient(milvus_uri, timeout=20)
    await asyncio.to_thread(client.create_collection, USERS, 4)
    await contract(milvus)  # it has another purpose
    await asyncio.to_thread(client.drop_collection, HISTORIES)
    await asyncio.to_thread(client.create_collection, HISTORIES, 4)
    with pytest.raises(StoreError, match="has a collection 'user_histories' that another program made: its fields"):
        await milvus.open()
    client.close()
