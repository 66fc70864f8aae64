"""What remembered users were shown: adds items to it, reads the items that count, and deletes it with the user.

The rows have the form of histories, in a collection of their own (`mind.milvus.shown`), so servers may write the same
users at the same time. This module knows nothing of protobuf, gRPC or pymilvus.
"""

from collections.abc import Mapping, Sequence

from mind.milvus.histories import deleted, tidied
from mind.milvus.shown import SHOWN, added, counting, counts_since
from mind.sequences import Int64
from server.serving.batching import Batcher, Waiting
from server.serving.offload import computed
from server.users.ports import UserStore
from server.users.vectors import MAX_ROUNDS

MAX_READ_USERS = 64
"""Most users of one read: what was shown to one takes up to 100 KB."""
SHOWN_ITEMS = 100
"""Finding which items count for a user takes as long as processing this many items besides those shown."""


class ShownItems:
    """Reads, adds to and deletes what users were shown."""

    def __init__(self, store: UserStore, max_shown: int, ttl_days: float, max_queued_users: int) -> None:
        """Prepare to read and write. The limits are options of `server.settings`."""
        self._store = store
        self._max_shown = max_shown
        self._ttl_days = ttl_days
        self._reads: Batcher[list[str], dict[str, Int64]] = Batcher(
            self._read, MAX_READ_USERS, max_queued_users, workers=2
        )

    async def of(self, user_ids: list[str], remaining_s: float | None) -> dict[str, Int64]:
        """Return the items that count as shown to each user; users who were shown nothing are absent.

        Raises as `RememberedUsers.with_histories` does.
        """
        return await self._reads.submit(user_ids, len(user_ids), "shown", remaining_s)

    async def add(self, shown: Mapping[str, Int64], strong: bool) -> None:
        """Add items to what users were shown; wait until every server sees them. `strong`: as in `UserStore.read`."""
        if not shown:
            return
        stored = await self._store.read(shown, strong, SHOWN)
        how = self._how()
        size = sum(len(stored[user_id].hist_item) + SHOWN_ITEMS for user_id in stored)
        written = await computed(
            size, lambda: {user_id: added(stored.get(user_id), ids, *how) for user_id, ids in shown.items()}
        )
        await self._store.write(written, SHOWN)
        await self._settle(list(shown))

    async def delete(self, user_ids: Sequence[str]) -> set[str]:
        """Delete what users were shown, wait until no read finds it, and return the users that were shown something."""
        stored = await self._store.read(user_ids, strong=True, name=SHOWN)
        there = {user_id: deleted(user) for user_id, user in stored.items() if len(user.hist_item)}
        if there:
            await self._store.write(there, SHOWN)
            await self._settle(user_ids)
        return set(there)

    async def _settle(self, user_ids: Sequence[str]) -> None:
        """Wait until every server sees what was written, and remove items that no longer count.

        Another server may have deleted a user after this one read it (`RememberedUsers._settle`).
        """
        for _ in range(MAX_ROUNDS):
            found = await self._store.heads(user_ids, strong=True, name=SHOWN)
            stale = [user_id for user_id, head in found.items() if head.stale]
            if not stale:
                break
            stored, how = await self._store.read(stale, name=SHOWN), self._how()
            tidy = {user_id: tidied(counting(user, *how), self._max_shown) for user_id, user in stored.items()}
            await self._store.write(tidy, SHOWN)

    async def _read(self, waiting: list[Waiting[list[str], dict[str, Int64]]]) -> list[dict[str, Int64] | Exception]:
        stored = await self._store.read({user_id for each in waiting for user_id in each.ask}, name=SHOWN)
        how = self._how()
        size = sum(len(user.hist_item) + SHOWN_ITEMS for user in stored.values())
        found = await computed(
            size, lambda: {user_id: counting(user, *how).hist_item for user_id, user in stored.items()}
        )
        return [found for _ in waiting]

    def _how(self) -> tuple[int, int]:
        """Return the most items that count for a user, and the stamp up to which none counts."""
        return self._max_shown, counts_since(self._ttl_days)
