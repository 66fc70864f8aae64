"""Remembered users in memory, exactly, with faults on demand, for tests of the server that are not about Milvus."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mind.artifact import Float32
from mind.milvus.errors import StoreError
from mind.milvus.users import Neighbours, StoredUser, UserVectors, interest_keys, user_id_of, user_key, vector_rows
from server.errors import ServerError


@dataclass
class FakeUserStore:
    """`server.users.ports.UserStore`; set `fault` to break every call, `vector_fault` to break writes of vectors."""

    users: dict[str, StoredUser] = field(default_factory=dict)
    collections: dict[str, UserVectors] = field(default_factory=dict)
    vectors: dict[str, dict[str, tuple[int, Float32]]] = field(default_factory=dict)
    """Collection to interest key to `updated_at` and unit vector."""
    fault: ServerError | StoreError | None = None
    vector_fault: ServerError | StoreError | None = None
    read_delay_s: float = 0
    opened: bool = False
    reads: list[int] = field(default_factory=list)
    """Users of every read."""

    async def open(self) -> None:
        if self.fault:
            raise self.fault
        self.opened = True

    async def count(self) -> int:
        return len(self.users)

    async def read(self, user_ids: Iterable[str], strong: bool = False) -> dict[str, StoredUser]:
        await self.open()
        wanted = set(user_ids)
        self.reads.append(len(wanted))
        await asyncio.sleep(self.read_delay_s)
        return {user_id: self.users[user_id] for user_id in wanted if user_id in self.users}

    async def updated_at(self, user_ids: Iterable[str], strong: bool = False) -> dict[str, int]:
        await self.open()
        return {user_id: self.users[user_id].updated_at for user_id in user_ids if user_id in self.users}

    async def changed(self, since: int, after: str, limit: int) -> dict[str, int]:
        later = [
            id_ for id_, user in self.users.items() if user.updated_at >= since and user_key(id_) > user_key(after)
        ]
        return {user_id: self.users[user_id].updated_at for user_id in sorted(later, key=user_key)[:limit]}

    async def write(self, users: Mapping[str, StoredUser]) -> None:
        await self.open()
        self.users |= users

    async def delete(self, user_ids: Sequence[str]) -> None:
        await self.open()
        for user_id in user_ids:
            self.users.pop(user_id, None)
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
        self, vectors: UserVectors, user_ids: Sequence[str], updated_at: Sequence[int], interests: Float32
    ) -> None:
        if self.vector_fault:
            raise self.vector_fault
        rows, absent = vector_rows(user_ids, updated_at, interests)
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
