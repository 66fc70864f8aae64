"""Remembered users in Milvus, as the indexer reads and writes them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mind.artifact import Float32
from mind.milvus import schemas
from mind.milvus.collection import EMBEDDING, MAX_MESSAGE_BYTES
from mind.milvus.histories import (
    CLICK_BYTES,
    CUT,
    HISTORIES,
    NEWEST,
    ROW_BYTES,
    ROW_KEY,
    STAMP,
    USER_HASH,
    Head,
    StoredUser,
    heads,
    history_rows,
    is_old,
    merged,
    user_hash,
)
from mind.milvus.store import Store
from mind.milvus.users import (
    HIST_ITEM,
    HNSW,
    INTEREST_KEY,
    MAX_KEY,
    UNUSED,
    UPDATED_AT,
    USER_KEY,
    USERS,
    Row,
    UserVectors,
    interest_keys,
    is_user_vectors,
    user_id_of,
    user_key,
    vector_rows,
)


class UserStore:
    """The calls that the encoding of remembered users needs. Every method may raise `StoreError`."""

    def __init__(self, store: Store, name: str = HISTORIES) -> None:
        """Use the connection of `store`. `name`: `HISTORIES`, or `SHOWN` to work on what users were shown instead."""
        self._name = name
        self._store = store
        self._session = store.session
        self._milvus = store.session.client
        self._timeout = store.session.timeout_s

    def exists(self) -> bool:
        """Return whether users were ever remembered."""
        return bool(self.collections())

    def count(self) -> int:
        """Count the rows with clicks exactly, in both formats. This loads their collections.

        A user has one row, but users in both formats, or whom two servers wrote at the same moment, have more.
        """
        total = 0
        for name in self.collections():
            self._store.load(name)
            total += self._store.count(name, "" if name == USERS else f"{NEWEST} >= 0")
        return total

    def secure(self) -> None:
        """Have Milvus write the histories to its storage (`Store.secure`)."""
        self._store.secure(*self.collections())

    def collections(self) -> list[str]:
        """List the collections of histories that exist, `USERS` and `HISTORIES`, in this order; or that of its name."""
        names = set(self._store.collections())
        if self._name != HISTORIES:
            return [self._name] if self._name in names else []
        if USERS in names and not self._store.columns(USERS).keys() >= {USER_KEY, HIST_ITEM, UPDATED_AT}:
            names.remove(USERS)  # another program made it
        return [name for name in (USERS, HISTORIES) if name in names]

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

    def count_vectors(self, vectors: UserVectors) -> int:
        """Count the vectors exactly. The collection must be loaded."""
        return self._store.count(vectors.collection)

    def seal(self, vectors: UserVectors) -> None:
        """Flush all vectors and wait for their index. Milvus Lite searches exactly, so nothing is done there."""
        if not self._store.connection.is_lite:
            self._store.flush(vectors.collection)
            self._store.index(vectors.collection, *self._index_type(), 0, lambda rows: None)

    def mark(self, vectors: UserVectors) -> None:
        """Write the record of a collection of user vectors."""
        self._store.records.write(vectors.collection, vectors)

    def since(self, updated_at: int, size: int) -> Iterator[dict[str, StoredUser]]:
        """Read all users who have a row that was written at a time or later, in pages of `size` rows."""
        for name in self.collections():
            key = ROW_KEY if name == HISTORIES else USER_KEY
            for rows in self._pages(name, f"{UPDATED_AT} >= {updated_at}", [key], size):
                yield remembered(self._read({user_id_of(row[key]) for row in rows}, "Bounded"))

    def read(self, user_ids: Iterable[str]) -> dict[str, StoredUser]:
        """Read users and tombstones under strong consistency. Users of whom nothing is stored are left out."""
        return self._read(user_ids, "Strong")

    def _read(self, user_ids: Iterable[str], level: str) -> dict[str, StoredUser]:
        return merged(self._of_users(user_ids, [HIST_ITEM, STAMP, CUT], [HIST_ITEM, UPDATED_AT], level))

    def heads(self, user_ids: Iterable[str]) -> dict[str, Head]:
        """Do the same without the clicks."""
        return heads(self._of_users(user_ids, [CUT, NEWEST], [UPDATED_AT], "Strong"))

    def rows(self, size: int) -> Iterator[list[str]]:
        """List the keys of all rows of histories, in pages of `size` keys, in order."""
        for name in self.collections():
            key, at_least = (USER_KEY, UPDATED_AT) if name == USERS else (ROW_KEY, CUT)
            for rows in self._pages(name, f"{at_least} >= -1", [key], size):
                yield [row[key] for row in rows]

    def older(self, stamp: int, size: int) -> Iterator[list[str]]:
        """List the keys of rows with an id up to a stamp, in pages of `size` keys; not of the earlier format."""
        for rows in self._pages(self._name, f"{NEWEST} >= 0 and {STAMP}[0] <= {stamp}", [ROW_KEY], size):
            yield [row[ROW_KEY] for row in rows]

    def write(self, users: Mapping[str, StoredUser]) -> None:
        """Store each user as a new row, or as several, then remove the rows that are not of the earlier format."""
        written = [row for user_id, user in users.items() for row in history_rows(user_id, user)]
        rows = [row | {UNUSED: [0.0, 0.0]} for row in written]
        longest = max(len(row[HIST_ITEM]) for row in rows)
        step = max(1, MAX_MESSAGE_BYTES // (ROW_BYTES + CLICK_BYTES * longest))
        for start in range(0, len(rows), step):
            self._store.upsert(self._name, rows[start : start + step])
        self.remove([key for user in users.values() for key in user.rows if not is_old(key)])

    def remove(self, rows: Sequence[str]) -> None:
        """Remove rows of histories, in both formats."""
        for name, key, old in ((self._name, ROW_KEY, False), (USERS, USER_KEY, True)):
            self._delete(name, key, [row for row in rows if is_old(row) == old])

    def remove_tombstones(self, before_ms: int, size: int) -> None:
        """Remove tombstones that were written before a time and are the only rows of their users."""
        filter_ = f"{NEWEST} < 0 and {UPDATED_AT} < {before_ms}"
        for page in self._pages(self._name, filter_, [ROW_KEY], size):
            keys = [row[ROW_KEY] for row in page]
            stored = self.read({user_id_of(key) for key in keys})
            self.remove([key for user in stored.values() for key in user.rows if user.rows == (key,) and key in keys])

    def drop_old(self) -> None:
        """Drop the collection of the earlier format if no row is left in it."""
        if USERS in self.collections() and not self._store.count(USERS):
            self._store.drop(USERS)

    def encoded_at(self, vectors: UserVectors, user_ids: Sequence[str]) -> dict[str, int]:
        """Read the versions of the histories behind the stored vectors. Users without vectors are left out."""
        keys = interest_keys(user_ids, vectors.num_interests)
        rows = self._rows(vectors.collection, INTEREST_KEY, keys, [UPDATED_AT], "Bounded")
        return {user_id_of(row[INTEREST_KEY]): row[UPDATED_AT] for row in rows}

    def encoded(self, vectors: UserVectors, size: int) -> Iterator[list[str]]:
        """List all users who have vectors, in pages of `size` vectors."""
        for rows in self._pages(vectors.collection, f"{UPDATED_AT} >= 0", [INTEREST_KEY], size):
            yield list(dict.fromkeys(user_id_of(row[INTEREST_KEY]) for row in rows))

    def write_vectors(self, vectors: UserVectors, users: Mapping[str, StoredUser], interests: Float32) -> None:
        """Store the [U, K, D] unit vectors of users. They replace the previous ones."""
        rows, absent = vector_rows(list(users), [user.version for user in users.values()], interests)
        step = max(1, MAX_MESSAGE_BYTES // (MAX_KEY + 4 * vectors.dim))
        with self._session.calling(f"write into {vectors.collection}"):
            for start in range(0, len(rows), step):
                self._milvus.upsert(vectors.collection, rows[start : start + step], timeout=self._timeout)
        self._delete(vectors.collection, INTEREST_KEY, absent)

    def delete_vectors(self, vectors: UserVectors, user_ids: Sequence[str]) -> None:
        """Delete all vectors of some users."""
        self._delete(vectors.collection, INTEREST_KEY, interest_keys(user_ids, vectors.num_interests))

    def compact(self, name: str) -> None:
        """Start the compaction of a collection, which removes deleted rows from disk."""
        with self._session.calling(f"compact {name}"):
            self._milvus.compact(name, timeout=self._timeout)

    def _index_type(self) -> tuple[str, dict[str, int]]:
        return ("FLAT", {}) if self._store.connection.is_lite else ("HNSW", HNSW)

    def _delete(self, name: str, key: str, keys: list[str]) -> None:
        if keys:
            with self._session.calling(f"remove users from {name}"):
                self._milvus.delete(name, filter=f"{key} in {json.dumps(keys)}", timeout=self._timeout)

    def _of_users(self, user_ids: Iterable[str], fields: list[str], old_fields: list[str], level: str) -> list[Row]:
        """Read all rows of users, in both formats. The earlier one comes first, because rows move out of it."""
        wanted = list(dict.fromkeys(user_ids))
        keys = {user_key(user_id): None for user_id in wanted}
        rows: list[Row] = []
        for name in self.collections():
            if name == USERS:
                rows += self._rows(USERS, USER_KEY, keys, old_fields, level)
            else:
                found = self._rows(name, USER_HASH, map(user_hash, wanted), [ROW_KEY, *fields], level)
                rows += [row for row in found if row[ROW_KEY].partition("/")[0] in keys]
        return rows

    def _rows(self, name: str, key: str, keys: Iterable[str | int], fields: list[str], level: str) -> list[Row]:
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


def remembered(users: Mapping[str, StoredUser]) -> dict[str, StoredUser]:
    """Leave out tombstones."""
    return {user_id: user for user_id, user in users.items() if len(user.hist_item)}
