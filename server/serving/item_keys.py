"""The keys (`mind.keys`) of the items of an answer: from the model, or from the collection for items added since.

The key of an id never changes, because the id is a hash of it. So a key that was read from Milvus is kept for every
release, and new items cost one query. An item is left out of the answer if its key is not read in time, so that the
answer never names an item wrongly.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mind.keys import key_ids
from mind.sequences import Int64
from server.errors import FAILURES
from server.ports import ItemStore
from server.release import Release
from server.serving.batching import Batcher, Waiting
from server.serving.offload import computed

KEY_ITEMS = 4
"""Turning a key into an id, or back, takes as long as processing this many items (`server.serving.offload`)."""
MAX_KEPT = 65_536
"""Most keys of added items that are stored: 30 MB if all have the maximum length."""
READ_TOGETHER = 4_096
"""Most keys of one query."""
MAX_QUEUED = 16 * READ_TOGETHER
"""Most keys that requests wait for."""
WAIT_S = 1.0
"""Longest wait for Milvus; half of the caller's remaining time if that is less."""
DELETED = "they were deleted meanwhile"

Keys = Mapping[int, str]
"""Keys by id."""


@dataclass(frozen=True)
class Named:
    """The keys of some items."""

    keys: list[str]
    """One for each item, in their order; empty where the key is not known."""
    absent: str = DELETED
    """Why some keys are not known; empty if all are."""


class ItemKeys:
    """Gives the keys of items of releases with text ids."""

    def __init__(self, store: ItemStore) -> None:
        """Prepare to read. `store` has the collections."""
        self._store = store
        self._kept: dict[int, str] = {}
        """The keys of added items. Those that were read first come first."""
        self._reads: Batcher[tuple[str, list[int]], Keys] = Batcher(self._read, READ_TOGETHER, MAX_QUEUED, workers=1)

    async def of(self, release: Release, item_ids: Int64, remaining_s: float | None) -> Named:
        """Return the keys of items, [n] int64. `remaining_s`: time left to the caller; None without a deadline."""
        keys, others = await computed(len(item_ids) * KEY_ITEMS, _of_model, release, item_ids)
        if not others:
            return Named(keys)
        added = item_ids[others].tolist()
        known = {item_id: self._kept[item_id] for item_id in added if item_id in self._kept}
        missing = sorted(set(added) - known.keys())
        absent = await self._ask(release.collection, missing, known, remaining_s) if missing else DELETED
        for place, item_id in zip(others, added, strict=True):
            keys[place] = known.get(item_id, "")
        return Named(keys, absent)

    async def _ask(self, collection: str, item_ids: list[int], known: dict[int, str], remaining_s: float | None) -> str:
        """Add the keys that Milvus has to the known ones; return why some may still be unknown."""
        wait_s = WAIT_S if remaining_s is None else min(WAIT_S, remaining_s / 2)
        try:
            async with asyncio.timeout(wait_s):
                for start in range(0, len(item_ids), READ_TOGETHER):
                    part = item_ids[start : start + READ_TOGETHER]
                    known |= await self._reads.submit((collection, part), len(part), collection, None)
        except TimeoutError:
            return f"Milvus did not tell their keys within {wait_s:.3g} s"
        except FAILURES as error:
            return f"Milvus did not tell their keys: {error}"
        return DELETED

    async def _read(self, waiting: list[Waiting[tuple[str, list[int]], Keys]]) -> list[Keys | Exception]:
        wanted = {item_id for each in waiting for item_id in each.ask[1]}
        known = {item_id: self._kept[item_id] for item_id in wanted if item_id in self._kept}
        if unknown := sorted(wanted - known.keys()):
            told = await self._store.keys(waiting[0].ask[0], unknown)
            ids = key_ids(told.values()).tolist()
            known |= {item_id: key for (item_id, key), own in zip(told.items(), ids, strict=True) if item_id == own}
        self._kept |= known
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return [known] * len(waiting)


def _of_model(release: Release, item_ids: Int64) -> tuple[list[str], list[int]]:
    """Return a key for each item, and the places of the items that the model does not know."""
    assert release.keys is not None  # noqa: S101 - only releases with text ids need keys
    index = release.vocabulary.item_index(item_ids)
    if index.all():
        return release.keys.at(index - 1), []
    return release.keys.at(np.maximum(index - 1, 0)), np.flatnonzero(index == 0).tolist()
