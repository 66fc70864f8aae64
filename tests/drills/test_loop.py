"""The event loop never stands still: no callback takes it 10 ms of processor time, whatever the limits admit.

The items are in memory, and searches run on a thread, so that all that is measured is the server's. Remembered users
are in a real Milvus where writing and reading them is measured.
"""

import asyncio
import sys
import time
from asyncio import events
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mind.artifact import Float32, load_artifact
from mind.hits import Hits
from mind.milvus.aio_user_store import MilvusUserStore
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.app import SWITCH_S, RecallServer
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.fake_user_store import FakeUserStore
from tests.releases import item_store

LONGEST_S = 0.01
TRIES = 5
"""A callback that is slow by itself is slow each time; one that the machine slowed is not."""
ITEMS = 20_000
IDS = 1000 + 7 * np.arange(ITEMS)


class Watchdog:
    """Measures the processor time of every callback of the event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.longest_s = 0.0
        self.by = ""
        run: Any = events.Handle._run

        def watched(handle: events.Handle) -> None:
            started = time.thread_time()
            run(handle)
            took = time.thread_time() - started
            if took > self.longest_s:
                self.longest_s, self.by = took, repr(handle)[:300]

        monkeypatch.setattr(events.Handle, "_run", watched)


class ThreadedStore(FakeStore):
    """Finds any items, on a thread; a real Milvus takes nothing of the loop's time either."""

    async def search(
        self, collection: str, vectors: Float32, limit: int, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

        def found() -> Hits:
            rng, queries = np.random.default_rng(0), len(vectors)
            place = (rng.integers(0, ITEMS, (queries, 1)) + 13 * np.arange(limit)) % ITEMS
            scores = -np.sort(-rng.normal(size=(queries, limit)).astype(np.float32), axis=1)
            return Hits(self.collections[collection].item_ids[place].ravel(), scores.ravel(), np.full(queries, limit))

        return await asyncio.to_thread(found)

    async def values(self, *which: Any, **limit: Any) -> dict[str, list[Any]]:
        """Milvus' answer is read in a thread."""
        return await asyncio.to_thread(lambda: asyncio.run(super(ThreadedStore, self).values(*which, **limit)))


def large() -> dict[str, tuple[str, Any]]:
    """The name and the request of calls that cost most."""
    rng = np.random.default_rng(0)
    user = recall_pb2.User
    long = [user(hist_item=rng.choice(IDS[:2_000], 10_000)) for _ in range(130)]
    many = [user(hist_item=rng.choice(IDS, 30)) for _ in range(256)]
    small = [user(hist_item=np.arange(9_800) % 128) for _ in range(256)]
    new = [user(exclude_item_ids=rng.choice(IDS, 1_000)) for _ in range(256)]
    recall, item_query = recall_pb2.RecallRequest, recall_pb2.ItemQuery
    baskets = [item_query(item_ids=rng.choice(IDS, 100), exclude_item_ids=rng.choice(IDS, 1_000)) for _ in range(256)]
    return {
        "similar items": ("SimilarItems", recall_pb2.SimilarItemsRequest(queries=baskets, top_k=500)),
        "long histories": ("Recall", recall(users=long, top_k=100, exclude_history=True)),
        "many candidates": ("Recall", recall(users=many, top_k=500, exclude_history=True)),
        "ids of one byte": ("Recall", recall(users=small, top_k=10)),
        "one history beyond the limit": ("Recall", recall(users=[user(hist_item=np.zeros(4_000_000, int))], top_k=10)),
        "nobody has a history": ("Recall", recall(users=new, top_k=500)),
        "similar": ("FindSimilarUsers", recall_pb2.FindSimilarUsersRequest(users=long[:100], top_k=10)),
        "explain": ("Explain", recall_pb2.ExplainRequest(user=long[0], top_k=1_000, exclude_history=True)),
    }


def large_with_keys() -> dict[str, tuple[str, Any]]:
    """The same for a release with text ids."""
    rng = np.random.default_rng(0)
    user = recall_pb2.User
    keys = [f"KIT-{item}" for item in range(ITEMS)]
    long = [user(hist_item_keys=rng.choice(keys, 10_000).tolist()) for _ in range(32)]
    many = [user(hist_item_keys=rng.choice(keys, 30).tolist()) for _ in range(256)]
    unknown = [user(hist_item_keys=[f"{number}-{item}" for item in range(400)]) for number in range(256)]
    recall, item_query = recall_pb2.RecallRequest, recall_pb2.ItemQuery
    baskets = [item_query(item_keys=rng.choice(keys, 100).tolist()) for _ in range(256)]
    return {
        "similar items": ("SimilarItems", recall_pb2.SimilarItemsRequest(queries=baskets, top_k=500)),
        "long histories": ("Recall", recall(users=long, top_k=100, exclude_history=True)),
        "many candidates": ("Recall", recall(users=many, top_k=500)),
        "unknown ids": ("Recall", recall(users=unknown, top_k=10)),
        "pages": ("Recall", recall(users=[user(hist_item_keys=["0"] * 5_000)] * 256, top_k=10, paged=True)),
        "explain": ("Explain", recall_pb2.ExplainRequest(user=long[0], top_k=1_000, exclude_history=True)),
    }


async def serving(directory: Path, store: ThreadedStore, keyed: bool = False, **options: Any) -> RecallServer:
    store.publish(load_artifact(make_artifact(directory, items=ITEMS, keyed=keyed)))
    settings = Settings(listen="127.0.0.1:0", artifacts=str(directory), users=True, **options)
    server = RecallServer(settings, store, FakeUserStore())
    await server.start()
    return server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RecallServer]:
    server = await serving(tmp_path, ThreadedStore(), degraded=True)
    yield server
    await server.stop(0)


