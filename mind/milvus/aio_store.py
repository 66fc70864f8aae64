"""The item collections in Milvus, as the server reads them."""

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import numpy as np
from pymilvus import AsyncMilvusClient
from pymilvus.client.types import LoadState

from mind.artifact import Float32
from mind.hits import Hits, concatenated
from mind.milvus.aio_session import ONCE, AioSession
from mind.milvus.change_log import ChangeLog
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.collection import (
    BY_KEY,
    EMBEDDING,
    ITEM_ID,
    ITEM_KEY,
    Fingerprint,
    is_item_collection,
    wide_enough,
)
from mind.milvus.errors import CollectionGoneError, StoreError, StoreTimeoutError, StoreUnavailableError
from mind.milvus.internals import QUERY, SEARCH, UPSERT, ByteCalls
from mind.milvus.journal import COUNTED, DELETED, DIFFERENT, NEIGHBOURS, Changes, journal_of
from mind.milvus.records import KEY, NAME, RECORD, RECORDS, Row, channels_of, item_record, newest, next_row
from mind.milvus.translation import translated
from mind.milvus.wire import read_query, read_search, read_status, read_values, write_query, write_search
from mind.sequences import Int64

LOADING_S = 10 * 60
"""Maximum time of loading a collection into the memory of Milvus."""
_INLINE_BYTES = 16 * 1024
"""Maximum size of an answer that is read on the event loop, which takes at most 1 ms."""
_LITE_HITS = 5_000
"""Maximum number of hits of one search of Milvus Lite. Each takes 0.05 ms, so a large search would look like a hang."""
SEARCH_METADATA: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("SEARCH_METADATA", default=())
"""The gRPC metadata that the searches of a task send to Milvus, such as the id of their trace."""

T = TypeVar("T")


