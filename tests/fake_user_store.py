"""Remembered users in memory, exactly, with faults on demand, for tests of the server that are not about Milvus."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mind.artifact import Float32
from mind.milvus.errors import StoreError
from mind.milvus.histories import (
    HISTORIES,
    NEWEST,
    ROW_KEY,
    Head,
    Row,
    StoredUser,
    appended,
    heads,
    history_rows,
    merged,
)
from mind.milvus.users import (
    MAX_CAPACITY,
    UPDATED_AT,
    Neighbours,
    UserVectors,
    interest_keys,
    user_id_of,
    vector_rows,
)
from mind.sequences import Int64
from server.errors import ServerError


@dataclass
class FakeUserStore:
    """`server.users.ports.UserStore`; set `fault` to break every call, `vector_fault` to break writes of vectors."""

    rows: dict[str, Row] = field(default_factory=dict)
    """The rows of histories by key."""
    shown: dict[str, Row] = field(default_factory=dict)
    """The rows of what users were shown by key."""
    collections: dict[str, UserVectors] = field(default_factory=dict)
    vectors: dict[str, dict[str, tuple[int, Float32]]] = field(default_factory=dict)
    """Collection to interest key to version of the history and unit vector."""
    fault: ServerError | StoreError | None = None
    vector_fault: ServerError | StoreError | None = None
    read_delay_s: float = 0
    opened: bool = False
    reads: list[int] = field(default_factory=list)
    """Users of every read of histories."""

    @property
    def users(self) -> dict[str, StoredUser]:
        """The remembered users."""
        return {user_id: user for user_id, user in merged(self.rows.values()).items() if len(user.hist_item)}

    def remember(self, user_id: str, item_ids: Sequence[int], updated_at: int | None = None) -> None:
        """Store a history, in place of what is stored of this user."""
        self.lose(user_id)
        [row] = history_rows(user_id, appended(None, np.array(item_ids, np.int64), MAX_CAPACITY))
        self.rows[row[ROW_KEY]] = row | ({} if updated_at is None else {UPDATED_AT: updated_at})

    def lose(self, user_id: str) -> None:
        """Remove all rows of a user, the tombstone included."""
        for key in [key for key in self.rows if user_id_of(key) == user_id]:
            del self.rows[key]

    def rows_of(self, name: str) -> dict[str, Row]:
        """The rows of a collection."""
        return self.rows if name == HISTORIES else self.shown

    def _of(self, user_ids: Iterable[str], name: str = HISTORIES) -> list[Row]:
        wanted = set(user_ids)
        return [row for key, row in self.rows_of(name).items() if user_id_of(key) in wanted]

    async def open(self) -> None:
        if self.fault:
            raise self.fault
        self.opened = True

    async def count(self) -> int:
        return sum(row[NEWEST] >= 0 for row in self.rows.values())

    async def histories(self, user_ids: Iterable[str]) -> dict[str, Int64]:
        await self.open()
        wanted = set(user_ids)
        self.reads.append(len(wanted))
        await asyncio.sleep(self.read_delay_s)
        return {id_: user.hist_item for id_, user in merged(self._of(wanted)).items() if len(user.hist_item)}

    async def read(self, user_ids: Iterable[str], strong: bool = False, name: str = HISTORIES) -> dict[str, StoredUser]:
        await self.open()
        return merged(self._of(user_ids, name))

    async def heads(self, user_ids: Iterable[str], strong: bool = False, name: str = HISTORIES) -> dict[str, Head]:
        await self.open()
        return heads(self._of(user_ids, name))

    async def changed(self, since: int, after: str, limit: int) -> tuple[list[str], str]:
        keys = sorted(key for key, row in self.rows.items() if row[UPDATED_AT] >= since and key > after)[:limit]
        return list(dict.fromkeys(map(user_id_of, keys))), keys[-1] if keys else ""

    async def write(self, users: Mapping[str, StoredUser], name: str = HISTORIES) -> None:
        await self.open()
        rows = self.rows_of(name)
        for user_id, user in users.items():
            rows |= {row[ROW_KEY]: row for row in history_rows(user_id, user)}
            for key in user.rows:
                rows.pop(key, None)

    async def forget(self, user_ids: Sequence[str]) -> None:
        await self.open()
        for vectors in self.collections.values():
            await self.delete_vectors(vectors, user_ids)

    async def open_vectors(self, wanted: UserVectors) -> UserVectors:
        self.vectors.setdefault(wanted.collection, {})
        return self.collections.setdefault(wanted.collection, wanted)

    async def mark(self, vectors: UserVectors) -> None:
        self.collections[vectors.collection] = vectors

    async def encoded_at(self, vectors: UserVectors, user_ids: Iterable[str]) -> dict[str, int]:
        wanted, stored = set(user_ids), self.vectors[vectors.collection]
        return {user_id_of(key): at for key, (at, _) in stored.items() if user_id_of(key) in wanted}

    async def write_vectors(
        self, vectors: UserVectors, user_ids: Sequence[str], versions: Sequence[int], interests: Float32
    ) -> None:
        if self.vector_fault:
            raise self.vector_fault
        rows, absent = vector_rows(user_ids, versions, interests)
        stored = self.vectors[vectors.collection]
        stored |= {row["interest_key"]: (row["updated_at"], row["embedding"]) for row in rows}
        for key in absent:
            stored.pop(key, None)

    async def delete_vectors(self, vectors: UserVectors, user_ids: Sequence[str]) -> None:
        for key in interest_keys(user_ids, vectors.num_interests):
            self.vectors[vectors.collection].pop(key, None)

    async def nearest(self, vectors: UserVectors, queries: Float32, limit: int, timeout_s: float) -> Neighbours:
        stored = self.vectors[vectors.collection]
        keys = np.array(list(stored))
        if not len(keys):
            return Neighbours([], np.zeros(0, np.float32), np.zeros(len(queries), np.int64))
        scores = queries @ np.stack([vector for _, vector in stored.values()]).T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        found = np.take_along_axis(scores, order, 1).ravel()
        lengths = np.full(len(queries), order.shape[1], np.int64)
        return Neighbours([str(key) for key in keys[order.ravel()]], found, lengths)
