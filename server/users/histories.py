"""Remembered users: writes their histories, reads them for queries without hist_item, and deletes them.

What users were shown is written, read and deleted in the same way (`server.users.shown`).

Updates that come at the same time are written together, one batch after the other. A batch is done when every server
sees it. Servers may write, replace and delete the same user at the same time. `mind.milvus.histories` says why no click
is lost and no deleted click returns. This module knows nothing of protobuf, gRPC or pymilvus.
"""

import asyncio
import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mind.milvus.histories import StoredUser, appended, deleted, replaced, tidied
from mind.sequences import Int64
from server.errors import CollectionGoneError, StoreError
from server.release import Release
from server.serving.answer import Status
from server.serving.batching import Batcher, Waiting
from server.serving.offload import computed
from server.serving.question import UserQuery
from server.users.ports import UserStore
from server.users.shown import ShownItems
from server.users.vectors import MAX_ROUNDS, UserVectorIndex

logger = logging.getLogger(__name__)

MAX_READ_USERS = 256
"""Most users of one read."""
MAX_WRITTEN_USERS = 1_024
"""Most users of one write."""
NOTHING = np.zeros(0, np.int64)
JOIN_ITEMS = 100
"""Joining a history with an update takes as long as processing this many items (`server.serving.offload`)."""


@dataclass(frozen=True)
class UserUpdate:
    """What one user clicked and was shown, to be remembered."""

    user_id: str
    item_ids: Int64
    """[n] int64 external ids, oldest first."""
    append: bool
    """Whether the ids are added to the stored history; otherwise they replace it."""
    invalid: str = ""
    """Which limit the update breaks; empty if it breaks none. An invalid update is not written."""
    dropped: int = 0
    """Number of ids that were left out, because their kinds are no history. An update may contain no other ids."""
    shown: Int64 = field(default_factory=lambda: NOTHING)
    """[m] int64 external ids of items that the user was shown, in this order."""


@dataclass(frozen=True)
class Written:
    """The result of an update or a deletion."""

    status: Status
    length: int = 0
    """Number of ids that are stored now."""
    detail: str = ""
    """What a person may want to know; may be empty."""
    dropped: int = 0
    """Number of ids that were left out, because their kinds are no history."""


@dataclass(frozen=True)
class _Updates:
    """The updates of one caller."""

    releases: Sequence[Release]
    updates: Sequence[UserUpdate]


@dataclass(frozen=True)
class _Deletion:
    """The users that one caller deletes."""

    releases: Sequence[Release]
    user_ids: Sequence[str]


