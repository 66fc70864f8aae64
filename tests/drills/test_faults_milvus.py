"""Short versions of the drills about Milvus and about releases; `tests/faults/` says what each does."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from server.errors import StoreTimeoutError, StoreUnavailableError
from tests.conftest import remove_item_collections
from tests.drills.conftest import APART
from tests.faults import milvus_damaged, milvus_silent, releases
from tests.faults.ground import DIM, make_models, release
from tests.faults.proxy import Proxy
from tests.milvus_server import Milvus
from tests.releases import item_store


@pytest.fixture
def milvus(milvus_server: Milvus) -> Milvus:
    remove_item_collections(milvus_server.uri)
    return milvus_server


async def test_releases_under_load(milvus: Milvus, tmp_path: Path) -> None:
    findings, load = await releases.drill(milvus, tmp_path, releases=4, steady_s=1)
    releases.judge(findings, load)
    assert findings.faults == []
    assert load.phases[2].calls > 50


async def test_damage_underneath(milvus: Milvus, tmp_path: Path) -> None:
    findings, load = await milvus_damaged.drill(milvus, tmp_path, seconds=1)
    milvus_damaged.judge(findings, load)
    assert findings.faults == []


@pytest.mark.timeout(600)
def test_read_only_disk(with_own_milvus: Callable[..., None]) -> None:
    if not APART:
        pytest.skip("mounts a directory read-only, which needs the right to mount")
    with_own_milvus("milvus_read_only")


async def test_slow_hung_and_cut(milvus: Milvus, tmp_path: Path) -> None:
    findings, loads = await milvus_silent.drill(milvus, tmp_path, seconds=5, delays_ms=(100,))
    milvus_silent.judge(findings, *loads)
    assert findings.faults == []


@pytest.mark.timeout(600)
def test_killed_and_started_again(with_own_milvus: Callable[..., None]) -> None:
    with_own_milvus("milvus_killed", "--steady-s", "2", "--down-s", "3")


@pytest.mark.timeout(600)
def test_users_get_their_own_candidates_while_milvus_is_away(with_own_milvus: Callable[..., None]) -> None:
    with_own_milvus("milvus_away", "--items", "20000", "--rate", "10", "--seconds", "4")


async def test_searches_outlive_their_connection(milvus: Milvus, tmp_path: Path) -> None:
    """pymilvus makes a new channel when a call of its own finds the old one broken; searches must follow."""
    (collection,) = await asyncio.to_thread(release, milvus.uri, *make_models(tmp_path, 1, items=50))
    vectors = np.ones((1, DIM), np.float32)
    async with Proxy(milvus.uri) as proxy:
        store = item_store(f"http://{proxy.address}", timeout_s=10)
        for _ in range(3):
            found = await store.search(collection, vectors, 5, {}, 10)
            assert found.lengths.tolist() == [5]
            for call in (lambda: store.search(collection, vectors, 5, {}, 10), store.released_collection):
                proxy.reset()
                with suppress(StoreUnavailableError):  # gRPC may have noticed before
                    await call()
                assert await store.released_collection() == collection
        await store.close()


async def test_a_count_heeds_its_time(milvus: Milvus, tmp_path: Path) -> None:
    (collection,) = await asyncio.to_thread(release, milvus.uri, *make_models(tmp_path, 1, items=50))
    async with Proxy(milvus.uri) as proxy:
        store = item_store(f"http://{proxy.address}", timeout_s=60)
        assert await store.count(collection) == 50
        proxy.stall()
        with pytest.raises(StoreTimeoutError, match=r"does not answer within 0\.2 s"):
            await store.count(collection, timeout_s=0.2)
        proxy.go_on()
        assert await store.count(collection) == 50
        await store.close()


@pytest.mark.timeout(600)
def test_restarts_lose_nothing_of_a_release(with_own_milvus: Callable[..., None]) -> None:
    with_own_milvus("milvus_restarts", "--restarts", "2", "--at", "build", "--at", "publish")
