"""Remembered users in Milvus, as the server reads and writes them."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from pymilvus import AsyncMilvusClient
from pymilvus.client.prepare import Prepare

from mind.artifact import Float32
from mind.milvus import internals, schemas
from mind.milvus.aio_session import ONCE
from mind.milvus.aio_store import MilvusStore
from mind.milvus.collection import BY_KEY, EMBEDDING, METRIC, wide_enough
from mind.milvus.errors import CollectionGoneError, StoreError
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
    key_of,
    last_ids,
    merged,
    user_hash,
)
from mind.milvus.records import RECORDS, user_record
from mind.milvus.records import UNUSED as UNUSED_OF_RECORDS
from mind.milvus.shown import SHOWN
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
    UserVectors,
    concatenated,
    interest_keys,
    is_user_vectors,
    user_id_of,
    user_key,
    vector_rows,
)
from mind.milvus.wire import read_key_search, read_rows, warm_up, write_query, write_search, write_upsert
from mind.sequences import Int64

_EF = 128
_INLINE_USERS = 64
"""Maximum number of users whose keys and rows are processed on the event loop, which takes at most 1 ms."""
_FOUND = 50_000
"""Maximum number of hits of one search. Reading the keys of its answer blocks the event loop for 3 ms."""
_WRITTEN_BYTES = 4 * 2**20
"""Maximum size of one message of rows in bytes. Writing it blocks the event loop for 5 ms."""

_Index = Mapping[str, Any]
"""The type and parameters of an index, as pymilvus takes them."""
_FLAT: _Index = {"index_type": "FLAT", "metric_type": METRIC, "params": {}}

P = ParamSpec("P")
T = TypeVar("T")


class MilvusUserStore:
    """The `UserStore` on Milvus Lite, Standalone or Distributed."""

    def __init__(self, milvus: MilvusStore) -> None:
        """Use the connection of an item store."""
        self._milvus = milvus
        self._call = milvus.session.call
        self._is_lite = milvus.session.connection.is_lite
        self._timeout_s = milvus.session.connection.timeout_s
        self._has_old: bool | None = None
        """Whether there are histories in the earlier format; None until this was checked."""
        self._vectors: dict[str, UserVectors] = {}
        """Collections of vectors that a deletion has seen. Their sizes never change."""

    async def open(self) -> None:
        """See the docstring of `UserStore.open`."""
        await asyncio.to_thread(warm_up)
        indexes = {UNUSED: _FLAT}
        if not self._is_lite:  # without the index, every read compares the hashes of all users
            indexes[USER_HASH] = {"index_type": "STL_SORT"}
        for name in (HISTORIES, SHOWN):
            await self._opened(name, schemas.histories(), indexes)
        if await self._look_for_old():
            await self._milvus.load(USERS)

    async def count(self) -> int:
        """See the docstring of `UserStore.count`."""
        rows = await self._query(HISTORIES, f"{NEWEST} >= 0", ["count(*)"], strong=True)
        rows += await self._old_rows("", ["count(*)"], strong=True)
        return sum(int(row["count(*)"]) for row in rows)

    async def histories(self, user_ids: Iterable[str]) -> dict[str, Int64]:
        """See the docstring of `UserStore.histories`."""
        found, several = await self._of_users(HISTORIES, last_ids, user_ids, [HIST_ITEM], [HIST_ITEM])
        if several:  # two servers wrote them just now
            found |= {user_id: user.hist_item for user_id, user in (await self.read(several)).items()}
        return {user_id: hist_item for user_id, hist_item in found.items() if len(hist_item)}

    async def read(self, user_ids: Iterable[str], strong: bool = False, name: str = HISTORIES) -> dict[str, StoredUser]:
        """See the docstring of `UserStore.read`."""
        return await self._of_users(name, merged, user_ids, [HIST_ITEM, STAMP, CUT], [HIST_ITEM, UPDATED_AT], strong)

    async def heads(self, user_ids: Iterable[str], strong: bool = False, name: str = HISTORIES) -> dict[str, Head]:
        """See the docstring of `UserStore.heads`."""
        return await self._of_users(name, heads, user_ids, [CUT, NEWEST], [UPDATED_AT], strong)

    async def changed(self, since: int, after: str, limit: int) -> tuple[list[str], str]:
        """See the docstring of `UserStore.changed`."""
        wanted = {"limit": limit, **BY_KEY}
        rows = await self._query(HISTORIES, _changed(ROW_KEY, since, after), [ROW_KEY], **wanted)
        rows += await self._old_rows(_changed(USER_KEY, since, after), [USER_KEY], **wanted)
        page = sorted(map(key_of, rows))[:limit]
        return list(dict.fromkeys(map(user_id_of, page))), page[-1] if page else ""

    async def write(self, users: Mapping[str, StoredUser], name: str = HISTORIES) -> None:
        """See the docstring of `UserStore.write`."""
        longest = max(len(user.hist_item) for user in users.values())
        parts = _parts(list(users.items()), _WRITTEN_BYTES // (ROW_BYTES + CLICK_BYTES * longest))
        await self._upsert(name, schemas.histories(), map(_history_rows, parts))
        await self._delete(name, ROW_KEY, [key for user in users.values() for key in user.rows if not is_old(key)])

    async def forget(self, user_ids: Sequence[str]) -> None:
        """See the docstring of `UserStore.forget`."""
        if self._has_old:
            with suppress(CollectionGoneError):
                await self._delete(USERS, USER_KEY, list(map(user_key, user_ids)))
        names = await self._call(lambda milvus: milvus.list_collections(**ONCE))
        ours = [name for name in names if is_user_vectors(name)]  # also of a release that is still being encoded
        records: dict[str, str] = {}
        if new := [name for name in ours if name not in self._vectors]:
            records = await self._milvus.records(new)  # one read for all of them: it takes 0.2 s
        for name in ours:
            with suppress(CollectionGoneError):  # it was pruned meanwhile
                if vectors := self._vectors.get(name) or await self._record(name, records):
                    self._vectors[name] = vectors
                    await self.delete_vectors(vectors, user_ids)

    async def open_vectors(self, wanted: UserVectors) -> UserVectors:
        """See the docstring of `UserStore.open_vectors`."""
        name = wanted.collection
        if name not in await self._call(lambda milvus: milvus.list_collections(**ONCE)):
            await self._milvus.delete_record(name)  # of a collection that was dropped
        index = _FLAT if self._is_lite else {"index_type": "HNSW", "metric_type": METRIC, "params": HNSW}
        await self._opened(name, schemas.user_vectors(wanted.dim), {EMBEDDING: index})
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
        """See the docstring of `UserStore.mark`."""
        await self._opened(RECORDS, schemas.records(), {UNUSED_OF_RECORDS: _FLAT})
        await self._milvus.write_record(vectors.collection, vectors.to_json())

    async def _record(self, name: str, records: Mapping[str, str]) -> UserVectors | None:
        """Read the record of a collection of vectors, or the properties that an earlier version wrote."""
        properties = {} if name in records else (await self._describe(name)).get("properties") or {}
        return user_record(records.get(name), properties)

    async def encoded_at(self, vectors: UserVectors, user_ids: Iterable[str]) -> dict[str, int]:
        """See the docstring of `UserStore.encoded_at`."""
        keys = interest_keys(list(user_ids), vectors.num_interests)
        rows = await self._rows(vectors.collection, INTEREST_KEY, keys, [UPDATED_AT], strong=False)
        return {user_id_of(row[INTEREST_KEY]): row[UPDATED_AT] for row in rows}

    async def write_vectors(
        self, vectors: UserVectors, user_ids: Sequence[str], versions: Sequence[int], interests: Float32
    ) -> None:
        """See the docstring of `UserStore.write_vectors`."""
        rows, absent = await asyncio.to_thread(vector_rows, user_ids, versions, interests)
        parts = _parts(rows, _WRITTEN_BYTES // (MAX_KEY + 4 * vectors.dim))
        await self._upsert(vectors.collection, schemas.user_vectors(vectors.dim), parts)
        await self._delete(vectors.collection, INTEREST_KEY, absent)

    async def delete_vectors(self, vectors: UserVectors, user_ids: Sequence[str]) -> None:
        """See the docstring of `UserStore.delete_vectors`."""
        await self._delete(vectors.collection, INTEREST_KEY, interest_keys(user_ids, vectors.num_interests))

    async def nearest(self, vectors: UserVectors, queries: Float32, limit: int, timeout_s: float) -> Neighbours:
        """See the docstring of `UserStore.nearest`."""
        params = {} if self._is_lite else wide_enough({"ef": _EF}, limit)
        step = max(1, _FOUND // limit)

        async def ask(start: int) -> Neighbours:
            request = write_search(vectors.collection, queries[start : start + step], limit, tuple(params.items()))
            answer = await self._call(lambda milvus: self._milvus.send(milvus, request), timeout_s=timeout_s)
            return await asyncio.to_thread(_neighbours, answer)

        return concatenated(await asyncio.gather(*map(ask, range(0, len(queries), step))))

    async def _opened(self, name: str, schema: Any, indexes: Mapping[str, _Index]) -> None:
        """Create a collection and its indexes if they do not exist, and load it."""
        try:
            names = {field["name"] for field in (await self._describe(name))["fields"]}
            if not names >= {field.name for field in schema.fields}:
                raise StoreError(
                    f"Milvus has a collection {name!r} that another program made: its fields are {sorted(names)}; "
                    "rename it, or use another Milvus database (--milvus-db-name)"
                )
        except CollectionGoneError:
            # With one shard, a read that sees that a row was removed also sees the row that it was merged into.
            await self._call(lambda milvus: milvus.create_collection(name, schema=schema, num_shards=1, **ONCE))
        for field, index in indexes.items():
            await self._indexed(name, field, index)
        await self._milvus.load(name)

    async def _indexed(self, name: str, field: str, index: _Index) -> None:
        """Create the index of a field if the collection is new, or if an earlier attempt was interrupted here."""
        if not await self._call(lambda milvus: milvus.list_indexes(name, field_name=field, **ONCE)):
            request = Prepare.create_index_request(name, field, dict(index), index_name=field)
            await self._call(lambda milvus: self._create_index(milvus, request))

    async def _create_index(self, milvus: AsyncMilvusClient, request: Any) -> None:
        """Create an index without waiting until rows are indexed, as pymilvus would. Milvus Lite never reports that."""
        stub = await internals.aio_stub(milvus)
        status = await stub.CreateIndex(request, timeout=self._timeout_s, metadata=internals.metadata(milvus))
        if status.code or status.error_code:
            raise translated(status.code or status.error_code, status.reason)

    async def _describe(self, name: str) -> dict[str, Any]:
        return dict(await self._call(lambda milvus: milvus.describe_collection(name, **ONCE)))

    async def _of_users(
        self,
        name: str,
        join: Callable[[list[Row]], T],
        user_ids: Iterable[str],
        fields: list[str],
        old_fields: list[str],
        strong: bool = False,
    ) -> T:
        """Read all rows of users, histories in both formats, and return what `join` makes of them."""
        wanted = list(dict.fromkeys(user_ids))
        if not wanted:
            return join([])
        compute = _here if len(wanted) <= _INLINE_USERS else asyncio.to_thread
        keys, hashes = await compute(_keys_and_hashes, wanted)
        # The earlier format comes first: `purge-users` moves its rows, and a row must not be missed in both.
        old: list[Row] = []
        if name == HISTORIES:
            old = await self._old_rows(f"{USER_KEY} in {json.dumps(list(keys))}", [USER_KEY, *old_fields])
        rows: list[Row] = []
        with suppress(CollectionGoneError):  # no user has been remembered yet
            rows = await self._rows(name, USER_HASH, hashes, [ROW_KEY, *fields], strong)
            seen = {row[USER_HASH] for row in rows}
            if self._is_lite and len(seen) < len(wanted):
                # A query of Milvus Lite may see a row removed and not the one that replaced it just before.
                again = await self._rows(name, USER_HASH, hashes, [ROW_KEY, *fields], strong)
                rows += [row for row in again if row[USER_HASH] not in seen]
        return await compute(_joined, join, rows, old, keys)

    async def _old_rows(self, filter_: str, fields: list[str], strong: bool = False, **options: Any) -> list[Row]:
        """Query the earlier format. Servers of this version do not write it, so only a count needs `strong`."""
        has_old = await self._look_for_old() if self._has_old is None else self._has_old
        if has_old:
            with suppress(CollectionGoneError):
                return await self._query(USERS, filter_, fields, strong, **options)
            self._has_old = False  # `purge-users` has moved its rows
        return []

    async def _look_for_old(self) -> bool:
        found: dict[str, Any] = {"fields": []}
        with suppress(CollectionGoneError):
            found = await self._describe(USERS)
        self._has_old = {field["name"] for field in found["fields"]} >= {USER_KEY, HIST_ITEM, UPDATED_AT}
        return self._has_old

    async def _rows(
        self, name: str, key: str, keys: Iterable[str | int], fields: list[str], strong: bool
    ) -> list[dict[str, Any]]:
        wanted = list(dict.fromkeys(keys))
        return await self._query(name, f"{key} in {json.dumps(wanted)}", [key, *fields], strong) if wanted else []

    async def _query(
        self, name: str, filter_: str, fields: list[str], strong: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        return await self._milvus.query(write_query(name, filter_, fields, strong, **options), read_rows)

    async def _upsert(self, name: str, schema: Any, parts: Iterable[Sequence[Row]]) -> None:
        """Write rows, a message for each of the parts. A thread makes rows and messages, and frees the rows."""
        waiting = iter(parts)

        def request() -> bytes | None:
            rows = next(waiting, None)
            return None if rows is None else write_upsert(name, schema, rows)

        while (written := await asyncio.to_thread(request)) is not None:
            await self._milvus.upsert(written)

    async def _delete(self, name: str, key: str, keys: list[str]) -> None:
        if keys:  # a delete by key has no limit, and works if the collection is not loaded
            filter_ = f"{key} in {json.dumps(keys)}"
            await self._call(lambda milvus: milvus.delete(name, filter=filter_, **ONCE))


def _parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    step = max(1, size)
    return (values[start : start + step] for start in range(0, len(values), step))


def _neighbours(answer: bytes) -> Neighbours:
    try:
        status, keys, scores, lengths = read_key_search(answer)
    except ValueError as error:
        raise StoreError(f"Milvus sent an invalid answer to a search: {error}") from error
    if status.code or status.error_code:
        raise translated(status.code or status.error_code, status.reason, "")
    return Neighbours(keys, scores, lengths)


async def _here(compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do as `asyncio.to_thread` does, without a thread."""
    return compute(*args, **kwargs)


def _keys_and_hashes(user_ids: list[str]) -> tuple[set[str], list[int]]:
    return set(map(user_key, user_ids)), list(map(user_hash, user_ids))


def _joined(join: Callable[[list[Row]], T], rows: list[Row], old: list[Row], keys: set[str]) -> T:
    """Return what `join` makes of the rows of these keys. Another user may have the same hash."""
    joined = join([row for row in rows if row[ROW_KEY].partition("/")[0] in keys] + old)
    rows.clear()  # here, because to free many takes time, too
    return joined


def _history_rows(users: Iterable[tuple[str, StoredUser]]) -> list[Row]:
    return [row | {UNUSED: [0.0, 0.0]} for user_id, user in users for row in history_rows(user_id, user)]


def _changed(key: str, since: int, after: str) -> str:
    """Return the filter for rows that were written at a time or later, after a key."""
    return f'{UPDATED_AT} >= {since} and {key} > "{after}"'
