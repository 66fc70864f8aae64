"""Remembered users in Milvus, as the indexer reads and writes them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mind.artifact import Float32
from mind.milvus import schemas
from mind.milvus.collection import EMBEDDING, MAX_MESSAGE_BYTES
from mind.milvus.store import Store
from mind.milvus.users import (
    HIST_ITEM,
    HNSW,
    INTEREST_KEY,
    MAX_KEY,
    UPDATED_AT,
    USER_KEY,
    USERS,
    UserVectors,
    interest_keys,
    is_user_vectors,
    user_id_of,
    user_key,
    vector_rows,
)
from mind.sequences import Int64


@dataclass(frozen=True)
class Users:
    """Some remembered users."""

    user_ids: list[str]
    histories: list[Int64]
    """For each, [n] int64 external ids, oldest first."""
    updated_at: list[int]
    """For each, milliseconds since 1970."""


class UserStore:
    """The calls that the encoding of remembered users needs. Every method may raise `StoreError`."""

    def __init__(self, store: Store) -> None:
        """Use the connection of `store`."""
        self._store = store
        self._session = store.session
        self._milvus = store.session.client
        self._timeout = store.session.timeout_s

    def exists(self) -> bool:
        """Return whether users were ever remembered."""
        return USERS in self._store.collections()

    def count(self) -> int:
        """Count the remembered users exactly. This loads their collection."""
        self._store.load(USERS)
        return self._store.count(USERS)

    def vectors(self) -> list[UserVectors]:
        """List the records of all collections of user vectors."""
        return self._store.records.users(filter(is_user_vectors, self._store.collections()))

    def open_vectors(self, wanted: UserVectors) -> UserVectors:
        """Create a collection of user vectors if it does not exist, load it, and return its record."""
        name = wanted.collection
        if name not in self._store.collections():
            self._store.records.delete(name)  # the record of a collection that was dropped
            self._store.create_collection(name, schemas.user_vectors(wanted.dim))
        self._store.open(name, EMBEDDING, *self._index_type())
        found = self._store.records.users([name])
        if not found:  # the collection is new, or the process that made it was interrupted
            self._store.records.write(name, wanted)
        return found[0] if found else wanted

    def seal(self, vectors: UserVectors) -> None:
        """Flush all vectors and wait for their index. Milvus Lite searches exactly, so nothing is done there."""
        if not self._store.connection.is_lite:
            self._store.flush(vectors.collection)
            self._store.index(vectors.collection, *self._index_type(), 0, lambda rows: None)

    def mark(self, vectors: UserVectors) -> None:
        """Write the record of a collection of user vectors."""
        self._store.records.write(vectors.collection, vectors)

    def since(self, updated_at: int, size: int) -> Iterator[Users]:
        """Read all users whose histories were written at a time or later, `size` users at a time."""
        fields = [USER_KEY, HIST_ITEM, UPDATED_AT]
        for rows in self._pages(USERS, f"{UPDATED_AT} >= {updated_at}", fields, size):
            yield _users(rows)

    def read(self, user_ids: Sequence[str]) -> Users:
        """Read users under strong consistency. Users who are not remembered are left out."""
        return _users(self._rows(USERS, USER_KEY, map(user_key, user_ids), [HIST_ITEM, UPDATED_AT], "Strong"))

    def updated_at(self, user_ids: Sequence[str]) -> dict[str, int]:
        """Read when users were last written, under strong consistency. Users who are not remembered are left out."""
        rows = self._rows(USERS, USER_KEY, map(user_key, user_ids), [UPDATED_AT], "Strong")
        return {user_id_of(row[USER_KEY]): row[UPDATED_AT] for row in rows}

    def encoded_at(self, vectors: UserVectors, user_ids: Sequence[str]) -> dict[str, int]:
        """Read the `updated_at` of the histories behind the stored vectors. Users without vectors are left out."""
        keys = interest_keys(user_ids, vectors.num_interests)
        rows = self._rows(vectors.collection, INTEREST_KEY, keys, [UPDATED_AT], "Bounded")
        return {user_id_of(row[INTEREST_KEY]): row[UPDATED_AT] for row in rows}

    def encoded(self, vectors: UserVectors, size: int) -> Iterator[list[str]]:
        """List all users who have vectors, in pages of `size` vectors."""
        for rows in self._pages(vectors.collection, f"{UPDATED_AT} >= 0", [INTEREST_KEY], size):
            yield list(dict.fromkeys(user_id_of(row[INTEREST_KEY]) for row in rows))

    def write_vectors(self, vectors: UserVectors, users: Users, interests: Float32) -> None:
        """Store the [U, K, D] unit vectors of users. They replace the previous ones."""
        rows, absent = vector_rows(users.user_ids, users.updated_at, interests)
        step = max(1, MAX_MESSAGE_BYTES // (MAX_KEY + 4 * vectors.dim))
        with self._session.calling(f"write into {vectors.collection}"):
            for start in range(0, len(rows), step):
                self._milvus.upsert(vectors.collection, rows[start : start + step], timeout=self._timeout)
        self._delete(vectors.collection, absent)

    def delete_vectors(self, vectors: UserVectors, user_ids: Sequence[str]) -> None:
        """Delete all vectors of some users."""
        self._delete(vectors.collection, interest_keys(user_ids, vectors.num_interests))

    def compact(self, name: str) -> None:
        """Start the compaction of a collection, which removes deleted rows from disk."""
        with self._session.calling(f"compact {name}"):
            self._milvus.compact(name, timeout=self._timeout)

    def _index_type(self) -> tuple[str, dict[str, int]]:
        return ("FLAT", {}) if self._store.connection.is_lite else ("HNSW", HNSW)

    def _delete(self, name: str, keys: list[str]) -> None:
        if keys:
            with self._session.calling(f"remove users from {name}"):
                self._milvus.delete(name, filter=f"{INTEREST_KEY} in {json.dumps(keys)}", timeout=self._timeout)

    def _rows(self, name: str, key: str, keys: Any, fields: list[str], level: str) -> list[dict[str, Any]]:
        wanted = list(keys)
        if not wanted:
            return []
        with self._session.calling(f"read from {name}"):
            return list(
                self._milvus.query(
                    name,
                    filter=f"{key} in {json.dumps(wanted)}",
                    output_fields=[key, *fields],
                    consistency_level=level,
                    timeout=self._timeout,
                )
            )

    def _pages(self, name: str, filter_: str, fields: list[str], size: int) -> Iterator[list[dict[str, Any]]]:
        with self._session.calling(f"read all of {name}"):
            pages = self._milvus.query_iterator(
                name, batch_size=size, filter=filter_, output_fields=fields, timeout=self._timeout
            )
        try:
            while True:
                with self._session.calling(f"read all of {name}"):
                    page = list(pages.next())
                if not page:
                    return
                yield page
        finally:
            pages.close()


def _users(rows: list[dict[str, Any]]) -> Users:
    return Users(
        [user_id_of(row[USER_KEY]) for row in rows],
        [np.array(row[HIST_ITEM], np.int64) for row in rows],
        [row[UPDATED_AT] for row in rows],
    )
