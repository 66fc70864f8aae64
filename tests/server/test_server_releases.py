"""What the server does with releases that are not in order, on both engines: refuse, say why, keep the old one."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pymilvus import AsyncMilvusClient

from indexer.items.changes import ChangeSummary, Proposal, Upsert, delete
from indexer.items.journal import Journal
from mind.artifact import Artifact, load_artifact, newest_artifact
from mind.encoder import Encoder, NumpyEncoder
from mind.milvus.aio_store import MilvusStore
from mind.milvus.collection import ALIAS
from mind.milvus.connection import Connection
from mind.milvus.journal import Changes, journal_of
from mind.milvus.records import NAME, RECORDS
from mind.milvus.store import Store
from mind.transfer import Models
from server.errors import ReleaseRefusedError, StoreUnavailableError
from server.loader import Loader
from server.releases import Releases
from tests.artifacts import make_artifact
from tests.releases import item_store
from tests.server.test_store import build, publish_here


def numpy_encoder(artifact: Artifact) -> Encoder:
    return NumpyEncoder(artifact.weights, artifact.hyper_parameters)


@dataclass
class Released:
    """A released model, and a client with which the test breaks things."""

    store: MilvusStore
    releases: Releases
    admin: AsyncMilvusClient
    collection: str
    artifacts: Path
    uri: str

    async def refusal(self) -> str:
        """Check for releases; why the one that the alias names was refused."""
        with pytest.raises(ReleaseRefusedError) as caught:
            await self.releases.check()
        assert self.releases.refused == str(caught.value)
        return str(caught.value)


@pytest.fixture
async def released(milvus_uri: str, tmp_path: Path) -> AsyncIterator[Released]:
    artifacts = tmp_path / "artifacts"
    make_artifact(artifacts)
    build(milvus_uri, artifacts)
    store = item_store(milvus_uri, timeout_s=20)
    admin = AsyncMilvusClient(milvus_uri, timeout=20)
    releases = Releases(store, Loader(store, Models(artifacts), numpy_encoder))
    collection = await store.released_collection()
    assert collection
    yield Released(store, releases, admin, collection, artifacts, milvus_uri)
    await admin.close()
    await store.close()


async def test_the_release_is_loaded_followed_and_reloaded(released: Released) -> None:
    assert (await released.releases.check())[1].collection == released.collection
    assert await released.releases.can_serve() and not released.releases.unloaded
    await released.admin.release_collection(released.collection)
    assert await released.releases.can_serve()
    assert (
        released.releases.unloaded == f"collection {released.collection} is not in Milvus' memory; it is being loaded"
    )
    await released.releases.check()  # loads it again
    assert await released.releases.can_serve() and not released.releases.unloaded
    vectors = np.ones((1, 16), np.float32)
    assert len((await released.store.search(released.collection, vectors, 5, {}, 10)).item_ids) == 5


async def test_a_collection_is_loaded_again_while_the_breaker_lets_nothing_else_through(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    await released.releases.check()
    await released.admin.release_collection(released.collection)
    assert await released.releases.can_serve()

    async def refused(channel: str) -> str:
        raise StoreUnavailableError("Milvus: collection not loaded")

    monkeypatch.setattr(released.store, "released_collection", refused)
    with pytest.raises(StoreUnavailableError):
        await released.releases.check()
    assert await released.store.loaded(released.collection)


async def test_no_alias(released: Released) -> None:
    await released.admin.drop_alias(ALIAS)
    assert await released.refusal() == "Milvus has no alias 'live'; `python -m indexer publish` sets it"


async def test_an_unfinished_build(released: Released) -> None:
    await released.admin.delete(RECORDS, filter=f'{NAME} == "{released.collection}"')
    assert "has no release record: its build has not finished" in await released.refusal()


async def test_a_record_that_milvus_shows_again_is_not_taken_for_the_newest(released: Released) -> None:
    store, name = released.store, "users_0123456789ab"
    await store.load(RECORDS)
    for text in ("first", "second", ""):
        before = await released.admin.query(RECORDS, filter=f'{NAME} == "{name}"', output_fields=["*"])
        await store.write_record(name, text)
        assert await store.records([name]) == ({name: text} if text else {})
        for row in before:
            await released.admin.upsert(RECORDS, [dict(row)])
        assert await store.records([name]) == ({name: text} if text else {})


async def test_half_filled(released: Released) -> None:
    await released.admin.delete(released.collection, filter="item_id < 1070")
    assert "holds 190 items, its build had 200" in await released.refusal()


async def test_vectors_of_another_model(released: Released) -> None:
    row = {"item_id": 1000, "embedding": [0.5] * 16, "vector_source": "trained"}
    await released.admin.upsert(released.collection, [row])
    await released.admin.flush(released.collection)
    assert "the vector of item 1000 is not that of model" in await released.refusal()


async def test_what_the_journal_explains_is_served_and_nothing_else(released: Released) -> None:
    store = released.store
    await asyncio.to_thread(change_here, released.uri, released.collection, released.artifacts)
    assert await store.changes(released.collection) == Changes(added=1, deleted=2)
    assert await store.deleted(released.collection, [1000, 1007, 1014]) == {1000, 1007}
    assert (await released.releases.check())[1].collection == released.collection  # 1000 is one of the sampled

    restarted = Releases(store, Loader(store, Models(released.artifacts), numpy_encoder))
    await released.admin.delete(released.collection, filter="item_id < 1070 and item_id > 0")
    with pytest.raises(ReleaseRefusedError, match="holds 190 items, its build had 200, with its journal 199 to 199"):
        await restarted.check()
    await store.drop(released.collection)
    assert journal_of(released.collection) not in await released.admin.list_collections()


def change_here(uri: str, collection: str, artifacts: Path) -> None:
    """Delete two items and add one, from this process, which holds the Milvus Lite file."""
    with Store(Connection(uri)) as store:
        journal = Journal(store, collection)
        delete(journal, np.array([1000, 1007]), lambda *_: None)
        stage = Upsert(journal, load_artifact(newest_artifact(artifacts)), ChangeSummary())
        stage.stage([Proposal(5, vector=np.ones(16, np.float32))])
        journal.apply(lambda *_: None)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
async def test_an_artifact_that_cannot_be_used_leaves_the_old_release(released: Released, damage: str) -> None:
    _, old = await released.releases.check()
    path = make_artifact(released.artifacts, seed=1)
    await asyncio.to_thread(publish_here, released.uri, path)
    if damage == "missing":
        shutil.rmtree(path)
    else:
        content = bytearray((path / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (path / "model.safetensors").write_bytes(content)
    assert "needs model" in await released.refusal()
    assert released.releases.current is old and await released.releases.can_serve()