@pytest.fixture(autouse=True)
def as_served() -> Iterator[None]:
    """Threads take turns as often as in a server."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    yield
    sys.setswitchinterval(before)


def call(port: int, method: str, request: Any, timeout_s: float) -> grpc.StatusCode:
    """Call from a thread of its own."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            getattr(recall_pb2_grpc.RecallServiceStub(channel), method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


@pytest.fixture
async def remembering(tmp_path: Path, milvus_server_uri: str) -> AsyncIterator[RecallServer]:
    """A server whose remembered users are in a real Milvus."""
    store = ThreadedStore()
    store.publish(load_artifact(make_artifact(tmp_path, items=ITEMS)))
    settings = Settings(listen="127.0.0.1:0", artifacts=str(tmp_path), users=True)
    users = item_store(milvus_server_uri, timeout_s=60)
    server = RecallServer(settings, store, MilvusUserStore(users))
    await server.start()
    yield server
    await server.stop(0)
    await users.close()


async def longest(watchdog: Watchdog, do: Callable[[], Awaitable[None]]) -> str:
    """The longest callback of the best of some tries; empty if it is short enough."""
    found = []
    for _ in range(TRIES):
        watchdog.longest_s = 0.0
        await do()
        if watchdog.longest_s < LONGEST_S:
            return ""
        found.append((watchdog.longest_s, watchdog.by))
    return f"{min(found)[0] * 1000:.1f} ms: {found}"


def calling(server: RecallServer, method: str, requests: list[Any], timeout_s: float = 60) -> Callable[[], Any]:
    """What sends requests at the same time."""

    async def do() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(requests)) as threads:  # the server needs those of the loop
            calls = [
                loop.run_in_executor(threads, call, server.port, method, request, timeout_s) for request in requests
            ]
            for code in await asyncio.gather(*calls):
                assert code is grpc.StatusCode.OK or timeout_s < 1, code

    return do


@pytest.mark.parametrize("name", large())
@pytest.mark.parametrize("timeout_s", [60, 0.3])
async def test_no_callback_is_long(
    server: RecallServer, monkeypatch: pytest.MonkeyPatch, name: str, timeout_s: float
) -> None:
    method, request = large()[name]
    if timeout_s < 1:  # so that it ends with the popular list, or in vain
        server._store._store.delay_s = 2  # type: ignore[attr-defined]
    assert not await longest(Watchdog(monkeypatch), calling(server, method, [request], timeout_s))


@pytest.mark.parametrize("name", large_with_keys())
async def test_no_callback_is_long_when_ids_are_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server = await serving(tmp_path, ThreadedStore(), keyed=True)
    method, request = large_with_keys()[name]
    assert not await longest(Watchdog(monkeypatch), calling(server, method, [request]))
    await server.stop(0)