class MilvusStore:
    """The `ItemStore` on Milvus Lite, Standalone or Distributed."""

    def __init__(self, session: AioSession) -> None:
        """Use a connection, which a user store may share."""
        self.session = session
        self._call = session.call
        self._calls = ByteCalls()

    async def released_collection(self, channel: str = LIVE) -> str | None:
        """See the docstring of `ItemStore.released_collection`."""
        alias = alias_of(channel)
        try:
            found = await self._call(lambda milvus: milvus.describe_collection(alias, **ONCE))
        except CollectionGoneError:
            return None
        return str(found["collection_name"])  # DescribeAlias of 2.3.5 looks in the default database only

    async def aliases(self, collection: str) -> list[str]:
        """See the docstring of `ItemStore.aliases`."""
        if self.session.connection.is_lite:  # whose DescribeCollection tells none
            return sorted(await self._call(lambda milvus: milvus.list_aliases(collection, **ONCE)))
        # ListAliases of 2.3.5 looks in the default database only.
        return sorted((await self._call(lambda milvus: milvus.describe_collection(collection, **ONCE)))["aliases"])

    async def fingerprint(self, collection: str) -> Fingerprint | None:
        """See the docstring of `ItemStore.fingerprint`."""
        found = await self._call(lambda milvus: milvus.describe_collection(collection, **ONCE))
        rows = await self.records([collection])
        record = item_record(rows.get(collection), found.get("properties") or {})
        return record.fingerprint if record else None

    async def rules(self, collection: str) -> str:
        """See the docstring of `ItemStore.rules`."""
        rows = await self.records([collection])
        record = item_record(rows.get(collection), {})
        return record.rules if record else ""

    async def records(self, names: list[str]) -> dict[str, str]:
        """Read the release records of collections as JSON (`mind.milvus.records`). Those without one are left out."""
        return newest(await self._record_rows(names))

    async def write_record(self, name: str, text: str) -> None:
        """Write the release record of a collection, whose collection of records exists and is loaded."""
        before = await self._record_rows([name])
        row = next_row(name, text, before)
        await self._call(lambda milvus: milvus.upsert(RECORDS, [row], **ONCE))
        if before:
            earlier = [each[KEY] for each in before]
            await self._call(lambda milvus: milvus.delete(RECORDS, ids=earlier, **ONCE))

    async def delete_record(self, name: str) -> None:
        """Remove the release record of a collection, so that it does not apply to the next collection of that name."""
        if await self.records([name]):
            await self.write_record(name, "")

    async def _record_rows(self, names: list[str]) -> list[Row]:
        """Read the rows of release records of collections, which may include earlier ones."""
        if not names or not await self._is_used(RECORDS):
            return []
        await self.load(RECORDS)
        wanted = f"{NAME} in {json.dumps(names)}"
        return [*await self._query(RECORDS, wanted, [KEY, NAME, RECORD], consistency_level="Strong")]

    async def loaded(self, collection: str) -> bool:
        """See the docstring of `ItemStore.loaded`."""
        state = (await self._call(lambda milvus: milvus.get_load_state(collection, **ONCE)))["state"]
        if state == LoadState.NotExist:
            raise CollectionGoneError(f"Milvus has no collection {collection}")
        return bool(state == LoadState.Loaded)

    async def load(self, collection: str) -> None:
        """See the docstring of `ItemStore.load`."""
        if await self.loaded(collection):
            return
        try:
            await self._call(lambda milvus: milvus.load_collection(collection, **ONCE), timeout_s=LOADING_S)
        except StoreTimeoutError as error:
            raise StoreTimeoutError(
                f"Milvus has not loaded collection {collection} within {LOADING_S} s; its log may say why"
            ) from error

    async def count(
        self, collection: str, filter_: str = "", timeout_s: float | None = None, strong: bool = True
    ) -> int:
        """See the docstring of `ItemStore.count`."""
        level = "Strong" if strong else "Bounded"
        rows = await self._query(collection, filter_, ["count(*)"], timeout_s, consistency_level=level)
        return int(rows[0]["count(*)"])

    async def vectors(self, collection: str, item_ids: list[int]) -> dict[int, Float32]:
        """See the docstring of `ItemStore.vectors`."""
        request = write_query(collection, f"{ITEM_ID} in {json.dumps(item_ids)}", [ITEM_ID, EMBEDDING])
        columns: dict[str, Any] = await self.query(request, read_query)
        ids = columns.get(ITEM_ID, np.zeros(0, np.int64)).tolist()
        vectors: Float32 = columns[EMBEDDING].reshape(len(ids), -1) if ids else np.zeros((0, 0), np.float32)
        return dict(zip(ids, vectors, strict=True))

    async def keys(self, collection: str, item_ids: list[int], timeout_s: float | None = None) -> dict[int, str]:
        """See the docstring of `ItemStore.keys`."""
        named = f"{ITEM_ID} in {json.dumps(item_ids)}"
        rows = await self._query(collection, named, [ITEM_ID, ITEM_KEY], timeout_s, consistency_level="Bounded")
        return {row[ITEM_ID]: row[ITEM_KEY] for row in rows}

    async def changes(self, collection: str) -> Changes:
        """See the docstring of `ItemStore.changes`."""
        journal = journal_of(collection)
        if not await self._is_used(journal):
            return Changes()
        await self.load(journal)
        queries = (
            self._query(journal, filter_, ["count(*)"], consistency_level="Strong") for filter_ in COUNTED.values()
        )
        counts = [int(rows[0]["count(*)"]) for rows in await asyncio.gather(*queries)]
        return Changes(*counts)

    async def deleted(self, collection: str, item_ids: list[int]) -> set[int]:
        """See the docstring of `ItemStore.deleted`."""
        journal = journal_of(collection)
        if not item_ids or not await self._is_used(journal):
            return set()
        await self.load(journal)
        gone = f"{ITEM_ID} in {json.dumps(item_ids)} and ({DELETED})"
        rows = await self._query(journal, gone, [ITEM_ID], consistency_level="Strong")
        return {row[ITEM_ID] for row in rows}

    async def _is_used(self, name: str) -> bool:
        """Return whether a collection exists and has an index. No process writes to it before it has one."""
        if name not in await self._call(lambda milvus: milvus.list_collections(**ONCE)):
            return False
        return bool(await self._call(lambda milvus: milvus.list_indexes(name, **ONCE)))

    async def matching(self, collection: str, filter_: str, timeout_s: float | None = None) -> Int64:
        """See the docstring of `ItemStore.matching`."""
        request = write_query(collection, filter_, [ITEM_ID])
        columns: dict[str, Any] = await self.query(request, read_query, filter_, timeout_s)
        found: Int64 = np.sort(columns.get(ITEM_ID, np.zeros(0, np.int64)))
        return found

    async def values(
        self, collection: str, filter_: str, attributes: list[str], limit: int | None = None
    ) -> dict[str, list[Any]]:
        """See the docstring of `ItemStore.values`."""
        options = {} if limit is None else {"limit": limit, **BY_KEY}
        request = write_query(collection, filter_, [ITEM_ID, *attributes], **options)
        columns: dict[str, list[Any]] = await self.query(request, read_values, filter_)
        return columns if columns.get(ITEM_ID) else {name: [] for name in (ITEM_ID, *attributes)}

    async def changed_items(self, collection: str) -> Int64:
        """See the docstring of `ItemStore.changed_items`."""
        journal = journal_of(collection)
        if not await self._is_used(journal):
            return np.zeros(0, np.int64)
        await self.load(journal)
        return await self.matching(journal, DIFFERENT)

    async def clicked(self, collection: str, item_ids: list[int]) -> dict[int, str]:
        """See the docstring of `ItemStore.clicked`."""
        journal = journal_of(collection)
        await self.load(journal)
        columns = await self.values(journal, f"{ITEM_ID} in {json.dumps(item_ids)}", [NEIGHBOURS])
        return dict(zip(columns[ITEM_ID], columns[NEIGHBOURS], strict=True))

    async def existing(self, collection: str, item_ids: list[int]) -> set[int]:
        """See the docstring of `ItemStore.existing`."""
        return set((await self.matching(collection, f"{ITEM_ID} in {json.dumps(item_ids)}")).tolist())

    async def change_log(self, collection: str) -> ChangeLog:
        """See the docstring of `ItemStore.change_log`."""
        name = journal_of(collection)
        try:
            rows = await self._query(RECORDS, f"{NAME} in {json.dumps([name])}", [KEY, NAME, RECORD])
        except CollectionGoneError:
            return ChangeLog()
        return ChangeLog.from_json(newest(rows).get(name, ""))

    async def search(
        self, collection: str, vectors: Float32, limit: int, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """See the docstring of `ItemStore.search`."""
        step = max(1, _LITE_HITS // limit) if self.session.connection.is_lite else len(vectors)
        given = tuple(wide_enough(params, limit).items())
        parts = []
        for start in range(0, len(vectors), step):
            request = write_search(collection, vectors[start : start + step], limit, given)
            parts.append(await self._call(partial(self._found, request), timeout_s=timeout_s))
        return parts[0] if len(parts) == 1 else concatenated(parts)

    async def _found(self, request: bytes, milvus: AsyncMilvusClient) -> Hits:
        return _hits(await self.send(milvus, request))

    async def send(self, milvus: AsyncMilvusClient, request: bytes) -> bytes:
        """Send a serialized SearchRequest and return the serialized SearchResults."""
        return await self._calls.ask(milvus, SEARCH, request, SEARCH_METADATA.get())

    async def drop(self, collection: str) -> None:
        """See the docstring of `ItemStore.drop`."""
        for alias in await self.aliases(collection):
            await self._call(partial(_drop_alias, alias))
        await self.delete_record(collection)
        await self._call(lambda milvus: milvus.drop_collection(collection, **ONCE))
        if is_item_collection(collection):
            journal = journal_of(collection)
            await self.delete_record(channels_of(collection))
            await self.delete_record(journal)
            await self._call(lambda milvus: milvus.drop_collection(journal, **ONCE))

    async def close(self) -> None:
        """See the docstring of `ItemStore.close`."""
        await self.session.close()

    async def _query(
        self, collection: str, filter_: str, fields: list[str], timeout_s: float | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        query = {"filter": filter_, "output_fields": fields} | ONCE | options
        return list(await self._call(lambda milvus: milvus.query(collection, **query), filter_, timeout_s))

    async def upsert(self, request: bytes) -> None:
        """Send a serialized UpsertRequest (`mind.milvus.wire.write_upsert`)."""

        async def ask(milvus: AsyncMilvusClient) -> None:
            answer = await self._calls.ask(milvus, UPSERT, request)
            try:
                status = read_status(answer)
            except ValueError as error:
                raise StoreError(f"Milvus sent an invalid answer to an upsert: {error}") from error
            if status.code or status.error_code:
                raise translated(status.code or status.error_code, status.reason)

        await self._call(ask)

    async def query(
        self,
        request: bytes,
        read: Callable[[bytes], tuple[Any, T]],
        filter_: str = "",
        timeout_s: float | None = None,
    ) -> T:
        """Send a serialized QueryRequest, and read the answer. A large answer is read in a thread.

        Args:
            request: from `mind.milvus.wire.write_query`.
            read: reads the status and the result from an answer, as `mind.milvus.wire.read_query` does.
            filter_: the filter, if it comes from a caller.
            timeout_s: maximum time to wait; None takes the timeout of the connection.
        """

        async def ask(milvus: AsyncMilvusClient) -> T:
            answer = await self._calls.ask(milvus, QUERY, request)
            try:
                if len(answer) <= _INLINE_BYTES:
                    status, found = read(answer)
                else:
                    status, found = await asyncio.to_thread(read, answer)
            except ValueError as error:
                raise StoreError(f"Milvus sent an invalid answer to a query: {error}") from error
            if status.code or status.error_code:
                raise translated(status.code or status.error_code, status.reason, filter_)
            return found

        return await self._call(ask, filter_, timeout_s)


async def _drop_alias(alias: str, milvus: AsyncMilvusClient) -> None:
    await milvus.drop_alias(alias, **ONCE)


def _hits(answer: bytes) -> Hits:
    try:
        status, hits = read_search(answer)
    except ValueError as error:
        raise StoreError(f"Milvus sent an invalid answer to a search: {error}") from error
    if status.code or status.error_code:
        raise translated(status.code or status.error_code, status.reason)
    if not hits.lengths.all():
        raise StoreUnavailableError("Milvus finds nothing: the collection is being loaded or released; try again")
    return hits