class RememberedUsers:
    """Reads, writes and deletes histories."""

    def __init__(
        self,
        store: UserStore,
        vectors: UserVectorIndex,
        shown: ShownItems,
        max_stored_history: int,
        max_queued_users: int,
    ) -> None:
        """Prepare to read and write. The limits are options of `server.settings`; `vectors` gets every write."""
        self._store = store
        self._vectors = vectors
        self._shown = shown
        self._max_stored_history = max_stored_history
        self._reads: Batcher[list[str], dict[str, Int64]] = Batcher(
            self._read, MAX_READ_USERS, max_queued_users, workers=2
        )
        self._writes: Batcher[_Updates, list[Written]] = Batcher(
            self._write, MAX_WRITTEN_USERS, max_queued_users, workers=1
        )
        self._deletes: Batcher[_Deletion, list[Written]] = Batcher(
            self._delete, MAX_WRITTEN_USERS, max_queued_users, workers=1
        )
        self._unseen = True
        """Whether some reads may not see the last write of this server yet."""

    async def with_histories(self, users: list[UserQuery], remaining_s: float | None) -> list[UserQuery]:
        """Return the same users. Those with a user_id get their stored histories, what they were shown, or both.

        Histories that several requests need at the same time are read by one query.

        Raises:
            OverloadedError: more requests wait than can be answered in time.
            DeadlineExceededError: the caller's time ran out on the way.
            StoreError: Milvus failed.
        """
        wanted = [user.user_id for user in users if user.user_id]
        if wanted:
            stored = await self._reads.submit(wanted, len(wanted), "read", remaining_s)
            users = [_remembered(user, stored.get(user.user_id)) if user.user_id else user for user in users]
        return users

    async def with_shown(self, users: list[UserQuery], remaining_s: float | None) -> list[UserQuery]:
        """Return the same users with what they were shown, if it must be left out. Raises as `with_histories` does."""
        wanted = [user.shown_to for user in users if user.shown_to]
        if wanted:
            shown = await self._shown.of(wanted, remaining_s)
            users = [replace(user, shown=shown.get(user.shown_to, NOTHING)) for user in users]
        return users

    async def upsert(
        self, releases: Sequence[Release], updates: list[UserUpdate], remaining_s: float | None
    ) -> list[Written]:
        """Write updates in order, and wait until every server sees them.

        `releases`: those that are served; users are encoded with the model of each.

        Raises:
            OverloadedError: more is waiting than can be written in time. Nothing was written.
            DeadlineExceededError: the caller's time ran out in the queue. Nothing was written.
            StoreError: Milvus failed. Some updates may have been written.
        """
        models = _one_for_each_model(releases)
        return await self._writes.submit(_Updates(models, updates), len(updates), _group(models), remaining_s)

    async def delete(
        self, releases: Sequence[Release], user_ids: list[str], remaining_s: float | None
    ) -> list[Written]:
        """Delete users in every release, and wait until no read finds what they did before. Raises as `upsert` does.

        `releases`: those that are served.
        """
        models = _one_for_each_model(releases)
        return await self._deletes.submit(_Deletion(models, user_ids), len(user_ids), _group(models), remaining_s)

    async def _read(self, waiting: list[Waiting[list[str], dict[str, Int64]]]) -> list[dict[str, Int64] | Exception]:
        stored = await self._store.histories({user_id for each in waiting for user_id in each.ask})
        return [stored for _ in waiting]

    async def _write(self, waiting: list[Waiting[_Updates, list[Written]]]) -> list[list[Written] | Exception]:
        releases = waiting[0].ask.releases
        valid = [update for each in waiting for update in each.ask.updates if not update.invalid]
        if not valid:
            return [[_invalid(update) for update in each.ask.updates] for each in waiting]
        async with self._vectors.writing:
            try:
                lengths, detail = await self._store_all(releases, valid)
            except CollectionGoneError:
                self._vectors.forget()  # somebody dropped it; the next write makes it again
                raise
        length = iter(lengths)
        return [
            [
                _invalid(update)
                if update.invalid
                else Written(Status.OK, next(length), detail if len(update.item_ids) else "", update.dropped)
                for update in each.ask.updates
            ]
            for each in waiting
        ]

    async def _store_all(self, releases: Sequence[Release], updates: list[UserUpdate]) -> tuple[list[int], str]:
        """Return the length of the user's history after each update, and what to tell these users."""
        for release in releases:
            await self._vectors.open(release)
        lengths, users = await self._joined(releases, updates)
        shown = _shown(updates)
        if not users and not shown:  # appends of clicks whose kinds are no history
            return lengths, ""
        strong, self._unseen = self._unseen, True
        detail, _ = await asyncio.gather(self._store_histories(releases, users), self._shown.add(shown, strong))
        self._unseen = False
        return lengths, detail

    async def _store_histories(self, releases: Sequence[Release], users: dict[str, StoredUser]) -> str:
        """Store histories and their vectors, wait until every server sees them, and return what to tell these users."""
        if not users:
            return ""
        await self._store.write(users)
        detail = ""
        try:
            await self._vectors.write(releases, users)
        except StoreError as error:
            logger.warning("histories of %d users were stored, their vectors were not: %s", len(users), error)
            detail = "stored; FindSimilarUsers sees this user as before until the next update"
        await self._settle(releases, {user_id: user.version for user_id, user in users.items()})
        return detail

    async def _joined(
        self, releases: Sequence[Release], updates: list[UserUpdate]
    ) -> tuple[list[int], dict[str, StoredUser]]:
        """Return the length of the user's history after each update, and what to store after all updates."""
        keep = max(self._max_stored_history, *(release.hyper_parameters.maxlen for release in releases))
        stored = await self._store.read({update.user_id for update in updates}, strong=self._unseen)
        return await computed(len(updates) * JOIN_ITEMS, _joined, updates, stored, keep)

    async def _settle(self, releases: Sequence[Release], expected: Mapping[str, int | None]) -> None:
        """Wait until every server sees what was written, and remove clicks that no longer count.

        Another server may have deleted or replaced a user after this one read it. Then a row of this server has clicks
        from before. They do not count, and they do not stay.

        Args:
            releases: the releases whose vectors were written.
            expected: as in `UserVectorIndex.settle`.
        """
        for _ in range(MAX_ROUNDS):
            found = await self._vectors.settle(releases, expected)
            stale = [user_id for user_id, head in found.items() if head.stale]
            if not stale:
                break
            stored = await self._store.read(stale)
            await self._store.write({user_id: tidied(user) for user_id, user in stored.items()})
            expected = {user_id: user.version for user_id, user in stored.items()}

    async def _delete(self, waiting: list[Waiting[_Deletion, list[Written]]]) -> list[list[Written] | Exception]:
        releases = waiting[0].ask.releases
        user_ids = list(dict.fromkeys(user_id for each in waiting for user_id in each.ask.user_ids))
        async with self._vectors.writing:
            await self._store.open()
            self._unseen = True
            there, were_shown = await asyncio.gather(
                self._delete_histories(releases, user_ids), self._shown.delete(user_ids)
            )
            self._unseen = False
        there |= were_shown
        found = {user_id: Written(Status.OK if user_id in there else Status.UNKNOWN_USER) for user_id in user_ids}
        return [[found[user_id] for user_id in each.ask.user_ids] for each in waiting]

    async def _delete_histories(self, releases: Sequence[Release], user_ids: Sequence[str]) -> set[str]:
        """Delete histories and vectors, wait until no read finds them, and return the users that had a history."""
        stored = await self._store.read(user_ids, strong=True)
        there = {user_id: deleted(user) for user_id, user in stored.items() if len(user.hist_item)}
        if there:
            await self._store.write(there)
        await self._store.forget(user_ids)
        await self._settle(releases, dict.fromkeys(user_ids))
        return set(there)


