"""Two releases that version 0.1.0 built on Milvus Lite, whose release state it kept as collection properties.

The second is live, and one of its items was deleted. Made by `python -m indexer build --publish`, twice, and `delete`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.catalogue import item_collections, with_changes
from indexer.rollout.retire import prune
from mind.encoder import NumpyEncoder
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import Models
from server.edge.filters import canonical
from server.errors import InvalidRequestError
from server.loader import Loader
from server.releases import Releases
from tests import ROOT
from tests.conftest import release_lite
from tests.releases import item_store, promote, publish, rollback

FIRST, SECOND = "items_66cbe1c773d6_90fdcc62", "items_83772e33437e_691838da"


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[str]:
    """Path of a Milvus Lite file with the two releases."""
    uri = str(tmp_path / "milvus.db")
    shutil.copytree(ROOT / "tests" / "stored" / "0.1.0" / "milvus", uri)
    yield uri
    release_lite(uri)


def states(store: Store) -> dict[str, str]:
    return {collection.name: collection.state for collection in item_collections(store)}


def test_releases_of_the_version_before_are_read_rolled_back_published_and_pruned(stored: str) -> None:
    with Store(Connection(stored)) as store:
        assert states(store) == {SECOND: "live", FIRST: "published"}
        assert with_changes(store, item_collections(store))[0].changes.deleted == 1
        assert rollback(store).live == FIRST
        assert states(store) == {FIRST: "live", SECOND: "built"}
        publish(store, SECOND)
        assert states(store) == {SECOND: "live", FIRST: "published"}
        dropped: list[str] = []
        prune(store, 0, False, set(), dropped.append)
        assert dropped == [FIRST] and states(store) == {SECOND: "live"}


def test_releases_of_the_version_before_get_channels(stored: str) -> None:
    with Store(Connection(stored)) as store:
        publish(store, FIRST, "b")
        publish(store, SECOND, "b")
        assert states(store) == {SECOND: "live", FIRST: "published"}
        assert rollback(store, channel="b").live == FIRST
        assert promote(store, "b").live == FIRST
        assert rollback(store).live == SECOND
        dropped: list[str] = []
        prune(store, 0, False, set(), dropped.append)
        assert dropped == []


async def test_a_release_of_the_version_before_is_served(stored: str) -> None:
    store = item_store(stored, timeout_s=20)
    models = Models(ROOT / "tests" / "stored" / "0.1.0" / "artifacts")
    releases = Releases(
        store, Loader(store, models, lambda artifact: NumpyEncoder(artifact.weights, artifact.hyper_parameters))
    )
    _, release = await releases.check()
    assert (release.collection, release.fingerprint.count) == (SECOND, 30)
    hits = await store.search(SECOND, np.ones((1, 4), np.float32), 30, {}, 10)
    matching = (await store.matching(SECOND, "year >= 1990")).tolist()
    assert len(hits.item_ids) == 29 and 1007 not in hits.item_ids
    assert set(matching) == set(hits.item_ids.tolist())
    assert canonical("not (year < 1990)", release.fingerprint.attributes, 16) == "year >= 1990"
    with pytest.raises(InvalidRequestError, match="does not know which items have no year"):
        canonical("year is null", release.fingerprint.attributes, 16)
    await store.close()
