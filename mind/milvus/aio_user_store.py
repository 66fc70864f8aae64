"""Remembered users in Milvus, as the server reads and writes them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from pymilvus import AsyncMilvusClient
from pymilvus.client.prepare import Prepare

from mind.artifact import Float32
from mind.milvus import internals, schemas
from mind.milvus.aio_session import ONCE
from mind.milvus.aio_store import MilvusStore
from mind.milvus.collection import BY_KEY, EMBEDDING, MAX_MESSAGE_BYTES, METRIC, wide_enough
from mind.milvus.errors import CollectionGoneError, StoreError
from mind.milvus.records import NAME, RECORD, RECORDS, user_record
from mind.milvus.records import UNUSED as UNUSED_OF_RECORDS
from mind.milvus.translation import translated
from mind.milvus.users import (
    HIST_ITEM,
    HNSW,
    INTEREST_KEY,
    MAX_KEY,
    UNUSED,
    UPDATED_AT,
    USER_KEY,
    USERS,
    Neighbours,
    Row,
    StoredUser,
    UserVectors,
    interest_keys,
    is_user_vectors,
    user_id_of,
    user_key,
    vector_rows,
)
from mind.milvus.wire import read_key_search, write_search

_LOAD_TIMEOUT_S = 10 * 60
_EF = 128


class MilvusUserStore:
    """The `UserStore` on Milvus Lite, Standalone or Distributed."""

    def __init__(self, milvus: MilvusStore) -> None:
        """Use the connection of an item store."""
        self._milvus = milvus
        self._call = milvus.session.call
        self._is_lite = milvus.session.connection.is_lite
        self._timeout_s = milvus.session.connection.timeout_s

    async def open(self) -> None:
        """See `UserStore`."""
        found = await self._opened(USERS, schemas.users(), UNUSED, "FLAT", {})
        names = {field["name"] for field in found["fields"]}
        if not names >= {USER_KEY, HIST_ITEM, UPDATED_AT}:
            raise StoreError(
                f"Milvus has a collection {USERS!r} that another program made: its fields are {sorted(names)}; "
                "rename it, or use another Milvus database (--milvus-db-name)"
            )

    async def count(self) -> int:
        """See `UserStore`."""
        rows = await self._query(USERS, "", ["count(*)"], strong=True)
        return int(rows[0]["count(*)"])

    async def read(self, user_ids: Iterable[str], strong: bool = False) -> dict[str, StoredUser]:
        """See `UserStore`."""
        rows = await self._rows(USERS, USER_KEY, map(user_key, user_ids), [HIST_ITEM, UPDATED_AT], strong)
        return {
            user_id_of(row[USER_KEY]): StoredUser(np.array(row[HIST_ITEM], np.int64), row[UPDATED_AT]) for row in rows
        }

    async def updated_at(self, user_ids: Iterable[str], strong: bool = False) -> dict[str, int]:
        """See `UserStore`."""
        rows = await self._rows(USERS, USER_KEY, map(user_key, user_ids), [UPDATED_AT], strong)
        return {user_id_of(row[USER_KEY]): row[UPDATED_AT] for row in rows}

    async def changed(self, since: int, after: str, limit: int) -> dict[str, int]:
        """See `UserStore`."""
        filter_ = f'{UPDATED_AT} >= {since} and {USER_KEY} > "{user_key(after)}"'
        rows = await self._query(USERS, filter_, [USER_KEY, UPDATED_AT], limit=limit, **BY_KEY)
        return {user_id_of(row[USER_KEY]): row[UPDATED_AT] for row in rows}

    async def write(self, users: Mapping[str, StoredUser]) -> None:
        """See `UserStore`."""
        rows = [
            {
                USER_KEY: user_key(user_id),
                HIST_ITEM: user.hist_item.tolist(),
                UPDATED_AT: user.updated_at,
                UNUSED: [0.0, 0.0],
            }
            for user_id, user in users.items()
        ]
        longest = max(len(user.hist_item) for user in users.values())
        await self._upsert(USERS, rows, MAX_KEY + 8 * longest)

    async def delete(self, user_ids: Sequence[str]) -> None:
        """See `UserStore`."""
        await self._delete(USERS, USER_KEY, list(map(user_key, user_ids)))
        names = await self._call(lambda milvus: milvus.list_collections(**ONCE))
        ours = [name for name in names if is_user_vectors(name)]  # also of a release that is still being encoded
        records = await self._milvus.records(ours)  # one read for all of them: it takes 0.2 s
        for name in ours:
            with suppress(CollectionGoneError):  # it was pruned meanwhile
                if vectors := await self._record(name, records):
                    await self.delete_vectors(vectors, user_ids)

    async def open_vectors(self, wanted: UserVectors) -> UserVectors:
        """See `UserStore`."""
        name = wanted.collection
        if name not in await self._call(lambda milvus: milvus.list_collections(**ONCE)):
            await self._milvus.delete_record(name)  # of a collection that was dropped
        index = ("FLAT", {}) if self._is_lite else ("HNSW", HNSW)
        await self._opened(name, schemas.user_vectors(wanted.dim), EMBEDDING, *index)
        vectors = await self._record(name, await self._milvus.records([name]))
        if vectors is None:  # the collection is new, or the process that made it was interrupted
            await self.mark(vectors := wanted)
        if (vectors.num_interests, vectors.dim) != (wanted.num_interests, wanted.dim):
            raise StoreError(
                f"Milvus has a collection {name!r} with {vectors.num_interests} vectors of length {vectors.dim} per "
                f"user, but the model has {wanted.num_interests} of length {wanted.dim}; drop the collection"
            )
        return vectors

    async def mark(self, vectors: UserVectors) -> None:
        """See `UserStore`."""
        row = {NAME: vectors.collection, RECORD: vectors.to_json(), UNUSED_OF_RECORDS: [0.0, 0.0]}
        await self._opened(RECORDS, schemas.records(), UNUSED_OF_RECORDS, "FLAT", {})
        await self._upsert_part(RECORDS, [row])

    async def _record(self, name: str, records: Mapping[str, str]) -> UserVectors | None:
        """Read the record of a collection of vectors, or the properties that an earlier version wrote."""
        properties = {} if name in records else (await self._describe(name)).get("properties") or {}
        return user_record(records.get(name), properties)

    async def encoded_at(self, vectors: UserVectors, user_ids: Iterable[str]) -> dict[str, int]:
        """See `UserStore`."""
        keys = interest_keys(list(user_ids), vectors.num_interests)
        rows = await self._rows(vectors.collection, INTEREST_KEY, keys, [UPDATED_AT], strong=False)
        return {user_id_of(row[INTEREST_KEY]): row[UPDATED_AT] for row in rows}

    async def write_vectors(
        self, vectors: UserVectors, user_ids: Sequence[str], updated_at: Sequence[int], interests: Float32
    ) -> None:
        """See `UserStore`."""
        rows, absent = vector_rows(user_ids, updated_at, interests)
        await self._upsert(vectors.collection, rows, MAX_KEY + 4 * vectors.dim)
        await self._delete(vectors.collection, INTEREST_KEY, absent)

    async def delete_vectors(self, vectors: UserVectors, user_ids: Sequence[str]) -> None:
        """See `UserStore`."""
        await self._delete(vectors.collection, INTEREST_KEY, interest_keys(user_ids, vectors.num_interests))

    async def nearest(self, vectors: UserVectors, queries: Float32, limit: int, timeout_s: float) -> Neighbours:
        """See `UserStore`."""
        params = {} if self._is_lite else wide_enough({"ef": _EF}, limit)
        request = write_search(vectors.collection, queries, limit, tuple(params.items()))
        answer = await self._call(lambda milvus: self._milvus.send(milvus, request), timeout_s=timeout_s)
        try:
            status, keys, scores, lengths = read_key_search(answer)
        except ValueError as error:
            raise StoreError(f"Milvus sent an invalid answer to a search: {error}") from error
        if status.code or status.error_code:
            raise translated(status.code or status.error_code, status.reason, "")
        return Neighbours(keys, scores, lengths)

    async def _opened(
        self, name: str, schema: Any, vector: str, index_type: str, params: Mapping[str, int]
    ) -> dict[str, Any]:
        """Create a collection if it does not exist, load it, and return its description."""
        try:
            await self._describe(name)
        except CollectionGoneError:
            await self._call(lambda milvus: milvus.create_collection(name, schema=schema, **ONCE))
        if not await self._call(
            lambda milvus: milvus.list_indexes(name, **ONCE)
        ):  # it is new, or an earlier attempt was interrupted here
            index = {"index_type": index_type, "metric_type": METRIC, "params": dict(params)}
            request = Prepare.create_index_request(name, vector, index, index_name=vector)
            await self._call(lambda milvus: self._create_index(milvus, request))
        await self._call(lambda milvus: milvus.load_collection(name, **ONCE), timeout_s=_LOAD_TIMEOUT_S)
        return await self._describe(name)

    async def _create_index(self, milvus: AsyncMilvusClient, request: Any) -> None:
        """Create an index without waiting until rows are indexed, as pymilvus would. Milvus Lite never reports that."""
        stub = await internals.aio_stub(milvus)
        status = await stub.CreateIndex(request, timeout=self._timeout_s, metadata=internals.metadata(milvus))
        if status.code or status.error_code:
            raise translated(status.code or status.error_code, status.reason)

    async def _describe(self, name: str) -> dict[str, Any]:
        return dict(await self._call(lambda milvus: milvus.describe_collection(name, **ONCE)))

    async def _rows(
        self, name: str, key: str, keys: Iterable[str], fields: list[str], strong: bool
    ) -> list[dict[str, Any]]:
        wanted = list(dict.fromkeys(keys))
        return await self._query(name, f"{key} in {json.dumps(wanted)}", [key, *fields], strong) if wanted else []

    async def _query(
        self, name: str, filter_: str, fields: list[str], strong: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        level = "Strong" if strong else "Bounded"
        query = {"filter": filter_, "output_fields": fields, "consistency_level": level} | ONCE
        return list(await self._call(lambda milvus: milvus.query(name, **query, **options)))

    async def _upsert(self, name: str, rows: list[Row], row_bytes: int) -> None:
        step = max(1, MAX_MESSAGE_BYTES // row_bytes)
        for start in range(0, len(rows), step):
            await self._upsert_part(name, rows[start : start + step])

    async def _upsert_part(self, name: str, rows: list[Row]) -> None:
        await self._call(lambda milvus: milvus.upsert(name, rows, **ONCE))

    async def _delete(self, name: str, key: str, keys: list[str]) -> None:
        if keys:  # a delete by key has no limit, and works if the collection is not loaded
            filter_ = f"{key} in {json.dumps(keys)}"
            await self._call(lambda milvus: milvus.delete(name, filter=filter_, **ONCE))
