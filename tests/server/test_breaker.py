"""The circuit breaker before Milvus: when it opens, what callers then get, how it closes."""

import asyncio
from dataclasses import dataclass, field

import pytest

from mind.milvus.errors import StoreError
from server.errors import CollectionGoneError, ServerError, StoreTimeoutError, StoreUnavailableError
from server.serving import breaker
from server.serving.breaker import Breaker
from tests.fake_store import FakeStore
from tests.fake_user_store import FakeUserStore

REFUSED = StoreUnavailableError("Milvus does not answer: connection refused")


@dataclass
class Probed:
    """A guarded store whose probes end as the test says."""

    store: FakeStore = field(default_factory=FakeStore)
    fault: ServerError | StoreError | None = None
    probes: int = 0
    changes: list[bool] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.breaker = Breaker(self.probe, self.on_change)
        self.guarded = self.breaker.guard(self.store, unguarded=["load"])

    async def probe(self) -> None:
        self.probes += 1
        if self.fault:
            raise self.fault

    async def on_change(self) -> None:
        self.changes.append(self.breaker.open)
        self.told.set()

    async def change(self) -> bool:
        """What the breaker changes to next."""
        self.told.clear()
        await asyncio.wait_for(self.told.wait(), 10)
        return self.breaker.open

    async def fail(self) -> None:
        self.store.fault = REFUSED
        with pytest.raises(StoreUnavailableError):
            await self.guarded.released_collection()


@pytest.fixture
async def probed(monkeypatch: pytest.MonkeyPatch) -> Probed:
    monkeypatch.setattr(breaker, "PAUSE_S", 0.01)
    monkeypatch.setattr(breaker, "SLOW_S", 0.05)
    return Probed()


async def test_one_failure_with_an_answered_probe_changes_nothing(probed: Probed) -> None:
    await probed.fail()
    await asyncio.sleep(0)  # the probe's turn
    probed.store.fault = None
    assert await probed.guarded.released_collection() is None
    assert (probed.probes, probed.changes) == (1, [])


async def test_it_opens_after_misses_and_closes_with_an_answer(probed: Probed) -> None:
    probed.fault = REFUSED
    await probed.fail()
    assert await probed.change() is True
    assert probed.probes == breaker.MISSES
    probed.store.fault = None
    with pytest.raises(StoreUnavailableError, match="connection refused"):
        await probed.guarded.released_collection()  # the store itself would answer
    probed.fault = CollectionGoneError("Milvus: no such collection")  # an answer, if no good one
    assert await probed.change() is False
    assert await probed.guarded.released_collection() is None


async def test_a_probe_that_waited_in_vain_is_enough(probed: Probed) -> None:
    probed.fault = StoreTimeoutError("Milvus does not answer within 5 s")
    await probed.fail()
    assert await probed.change() is True
    assert probed.probes == 1
    probed.breaker.close()


async def test_a_hanging_call_is_noticed_and_given_up(probed: Probed) -> None:
    class Hanging(FakeStore):
        async def count(self, collection: str, filter_: str = "", timeout_s: float | None = None) -> int:
            await asyncio.Event().wait()
            return 0

    guarded = probed.breaker.guard(Hanging())
    probed.fault = REFUSED
    with pytest.raises(StoreUnavailableError, match="connection refused"):
        await asyncio.wait_for(guarded.count("items"), 10)
    assert probed.breaker.open
    probed.breaker.close()


async def test_loading_goes_on_while_it_is_open(probed: Probed) -> None:
    """A collection that is not loaded keeps the breaker open; loading it is what closes it."""
    probed.fault = REFUSED
    await probed.fail()
    assert await probed.change() is True
    probed.store.fault = None
    with pytest.raises(CollectionGoneError):  # from the store, not from the breaker
        await probed.guarded.load("items")
    probed.breaker.close()


async def test_stores_share_the_breaker(probed: Probed) -> None:
    store = FakeUserStore()
    store.remember("ann", [1000])
    users = probed.breaker.guard(store)
    assert await users.count() == 1
    probed.fault = REFUSED
    await probed.fail()
    assert await probed.change() is True
    with pytest.raises(StoreUnavailableError, match="connection refused"):
        await users.count()
    probed.fault = None
    assert await probed.change() is False
    assert await users.count() == 1
