"""One contract, three stores: the exact one in memory, Milvus Lite and a real Milvus server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient, MilvusException

from indexer.build import build as build_collection
from indexer.build import choose_index
from indexer.items.attributes import Attributes
from indexer.items.changes import delete as delete_items
from indexer.items.journal import Journal
from mind.artifact import Artifact, load_artifact, newest_artifact
from mind.keys import MAX_KEY_BYTES, key_ids
from mind.milvus.change_log import ChangeLog
from mind.milvus.collection import EMBEDDING, ITEM_ID, ITEM_KEY
from mind.milvus.connection import Connection
from mind.milvus.errors import CollectionGoneError, FilterError, StoreUnavailableError
from mind.milvus.journal import Changes
from mind.milvus.records import RECORDS
from mind.milvus.schemas import Column
from mind.milvus.store import Store
from mind.milvus.translation import is_missing, translated
from server.edge.filters import canonical
from server.ports import ItemStore
from tests.artifacts import make_artifact, write_keyed
from tests.commands import run_here
from tests.conftest import release_lite, remove_item_collections_of
from tests.fake_store import FakeStore
from tests.releases import item_store, publish
from tests.server.recorder import Recorder, assert_same_answers
from tests.waiting import PATIENCE_S


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return load_artifact(make_artifact(tmp_path / "artifacts"))


def build(uri: str, artifacts: Path, *options: str) -> None:
    """Build and publish the newest model with the indexer, and let go of a Milvus Lite file."""
    done = run_here("indexer", "build", "--milvus-uri", uri, "--artifact", artifacts, "--publish", *options)
    if uri.endswith(".db"):
        release_lite(uri)
    assert done.returncode == 0, done.stdout + done.stderr


def publish_here(uri: str, artifact: Path, db_name: str = "") -> None:
    """Build and publish from this process, for tests that hold the Milvus Lite file open."""
    index = choose_index(uri.endswith(".db"), None, {}, {})
    with Store(Connection(uri, db_name=db_name)) as store:
        built = build_collection(store, load_artifact(newest_artifact(artifact)), Attributes(), index)
        publish(store, built.collection)


def delete_here(uri: str, collection: str, item_ids: list[int]) -> None:
    """Delete items as `indexer delete` does."""
    with Store(Connection(uri)) as store:
        deleted = delete_items(Journal(store, collection), np.array(item_ids), lambda *_: None)
        assert deleted.deleted == len(item_ids)


GONE = "items_000000000000_00000000"
Delete = Callable[[list[int]], Awaitable[None]]


async def contract(store: ItemStore, artifact: Artifact, delete: Delete) -> None:
    """What serving relies on. `delete` deletes items as the indexer does."""
    name = await store.released_collection()
    assert name is not None
    fingerprint = await store.fingerprint(name)
    assert fingerprint is not None and fingerprint.model_version == artifact.model_version
    await store.load(name)
    assert await store.loaded(name)
    await items_are_counted_and_read(store, name, artifact)
    await the_nearest_items_are_found(store, name, artifact)
    await bad_filters_are_refused(store, name)
    await other_collections_are_gone(store, artifact)
    await deleted_items_stay_known(store, name, artifact, delete)
    await store.drop(name)
    assert await store.released_collection() is None
    with pytest.raises(CollectionGoneError):
        await store.count(name)


async def items_are_counted_and_read(store: ItemStore, name: str, artifact: Artifact) -> None:
    assert await store.count(name) == 200
    assert await store.count(name, "item_id < 1070") == 10
    stored = await store.vectors(name, [1000, 1007, 5])
    assert set(stored) == {1000, 1007}
    np.testing.assert_array_equal(stored[1007], artifact.weights.item_embedding[2])
    assert await store.vectors(name, [5]) == {}
    assert await store.existing(name, [1000, 1007, 5]) == {1000, 1007}
    assert await store.existing(name, [5]) == set()
    assert (await store.matching(name, "item_id < 1020")).tolist() == [1000, 1007, 1014]
    assert len(await store.matching(name, "item_id > 1020")) == 197
    assert len(await store.matching(name, "item_id < 0")) == 0
    assert (await store.matching(name, "(item_id < 1020) and item_id in [5, 1007, 2001]")).tolist() == [1007]
    assert await store.change_log(name) == ChangeLog()
    assert (await store.changes(name), await store.deleted(name, [1000])) == (Changes(), set())
    assert await store.deleted(name, []) == set()
    assert (await store.changed_items(name)).tolist() == []


async def the_nearest_items_are_found(store: ItemStore, name: str, artifact: Artifact) -> None:
    weights = artifact.weights
    queries = weights.golden_interest_vectors.reshape(-1, 16)
    found = await store.search(name, queries, 7, {}, 10)
    scores = queries @ weights.item_embedding[1:].T
    expected = weights.item_id[np.argsort(-scores, axis=1)[:, :7]]
    assert found.lengths.tolist() == [7] * len(queries)
    np.testing.assert_array_equal(found.item_ids.reshape(-1, 7), expected)
    np.testing.assert_allclose(found.scores.reshape(-1, 7), -np.sort(-scores, axis=1)[:, :7], rtol=1e-4, atol=1e-5)

    everything = await store.search(name, queries[:1], 300, {}, 10)
    assert everything.lengths.tolist() == [200]


async def bad_filters_are_refused(store: ItemStore, name: str) -> None:
    for filter_ in ("item_id >=", "nope == 1", "item_id == "):
        with pytest.raises(FilterError, match="Milvus cannot use"):
            await store.count(name, filter_)
        with pytest.raises(FilterError, match="Milvus cannot use"):
            await store.matching(name, filter_)


async def other_collections_are_gone(store: ItemStore, artifact: Artifact) -> None:
    query = artifact.weights.golden_interest_vectors.reshape(-1, 16)[:1]
    with pytest.raises(CollectionGoneError):
        await store.search(GONE, query, 7, {}, 10)
    for ask in (store.fingerprint, store.loaded, store.load, store.count):
        with pytest.raises(CollectionGoneError):
            await ask(GONE)
    for ask_of in (store.vectors, store.existing):
        with pytest.raises(CollectionGoneError):
            await ask_of(GONE, [1000])
    with pytest.raises(CollectionGoneError):
        await store.matching(GONE, "item_id > 0")
    assert await store.change_log(GONE) == ChangeLog()


async def deleted_items_stay_known(store: ItemStore, name: str, artifact: Artifact, delete: Delete) -> None:
    await delete([1000, 1014])
    assert await store.count(name) == 198
    assert await store.changes(name) == Changes(deleted=2)
    assert await store.deleted(name, [1000, 1007, 1014, 5]) == {1000, 1014}
    assert (await store.changed_items(name)).tolist() == [1000, 1014]
    assert set(await store.vectors(name, [1000, 1007])) == {1007}
    assert await store.existing(name, [1000, 1007, 1014]) == {1007}
    assert await store.clicked(name, [1000, 1007]) == {1000: "[]"}
    assert (await store.matching(name, "item_id < 1020")).tolist() == [1007]
    assert (await store.change_log(name)).changed_since(ChangeLog()) == {1000, 1014}
    query = artifact.weights.item_embedding[1:2]
    found = await store.search(name, query, 300, {}, 10)
    assert found.lengths.tolist() == [198] and not {1000, 1014} & set(found.item_ids.tolist())


async def in_memory(artifact: Artifact) -> Recorder:
    """The contract, kept by the store in memory; what it answered."""
    store = FakeStore()
    name = store.publish(artifact)

    async def delete(item_ids: list[int]) -> None:
        store.delete(name, item_ids)

    recorder = Recorder(store)
    await contract(recorder, artifact, delete)  # type: ignore[arg-type]
    return recorder


async def test_the_store_in_memory(artifact: Artifact) -> None:
    await in_memory(artifact)


async def test_milvus_answers_as_the_store_in_memory_does(milvus_uri: str, artifact: Artifact, tmp_path: Path) -> None:
    build(milvus_uri, tmp_path / "artifacts", "--index-type", "FLAT")
    store = item_store(milvus_uri, timeout_s=10)

    async def delete(item_ids: list[int]) -> None:
        name = await store.released_collection()
        assert name
        await asyncio.to_thread(delete_here, milvus_uri, name, item_ids)
        async with asyncio.timeout(PATIENCE_S):  # a search sees a deletion a little later
            left = set(item_ids)
            while left & set(item_ids):
                found = await store.search(name, artifact.weights.item_embedding[1:2], 300, {}, 10)
                left = set(found.item_ids.tolist())

    try:
        recorder = Recorder(store)
        await contract(recorder, artifact, delete)  # type: ignore[arg-type]
    finally:
        await store.close()
    assert_same_answers(recorder, await in_memory(artifact))


@pytest.mark.parametrize(
    ("index_type", "params"),
    [("HNSW", {"ef": 100}), ("FLAT", {}), ("IVF_FLAT", {"nprobe": 8}), ("IVF_SQ8", {"nprobe": 8})],
)
async def test_fewer_hits_are_the_first_of_more(
    milvus_uri: str, tmp_path: Path, index_type: str, params: dict[str, int]
) -> None:
    """So users who want different numbers of hits share a search, and get what each would alone."""
    model = load_artifact(make_artifact(tmp_path / "larger", items=3_000))
    given = [f"--search-param={name}={value}" for name, value in params.items()]
    lists = ["--index-param", "nlist=32"] if "nprobe" in params else []
    build(milvus_uri, tmp_path / "larger", "--index-type", index_type, *lists, *given, "--min-recall", "0.01")
    store = item_store(milvus_uri, timeout_s=20)
    try:
        name = await store.released_collection()
        assert name
        await store.load(name)
        queries = model.weights.golden_interest_vectors.reshape(-1, 16)
        fingerprint = await store.fingerprint(name)
        assert fingerprint and fingerprint.breadth and fingerprint.breadth >= 100
        all_of_them = await store.search(name, queries, 100, params, 20)
        for limit in (8, 48, 96):
            found = await store.search(name, queries, limit, params, 20)
            first = all_of_them.first(np.full(len(queries), limit))
            assert found.item_ids.tolist() == first.item_ids.tolist()
            assert found.scores.tobytes() == first.scores.tobytes()
    finally:
        await store.close()


async def test_a_large_search_of_milvus_lite_is_asked_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milvus Lite takes 0.05 ms for each hit: a search for 256 users in one part would pass the server's timeout."""
    model = load_artifact(make_artifact(tmp_path / "models"))
    uri = str(tmp_path / "milvus.db")
    build(uri, tmp_path / "models")
    store = item_store(uri, timeout_s=20)
    sent, send = [], store.send

    async def noted(milvus: Any, request: bytes) -> bytes:
        sent.append(request)
        return await send(milvus, request)

    monkeypatch.setattr(store, "send", noted)
    try:
        name = await store.released_collection()
        assert name
        await store.load(name)
        queries = model.weights.golden_interest_vectors.reshape(-1, 16)
        whole = await store.search(name, queries, 10, {}, 20)
        monkeypatch.setattr("mind.milvus.aio_store._LITE_HITS", 30)
        in_parts = await store.search(name, queries, 10, {}, 20)
        assert len(sent) == 1 + -(-len(queries) // 3)
        np.testing.assert_array_equal(in_parts.lengths, whole.lengths)
        np.testing.assert_array_equal(in_parts.item_ids, whole.item_ids)
        np.testing.assert_allclose(in_parts.scores, whole.scores, rtol=1e-6)
    finally:
        await store.close()
        release_lite(uri)


def make_keyed(uri: str, name: str, artifact: Artifact, keys: dict[int, str]) -> None:
    """Make and load the collection of a model with text ids."""
    weights = artifact.weights
    with Store(Connection(uri)) as store:
        store.create(name, weights.item_embedding.shape[1], {ITEM_KEY: Column("VARCHAR", MAX_KEY_BYTES, 0)})
        vectors = zip(weights.item_id.tolist(), weights.item_embedding[1:], strict=True)
        store.insert(name, [{ITEM_ID: item, ITEM_KEY: keys[item], EMBEDDING: vector} for item, vector in vectors])
        store.flush(name)
        store.open(name, EMBEDDING)


async def test_keys_are_a_column_of_the_collection(milvus_uri: str, tmp_path: Path) -> None:
    """What callers filter with, and what the keys of items that were added are read from."""
    odd = ["KIT-0", "KIT-01", "kit-0", 'a "quoted" one', "back\\slash", "line\nbreak", "ключ", "\U0001f600", "x" * 256]
    artifact = load_artifact(write_keyed(tmp_path, odd))
    item_ids = key_ids(odd).tolist()
    keys = dict(zip(item_ids, odd, strict=True))
    fake = FakeStore()
    name = fake.publish(artifact)
    await asyncio.to_thread(make_keyed, milvus_uri, name, artifact, keys)
    store = item_store(milvus_uri, timeout_s=10)

    async def found(filter_: str) -> list[str]:
        text = canonical(filter_, {ITEM_KEY: "VARCHAR"}, 16)
        return sorted(keys[item] for item in (await store.matching(name, text)).tolist())

    try:
        assert await store.keys(name, [*item_ids, 5]) == await fake.keys(name, [*item_ids, 5]) == keys
        assert await store.keys(name, [5]) == {}
        with pytest.raises(CollectionGoneError):
            await store.keys(GONE, item_ids)
        for key in odd:
            assert await found(f"item_id == {json.dumps(key, ensure_ascii=False)}") == [key]
        assert await found('item_id in ["ключ", "KIT-0", "none"]') == ["KIT-0", "ключ"]
        assert await found('item_id like "KIT-%"') == ["KIT-0", "KIT-01"]
        assert await found('not item_id like "KIT-%" and item_id != "ключ"') == sorted(set(odd[2:]) - {"ключ"})
    finally:
        await store.close()


async def test_a_database_of_its_own(milvus_uri: str, artifact: Artifact, tmp_path: Path) -> None:
    other = load_artifact(make_artifact(tmp_path / "other", seed=1))
    admin = MilvusClient(milvus_uri)
    try:
        admin.create_database("tenant")
        await asyncio.to_thread(publish_here, milvus_uri, tmp_path / "artifacts")
        await asyncio.to_thread(publish_here, milvus_uri, tmp_path / "other", "tenant")
        for db_name, model in (("", artifact), ("tenant", other)):
            store = item_store(milvus_uri, timeout_s=20, db_name=db_name)
            name = await store.released_collection()
            assert name is not None and model.model_version in name
            await store.load(name)
            found = await store.search(name, model.weights.item_embedding[1:2], 1, {"ef": 200}, 10)
            scores = model.weights.item_embedding @ model.weights.item_embedding[1]
            assert found.scores[0] == pytest.approx(float(scores.max()), rel=1e-4)
            await store.close()
    finally:
        tenant = MilvusClient(milvus_uri, db_name="tenant")
        remove_item_collections_of(tenant)
        tenant.drop_collection(RECORDS)
        tenant.close()
        admin.drop_database("tenant")
        admin.close()


async def test_nobody_answers() -> None:
    with pytest.raises(StoreUnavailableError, match=r"no Milvus answers at http://127\.0\.0\.1:9 "):
        await item_store("http://127.0.0.1:9", timeout_s=1).released_collection()


async def test_the_directory_of_a_lite_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="not exists"):
        await item_store(str(tmp_path / "nowhere" / "milvus.db"), timeout_s=1).released_collection()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (1, "service not ready[standalone=1]: Initializing"),
        (8, "request is rejected: rate limit exceeded[rate=1]"),
        (103, "collection not fully loaded[collection=1]"),
        (106, "collection on recovering[collection=1]"),  # after 2.3
    ],
)
def test_a_milvus_that_asks_to_come_back_is_unavailable(code: int, message: str) -> None:
    assert isinstance(translated(code, message, ""), StoreUnavailableError)


@pytest.mark.parametrize("code", [100, 1600, 1603])
def test_an_alias_or_collection_that_is_missing(code: int) -> None:
    missing = MilvusException(code, "collection id of alias not found")  # the message of 1603, which came after 2.3
    assert is_missing(missing) and isinstance(translated(code, missing.message), CollectionGoneError)
