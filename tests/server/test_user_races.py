"""Servers that write and delete the same users at the same time: in memory a thousand times, on Milvus a few."""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mind.artifact import Float32, load_artifact
from mind.milvus.histories import HIST_ITEM, HISTORIES, ROW_KEY, Head, StoredUser, history_rows
from mind.milvus.users import UserVectors, user_id_of
from mind.sequences import Int64
from tests.artifacts import make_artifact
from tests.fake_user_store import FakeUserStore
from tests.faults.user_races import Call, Race, Races, drill, served
from tests.server.test_user_store import remove_user_collections


class SlowUserStore(FakeUserStore):
    """A store whose calls let others pass before and after they take effect, and whose writes have two steps."""

    rng = random.Random(1)

    async def _others(self) -> None:
        for _ in range(self.rng.randrange(6)):
            await asyncio.sleep(0)

    async def histories(self, user_ids: Iterable[str]) -> dict[str, Int64]:
        await self._others()
        return await super().histories(user_ids)

    async def read(self, user_ids: Iterable[str], strong: bool = False, name: str = HISTORIES) -> dict[str, StoredUser]:
        await self._others()
        found = await super().read(user_ids, strong, name)
        await self._others()
        return found

    async def heads(self, user_ids: Iterable[str], strong: bool = False, name: str = HISTORIES) -> dict[str, Head]:
        await self._others()
        found = await super().heads(user_ids, strong, name)
        await self._others()
        return found

    async def write(self, users: Mapping[str, StoredUser], name: str = HISTORIES) -> None:
        await self._others()
        rows = self.rows_of(name)
        for user_id, user in users.items():
            for row in history_rows(user_id, user):
                rows[row[ROW_KEY]] = row
                await self._others()
            for key in user.rows:
                rows.pop(key, None)
        await self._others()

    async def write_vectors(
        self, vectors: UserVectors, user_ids: Sequence[str], versions: Sequence[int], interests: Float32
    ) -> None:
        await self._others()
        await super().write_vectors(vectors, user_ids, versions, interests)


async def test_a_thousand_races_in_memory(tmp_path: Path) -> None:
    store = SlowUserStore()

    async def clicks_of(name: str, user_ids: Sequence[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row in store.rows_of(name).values():
            found.setdefault(user_id_of(row[ROW_KEY]), []).extend(row[HIST_ITEM])
        return found

    release = await served(load_artifact(make_artifact(tmp_path)), tmp_path)
    with ThreadPoolExecutor(1) as encode_on:
        races = Races([store, store], release, encode_on, clicks_of)
        rng = random.Random(7)
        for number in range(50):
            await races.round(number, 20, rng, spread_s=0.01)
            store.rows.clear()
            store.shown.clear()
            store.vectors = {name: {} for name in store.vectors}
    assert races.problems == []


async def test_races_on_milvus(milvus_uri: str, tmp_path: Path) -> None:
    remove_user_collections(milvus_uri)
    models = [load_artifact(make_artifact(tmp_path, seed=seed)) for seed in (0, 1)]
    assert await drill(milvus_uri, models, tmp_path, races=20, seed=3, users=10) == []
    remove_user_collections(milvus_uri)


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ([1, 3], "[1] are from before a deletion"),
        ([], "[3] are lost"),
        ([3, 3], "a click is there twice"),
        ([3], ""),
        ([2, 3], ""),  # 2 came before the deletion was answered: either is right
        ([3, 2], "the clicks are in the wrong order"),
    ],
)
def test_what_a_race_finds_wrong(history: list[int], says: str) -> None:
    race = Race("ann")
    for kind, clicks, began, ended in (
        ("append", [1], 0, 1),
        ("delete", [], 2, 4),
        ("append", [2], 3, 5),
        ("append", [3], 6, 7),
    ):
        race.calls.append(Call(kind, list(clicks), began, ended))
    assert race.wrong(8, 9, history) == says


def test_a_user_without_clicks_after_a_deletion_must_not_be_found() -> None:
    race = Race("ann", [Call("append", [1], 0, 1), Call("delete", [], 2, 4), Call("append", [2], 6, 7)])
    assert not race.deleted(3, 5)  # the deletion is not answered when the search begins
    assert race.deleted(5, 5.5)
    assert not race.deleted(5, 6.5)  # the second append may have been seen