@pytest.mark.parametrize("cache_mb", [256, 0])
@pytest.mark.parametrize("users", [8, 30])
async def test_no_callback_is_long_when_candidates_have_attributes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_mb: int, users: int
) -> None:
    store = ThreadedStore()
    server = await serving(tmp_path, store, attribute_cache_mb=cache_mb)
    [collection] = store.collections
    for name, kind, value in (("title", "VARCHAR", "Film {}"), ("place", "VARCHAR", "{}"), ("kind", "VARCHAR", "a")):
        store.give(collection, name, kind, {item: value.format(item) for item in IDS.tolist()})
    rng = np.random.default_rng(0)
    asked = [recall_pb2.User(hist_item=rng.choice(IDS, 30)) for _ in range(users)]
    request = recall_pb2.RecallRequest(users=asked, top_k=500, return_attributes=["title", "place", "kind"])
    do = calling(server, "Recall", [request])
    await do()  # from now on the columns are there, if there is room for them
    assert not await longest(Watchdog(monkeypatch), do)
    await server.stop(0)


@pytest.mark.parametrize("cache_mb", [256, 0])
async def test_no_callback_is_long_when_rules_need_a_deep_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_mb: int
) -> None:
    store = ThreadedStore()
    server = await serving(tmp_path, store, attribute_cache_mb=cache_mb)
    [collection] = store.collections
    for name, value in (("place", "{}"), ("kind", "a")):
        store.give(collection, name, "VARCHAR", {item: value.format(item) for item in IDS.tolist()})
    rng = np.random.default_rng(0)
    asked = [recall_pb2.User(hist_item=rng.choice(IDS, 30)) for _ in range(20)]
    rules = {"at_most": [{"attribute": "place", "count": 1}, {"attribute": "kind", "count": 400}]}
    rules |= {"per_interest_min": 20, "diversity": 0.5}
    requests = [
        ("Recall", recall_pb2.RecallRequest(users=asked, top_k=500, **rules)),
        ("Explain", recall_pb2.ExplainRequest(user=asked[0], top_k=500, **rules)),
    ]
    for method, request in requests:
        do = calling(server, method, [request])
        await do()
        assert not await longest(Watchdog(monkeypatch), do)
    await server.stop(0)


async def test_no_callback_is_long_when_the_server_searches_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serving(tmp_path, ThreadedStore(), search="local")
    watchdog = Watchdog(monkeypatch)
    for name in ("long histories", "many candidates"):
        method, request = large()[name]
        request.filter = "item_id > 8000"
        assert not await longest(watchdog, calling(server, method, [request])), f"{name}, with a filter"
        request.filter = ""
        assert not await longest(watchdog, calling(server, method, [request])), name
    await server.stop(0)


async def test_no_callback_is_long_when_many_call_at_once(
    server: RecallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    users = [recall_pb2.User(hist_item=rng.choice(IDS, 20)) for _ in range(64)]
    requests = [recall_pb2.RecallRequest(users=[user], top_k=500) for user in users]
    assert not await longest(Watchdog(monkeypatch), calling(server, "Recall", requests))


async def test_no_callback_is_long_when_users_are_remembered(
    remembering: RecallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    watchdog = Watchdog(monkeypatch)
    ids = [[f"user-{part}-{number}" for number in range(256)] for part in range(5)]
    update = recall_pb2.UserUpdate
    writes = [
        recall_pb2.UpsertUsersRequest(users=[update(user_id=one, hist_item=rng.choice(IDS, 500)) for one in part])
        for part in ids
    ]  # the first is written alone, and the others together: 1,024 users
    assert not await longest(watchdog, calling(remembering, "UpsertUsers", writes))
    known = [recall_pb2.User(user_id=one) for one in ids[0]]
    similar = recall_pb2.FindSimilarUsersRequest(users=known, top_k=78)
    assert not await longest(watchdog, calling(remembering, "FindSimilarUsers", [similar]))
    recall = recall_pb2.RecallRequest(users=known, top_k=100, exclude_history=True)
    assert not await longest(watchdog, calling(remembering, "Recall", [recall]))
    assert remembering._users._remembered
    vectors = remembering._users._remembered[1]

    async def catch_up() -> None:
        vectors._caught_up.clear()
        await vectors.catch_up(remembering.releases.current)

    assert not await longest(watchdog, catch_up)
    gone = [recall_pb2.DeleteUsersRequest(user_ids=part) for part in ids]
    assert not await longest(watchdog, calling(remembering, "DeleteUsers", gone))
