"""Remembered users in Milvus, as the server sees them. Speaks through the connection of `server.store`."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pymilvus import AsyncMilvusClient, DataType
from pymilvus.client.prepare import Prepare

from mind.artifact import Float32
from mind.milvus.collection import BY_KEY, EMBEDDING, METRIC, wide_enough
from mind.milvus.users import (
    HIST_ITEM,
    HNSW,
    INTEREST_KEY,
    MAX_CAPACITY,
    MAX_KEY,
    UNUSED,
    UPDATED_AT,
    USER_KEY,
    USER_VECTORS,
    USERS,
    Row,
    UserVectors,
    interest_keys,
    is_user_vectors,
    user_id_of,
    user_key,
    vector_rows,
)
from mind.milvus.wire import read_key_search, write_search
from server.errors import CollectionGoneError, StoreError
from server.store import ONCE, MilvusStore, translate
from server.users.ports import Neighbours, StoredUser

MAX_MESSAGE_BYTES = 32 * 2**20
"""Bytes of one write; Milvus refuses more than 64 MiB."""
_LOAD_TIMEOUT_S = 10 * 60
_EF = 128


class MilvusUserStore:
    """`UserStore` on Milvus Lite, Standalone or Distributed."""

    def __init__(self, milvus: MilvusStore, is_lite: bool, timeout_s: float) -> None:
        """Uses the connection of `milvus`. `timeout_s`: longest wait for anything but loading a collection."""
        self._call = milvus._call
        self._search = milvus._search
        self._is_lite = is_lite
        self._timeout_s = timeout_s

    async def open(self) -> None:
        """See `UserStore`."""

        def add_fields(schema: Any) -> None:
            schema.add_field(USER_KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_KEY)
            schema.add_field(HIST_ITEM, DataType.ARRAY, element_type=DataType.INT64, max_capacity=MAX_CAPACITY)
            schema.add_field(UPDATED_AT, DataType.INT64)
            schema.add_field(UNUSED, DataType.FLOAT_VECTOR, dim=2)

        found = await self._opened(USERS, add_fields, UNUSED, "FLAT", {}, {})
        names = {field["name"] for field in found["fields"]}
        if not names >= {USER_KEY, HIST_ITEM, UPDATED_AT}:
            raise StoreError(f"Milvus has a collection {USERS!r} that is not ours: its fields are {sorted(names)}")

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
        for name in filter(is_user_vectors, names):  # of a release that is being encoded too
            try:
                properties = (await self._describe(name)).get("properties") or {}
                vectors = UserVectors.from_json(properties.get(USER_VECTORS, ""))
                if vectors:
                    await self.delete_vectors(vectors, user_ids)
            except CollectionGoneError:
                continue  # pruned meanwhile

    async def open_vectors(self, wanted: UserVectors) -> UserVectors:
        """See `UserStore`."""

        def add_fields(schema: Any) -> None:
            schema.add_field(INTEREST_KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_KEY)
            schema.add_field(UPDATED_AT, DataType.INT64)
            schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=wanted.dim)

        index = ("FLAT", {}) if self._is_lite else ("HNSW", HNSW)
        properties = {USER_VECTORS: wanted.to_json()}
        found = await self._opened(wanted.collection, add_fields, EMBEDDING, *index, properties)
        vectors = UserVectors.from_json((found.get("properties") or {}).get(USER_VECTORS, ""))
        if vectors is None or (vectors.num_interests, vectors.dim) != (wanted.num_interests, wanted.dim):
            raise StoreError(f"Milvus has a collection {wanted.collection!r} that holds no vectors of this model")
        return vectors

    async def mark(self, vectors: UserVectors) -> None:
        """See `UserStore`."""
        properties = {USER_VECTORS: vectors.to_json()}
        await self._call(lambda milvus: milvus.alter_collection_properties(vectors.collection, properties, **ONCE))

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
        request = write_search(vectors.collection, queries, limit, "", tuple(params.items()))
        answer = await self._call(lambda milvus: self._search(milvus, request), timeout_s=timeout_s)
        try:
            status, keys, scores, lengths = read_key_search(answer)
        except ValueError as error:
            raise StoreError(f"Milvus answered a search with what is no answer: {error}") from error
        if status.code or status.error_code:
            raise translate(status.code or status.error_code, status.reason, "")
        return Neighbours(keys, scores, lengths)

    async def _opened(
        self,
        name: str,
        add_fields: Callable[[Any], None],
        vector: str,
        index_type: str,
        params: Mapping[str, int],
        properties: Mapping[str, str],
    ) -> dict[str, Any]:
        """Description of a collection that is made if it is not there, and loaded."""
        try:
            await self._describe(name)
        except CollectionGoneError:
            schema = AsyncMilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            add_fields(schema)
            await self._call(
                lambda milvus: milvus.create_collection(name, schema=schema, properties=dict(properties), **ONCE)
            )
        if not await self._call(lambda milvus: milvus.list_indexes(name, **ONCE)):  # maybe one that was cut short here
            index = {"index_type": index_type, "metric_type": METRIC, "params": dict(params)}
            await self._call(
                lambda milvus: self._create_index(
                    milvus, Prepare.create_index_request(name, vector, index, index_name=vector)
                )
            )
        await self._call(lambda milvus: milvus.load_collection(name, **ONCE), timeout_s=_LOAD_TIMEOUT_S)
        return await self._describe(name)

    async def _create_index(self, milvus: AsyncMilvusClient, request: Any) -> None:
        """As `create_index`, but without waiting for rows to be indexed, which Milvus Lite has no answer to."""
        stub = (await milvus._get_connection())._async_stub
        metadata = milvus._generate_call_context().to_grpc_metadata()
        status = await stub.CreateIndex(request, timeout=self._timeout_s, metadata=metadata)
        if status.code or status.error_code:
            raise translate(status.code or status.error_code, status.reason, "")

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
        if keys:  # any number: a key is removed by itself, in memory or not
            filter_ = f"{key} in {json.dumps(keys)}"
            await self._call(lambda milvus: milvus.delete(name, filter=filter_, **ONCE))