def _one_for_each_model(releases: Sequence[Release]) -> list[Release]:
    """Releases of all models: collections of one model share the vectors of users."""
    return list({release.model_version: release for release in releases}.values())


def _group(releases: Sequence[Release]) -> Hashable:
    """What updates have in common that are written together."""
    return tuple(map(id, releases))


def _joined(
    updates: list[UserUpdate], stored: Mapping[str, StoredUser], keep: int
) -> tuple[list[int], dict[str, StoredUser]]:
    """The length of the user's history after each update, and what to store after all updates."""
    users: dict[str, StoredUser] = {}
    lengths = []
    for update in updates:
        before = users.get(update.user_id) or stored.get(update.user_id)
        if not len(update.item_ids):
            lengths.append(len(before.hist_item) if before else 0)
            continue
        after = (appended if update.append else replaced)(before, update.item_ids, keep)
        users[update.user_id] = after
        lengths.append(len(after.hist_item))
    return lengths, users


def _shown(updates: Iterable[UserUpdate]) -> dict[str, Int64]:
    """Return what each user was shown, in all updates together."""
    shown: dict[str, Int64] = {}
    for update in updates:
        if len(update.shown):
            shown[update.user_id] = np.concatenate([shown.get(update.user_id, NOTHING), update.shown])
    return shown


def _remembered(user: UserQuery, hist_item: Int64 | None) -> UserQuery:
    if hist_item is None:
        return replace(user, unknown=True)
    return replace(user, hist_item=hist_item)


def _invalid(update: UserUpdate) -> Written:
    return Written(Status.INVALID, detail=update.invalid)
